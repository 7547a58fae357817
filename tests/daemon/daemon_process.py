"""A real daemon in a process of its own, and a client that talks to it over its socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from compile_wire.digest import Digest, digest_of
from compile_wire.environment import environment_id
from compile_wire.limits import PROTOCOL_VERSION
from compile_wire.manifest import BlobRef, Manifest, Origin, encode_manifest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc

HERE = Path(__file__).parent
FIELDS = {"python": "cp311", "torch": "0.fake"}
ENVIRONMENT = environment_id(FIELDS)
DEADLINE_S = 20.0

INTERRUPTIBLE = ("env", "--default-signal=INT")
"""Before a command, has SIGINT end it as in a terminal: a shell's background processes inherit that it is ignored.

Not by `preexec_fn`: where gRPC has threads, its handlers run in a child that was forked, and may abort it.
"""


def wait_until(condition: Callable[[], Any], *, what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until `condition` returns something true, and return that; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s} s: {what}")


def process_lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def manifest_of(
    key: str, *blobs: bytes, environment: Digest = ENVIRONMENT, origin: Origin = "trainer", graph: bytes = b""
) -> bytes:
    return encode_manifest(
        Manifest(
            key=key,
            environment=environment,
            guards="",
            graph=digest_of(graph) if graph else "",
            compile_s=1.5,
            origin=origin,
            blobs=tuple(
                BlobRef(
                    role="object" if number else "entry",
                    name=f"object-{number}" if number else "",
                    sha256=digest_of(data),
                    size=len(data),
                )
                for number, data in enumerate(blobs)
            ),
        )
    )


class DaemonProcess:
    def __init__(self, directory: Path, *, fields: Mapping[str, str] = FIELDS, **settings: Any) -> None:
        self.directory = directory
        self.fields = dict(fields)
        self.settings = settings
        self.journal = directory.with_name(f"{directory.name}.journal")
        self.log = directory.with_name(f"{directory.name}.log")

    @property
    def command(self) -> list[str]:
        worker = [
            "-P",
            str(HERE / "fake_worker.py"),
            "--fields",
            json.dumps(self.fields),
            "--journal",
            str(self.journal),
        ]
        worker += self.settings.get("worker", [])
        pool = {"command": worker, "max_workers": 2, "watch_s": 0.05, **self.settings.get("pool", {})}
        settings = {
            "directory": str(self.directory),
            "pool": pool,
            **{
                name: self.settings[name]
                for name in ("address", "flights", "daemon", "tier", "farm")
                if name in self.settings
            },
        }
        return [sys.executable, str(HERE / "daemon_under_test.py"), json.dumps(settings)]

    def launch(self, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        with open(self.log, "a") as log:
            return subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environ or {})}
            )

    def start(self, environ: Mapping[str, str] | None = None) -> Self:
        self.process = self.launch(environ)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("ready "), f"{ready!r}\n{self.log.read_text()}"
        self.address = ready.removeprefix("ready ").strip()
        self.metadata = (("authorization", f"Bearer {(self.directory / 'token').read_text()}"),)
        self.channel = grpc.insecure_channel(self.address)
        self.compile_service = pb_grpc.CompileServiceStub(self.channel)
        self.admin_service = pb_grpc.AdminServiceStub(self.channel)
        self.health_service = health_pb2_grpc.HealthStub(self.channel)
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self.close()

    def close(self) -> None:
        self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        self.channel.close()
        self.process.kill()
        self.close()

    def options(self, timeout: float = DEADLINE_S) -> dict[str, Any]:
        return {"timeout": timeout, "metadata": self.metadata}

    def handshake(self, fields: Mapping[str, str] = FIELDS, **more: Any) -> pb.HandshakeResponse:
        request = pb.HandshakeRequest(**{"protocol_version": PROTOCOL_VERSION, "environment": fields, **more})
        return self.compile_service.Handshake(request, **self.options())

    def lookup(self, key: str, have: Iterable[str] = (), environment: str = ENVIRONMENT) -> list[pb.ArtifactEntry]:
        request = pb.LookupArtifactRequest(environment_id=environment, key=key, have=list(have))
        return list(self.compile_service.LookupArtifact(request, **self.options()).entries)

    def compile(self, key: str, spec: bytes, /, *, timeout: float = DEADLINE_S, **more: Any) -> Any:
        fields = {"environment_id": ENVIRONMENT, "graph": pb.Graph(data=spec), **more}
        return self.compile_service.CompileGraph(pb.CompileGraphRequest(key=key, **fields), **self.options(timeout))

    def compiled(self, key: str, spec: bytes, /, **more: Any) -> pb.ArtifactEntry | pb.Refused:
        """Ask for a compile and return how it ended: with an artifact or a refusal."""
        *_, last = self.compile(key, spec, **more)
        return last.artifact if last.HasField("artifact") else last.refused

    def publish(self, key: str, manifest: bytes, *blobs: bytes, **more: Any) -> bool:
        request = pb.PublishArtifactRequest(
            **{
                "environment_id": ENVIRONMENT,
                "key": key,
                "manifest": manifest,
                "blobs": [pb.Blob(sha256=digest_of(data), data=data) for data in blobs],
                **more,
            }
        )
        return self.compile_service.PublishArtifact(request, **self.options()).stored

    def write_blob(self, sha256: str, size: int, *chunks: bytes) -> bool:
        def messages() -> Iterator[pb.WriteBlobRequest]:
            yield pb.WriteBlobRequest(sha256=sha256, size=size)
            for chunk in chunks:
                yield pb.WriteBlobRequest(data=chunk)

        return self.compile_service.WriteBlob(messages(), **self.options()).stored

    def read_blob(self, sha256: str) -> bytes:
        chunks = self.compile_service.ReadBlob(pb.ReadBlobRequest(sha256=sha256), **self.options())
        return b"".join(chunk.data for chunk in chunks)

    def status(self) -> pb.GetStatusResponse:
        return self.admin_service.GetStatus(pb.GetStatusRequest(), **self.options())

    def health(self, service: str = "") -> str:
        response = self.health_service.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def jobs(self, key: str) -> list[int]:
        """Return the process ids of the workers that got a job with this key, in order."""
        return [pid for pid, _, job in self._journal() if job == key]

    def order(self) -> list[str]:
        """Return the keys of all jobs, in the order in which workers got them."""
        return [job for _, _, job in self._journal()]

    def niceness_of(self, key: str) -> list[int]:
        """Return the niceness that each of the key's jobs asked for."""
        return [niceness for _, niceness, job in self._journal() if job == key]

    def _journal(self) -> list[tuple[int, int, str]]:
        if not self.journal.exists():
            return []
        lines = [line.split(" ", 2) for line in self.journal.read_text().splitlines()]
        return [(int(pid), int(niceness), key) for pid, niceness, key in lines]
