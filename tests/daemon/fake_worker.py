"""A worker without torch: a real process that speaks the worker's protocol and does what the graph's text says.

A graph is the name of a method below with its arguments: `ok 0.5` takes half a second. The text after a `#` only makes
graphs different from each other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.facts import Facts, encode_facts
from compile_wire.kernel.environment import is_kernel_environment
from compile_wire.manifest import BlobRef, Manifest, encode_manifest
from compiler_daemon.worker.protocol import LAST, WORKER_PROTOCOL, read_frame, write_frame

FACTS = encode_facts(Facts(vec_isa={"avx2": True}))


_REAL_GRAPHS = {"refuse": ["refuse", "UNSUPPORTED"], "sleep": ["ok", "30"]}
"""What is done with a real graph, chosen by the first part of its key; all others are compiled at once."""


def _behaviour(key: str, graph: bytes) -> list[str]:
    if graph[:1] < b"\x80":  # plain text, as opposed to a map of msgpack
        return graph.decode().partition("#")[0].split()
    return _REAL_GRAPHS.get(key.partition("-")[0], ["ok"])


class FakeWorker:
    def __init__(self, fields: dict[str, str], journal: Path) -> None:
        self.fields = fields
        self.journal = journal
        self.out = sys.stdout.buffer
        self.spent = False
        self.graph, self.size = "", 0
        self.roles: tuple[Any, Any] | None = None

    def run(self) -> None:
        write_frame(
            self.out, {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": self.fields, "facts": FACTS}
        )
        while (message := read_frame(sys.stdin.buffer)) is not None:
            if message["type"] == "warm":
                self.make_header()
                self.say(message, "warm")
                continue
            with open(self.journal, "a") as journal:
                journal.write(f"{os.getpid()} {message.get('niceness', 0)} {message['key']}\n")
            words = _behaviour(message["key"], message["graph"])
            if not message["key"] and words[0] in {"ok", "big"}:
                self.say(message, "keyed", key=f"here-{digest_of(message['graph'])[:16]}")
                continue
            behaviour: Callable[..., None] = getattr(self, words[0].replace("-", "_"))
            behaviour(message, *words[1:])
            if self.spent:
                return

    def make_header(self) -> None:
        folder = Path(os.environ["TMPDIR"]) / "torchinductor_somebody" / "precompiled_headers"
        folder.mkdir(parents=True)
        for suffix in (".h", ".h.gch"):
            (folder / f"made{suffix}").write_text(str(os.getpid()))

    def say(self, job: dict[str, Any], kind: str, **fields: object) -> None:
        spent = {"spent": True} if self.spent and kind in LAST else {}
        write_frame(self.out, {"type": kind, "id": job["id"], **fields, **spent})

    def ok(self, job: dict[str, Any], seconds: str = "0") -> None:
        self.say(job, "progress", phase="rebuilding")
        self.say(job, "progress", phase="compiling")
        time.sleep(float(seconds))
        self.say(job, "progress", phase="packing")
        self.hand_over(job, b"entry of " + job["key"].encode(), b"object")

    def big(self, job: dict[str, Any], size: str, seconds: str = "0") -> None:
        time.sleep(float(seconds))
        self.hand_over(job, b"entry", bytes(int(size)))

    def leave(self, job: dict[str, Any], kind: str = "done") -> None:
        self.spent = True
        if kind == "done":
            self.ok(job)
        else:
            self.refuse(job, "UNSUPPORTED")

    def hand_over(self, job: dict[str, Any], *blobs: bytes, key: str = "", send: int | None = None) -> None:
        for data in blobs[:send]:
            self.say(job, "blob", sha256=digest_of(data), data=data)
        kernels = is_kernel_environment(self.fields)
        first, second = self.roles or (("metadata", "stage") if kernels else ("entry", "object"))
        manifest = Manifest(
            key=key or job["key"],
            environment=environment_id(self.fields),
            guards="",
            graph=self.graph or digest_of(job["graph"]),
            compile_s=time.time() % 1000,
            origin="replay" if job.get("replay") else "worker",
            blobs=tuple(
                BlobRef(
                    role=second if number else first,
                    name=f"object-{number}" if number else "json" if kernels else "",
                    sha256=digest_of(data),
                    size=self.size or len(data),
                )
                for number, data in enumerate(blobs)
            ),
        )
        self.say(job, "done", manifest=encode_manifest(manifest), facts=FACTS)

    def crash(self, job: dict[str, Any]) -> None:
        sys.stderr.write("the fake worker falls over\n")
        sys.stderr.flush()
        os._exit(9)

    def crash_once(self, job: dict[str, Any], marker: str) -> None:
        if not Path(marker).exists():
            Path(marker).touch()
            self.crash(job)
        self.ok(job)

    def hang(self, job: dict[str, Any]) -> None:
        time.sleep(600)

    def spin(self, job: dict[str, Any]) -> None:
        subprocess.run([sys.executable, "-c", "while True: pass"], check=False)

    def refuse(self, job: dict[str, Any], reason: str) -> None:
        self.say(job, "refused", reason=reason, message="because of the test", fields=["shape: 1, 2"])

    def spam(self, job: dict[str, Any]) -> None:
        for _ in range(100_000):
            self.say(job, "progress", phase="compiling")

    def garbage(self, job: dict[str, Any]) -> None:
        self.out.write(b"\xff" * 64)
        self.out.flush()
        self.hang(job)

    def silent_end(self, job: dict[str, Any]) -> None:
        os._exit(0)

    def allocate(self, job: dict[str, Any], mib: str) -> None:
        # A child allocates the memory, because the limit is on the whole tree of processes and not on the worker.
        code = f"import time; data = b'x' * ({mib} << 20); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code])
        self.hang(job)

    def grandchild(self, job: dict[str, Any], file: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(file).write_text(str(child.pid))
        self.hang(job)

    def orphan(self, job: dict[str, Any], file: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(file).write_text(str(child.pid))
        os._exit(9)

    def wrong_key(self, job: dict[str, Any]) -> None:
        self.hand_over(job, b"entry", key="another key")

    def missing_blob(self, job: dict[str, Any]) -> None:
        self.hand_over(job, b"entry", b"never sent " + job["key"].encode(), send=1)

    def no_graph(self, job: dict[str, Any]) -> None:
        self.graph = digest_of(b"another graph")
        self.ok(job)

    def kernel_instead(self, job: dict[str, Any]) -> None:
        self.roles = ("metadata", "stage")
        self.ok(job)

    def stored_blob(self, job: dict[str, Any]) -> None:
        """Name a blob that is in the store already, without handing it over."""
        self.hand_over(job, b"entry", b"in the store already", send=1)

    def more_blobs(self, job: dict[str, Any]) -> None:
        self.say(job, "blob", sha256=digest_of(b"unnamed"), data=b"unnamed")
        self.ok(job)

    def wrong_size(self, job: dict[str, Any]) -> None:
        self.size = 1
        self.ok(job)

    def wrong_blob(self, job: dict[str, Any]) -> None:
        self.say(job, "blob", sha256=digest_of(b"this"), data=b"that")
        self.hang(job)

    def environ(self, job: dict[str, Any], file: str) -> None:
        Path(file).write_text(
            json.dumps(
                {
                    "environ": dict(os.environ),
                    "cwd": os.getcwd(),
                    "sid": os.getsid(0),
                    "mode": os.stat(os.environ["TMPDIR"]).st_mode & 0o777,
                }
            )
        )
        self.ok(job)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", nargs="?", choices=["kernels"], help="as the real one is told; its fields say it, too")
    parser.add_argument("--fields", type=json.loads, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--not-ready-once", type=Path)
    arguments = parser.parse_args()
    if arguments.not_ready_once and not arguments.not_ready_once.exists():
        arguments.not_ready_once.touch()
        raise SystemExit("the machine had a bad moment")
    if arguments.never_ready:
        raise SystemExit("no torch in this environment")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the real worker does so, too
    # A node of a farm may have another environment than the daemon's own machine.
    fields = arguments.fields | json.loads(os.environ.get("PYTHON_FAKE_FIELDS", "{}"))
    FakeWorker(fields, arguments.journal).run()


if __name__ == "__main__":
    main()
