"""Every call comes from a known caller whose role allows it, before a byte of the request is looked at.

A caller shows `authorization: Bearer TOKEN`, or over TLS a client certificate; where there is a certificate, it alone
counts. Roles are an allow-list: a call that is not named here takes an operator, whichever service brings it.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from compiler_daemon import metrics
from compiler_daemon.access.register import OWNER, Caller, Keyring
from compiler_daemon.errors import PermissionDeniedError, UnauthenticatedError
from compiler_daemon.rpc.around import Around, Context

logger = logging.getLogger(__name__)

_SCHEME = b"Bearer "
_PEM_LINES = b"-----"

READER_CALLS = frozenset(
    {
        "/compiler_daemon.v1.CompileService/Handshake",
        "/compiler_daemon.v1.CompileService/LookupArtifact",
        "/compiler_daemon.v1.CompileService/CompileGraph",
        "/compiler_daemon.v1.CompileService/ReadBlob",
        # For graphs too large for a message; `CompileServicer` refuses what is larger than a graph.
        "/compiler_daemon.v1.CompileService/WriteBlob",
        "/compiler_daemon.v1.AdminService/GetStatus",
        "/compiler_daemon.v1.InventoryService/ListArtifacts",
        "/compiler_daemon.v1.InventoryService/ListRequests",
        "/compiler_daemon.v1.InventoryService/ListEnvironments",
        "/compiler_daemon.v1.InventoryService/Describe",
        "/compiler_daemon.v1.InventoryService/ReadGraph",
        # Said for statistics and explanations only; nothing is compiled or loaded for it.
        "/compiler_daemon.v1.RunService/ReportRun",
        "/compiler_daemon.v1.RunService/ExplainRun",
        "/compiler_daemon.v1.RunService/GetStatistics",
        "/compiler_daemon.v1.RunService/ListFlights",
    }
)
"""What a client may call that may only read."""

TRAINER_CALLS = READER_CALLS | {
    "/compiler_daemon.v1.CompileService/PublishArtifact",
    # A kernel is compiled under a key that no worker can prove, so it is as good as publishing.
    "/compiler_daemon.v1.KernelService/CompileKernel",
}
"""What a trainer may call."""

_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller:
    """Return who makes the call that is being answered; only inside a handler."""
    caller = _caller.get()
    if caller is None:
        raise UnauthenticatedError("nobody calls")
    return caller


def caller_name() -> str:
    """Return the caller's name for a log; empty for the owner, and where the caller is not known (yet)."""
    caller = _caller.get()
    return "" if caller is None or caller is OWNER else caller.name


def require_caller(keyring: Keyring, counters: metrics.Counters) -> Around:
    """Return what refuses calls of nobody known, and calls that the caller's role does not allow."""

    @asynccontextmanager
    async def around(method: str, context: Context) -> AsyncIterator[None]:
        try:
            caller = _identify(keyring, context)
        except UnauthenticatedError as error:
            counters.add(metrics.UNAUTHENTICATED)
            logger.warning("%s from %s was refused: %s", method.rpartition("/")[2], context.peer(), error)
            raise
        _caller.set(caller)
        if not _allows(caller, method):
            counters.add(metrics.FORBIDDEN)
            what = "publishing takes a trainer's keys" if method in TRAINER_CALLS else "it takes an operator's keys"
            raise PermissionDeniedError(
                f"{caller.name} has the keys of a {caller.role} and may not call {method.rpartition('/')[2]}: "
                f"{what}; `compiler-daemon keys client` makes them"
            )
        yield

    return around


def _allows(caller: Caller, method: str) -> bool:
    match caller.role:
        case "operator":
            return True
        case "trainer":
            return method in TRAINER_CALLS
        case "reader":
            return method in READER_CALLS


def _identify(keyring: Keyring, context: Context) -> Caller:
    for certificate in context.auth_context().get("x509_pem_cert", ()):  # one, or none
        holder = keyring.by_certificate(_der(certificate))
        if isinstance(holder, str):
            raise UnauthenticatedError(f"{holder}: `compiler-daemon keys client` makes one that opens it")
        return holder
    given = b""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            given = value if isinstance(value, bytes) else value.encode()
    caller = keyring.by_token(given.removeprefix(_SCHEME)) if given.startswith(_SCHEME) else None
    if caller is None:
        raise UnauthenticatedError(
            "this call needs the metadata `authorization: Bearer TOKEN`, with the token of the daemon's directory, "
            "or a client's token that is in force"
        )
    return caller


def _der(pem: bytes) -> bytes:
    """Return the certificate's bytes: PEM is their base64 between two lines. gRPC has verified it already."""
    lines = [line for line in pem.splitlines() if line and not line.startswith(_PEM_LINES)]
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        return b""
