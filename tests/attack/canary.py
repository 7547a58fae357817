"""The canary notices an attack that got through: it owns a secret file, a port and an audit hook.

Nobody has a reason to read the file or to connect to the port. The hook hears of every file that Python opens, every
process that it starts, every connection that it makes and every piece of source that it compiles. The canary keeps what
it finds and reports it once for each case.
"""

from __future__ import annotations

import builtins
import socket
import sys
from pathlib import Path
from typing import Any

MARK = "stranger"
"""Every text of an attack contains this word, so that it is recognized wherever it turns up."""
CODE = f"__import__('builtins').{MARK}=1"
QUOTED = f"{MARK}'"
"""No literal of a graph may be this text, so where it is seen, the graph has put it together."""

_PROCESSES = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "pty.spawn"}
)


class Canary:
    """A folder with a secret in it, and a port that listens; both report whoever touches them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "canary"
        self.file.write_text("a secret that only the canary has")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._heard: list[str] = []
        self.listening = False
        self.compiling = False
        """Whether torch is compiling. It then starts processes, which do not count; everything else still does."""

    def install(self) -> None:
        """Install the audit hook in this process. It stays, because Python cannot remove one."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.listening:
            return
        if event in _PROCESSES and not self.compiling:
            self._heard.append(f"process: {event}")
        elif event == "open" and str(self.file) in str(args[0]):
            self._heard.append("file: the canary was opened")
        elif event == "open" and MARK in str(args[0]):
            self._heard.append("file: one of the attack's own name was opened")
        elif event == "socket.connect":
            self._heard.append("network: a connection was begun")
        elif event == "compile" and _is_code(args[0]):
            self._heard.append("source: text of the attack was compiled")

    def caught(self) -> list[str]:
        """Return what has got through since the last call."""
        found, self._heard = sorted(set(self._heard)), []
        if hasattr(builtins, MARK):
            delattr(builtins, MARK)
            found.append("code: the attack's code ran")
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            pass
        else:
            connection.close()
            found.append("network: the canary's port was reached")
        if any(MARK in path.name for path in self.folder.iterdir()):
            found.append("file: one of the attack's own name was made")
        return found

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


def _is_code(source: object) -> bool:
    text = source.decode("utf-8", "replace") if isinstance(source, bytes) else source
    return isinstance(text, str) and (CODE in text or QUOTED in text)
