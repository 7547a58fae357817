"""A Dask scheduler and workers in processes of their own, with TLS, on the loopback interface."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from compiler_daemon.admin.keys.certificates import make_authority
from tests.daemon.daemon_process import wait_until

STARTS_S = 60.0
"""Importing Dask takes seconds, and many of them on a busy machine."""


class Certificates:
    """An authority, and one certificate of it that all processes of the farm use."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "farm.pem", folder / "farm.key"
        authority = make_authority(2)
        self.ca.write_bytes(authority.certificate)
        certificate, key = _issue(authority.certificate, authority.key)
        self.certificate.write_bytes(certificate)
        self.key.touch(0o600)
        self.key.write_bytes(key)

    @property
    def dask(self) -> list[str]:
        """Return the options for Dask's programs."""
        return [
            f"--tls-ca-file={self.ca}",
            f"--tls-cert={self.certificate}",
            f"--tls-key={self.key}",
        ]

    @property
    def settings(self) -> dict[str, str]:
        """Return the fields of a `FarmConfig`."""
        return {"ca": str(self.ca), "certificate": str(self.certificate), "key": str(self.key)}


class DaskProcess:
    """One process of Dask's; it is killed at the end together with what it has started."""

    def __init__(self, log: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                stdout=file,
                stderr=file,
                env={**os.environ, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info", **(environ or {})},
                cwd=log.parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, text: str) -> str:
        """Wait for a line of the log that contains the text, and return what follows it."""

        def find() -> str | None:
            for line in self.log.read_text().splitlines():
                if text in line:
                    return line.partition(text)[2].strip()
            assert self.process.poll() is None, self.log.read_text()
            return None

        return str(wait_until(find, what=f"{text!r} in {self.log}", deadline_s=STARTS_S))

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)


class DaskFarm:
    """A Dask scheduler and its workers."""

    def __init__(self, folder: Path, certificates: Certificates | None) -> None:
        self.folder = folder
        self.certificates = certificates
        self.workers: list[DaskProcess] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        scheme = "tls" if self.certificates else "tcp"
        self.scheduler = DaskProcess(
            self.folder / "scheduler.log",
            "scheduler",
            f"--host={scheme}://127.0.0.1",
            "--port=0",
            "--no-dashboard",
            *self._security(),
        )
        try:
            self.address = self.scheduler.said("Scheduler at:")
        except BaseException:
            self.scheduler.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()

    def add_worker(self, *, nthreads: int = 1, environ: Mapping[str, str] | None = None) -> DaskProcess:
        name = f"w{len(self.workers)}"
        worker = DaskProcess(
            self.folder / f"{name}.log",
            "worker",
            self.address,
            "--no-nanny",
            "--no-dashboard",
            f"--nthreads={nthreads}",
            f"--name={name}",
            f"--local-directory={self.folder / name}",
            *self._security(),
            environ=environ,
        )
        self.workers.append(worker)
        return worker

    def settings(self, **more: object) -> dict[str, object]:
        return {"address": self.address, **(self.certificates.settings if self.certificates else {}), **more}

    def _security(self) -> Sequence[str]:
        return self.certificates.dask if self.certificates else ()


def _issue(authority_pem: bytes, authority_key: bytes) -> tuple[bytes, bytes]:
    """Return a certificate for both ends of a connection, because each of Dask's processes is server and client."""
    authority = x509.load_pem_x509_certificate(authority_pem)
    signer = serialization.load_pem_private_key(authority_key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farm")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
