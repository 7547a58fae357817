"""`compiler-daemon keys`: the commands as an operator types them, and the files that they leave behind."""

from __future__ import annotations

import ast
import hmac
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compile_wire.signature
import compiler_daemon.access.register
import compiler_daemon.http.login
import compiler_daemon.rpc.auth
from compile_wire.endpoint.private_files import split_pem
from compiler_daemon.access.register import OWNER, Caller, KeyFiles, Keyring, Register
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys.certificates import (
    issue_server,
    key_fits,
    make_authority,
    read_certificate,
    was_issued_by,
)
from compiler_daemon.errors import KeysError
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.tls_daemon import run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.init(tmp_path / "d", ("gpu7.example.org", "10.1.2.3"))
    return tmp_path / "d"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def secrets_in(*directories: Path) -> list[str]:
    """Return every secret in these directories, in each of the forms in which it could leak."""
    found = []
    for directory in directories:
        for path in directory.rglob("*"):
            if path.name == "token":
                found.append(path.read_text())
            elif path.name == "secret":
                found += [path.read_bytes().hex(), repr(path.read_bytes())[2:-1]]
            elif path.suffix in {".pem", ".key"}:
                found += split_pem(path.read_bytes())[0].decode().splitlines()[1:-1]
    assert found
    return found


# init


def test_init_makes_an_authority_and_a_certificate_for_the_hosts_and_this_machine(tmp_path: Path) -> None:
    made = run("keys", "init", "--dir", str(tmp_path / "d"), "--host", "gpu7.example.org", "--host", "10.1.2.3")

    files = KeyFiles(tmp_path / "d")
    key, chain = split_pem(files.server.read_bytes())
    assert made.returncode == 0, made.stderr
    assert read_certificate(chain).hosts == ("localhost", "127.0.0.1", "::1", "gpu7.example.org", "10.1.2.3")
    assert key_fits(chain, key)
    assert was_issued_by(chain, files.authority.read_bytes())


def test_everything_that_is_made_is_its_users_alone(directory: Path, tmp_path: Path) -> None:
    keys.make_client(directory, "a", tmp_path / "a")
    keys.make_client(directory, "b", tmp_path / "b", kind="token")
    keys.rotate(directory, token=True, authority=True)

    for path in (directory, tmp_path / "a", tmp_path / "b"):
        assert all(not path.stat().st_mode & 0o077 for path in (path, *path.rglob("*")))
    assert stat.S_IMODE((directory / "keys" / "ca.key").stat().st_mode) == 0o600


def test_init_overwrites_nothing(directory: Path) -> None:
    before = contents(directory)

    again = run("keys", "init", "--dir", str(directory))

    assert again.returncode == 1
    assert "keys rotate" in again.stderr
    assert contents(directory) == before


def test_a_host_that_is_none_leaves_nothing_half_made(tmp_path: Path) -> None:
    refused = run("keys", "init", "--dir", str(tmp_path / "d"), "--host", "bäd host")

    assert refused.returncode == 1
    assert "is no host" in refused.stderr
    assert not (tmp_path / "d" / "keys").exists()
    assert run("keys", "init", "--dir", str(tmp_path / "d"), "--host", "good").returncode == 0


def test_a_directory_that_others_may_write_to_gets_no_keys(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o777)

    refused = run("keys", "init", "--dir", str(tmp_path / "d"))

    assert refused.returncode == 1
    assert "others may write" in refused.stderr


# client, revoke


def test_a_clients_directory_holds_what_it_needs_and_nothing_of_the_owners(directory: Path, tmp_path: Path) -> None:
    made = run("keys", "client", "ada", "--dir", str(directory), "--out", str(tmp_path / "a"), "--address", "gpu7:7")

    key, chain = split_pem((tmp_path / "a" / "client.pem").read_bytes())
    card = json.loads((tmp_path / "a" / "client.json").read_text())
    assert made.returncode == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"ca.pem", "client.pem", "client.json", "secret"}
    assert key_fits(chain, key)
    assert (card["name"], card["role"], card["address"]) == ("ada", "trainer", "gpu7:7")
    assert not any((directory / "token").read_bytes() in data for data in contents(tmp_path / "a").values())
    assert (tmp_path / "a" / "ca.pem").read_bytes() == KeyFiles(directory).authority.read_bytes()


def test_the_register_knows_tokens_by_their_digest_only(directory: Path, tmp_path: Path) -> None:
    keys.make_client(directory, "tom", tmp_path / "t", kind="token")

    token = (tmp_path / "t" / "token").read_text()

    assert not any(token.encode() in data for data in contents(directory).values())
    assert Keyring(directory, token="o").by_token(token.encode()) == Caller("tom", "trainer")


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\nb", "x" * 65, "-a"])
def test_a_name_that_would_not_do_in_a_log_line_is_refused(directory: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(KeysError, match="no client's name"):
        keys.make_client(directory, name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_directory_with_something_in_it_is_not_filled(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o700)
    (tmp_path / "x" / "mine").touch()

    refused = run("keys", "client", "ada", "--dir", str(directory), "--out", str(tmp_path / "x"))

    assert refused.returncode == 1
    assert "is not empty" in refused.stderr
    assert Register.read(directory).clients == ()


def test_a_name_in_force_is_made_anew_only_when_asked_for_and_its_old_keys_end_with_the_overlap(
    directory: Path, tmp_path: Path
) -> None:
    keys.make_client(directory, "ada", tmp_path / "1")
    with pytest.raises(KeysError, match="--renew"):
        keys.make_client(directory, "ada", tmp_path / "2")

    keys.make_client(directory, "ada", tmp_path / "3", renew=True, overlap_days=0)
    old, new = Register.read(directory).clients

    assert old.expires <= new.made
    assert [client.sha256 for client in Register.read(directory).in_force(new.made + 1)] == [new.sha256]


def test_all_keys_of_a_name_are_revoked_and_a_name_that_has_none_is_said(directory: Path, tmp_path: Path) -> None:
    keys.make_client(directory, "ada", tmp_path / "1")
    keys.make_client(directory, "ada", tmp_path / "2", renew=True)

    revoked = run("keys", "revoke", "ada", "--dir", str(directory))
    again = run("keys", "revoke", "ada", "--dir", str(directory))

    assert revoked.returncode == 0
    assert "signing secret" in revoked.stderr
    assert again.returncode == 1
    assert "keys show" in again.stderr
    assert all(client.revoked for client in Register.read(directory).clients)


def test_read_only_and_operator_at_once_is_wrong_use(directory: Path, tmp_path: Path) -> None:
    ended = run(
        "keys", "client", "x", "--dir", str(directory), "--out", str(tmp_path / "x"), "--read-only", "--operator"
    )

    assert ended.returncode == 2


# rotate


def test_rotate_without_keys_names_init_and_a_token_can_be_rotated_without_them(tmp_path: Path) -> None:
    refused = run("keys", "rotate", "--dir", str(tmp_path / "d"))
    rotated = run("keys", "rotate", "--token", "--dir", str(tmp_path / "d"))

    assert refused.returncode == 1
    assert "keys init" in refused.stderr
    assert rotated.returncode == 0, rotated.stderr


def test_a_rotated_certificate_keeps_its_hosts_unless_others_are_named(directory: Path) -> None:
    keys.rotate(directory)
    kept = keys.show(directory).server
    keys.rotate(directory, hosts=("new.example.org",))
    changed = keys.show(directory).server

    assert kept is not None
    assert "gpu7.example.org" in kept.hosts
    assert changed is not None
    assert "gpu7.example.org" not in changed.hosts
    assert "new.example.org" in changed.hosts


def test_a_new_authority_leaves_no_key_of_the_old_and_signs_what_is_made_from_then_on(
    directory: Path, tmp_path: Path
) -> None:
    old_key, old = split_pem(KeyFiles(directory).authority_key.read_bytes())
    keys.rotate(directory, authority=True)
    keys.make_client(directory, "new", tmp_path / "n")

    new = KeyFiles(directory).authority.read_bytes()
    assert not any(old_key in data for data in contents(directory).values())
    assert was_issued_by((tmp_path / "n" / "client.pem").read_bytes(), new)
    assert not was_issued_by((tmp_path / "n" / "client.pem").read_bytes(), old)


def test_an_authority_is_not_rotated_twice_within_its_overlap_unless_that_is_ended(directory: Path) -> None:
    keys.rotate(directory, authority=True)

    with pytest.raises(KeysError, match="overlap-days 0"):
        keys.rotate(directory, authority=True)
    keys.rotate(directory, authority=True, overlap_days=0)

    assert keys.show(directory).previous_authority is None


def test_the_secret_of_a_running_daemon_is_not_changed_under_it(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    before = (daemon.directory / "secret").read_bytes()

    refused = run("keys", "rotate", "--secret", "--dir", str(daemon.directory))

    assert refused.returncode == 1
    assert "compiler-daemon stop" in refused.stderr
    assert (daemon.directory / "secret").read_bytes() == before


def test_after_a_new_secret_a_graph_is_compiled_once_again(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    first = start_daemon()
    first.handshake()
    first.compiled(key, b"ok")
    first.process.terminate()
    first.close()

    said = run("keys", "rotate", "--secret", "--dir", str(first.directory))
    again = start_daemon()
    again.handshake()

    assert "compiled once again" in said.stderr
    assert again.lookup(key) == []
    again.compiled(key, b"ok")
    assert len(again.lookup(key)) == 1


# show, and what nobody says


def test_show_tells_names_fingerprints_and_ends_and_no_secret(directory: Path, tmp_path: Path) -> None:
    keys.make_client(directory, "ada", tmp_path / "a")
    keys.make_client(directory, "tom", tmp_path / "t", kind="token", role="reader")
    keys.rotate(directory, token=True, authority=True)

    as_json = run("keys", "show", "--json", "--dir", str(directory))
    table = run("keys", "show", "--dir", str(directory))

    view = json.loads(as_json.stdout)
    assert view["server"]["sha256"] == read_certificate(split_pem(KeyFiles(directory).server.read_bytes())[1]).sha256
    assert [(c["name"], c["role"], c["state"]) for c in view["clients"]] == [
        ("ada", "trainer", "in force"),
        ("tom", "reader", "in force"),
    ]
    assert "ada" in table.stdout
    said = as_json.stdout + as_json.stderr + table.stdout + table.stderr
    assert not any(secret in said for secret in secrets_in(directory, tmp_path / "a", tmp_path / "t"))


def test_where_there_are_no_keys_that_is_said_with_what_makes_them(tmp_path: Path) -> None:
    shown = run("keys", "show", "--dir", str(tmp_path / "d"))
    revoked = run("keys", "revoke", "ada", "--dir", str(tmp_path / "d"))

    assert "keys init" in shown.stderr
    assert revoked.returncode == 1
    assert "--dir" in revoked.stderr
    assert not (tmp_path / "d").exists()


def test_no_verb_prints_a_secret(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    said = ""
    for arguments in (
        ("init",),
        ("client", "ada", "--out", str(tmp_path / "a"), "--json"),
        ("client", "tom", "--token", "--out", str(tmp_path / "t")),
        ("rotate", "--token", "--secret", "--ca"),
        ("revoke", "ada"),
        ("show", "--json"),
    ):
        ended = run("keys", *arguments, "--dir", str(directory))
        assert ended.returncode == 0, ended.stderr
        said += ended.stdout + ended.stderr

    assert not any(secret in said for secret in secrets_in(directory, tmp_path / "a", tmp_path / "t"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2}',
        '{"version": 1, "clients": [{"name": "x"}]}',
        '{"version": 1, "clients": [], "previous_ca_until": "soon"}',
        '{"version": 1, "clients": [{"name": "x", "role": "king", "kind": "token", "sha256": "' + "0" * 64 + '", '
        '"made": 0, "expires": 1e12, "revoked": 0}]}',
    ],
)
def test_a_register_of_another_form_is_no_register(directory: Path, text: str) -> None:
    (directory / "access.json").write_text(text)
    (directory / "access.json").chmod(0o600)

    with pytest.raises(KeysError, match="cannot be read"):
        Register.read(directory)
    assert run("keys", "show", "--dir", str(directory)).returncode == 1


# Comparisons


def test_a_token_is_compared_with_every_other_whichever_fits(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a", "b", "c")
    for name in names:
        keys.make_client(directory, name, tmp_path / name, kind="token")
    keyring = Keyring(directory, token="x")
    owner = (directory / "token").read_bytes()
    compared: list[Any] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)

    counts = set()
    for token, holder in [
        (owner, OWNER),
        (b"wrong", None),
        *(((tmp_path / name / "token").read_bytes(), Caller(name, "trainer")) for name in names),
    ]:
        compared.clear()
        assert keyring.by_token(token) == holder
        counts.add(len(compared))
        assert all(len(a) == len(b) == 64 for a, b in compared)

    assert counts == {1 + len(names)}


@pytest.mark.parametrize(
    "module",
    [compiler_daemon.access.register, compiler_daemon.rpc.auth, compiler_daemon.http.login, compile_wire.signature],
)
def test_no_secret_is_compared_with_an_operator_that_stops_at_the_first_difference(module: Any) -> None:
    words = {"token", "secret", "sha256", "signature", "given", "expected", "authorization", "mac"}
    source = Path(module.__file__).read_text()

    suspects = [
        ast.get_source_segment(source, node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
        and not any(ast.unparse(side).startswith("len(") for side in (node.left, *node.comparators))
        and words & {part.lower() for name in ast.walk(node) for part in _words(name)}
    ]

    assert suspects == []


def _words(node: ast.AST) -> list[str]:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.split("_")


def test_a_certificate_ends_with_its_authority_at_the_latest() -> None:
    authority = make_authority(5)

    issued = issue_server(authority, (), 100)

    assert read_certificate(issued.certificate).not_after == read_certificate(authority.certificate).not_after
