"""A worker that an attacker has taken over: it is confined like the real one, and does what the graph's text says.

The daemon starts it in place of the real one. A graph is, as JSON, the name of a probe below with its arguments. The
result comes back as the message of a refusal: `done: ...`, or the kind of the error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from compiler_daemon.worker.confinement import confine
from compiler_daemon.worker.protocol import WORKER_PROTOCOL, read_frame, write_frame

FIELDS = {"python": "cp311", "torch": "0.probing"}
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> str:
    result = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return str(result)


class Probes:
    """The probes; each raises if the confinement keeps it from what it tries."""

    def read(self, path: str) -> str:
        return Path(path).read_bytes()[:40].hex()

    def read_by_child(self, path: str) -> str:
        done = subprocess.run(["cat", path], capture_output=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.decode())
        return done.stdout[:40].hex()

    def read_by_interpreter(self, path: str) -> str:
        code = "import sys; print(open(sys.argv[1], 'rb').read()[:40].hex())"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()

    def read_by_link(self, path: str) -> str:
        link = Path("link")
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        return self.read(str(link))

    def read_by_hard_link(self, path: str) -> str:
        Path("hard").unlink(missing_ok=True)
        os.link(path, "hard")
        return self.read("hard")

    def read_by_preprocessor(self, path: str) -> str:
        Path("x.cpp").write_text(f'#include "{path}"\n')
        done = subprocess.run(["g++", "-E", "x.cpp"], capture_output=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.decode())
        return "included"

    def list(self, path: str) -> str:
        return str(len(os.listdir(path)))

    def write(self, path: str) -> str:
        with open(path, "ab") as file:
            return str(file.write(b""))

    def make(self, path: str) -> str:
        Path(path).write_text("left by a worker")
        return "made"

    def change_mode(self, path: str) -> str:
        os.chmod(path, os.stat(path).st_mode & 0o7777)
        return "changed"

    def cut(self, path: str) -> str:
        os.truncate(path, os.stat(path).st_size)
        return "cut"

    def move(self, path: str) -> str:
        os.rename(path, f"{path}.moved")
        os.rename(f"{path}.moved", path)
        return "moved"

    def connect(self, port: int) -> str:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return "connected"

    def datagram(self, port: int) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return str(probe.sendto(b"x", ("127.0.0.1", port)))

    def listen(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return str(probe.getsockname()[1])

    def connect_unix(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path if not path.startswith("@") else f"\0{path[1:]}")
        return "connected"

    def datagram_unix(self, path: str) -> str:
        with socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0] as probe:
            return str(probe.sendto(b"x", path))

    def connect_by_child(self, port: int) -> str:
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr)
        return "connected"

    def connect_by_thread(self, port: int) -> str:
        found: list[str | OSError] = []

        def work() -> None:
            try:
                found.append(self.connect(port))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def signal(self, pid: int) -> str:
        os.kill(pid, 0)
        return "signalled"

    def stop(self, pid: int) -> str:
        os.kill(pid, signal.SIGCONT)
        return "signalled"

    def read_memory(self, pid: int) -> str:
        with open(f"/proc/{pid}/mem", "rb") as file:
            return str(file.fileno())

    def limit(self, pid: int) -> str:
        old = (ctypes.c_uint64 * 2)()
        return _call(302, ctypes.c_long(pid), ctypes.c_long(7), None, old)

    def rings(self) -> str:
        return _call(425, ctypes.c_long(1), ctypes.create_string_buffer(120))

    def keys(self) -> str:
        return _call(250, ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0))  # KEYCTL_GET_KEYRING_ID, session

    def namespace(self) -> str:
        # A child does it, because the worker itself would lose its rights over other processes.
        code = "import ctypes; raise SystemExit(ctypes.CDLL(None).syscall(272, 0x10000000) != 0)"  # CLONE_NEWUSER
        if subprocess.run([sys.executable, "-c", code], check=False).returncode:
            raise PermissionError("not permitted")
        return "made"

    def shared_memory(self) -> str:
        return _call(29, ctypes.c_long(0), ctypes.c_long(4096), ctypes.c_long(0o1600))

    def work(self) -> str:
        """Do everything that a compile needs: use a folder, children, threads, a pair of sockets and a compiler."""
        Path("in").mkdir(exist_ok=True)
        Path("in/x.cpp").write_text('#include <vector>\nextern "C" int f() { return std::vector<int>(3).size(); }\n')
        os.replace("in/x.cpp", "x.cpp")
        subprocess.run(["g++", "-O2", "-shared", "-fPIC", "x.cpp", "-o", "x.so"], check=True, capture_output=True)
        subprocess.run(["strip", "x.so"], check=True, capture_output=True)
        subprocess.run(["openssl", "sha512", "x.so"], check=True, capture_output=True)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"x")
            assert theirs.recv(1) == b"x"
        return str(ctypes.CDLL("./x.so").f())

    def where(self) -> str:
        return os.getcwd()


def main() -> None:
    unconfined = confine()
    out = sys.stdout.buffer
    hello = {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": FIELDS, "facts": b""}
    write_frame(out, {**hello, "unconfined": unconfined})
    while (message := read_frame(sys.stdin.buffer)) is not None:
        name, *arguments = json.loads(message["graph"])
        probe: Callable[..., str] = getattr(Probes(), name)
        try:
            answer = f"done: {probe(*arguments)}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it kept the probe out
            answer = f"{type(error).__name__}: {str(error)[-300:]}"
        frame = {"type": "refused", "id": message["id"], "reason": "UNSUPPORTED"}
        write_frame(out, {**frame, "message": answer, "fields": []})


if __name__ == "__main__":
    main()
