"""No secret appears in a log, a process list, an environment, an answer or an error during a whole run."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import psutil
import pytest

from compile_client.testing import ClientConfig, DaemonClient
from compile_wire.endpoint.private_files import split_pem
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys import signers
from tests.daemon.daemon_process import FIELDS, wait_until
from tests.daemon.tls_daemon import Remote, TlsDaemon, refusal, run


def secrets_of(*directories: Path) -> set[str]:
    """Return every secret in these directories, in each form in which it could leak."""
    found = set()
    for directory in directories:
        for path in directory.rglob("*"):
            data = path.read_bytes() if path.is_file() and path.name != "daemon.sock" else b""
            if path.name == "token":
                found |= {data.decode()}
            elif path.name == "secret":
                found |= {data.hex(), base64.b64encode(data).decode(), repr(data)[2:-1]}
            elif path.name == "own.key":
                found |= {data.decode().partition(":")[2][:40]}  # the first half is the private key
            elif path.suffix in {".pem", ".key"}:
                found |= set(split_pem(data)[0].decode().splitlines()[1:-1])
    assert len(found) >= 8
    return found


def test_no_secret_is_in_a_log_a_process_list_an_environment_an_answer_or_an_error(
    tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    said: dict[str, str] = {}
    with TlsDaemon(tmp_path / "d", daemon={"client_auth": "token"}) as daemon:
        daemon.handshake()
        ada, rita = daemon.made("ada", kind="token"), daemon.made("rita", kind="token", role="reader")
        other = daemon.made("olga", role="operator")
        signers.init(daemon.directory, "lab-1")
        before = secrets_of(daemon.directory, ada, rita, other)
        running = daemon.compile(key, b"ok 3", timeout=250)
        wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

        processes = [psutil.Process(daemon.process.pid), *psutil.Process(daemon.process.pid).children(recursive=True)]
        assert len(processes) > 1
        for process in processes:
            for name in ("cmdline", "environ"):
                said[f"{name} of {process.pid}"] = Path(f"/proc/{process.pid}/{name}").read_bytes().decode("latin-1")

        # A caller who shows wrong credentials is refused in each of these ways.
        with Remote(rita, daemon.tls_address) as reader, Remote(other, daemon.tls_address, bare=True) as nobody:
            nobody.metadata = (("authorization", f"Basic {(ada / 'token').read_text()}"),)
            said["errors"] = "\n".join(
                text for _, text in (refusal(reader.shutdown), refusal(nobody.status), refusal(nobody.handshake))
            )
        with caplog.at_level(logging.DEBUG):
            client = DaemonClient(
                ClientConfig.from_environment({"COMPILER_DAEMON_DIR": str(ada), "TORCH_COMPILE_CLIENT_LOG": "debug"}),
                lambda: FIELDS,
                program="test",
                env={},
            )
            client.begin_graph(key).lookup()
            keys.revoke(daemon.directory, "ada")
            client.begin_graph(key).lookup()
            client.close()
        said["the client's log"] = caplog.text + repr(client.config) + repr(client.counters.as_dict())
        keys.rotate(daemon.directory, token=True)
        signers.init(daemon.directory, "lab-2", renew=True)
        for arguments in (
            ("status", "--json"),
            ("status",),
            ("doctor", "--no-trainer", "--json"),
            ("keys", "show", "--json"),
            ("keys", "signers"),
            ("keys", "signers", "--json"),
        ):
            ended = run(*arguments, "--dir", str(daemon.directory))
            said[" ".join(arguments)] = ended.stdout + ended.stderr
        list(running)
        after = secrets_of(daemon.directory, ada, rita, other)
        said["the daemon's log"] = daemon.log.read_text()
        for path in (daemon.directory / "log").iterdir():
            said[path.name] = path.read_text()
        said["daemon.json"] = (daemon.directory / "daemon.json").read_text()
        said["access.json"] = (daemon.directory / "access.json").read_text()

    assert "ada" in said["the daemon's log"]
    assert client.counters.fallbacks() == {"unauthenticated": 1}
    leaks = [where for where, text in said.items() for secret in before | after if secret in text]
    assert leaks == []


def test_nothing_that_holds_a_secret_shows_it_when_printed(tmp_path: Path) -> None:
    from compile_client.transport.endpoint import read_credentials
    from compile_wire.endpoint.credentials import read_keys
    from compiler_daemon.access.directory import Identity
    from compiler_daemon.access.register import KeyFiles
    from compiler_daemon.admin.keys.certificates import make_authority

    keys.init(tmp_path / "d", ())
    keys.make_client(tmp_path / "d", "ada", tmp_path / "a")
    keys.make_client(tmp_path / "d", "tom", tmp_path / "t", kind="token")
    authority = make_authority(1)
    shown = [
        repr(KeyFiles(tmp_path / "d").material(0)),
        repr(Identity.open(tmp_path / "d")),
        repr(read_keys(tmp_path / "a", tls=True)),
        repr(read_keys(tmp_path / "t", tls=True)),
        repr(read_credentials(tmp_path / "a", tls=True)),
        repr(read_credentials(tmp_path / "t", tls=True)),
        repr(authority),
    ]

    secrets = secrets_of(tmp_path / "d", tmp_path / "a", tmp_path / "t")
    secrets |= set(authority.key.decode().splitlines()[1:-1])
    assert not [text for text in shown for secret in secrets if secret in text]


def test_the_daemon_itself_opens_no_authoritys_key_and_imports_no_cryptography(tmp_path: Path) -> None:
    keys.init(tmp_path / "d", ())
    (tmp_path / "d" / "keys" / "ca.key").rename(tmp_path / "kept-elsewhere")
    client = tmp_path / "a"
    with TlsDaemon(tmp_path / "d") as daemon:
        (tmp_path / "kept-elsewhere").rename(tmp_path / "d" / "keys" / "ca.key")
        keys.make_client(daemon.directory, "ada", client)
        with Remote(client, daemon.tls_address) as ada:
            ada.handshake()
        mapped = {Path(region.path).name for region in psutil.Process(daemon.process.pid).memory_maps()}

        assert not any(name.startswith("_rust") for name in mapped)
        assert any(name.startswith("cygrpc") for name in mapped)
