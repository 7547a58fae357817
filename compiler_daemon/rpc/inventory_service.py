"""InventoryService: what is kept, listed and changed by an operator."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from compile_wire.digest import parse_digest
from compile_wire.environment import check_environment
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_BLOB_BYTES, MAX_KEY_TEXT
from compile_wire.v1 import inventory_pb2 as pb
from compile_wire.v1 import inventory_pb2_grpc as pb_grpc
from compiler_daemon.compiles.transfers import Transfers
from compiler_daemon.insight.inventory import Inventory
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.inventory_messages import pack_artifact, pack_request, unpack_beginning, unpack_digests
from compiler_daemon.rpc.service import Service
from compiler_daemon.rpc.unpack import unpack_name, unpack_program
from compiler_daemon.store import ArtifactRow, StoredGraph

_PAGE_ROWS = 500
"""A row has at most 5.5 KB with the longest key and program, so that a page stays far below a message's limit."""

_MAX_SECONDS = 1e10

Row = TypeVar("Row")


class InventoryServicer(pb_grpc.InventoryServiceServicer):
    """Answers an operator's calls about what is kept."""

    def __init__(self, *, inventory: Inventory, transfers: Transfers) -> None:
        self._inventory = inventory
        self._transfers = transfers

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["InventoryService"].full_name,
            add=partial(pb_grpc.add_InventoryServiceServicer_to_server, self),
        )

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: Context
    ) -> AsyncIterator[pb.ListArtifactsResponse]:
        """See the protocol."""
        environment = unpack_beginning(request.environment_id)
        program, origin = unpack_program(request.program), unpack_program(request.origin)

        def wanted(row: ArtifactRow) -> bool:
            return (
                row.environment.startswith(environment)
                and program in ("", row.program)
                and origin in ("", row.origin)
                and (row.pinned or not request.pinned_only)
            )

        for page in _pages(await self._inventory.artifacts(wanted)):
            yield pb.ListArtifactsResponse(artifacts=[pack_artifact(row) for row in page])

    async def ListRequests(
        self, request: pb.ListRequestsRequest, context: Context
    ) -> AsyncIterator[pb.ListRequestsResponse]:
        """See the protocol."""
        environment, program = unpack_beginning(request.environment_id), unpack_program(request.program)

        def wanted(row: StoredGraph) -> bool:
            return row.environment.startswith(environment) and program in ("", row.program)

        for page in _pages(await self._inventory.requests(wanted)):
            yield pb.ListRequestsResponse(requests=[pack_request(row) for row in page])

    async def ListEnvironments(
        self, request: pb.ListEnvironmentsRequest, context: Context
    ) -> AsyncIterator[pb.ListEnvironmentsResponse]:
        """See the protocol."""
        for view in await self._inventory.environments():
            yield pb.ListEnvironmentsResponse(environment_id=view.environment, fields=view.fields, served=view.served)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> AsyncIterator[pb.DescribeResponse]:
        """See the protocol."""
        if not 0 < len(request.name) <= MAX_KEY_TEXT:
            raise MalformedError(f"a name has from 1 to {MAX_KEY_TEXT} characters, not {len(request.name)}")
        named = await self._inventory.named(unpack_name(request.name, "a name"))
        for row in named.artifacts:
            stored = await self._inventory.artifact(row.digest)
            if stored is not None:
                yield pb.DescribeResponse(
                    artifact=pb.ArtifactDescription(
                        line=pack_artifact(row), manifest=stored.manifest, signature=stored.signature
                    )
                )
        for one in named.requests:
            yield pb.DescribeResponse(request=pack_request(one))

    async def ReadGraph(self, request: pb.ReadGraphRequest, context: Context) -> AsyncIterator[pb.ReadGraphResponse]:
        """See the protocol."""
        async with aclosing(self._inventory.graph(parse_digest(request.sha256))) as chunks:
            async for chunk in chunks:
                yield pb.ReadGraphResponse(data=chunk)

    async def RemoveArtifacts(self, request: pb.RemoveArtifactsRequest, context: Context) -> pb.RemoveArtifactsResponse:
        """See the protocol."""
        return pb.RemoveArtifactsResponse(removed=await self._inventory.remove(unpack_digests(request.digests)))

    async def SetPinned(self, request: pb.SetPinnedRequest, context: Context) -> pb.SetPinnedResponse:
        """See the protocol."""
        changed = await self._inventory.set_pinned(unpack_digests(request.digests), request.pinned)
        return pb.SetPinnedResponse(changed=changed)

    async def Collect(self, request: pb.CollectRequest, context: Context) -> pb.CollectResponse:
        """See the protocol."""
        unused_s = request.unused_s if request.HasField("unused_s") else None
        if unused_s is not None and not (math.isfinite(unused_s) and 0 < unused_s <= _MAX_SECONDS):
            raise MalformedError(f"unused_s is a positive number of seconds, not {unused_s}")
        done = await self._inventory.collect(
            dry_run=request.dry_run,
            max_bytes=request.max_bytes if request.HasField("max_bytes") else None,
            unused_s=unused_s,
        )
        return pb.CollectResponse(
            artifacts=done.report.artifacts,
            expired=done.report.expired,
            blobs=done.report.blobs,
            orphans=done.report.orphans,
            bytes=done.report.bytes,
            lines=[pack_artifact(row) for row in done.artifacts[:_PAGE_ROWS]],
        )

    async def FindMissing(self, request: pb.FindMissingRequest, context: Context) -> pb.FindMissingResponse:
        """See the protocol."""
        return pb.FindMissingResponse(digests=await self._inventory.missing(unpack_digests(request.digests)))

    async def ImportBlob(
        self, request_iterator: AsyncIterator[pb.ImportBlobRequest], context: Context
    ) -> pb.ImportBlobResponse:
        """See the protocol."""
        first = await anext(request_iterator, None)
        if first is None or first.size > MAX_BLOB_BYTES:
            raise MalformedError(f"the first message names a digest and a size of at most {MAX_BLOB_BYTES}")

        async def chunks() -> AsyncIterator[bytes]:
            yield first.data
            async for message in request_iterator:
                yield message.data

        stored = await self._transfers.import_blob(parse_digest(first.sha256), first.size, chunks())
        return pb.ImportBlobResponse(stored=stored)

    async def ImportArtifact(self, request: pb.ImportArtifactRequest, context: Context) -> pb.ImportArtifactResponse:
        """See the protocol."""
        fields = dict(request.environment)
        check_environment(fields)
        stored = await self._transfers.import_artifact(
            fields,
            request.manifest,
            graph=parse_digest(request.graph) if request.graph else None,
            program=unpack_program(request.program),
        )
        return pb.ImportArtifactResponse(stored=stored)


def _pages(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for begin in range(0, len(rows), _PAGE_ROWS):
        yield rows[begin : begin + _PAGE_ROWS]
