"""A daemon with keys that listens with TLS, and its clients, which use directories made by `keys client`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from compile_wire.digest import digest_of
from compile_wire.endpoint.private_files import split_pem
from compile_wire.limits import PROTOCOL_VERSION
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.access.register import KeyFiles
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys.certificates import Issued
from tests.daemon.daemon_process import DEADLINE_S, FIELDS, DaemonProcess


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_S,
        check=False,
    )


class TlsDaemon(DaemonProcess):
    """A daemon that listens with TLS. Its own stubs are the owner's, over the Unix socket; others use `Remote`."""

    def start(self, environ: Mapping[str, str] | None = None) -> Self:
        self.settings.setdefault("address", "127.0.0.1:0")
        if not KeyFiles(self.directory).exist():
            keys.init(self.directory, ())
        super().start(environ)
        self.channel.close()
        self.tls_address = self.address
        self.address = f"unix:{self.directory / 'daemon.sock'}"
        self.channel = grpc.insecure_channel(self.address)
        self.compile_service = pb_grpc.CompileServiceStub(self.channel)
        self.admin_service = pb_grpc.AdminServiceStub(self.channel)
        self.health_service = health_pb2_grpc.HealthStub(self.channel)
        return self

    @property
    def port(self) -> int:
        return int(self.tls_address.rpartition(":")[2])

    @property
    def authority(self) -> Issued:
        key, certificate = split_pem(KeyFiles(self.directory).authority_key.read_bytes())
        return Issued(certificate, key)

    def made(self, name: str, **settings: Any) -> Path:
        """Make a client's directory and return it."""
        out = self.directory.with_name(f"{self.directory.name}-{name}-{len(list(self.directory.parent.iterdir()))}")
        keys.make_client(self.directory, name, out, address=self.tls_address, **settings)
        return out

    def remote(self, name: str, **settings: Any) -> Remote:
        return Remote(self.made(name, **settings), self.tls_address)


class Remote:
    """Stubs over TLS that use the credentials in a client's directory."""

    def __init__(self, directory: Path, target: str, *, identity: Issued | None = None, bare: bool = False) -> None:
        self.directory = directory
        authority = (directory / "ca.pem").read_bytes()
        key = certificate = None
        if identity is not None:
            key, certificate = identity.key, identity.certificate
        elif (directory / "client.pem").exists() and not bare:
            key, certificate = split_pem((directory / "client.pem").read_bytes())
        token = (directory / "token").read_text() if (directory / "token").exists() and not bare else ""
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.channel = grpc.secure_channel(
            target,
            grpc.ssl_channel_credentials(authority, key, certificate),
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        self.compile_service = pb_grpc.CompileServiceStub(self.channel)
        self.admin_service = pb_grpc.AdminServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def options(self) -> dict[str, Any]:
        return {"timeout": DEADLINE_S, "metadata": self.metadata}

    def handshake(self) -> pb.HandshakeResponse:
        request = pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=FIELDS)
        return self.compile_service.Handshake(request, **self.options())

    def status(self) -> pb.GetStatusResponse:
        return self.admin_service.GetStatus(pb.GetStatusRequest(), **self.options())

    def shutdown(self) -> None:
        self.admin_service.Shutdown(pb.ShutdownRequest(), **self.options())

    def lookup(self, environment: str, key: str) -> list[pb.ArtifactEntry]:
        request = pb.LookupArtifactRequest(environment_id=environment, key=key)
        return list(self.compile_service.LookupArtifact(request, **self.options()).entries)

    def publish(self, environment: str, key: str, manifest: bytes, *blobs: bytes) -> bool:
        request = pb.PublishArtifactRequest(
            environment_id=environment,
            key=key,
            manifest=manifest,
            blobs=[pb.Blob(sha256=digest_of(data), data=data) for data in blobs],
        )
        return self.compile_service.PublishArtifact(request, **self.options()).stored

    def write_blob(self, sha256: str, size: int, *chunks: bytes) -> bool:
        messages = [pb.WriteBlobRequest(sha256=sha256, size=size), *(pb.WriteBlobRequest(data=data) for data in chunks)]
        return self.compile_service.WriteBlob(iter(messages), **self.options()).stored


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Make a call that must be refused; return the refusal's code and text."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert isinstance(raised.value, grpc.Call)
    return raised.value.code(), raised.value.details() or ""
