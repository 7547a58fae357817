"""moto's server, which pretends to be AWS: a second opinion on S3, with keys that are checked.

moto is no dependency: it brings some sixty packages. It is found beside this Python, on the path, or by MOTO_SERVER.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.harness.measure import BenchError
from benches.harness.ports import free_ports
from benches.harness.processes import start_child

PROGRAM_VARIABLE = "MOTO_SERVER"

_READY_S = 60.0
_CALL_S = 10.0
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
# Which of AWS's services a request is for stands in its credentials, which are not looked at yet.
_SCOPE = "Credential=any/20260101/us-east-1/iam/aws4_request"
_FOR_IAM = {
    "Authorization": f"AWS4-HMAC-SHA256 {_SCOPE}, SignedHeaders=host, Signature=0",
    "Content-Type": "application/x-www-form-urlencoded",
}


@dataclass(frozen=True, slots=True)
class MotoServer:
    """One that runs, with one user."""

    port: int
    key: str
    secret: str

    def variables(self) -> dict[str, str]:
        """Return the usual variables of AWS for its user."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }


def moto_program() -> str | None:
    """Return moto's server: what the variable names, or the one of this environment; None where there is neither.

    One that happens to be on PATH is not taken: with an unknown version of it, requests were refused now and then.
    """
    beside = Path(sys.executable).parent / "moto_server"
    return os.environ.get(PROGRAM_VARIABLE) or (str(beside) if beside.exists() else None)


@contextlib.contextmanager
def moto_served(folder: Path, bucket: str) -> Iterator[MotoServer]:
    """Run one with a bucket while the block lasts. Raises `BenchError` where there is none to run."""
    program = moto_program()
    if program is None:
        raise BenchError(f"this needs moto: `pip install 'moto[server]'`, or name its server in {PROGRAM_VARIABLE}")
    [port] = free_ports(1)
    with (folder / "moto.log").open("wb") as log:
        process = start_child([program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _READY_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"moto did not come up: {(folder / 'moto.log').read_text(errors='replace')[-500:]}")
            time.sleep(0.1)
        _call(port, "PUT", f"/{bucket}")
        _iam(port, Action="CreateUser", UserName="lab")
        policy = {"PolicyName": "all", "PolicyDocument": json.dumps(_EVERYTHING)}
        _iam(port, Action="PutUserPolicy", UserName="lab", **policy)
        made = _iam(port, Action="CreateAccessKey", UserName="lab")
        _call(port, "POST", "/moto-api/reset-auth", "0")  # from now on keys are checked
        yield MotoServer(port, _field(made, "AccessKeyId"), _field(made, "SecretAccessKey"))
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException, BenchError):
        _call(port, "GET", "/moto-api/")
        return True
    return False


def _iam(port: int, **fields: str) -> str:
    return _call(port, "POST", "/", urllib.parse.urlencode({"Version": "2010-05-08", **fields}), _FOR_IAM)


def _call(port: int, method: str, path: str, body: str = "", headers: dict[str, str] | None = None) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CALL_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    if answer.status >= 300:
        raise BenchError(f"moto answered {method} {path} with {answer.status}: {text[:300]}")
    return text


def _field(text: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]+)</{name}>", text)
    if found is None:
        raise BenchError(f"moto's answer has no {name}: {text[:300]}")
    return found.group(1)
