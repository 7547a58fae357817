"""TLS for the server: gRPC's, with keys that are read again when their files have changed.

Guarantees: TLS 1.2 or newer. A client certificate is asked for and verified by gRPC, or not asked for at all. A
rotation holds for the next connection, and while connections crowd in for those of a twentieth of a second later. Keys
that cannot be used after a change leave those in force that were, and say so in the log.
"""

from __future__ import annotations

import logging
import threading
import time

import grpc

from compiler_daemon.access.register import KeyFiles
from compiler_daemon.config import DaemonConfig
from compiler_daemon.errors import StartError, UsageError

logger = logging.getLogger(__name__)

_MAX_LOOKS, _LOOKS_S = 4, 0.05
"""So many looks at the files in so much time. gRPC asks for every connection that it takes, also for those that say
nothing, and a look asks the kernel for four files: with thousands a second nothing else got the interpreter."""


def server_credentials(config: DaemonConfig) -> grpc.ServerCredentials | None:
    """Return what a TLS listener needs; None where the address needs no TLS.

    Raises `UsageError`, naming what makes keys, where there are none, and another `StartError` where they cannot be
    used.
    """
    files = KeyFiles(config.directory)
    if not config.uses_tls:
        if config.insecure_loopback and files.exist():
            raise UsageError(
                f"there are keys in {files.folder}, so that clients of this directory use TLS: "
                "leave --insecure-loopback out"
            )
        return None
    if not files.exist():
        raise UsageError(
            f"{config.address} needs TLS, and there are no keys in {config.directory}: `compiler-daemon keys init "
            "--host NAME` makes them; or use unix:PATH, or a loopback address together with --insecure-loopback"
        )
    current = CurrentKeys(files)
    return grpc.dynamic_ssl_server_credentials(
        current.first,
        current.changed,  # type: ignore[arg-type]  # None is "no change", which its types do not say
        require_client_authentication=config.client_auth == "certificate",
    )


class CurrentKeys:
    """Hands gRPC the keys in force. It asks from threads of its own, before each TLS handshake."""

    def __init__(self, files: KeyFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = files.stamp()
        self._until = 0.0
        self._looks, self._looks_since = 0, 0.0
        self.first = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new keys where there are any; None leaves those in force."""
        with self._lock:
            if not self._may_look():
                return None
            stamp = self._files.stamp()
            # The end of an overlap changes no file, and closes the door to the authority before.
            if stamp == self._seen and time.time() < self._until:
                return None
            self._seen = stamp
            try:
                return self._read()
            except (StartError, OSError) as error:
                logger.error("the keys in force are kept: %s", error)  # noqa: TRY400  # no traceback
                return None

    def _may_look(self) -> bool:
        now = time.monotonic()
        if now >= self._looks_since + _LOOKS_S:
            self._looks, self._looks_since = 0, now
        self._looks += 1
        return self._looks <= _MAX_LOOKS

    def _read(self) -> grpc.ServerCertificateConfiguration:
        now = time.time()
        material = self._files.material(now)
        self._until = material.changes_at
        return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.authorities)
