"""The operator's calls to a running daemon, for `status`, `stop`, `doctor` and the verbs about what is stored.

Guarantees: the token is shown to no other user behind a Unix socket, and over TCP to nobody without TLS, except on the
loopback interface where the directory has no keys. A command's calls go over one channel, which ends with the command;
after a call that nobody answered, the next one opens another, and asks again who listens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # its stubs are a package apart

from compile_wire.endpoint.address import Address, TcpAddress, UnixAddress
from compile_wire.endpoint.credentials import Keys, has_keys, has_tls_keys
from compile_wire.endpoint.tls_diagnosis import explain
from compile_wire.limits import MAX_MESSAGE_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon import endpoint
from compiler_daemon.access.directory import DaemonNote, DirectoryLock
from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import DaemonError, DirectoryError, NotRunningError, UsageError

_CALL_S = 10.0

_NOBODY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What a call ends with whose connection may be dead: a channel would wait longer and longer before it tries again."""


class OperatorClient:
    """Calls the daemon of a directory on an operator's behalf; a context manager, which ends its channel.

    Safe to call from any thread.
    """

    def __init__(self, address: Address, keys: Keys, call_s: float = _CALL_S) -> None:
        """`call_s` is the deadline of short calls, in seconds."""
        self.address = address
        self.call_s = call_s
        self._keys = keys
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._opened: list[grpc.Channel] = []

    @classmethod
    def of(cls, place: DaemonLocation, *, call_s: float = _CALL_S) -> OperatorClient:
        """Find the daemon: the address that was named, else the one in the directory's note, else the default.

        Raises `NotRunningError` where the directory has never been a daemon's, and `DirectoryError` where it is one's
        and its keys are gone.
        """
        directory = place.directory
        written = "" if place.address else endpoint.written_address(directory)
        address = endpoint.read_address(written) if written else place.address or place.default_address
        if not has_keys(directory):
            # One that starts has the lock before it has a token, and a note at last.
            if DirectoryLock(directory).is_held() and (note := DaemonNote.read(directory)) is not None:
                raise DirectoryError(
                    f"process {note.pid} serves {directory}, and the token is gone from there: "
                    "`compiler-daemon stop`, then start it again, which makes another"
                )
            raise NotRunningError(
                f"no daemon runs on {directory}: start one with `compiler-daemon serve`, or name another with --dir"
            )
        tls = isinstance(address, TcpAddress) and has_tls_keys(directory)
        return cls(address, endpoint.read_keys(directory, tls=tls), call_s)

    def status(self) -> DaemonState:
        """Return the daemon's state."""
        with self.calls() as (channel, metadata):
            stub = pb_grpc.AdminServiceStub(channel)
            response = stub.GetStatus(pb.GetStatusRequest(), timeout=self.call_s, metadata=metadata)
        fields: dict[str, Any] = json_format.MessageToDict(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return DaemonState.of({name: _numbers(part) if name not in _TEXTS else part for name, part in fields.items()})

    def health(self) -> str:
        """Return `SERVING`, or what else the health service says of the daemon as a whole."""
        with self.calls() as (channel, metadata):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            response = stub.Check(health_pb2.HealthCheckRequest(), timeout=self.call_s, metadata=metadata)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def shutdown(self) -> None:
        """Tell the daemon to stop; it drains after this has returned."""
        with self.calls() as (channel, metadata):
            stub = pb_grpc.AdminServiceStub(channel)
            stub.Shutdown(pb.ShutdownRequest(), timeout=self.call_s, metadata=metadata)

    @contextmanager
    def calls(self) -> Iterator[tuple[grpc.Channel, tuple[tuple[str, str], ...]]]:
        """Lend the channel, and what every call on it shows. A call that fails raises `DaemonError` in words."""
        with self._lock:
            if self._channel is None:
                self._channel = self._open()
                self._opened.append(self._channel)
            channel = self._channel
        try:
            yield channel, (("authorization", f"Bearer {self._keys.token}"),) if self._keys.token else ()
        except grpc.RpcError as error:
            if error.code() in _NOBODY:
                self._leave(channel)
            raise self._explained(error) from error

    def close(self) -> None:
        """End the channel; calls under way are cut off."""
        with self._lock:
            opened, self._opened, self._channel = self._opened, [], None
        for channel in opened:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _leave(self, channel: grpc.Channel) -> None:
        """Have the next call open another channel. This one stays open for those who wait for answers on it."""
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def _open(self) -> grpc.Channel:
        address, tls = self.address, self._keys.tls
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
            # Else a channel that takes the place of another shares its dead connection, and its wait for a new one.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if isinstance(address, UnixAddress):
            endpoint.check_peer(address)
            return grpc.insecure_channel(str(address), options=options)
        if tls is not None:
            credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
            return grpc.secure_channel(str(address), credentials, options=options)
        if address.is_local:
            return grpc.insecure_channel(str(address), options=options)
        raise UsageError(
            f"{address} is another machine, and this directory has no keys for TLS: name with --dir one that "
            "`compiler-daemon keys client NAME --operator` made there"
        )

    def _explained(self, error: grpc.RpcError) -> DaemonError:
        address, tls = self.address, self._keys.tls
        if error.code() is grpc.StatusCode.UNAVAILABLE and tls is not None and isinstance(address, TcpAddress):
            finding = explain(
                address.host,
                address.port,
                authority=tls.authority_path,
                certificate=tls.certificate_path,
                expires=tls.expires,
                timeout_s=self.call_s,
            )
            if finding.cause in {"tls", "refused"}:
                return DaemonError(finding.text)
        return _explain(error, self.address, self.call_s)


def read_secret(directory: Path) -> bytes:
    """Return the signing secret of a daemon's directory. Raises `DaemonError` where it cannot be read."""
    try:
        return endpoint.read_secret(directory)
    except OSError as error:
        raise DaemonError(f"the secret of {directory} cannot be read: {error.strerror}") from error


def _explain(error: grpc.RpcError, address: Address, call_s: float) -> DaemonError:
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return NotRunningError(f"no daemon answers at {address}: start one with `compiler-daemon serve`")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DaemonError(f"the daemon at {address} did not answer within {call_s:.0f} s: look at its log")
        case grpc.StatusCode.UNAUTHENTICATED:
            return DaemonError(
                f"the daemon at {address} does not know these keys: name its directory, or a client's, "
                f"with --dir ({error.details()})"
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            return DaemonError(error.details() or "")  # written for whoever asked
        case grpc.StatusCode.UNIMPLEMENTED:
            return DaemonError(f"the daemon at {address} is older and cannot do this: stop it and start this version")
        case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return DaemonError(error.details() or "")  # written for whoever asked
        case code:
            return DaemonError(f"the daemon at {address} answered {code.name}: {error.details()}")


def _numbers(value: Any) -> Any:
    """Return a document with numbers where protobuf's JSON has 64-bit integers as text."""
    if isinstance(value, dict):
        return {name: part if name in _TEXTS else _numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value


_TEXTS = frozenset({"server_version", "address", "directory", "environment_id", "state", "key", "reason"})
