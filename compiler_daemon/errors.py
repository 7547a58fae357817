"""What can go wrong, and what the wire calls it (`code`, read in one place: `rpc/status.py`).

DaemonError
  StartError                -> FAILED_PRECONDITION   the daemon cannot start; the text says what to do
    DirectoryError                                   the directory is not only ours
    RunningError                                     another daemon serves this directory or address
    AddressError                                     the address cannot be used
    UsageError                                       what was asked for can never be; exit code 2
    KeysError                                        keys are missing, unusable, or there already
  PeerError                                          another user serves the socket
  NotRunningError           -> UNAVAILABLE           no daemon answers there
  UnauthenticatedError      -> UNAUTHENTICATED       no token or certificate, or one not in force
  PermissionDeniedError     -> PERMISSION_DENIED     the caller's role does not allow the call
  EnvironmentUnknownError   -> FAILED_PRECONDITION   handshake first, or again after a restart
  PublishForbiddenError     -> PERMISSION_DENIED     this daemon takes no artifacts from clients
  NothingNamedError         -> NOT_FOUND             nothing kept has that name
  AmbiguousNameError        -> INVALID_ARGUMENT      several kept things have it
  BundleError               -> INVALID_ARGUMENT      a file of `export` that cannot be used, or written
  OutputError                                        a file cannot be written where it was asked for
  QueueFullError            -> RESOURCE_EXHAUSTED    too many graphs wait already
  DrainingError             -> UNAVAILABLE           the daemon stops
  NoPageError               -> FAILED_PRECONDITION   this daemon serves no web page
  JobRefusedError           -> FAILED_PRECONDITION   the graph is not compiled here; `single_flight` makes it an answer
  RunLogError               -> INTERNAL              what trainers report cannot be kept or read
  RunUnknownError           -> NOT_FOUND             no such run, program or key
  AmbiguousKeyError         -> INVALID_ARGUMENT      several keys begin like that
  WorkerLostError           -> INTERNAL              a worker died or broke its protocol; `single_flight` retries once
  FarmAwayError             -> UNAVAILABLE           the farm does not compile a graph now; it is compiled here
  TierError                 -> UNAVAILABLE           the shared tier did not do what was asked; a miss, never a failure
    TierUnreachableError                             nobody answers there
    TierTimeoutError                                 no answer in time; what was written may be there or not
    TierMissingError                                 there is no such bucket or directory
    TierDeniedError                                  the credentials or the modes do not allow it
    TierFullError                                    no room is left there
    TierPausedError                                  it is not asked for a while, after failures
    TooLargeError                                    the object is larger than its reader or its engine takes

`compiler_daemon.store.errors` has the store's own tree, `compile_wire.errors` that of malformed bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

RefusalReason = Literal[
    "KEY_MISMATCH",
    "UNSUPPORTED",
    "ENVIRONMENT",
    "COMPILE_ERROR",
    "WORKER_LOST",
    "UNCACHEABLE",
    "DRAINING",
    "LIMIT",
    "TRACED_AGAIN",
]
"""The names of the protocol's `Refused.Reason`, without their prefix."""


class DaemonError(Exception):
    """The base of everything the daemon raises on purpose."""

    code: ClassVar[str] = "INTERNAL"
    """The name of a gRPC status code."""


class StartError(DaemonError):
    """The daemon cannot start."""

    code = "FAILED_PRECONDITION"


class DirectoryError(StartError):
    """The daemon's directory cannot be trusted or used."""


class RunningError(StartError):
    """Another daemon is there already."""


class AddressError(StartError):
    """The address cannot be used."""


class UsageError(StartError):
    """What was asked for can never be: a slip of the command line."""


class KeysError(StartError):
    """Keys for TLS, or the register of clients, are missing, unusable, or there already."""


class NotRunningError(DaemonError):
    """No daemon answers there."""

    code = "UNAVAILABLE"


class PeerError(DaemonError):
    """Another user serves the socket; it was shown nothing."""


class UnauthenticatedError(DaemonError):
    """The caller showed neither a token nor a certificate that is in force."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(DaemonError):
    """The caller is known, and its role does not allow the call."""

    code = "PERMISSION_DENIED"


class EnvironmentUnknownError(DaemonError):
    """No handshake has named this environment."""

    code = "FAILED_PRECONDITION"

    def __init__(self, environment: str) -> None:
        super().__init__(f"the environment {environment[:12]} is not known here: handshake first")


class EnvironmentKindError(DaemonError):
    """The call and the environment that it names are of different kinds."""

    code = "FAILED_PRECONDITION"

    def __init__(self, environment: str, kind: str) -> None:
        super().__init__(f"environment {environment[:12]} is not one of {kind}: handshake with one that is")


class PublishForbiddenError(DaemonError):
    """Clients may only read."""

    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__("this daemon takes no artifacts from clients")


class NothingNamedError(DaemonError):
    """Nothing that is kept has this name."""

    code = "NOT_FOUND"

    def __init__(self, name: str, lists: str = "ls") -> None:
        """`lists` is the verb that lists what there is."""
        super().__init__(f"nothing is called {name!r}: `compiler-daemon {lists}` lists what there is")


class AmbiguousNameError(DaemonError):
    """Several things that are kept have this name."""

    code = "INVALID_ARGUMENT"


class BundleError(DaemonError):
    """A file of `export` cannot be used or written."""

    code = "INVALID_ARGUMENT"


class OutputError(DaemonError):
    """A file cannot be written where it was asked for."""


class QueueFullError(DaemonError):
    """No more graphs may wait."""

    code = "RESOURCE_EXHAUSTED"


class NoPageError(DaemonError):
    """No port was given for the page."""

    code = "FAILED_PRECONDITION"

    def __init__(self) -> None:
        super().__init__("this daemon serves no page: stop it, and start it without --no-page, or with --page-port")


class DrainingError(DaemonError):
    """The daemon stops and takes no new work."""

    code = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the daemon stops")


class JobRefusedError(DaemonError):
    """The graph will not be compiled here; trying again would end the same way."""

    code = "FAILED_PRECONDITION"

    def __init__(self, reason: RefusalReason, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason: RefusalReason = reason
        self.fields = tuple(fields)


class WorkerLostError(DaemonError):
    """A worker died, or sent what it must not; another may do better."""


class FarmAwayError(DaemonError):
    """The farm does not compile this graph now: nobody there has begun, or nobody is there any more."""

    code = "UNAVAILABLE"


class RunLogError(DaemonError):
    """The log of runs cannot be written or read."""


class RunUnknownError(DaemonError):
    """Nothing is known of a run, a program or a key."""

    code = "NOT_FOUND"


class AmbiguousKeyError(DaemonError):
    """Several keys begin like that."""

    code = "INVALID_ARGUMENT"


class TierError(DaemonError):
    """The shared tier did not do what was asked. For a read it is a miss; for a write, nothing is shared this time."""

    code = "UNAVAILABLE"


class TierUnreachableError(TierError):
    """Nobody answers at the tier's address."""


class TierTimeoutError(TierError):
    """No answer came in time. What was to be written may have been written."""


class TierMissingError(TierError):
    """There is no such bucket or directory: nothing can be found there, which is no miss."""


class TierDeniedError(TierError):
    """The credentials, or the modes of files, do not allow it."""


class TierFullError(TierError):
    """No room is left there, or a quota is used up."""


class TierPausedError(TierError):
    """The tier is not asked for a while, after failures."""


class TooLargeError(TierError):
    """An object is larger than its reader takes, or than its engine should hold."""
