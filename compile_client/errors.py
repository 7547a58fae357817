"""What can go wrong between a trainer and the daemon, and what each kind is called in the counters.

ClientError                    the base; `reason` is the stable name that reports and notices use
  AbsentError                  absent            no socket, or nobody behind it
  BreakerOpenError             breaker           not asked: the daemon failed a moment ago
  LateError                    timeout           no answer within the deadline
    OverdueError               timeout           the graph's own deadline is over, though the daemon is well
    SlowError                  slow              the compile takes far longer than it should
  UnavailableError             unavailable       the daemon went away in the middle of a call
  DrainingError                draining          the daemon stops and takes no new work
  FullError                    full              its queue or its store is full
  RefusedError                 refused           the handshake was refused: another protocol, an unwanted client
  UnauthenticatedError         unauthenticated   the daemon does not know our token
  EnvironmentUnknownError      environment       the environment could not be read, or the daemon read it differently
  UnsafeError                  unsafe_directory  files that others own or can reach, or a stranger behind the socket
  TlsError                     tls               no TLS connection: a certificate is not in force or not believed
  AddressError                 address           the address cannot be used: malformed, or elsewhere without TLS
  CredentialsError             credentials       token or secret is missing or unusable
  ArtifactError                (the base of what is wrong with an answer)
    BadSignatureError          bad_signature     not signed by this daemon for this key and environment
    BadDigestError             bad_digest        bytes that are not the ones that their digest names
    MalformedAnswerError       malformed         an answer without the form that it must have
    MissingError               missing           the daemon named a blob that it does not have
  InvalidError                 invalid           the daemon found our request malformed or too big
  ReadOnlyError                read_only         this client may not publish
  HandshakeNeededError         handshake         the daemon has forgotten the environment, also after a second handshake
  ForkedError                  forked            the process was forked during a call; gRPC is unusable in the child
  InstallError                 install           an artifact was good, but could not be put where torch looks for it
  MismatchError                mismatch          verification: what was served is not what torch makes of the graph here
  InternalError                internal          a fault of the daemon or of this client

None of them leaves this package: `compile_client.session.client` makes of each a counter, one notice and torch's own
compile.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class RetryPolicy(Enum):
    """Says, for a kind of failure, when the daemon is tried again."""

    NEXT_GRAPH = "polite"
    """The daemon is well: ask again for the next graph."""
    BACK_OFF_AFTER_REPEATS = "repeated"
    """It may pass; after a few in a row the daemon is left alone for a while."""
    BACK_OFF_NOW = "lasting"
    """It will not pass by itself soon: the daemon is left alone at once."""


class ClientError(Exception):
    """Trouble with the daemon; torch compiles by itself."""

    reason: ClassVar[str] = "internal"
    retry: ClassVar[RetryPolicy] = RetryPolicy.BACK_OFF_AFTER_REPEATS
    advice: ClassVar[str] = ""
    """What a user can do about it; empty where there is nothing to do."""


class AbsentError(ClientError):
    """No daemon listens."""

    reason = "absent"
    retry = RetryPolicy.NEXT_GRAPH  # asking again costs microseconds; the breaker has its own short memory for it
    advice = "Start one with `compiler-daemon serve`."


class BreakerOpenError(ClientError):
    """The daemon was not asked, because it failed a moment ago."""

    reason = "breaker"
    retry = RetryPolicy.NEXT_GRAPH


class LateError(ClientError):
    """The daemon did not answer within the deadline."""

    reason = "timeout"
    advice = "`compiler-daemon status` shows what it does."


class OverdueError(LateError):
    """The time that one graph may wait is over; the daemon itself may be well and busy."""

    retry = RetryPolicy.NEXT_GRAPH
    advice = "TORCH_COMPILE_CLIENT_TIMEOUT sets how many seconds a graph may wait."


class SlowError(LateError):
    """A compile runs far longer than it should; the daemon is well and goes on with it."""

    reason = "slow"
    retry = RetryPolicy.NEXT_GRAPH
    advice = "TORCH_COMPILE_CLIENT_HEDGE sets how many seconds a running compile is waited for at least."


class UnavailableError(ClientError):
    """The daemon went away in the middle of a call."""

    reason = "unavailable"


class DrainingError(ClientError):
    """The daemon stops and takes no new work."""

    reason = "draining"


class FullError(ClientError):
    """The daemon's queue or store is full."""

    reason = "full"
    retry = RetryPolicy.NEXT_GRAPH
    advice = "More workers or a larger store help: see `compiler-daemon serve --help`."


class RefusedError(ClientError):
    """The daemon refused the handshake."""

    reason = "refused"
    retry = RetryPolicy.BACK_OFF_NOW
    advice = "Client and daemon must be of versions that understand each other."


class UnauthenticatedError(ClientError):
    """The daemon does not know the token that was sent."""

    reason = "unauthenticated"
    retry = RetryPolicy.BACK_OFF_NOW
    advice = "COMPILER_DAEMON_DIR must name the directory of the daemon that listens there, or one made for its client."


class EnvironmentUnknownError(ClientError):
    """The environment could not be read here, or the daemon read another one from it."""

    reason = "environment"
    retry = RetryPolicy.BACK_OFF_NOW


class UnsafeError(ClientError):
    """Others could have written what would be trusted, or could read what must stay secret."""

    reason = "unsafe_directory"
    retry = RetryPolicy.BACK_OFF_NOW


class TlsError(ClientError):
    """No TLS connection came about; the text says whose certificate is to blame and what to do."""

    reason = "tls"
    retry = RetryPolicy.BACK_OFF_NOW


class AddressError(ClientError):
    """The daemon's address cannot be used."""

    reason = "address"
    retry = RetryPolicy.BACK_OFF_NOW
    advice = (
        "COMPILER_DAEMON_ADDRESS is unix:PATH, HOST:PORT of a loopback interface, or of any machine with a "
        "COMPILER_DAEMON_DIR that `compiler-daemon keys client` made."
    )


class CredentialsError(ClientError):
    """Token or signing secret is missing or unusable."""

    reason = "credentials"
    retry = RetryPolicy.BACK_OFF_NOW
    advice = "COMPILER_DAEMON_DIR must name the daemon's directory, and this user must be able to read it."


class ArtifactError(ClientError):
    """An answer cannot be used; nothing of it was."""


class BadSignatureError(ArtifactError):
    """The artifact was not signed by this daemon for this key and environment."""

    reason = "bad_signature"
    advice = "COMPILER_DAEMON_DIR must name the directory of the daemon that answers."


class BadDigestError(ArtifactError):
    """Bytes are not the ones that their digest names: damaged in the store or on the way."""

    reason = "bad_digest"


class MalformedAnswerError(ArtifactError):
    """The answer does not have the form that it must have."""

    reason = "malformed"


class MissingError(ArtifactError):
    """The daemon named a blob that it does not have: evicted, or put into quarantine."""

    reason = "missing"
    retry = RetryPolicy.NEXT_GRAPH


class InvalidError(ClientError):
    """The daemon found the request malformed or too big."""

    reason = "invalid"
    retry = RetryPolicy.NEXT_GRAPH


class ReadOnlyError(ClientError):
    """This client may not publish."""

    reason = "read_only"
    retry = RetryPolicy.NEXT_GRAPH


class HandshakeNeededError(ClientError):
    """The daemon does not know the environment (any more)."""

    reason = "handshake"


class ForkedError(ClientError):
    """This process was forked while another thread was in a call: gRPC's locks may be held for ever here."""

    reason = "forked"
    retry = RetryPolicy.BACK_OFF_NOW


class InstallError(ClientError):
    """An artifact was good, but could not be put where torch looks for it."""

    reason = "install"
    retry = RetryPolicy.NEXT_GRAPH
    advice = "torch's cache directories must be writable and have room."


class MismatchError(ClientError):
    """What was served is not what torch makes of the graph here: verification found it."""

    reason = "mismatch"


class InternalError(ClientError):
    """A fault of the daemon or of this client."""

    reason = "internal"

    @classmethod
    def of(cls, error: Exception) -> InternalError:
        """Return the fault of this client that `error` is."""
        return cls(f"the compile client failed ({type(error).__name__}: {error})")
