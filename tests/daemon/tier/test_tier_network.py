"""Two nodes in network namespaces of their own, with a cable between them, and a Redis with TLS and a password."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benches.harness.redis_server import redis_running
from compile_wire.manifest import manifest_digest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.admin.keys.certificates import issue_server, make_authority
from tests.daemon.daemon_process import wait_until
from tests.daemon.tier.node_samples import Node, started

_PASSWORD = "not-on-any-command-line"
_ADDRESSES = {"a": "10.213.77.1", "b": "10.213.77.2"}
_PORT = 6390


@dataclass(frozen=True)
class Cable:
    """Two network namespaces that reach each other and nothing else."""

    names: dict[str, str]

    def inside(self, end: str) -> list[str]:
        return ["ip", "netns", "exec", self.names[end]]


class FarNode(Node):
    """A node in a network namespace; the test reaches it through its Unix socket, which is a file."""

    def __init__(self, directory: Path, place: str, *, launcher: list[str]) -> None:
        super().__init__(directory, place)
        self._launcher = launcher

    @property
    def command(self) -> list[str]:
        return [*self._launcher, *super().command]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@pytest.fixture
def cable() -> Iterator[Cable]:
    names = {end: f"tier-{os.getpid()}-{end}" for end in "ab"}
    with ExitStack() as scope:
        try:
            for name in names.values():
                _ip("netns", "add", name)
                scope.callback(subprocess.run, ["ip", "netns", "delete", name], check=False, capture_output=True)
            _ip("-n", names["a"], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names["b"])
            for end, address in _ADDRESSES.items():
                _ip("-n", names[end], "address", "add", f"{address}/24", "dev", "cable")
                _ip("-n", names[end], "link", "set", "cable", "up")
                _ip("-n", names[end], "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
        yield Cable(names)


def test_nodes_share_over_a_network_with_tls_and_a_password(
    tmp_path: Path, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority(2)
    server = issue_server(authority, [_ADDRESSES["a"]], 2)
    files = {name: tmp_path / name for name in ("ca.pem", "server.pem", "server.key", "password")}
    for name, content in zip(
        files, (authority.certificate, server.certificate, server.key, _PASSWORD.encode()), strict=True
    ):
        files[name].write_bytes(content)
        files[name].chmod(0o600)
    monkeypatch.setenv("SSL_CERT_FILE", str(files["ca.pem"]))
    monkeypatch.setenv("COMPILER_DAEMON_TIER_PASSWORD_FILE", str(files["password"]))
    options = [
        *("--tls-port", str(_PORT), "--bind", _ADDRESSES["a"], "--requirepass", _PASSWORD),
        *("--tls-cert-file", str(files["server.pem"]), "--tls-key-file", str(files["server.key"])),
        *("--tls-ca-cert-file", str(files["ca.pem"]), "--tls-auth-clients", "no"),
    ]
    place = f"rediss://{_ADDRESSES['a']}:{_PORT}"
    with redis_running(tmp_path, *options, launcher=cable.inside("a")):
        a, b = both = [FarNode(tmp_path / end, place, launcher=cable.inside(end)) for end in "ab"]
        with contextmanager(started)(both):
            made = a.compiled("k1", b"ok")
            assert isinstance(made, pb.ArtifactEntry)
            wait_until(lambda: a.counted("tier_written") == 1, what="the artifact is in the tier")

            served = b.lookup("k1")

            assert [manifest_digest(entry.manifest) for entry in served] == [manifest_digest(made.manifest)]
            assert b.jobs("k1") == []
            for node in both:
                assert _PASSWORD not in node.log.read_text()
