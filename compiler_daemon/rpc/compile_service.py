"""CompileService: unpack, one call into the domain, pack."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_BLOB_BYTES, PROTOCOL_VERSION
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.handshake import Handshakes, Welcome
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.compiles.transfers import Transfers
from compiler_daemon.errors import JobRefusedError
from compiler_daemon.jobs import Job, Refusal
from compiler_daemon.rpc import unpack
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.auth import current_caller
from compiler_daemon.rpc.pack import pack_entries, pack_event
from compiler_daemon.rpc.service import Service


class CompileServicer(pb_grpc.CompileServiceServicer):
    """Answers the calls of trainers about graphs."""

    def __init__(
        self,
        *,
        handshakes: Handshakes,
        cache: Cache,
        transfers: Transfers,
        rights: Rights,
        single_flight: SingleFlight,
        interpreter: str,
        server_version: str,
        on_welcome: Callable[[Digest, str], None] | None = None,
    ) -> None:
        """`on_welcome` hears of the environment and the program of each client that is welcome."""
        self._on_welcome = on_welcome
        self._rights = rights
        self._handshakes = handshakes
        self._cache = cache
        self._transfers = transfers
        self._single_flight = single_flight
        self._interpreter = interpreter
        self._server_version = server_version

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["CompileService"].full_name,
            add=partial(pb_grpc.add_CompileServiceServicer_to_server, self),
        )

    async def Handshake(self, request: pb.HandshakeRequest, context: Context) -> pb.HandshakeResponse:
        """See the protocol."""
        unpack.unpack_program(request.program)
        unpack.unpack_program(request.client_version)
        interpreter: str | None
        try:
            interpreter = unpack.unpack_interpreter(request.interpreter, peer=context.peer(), default=self._interpreter)
        except JobRefusedError:
            interpreter = None  # what is stored can be had all the same; a compile will be told why not
        answer = await self._handshakes.accept(
            request.protocol_version, request.environment, interpreter, caller=current_caller().name
        )
        response = pb.HandshakeResponse(protocol_version=PROTOCOL_VERSION, server_version=self._server_version)
        if isinstance(answer, Welcome):
            self._rights.introduce(current_caller(), answer.environment)
            response.environment_id = answer.environment
            response.facts = answer.facts.facts
            response.facts_signature = answer.facts.signature
            if self._on_welcome is not None:
                self._on_welcome(answer.environment, request.program)
            response.may_publish = self._rights.may_publish(current_caller())
        else:
            response.refusal = answer
        return response

    async def LookupArtifact(self, request: pb.LookupArtifactRequest, context: Context) -> pb.LookupArtifactResponse:
        """See the protocol."""
        entries = await self._cache.lookup(
            parse_digest(request.environment_id), unpack.unpack_key(request.key), unpack.unpack_have(request.have)
        )
        return pack_entries(entries)

    async def CompileGraph(
        self, request: pb.CompileGraphRequest, context: Context
    ) -> AsyncIterator[pb.CompileGraphResponse]:
        """See the protocol."""
        try:
            job = await self._job(request, context)
        except JobRefusedError as error:
            yield pack_event(Refusal(reason=error.reason, message=str(error), fields=error.fields))
            return
        async with aclosing(self._single_flight.compile(job, unpack.unpack_have(request.have))) as events:
            async for event in events:
                yield pack_event(event)

    async def PublishArtifact(self, request: pb.PublishArtifactRequest, context: Context) -> pb.PublishArtifactResponse:
        """See the protocol."""
        environment = parse_digest(request.environment_id)
        self._rights.publish(current_caller(), environment)
        stored = await self._transfers.publish(
            environment,
            unpack.unpack_key(request.key),
            request.manifest,
            blobs=unpack.unpack_blobs(request.blobs),
            graph=unpack.unpack_graph(request.graph) if request.HasField("graph") else None,
            program=unpack.unpack_program(request.program),
            disputed=unpack.unpack_have(request.disputed),
        )
        return pb.PublishArtifactResponse(stored=stored)

    async def ReadBlob(self, request: pb.ReadBlobRequest, context: Context) -> AsyncIterator[pb.ReadBlobResponse]:
        """See the protocol."""
        async with aclosing(self._transfers.read_blob(parse_digest(request.sha256))) as chunks:
            async for chunk in chunks:
                yield pb.ReadBlobResponse(data=chunk)

    async def WriteBlob(
        self, request_iterator: AsyncIterator[pb.WriteBlobRequest], context: Context
    ) -> pb.WriteBlobResponse:
        """See the protocol."""
        first = await anext(request_iterator, None)
        if first is None or first.size > MAX_BLOB_BYTES:
            raise MalformedError(f"the first message names a digest and a size of at most {MAX_BLOB_BYTES}")
        self._rights.write_blob(current_caller(), first.size)

        async def chunks() -> AsyncIterator[bytes]:
            yield first.data
            async for message in request_iterator:
                yield message.data

        stored = await self._transfers.write_blob(parse_digest(first.sha256), first.size, chunks())
        return pb.WriteBlobResponse(stored=stored)

    async def _job(self, request: pb.CompileGraphRequest, context: Context) -> Job:
        environment = parse_digest(request.environment_id)
        self._rights.compile(current_caller(), "graphs", environment)
        return Job(
            kind="graphs",
            environment=environment,
            key=unpack.unpack_key(request.key),
            graph=await self._transfers.graph(unpack.unpack_graph(request.graph)),
            interpreter=unpack.unpack_interpreter(request.interpreter, peer=context.peer(), default=self._interpreter),
            program=unpack.unpack_program(request.program),
            ahead=request.ahead,
        )
