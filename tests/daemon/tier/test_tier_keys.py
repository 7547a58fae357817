"""`compiler-daemon keys signer init`, `trust`, `signers` and `distrust`, as an operator types them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compiler_daemon.access.register import KeyFiles
from compiler_daemon.admin.doctor.key_checks import check_keys
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys import signers as work
from compiler_daemon.errors import KeysError
from compiler_daemon.tier.signer_files import SignerFiles, Signers
from compiler_daemon.tier.signers import Listed, Signer, SigningKey
from tests.daemon.tier.tier_samples import CI, LAB
from tests.daemon.tls_daemon import run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "d"


def keys_verb(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("keys", *arguments, "--dir", str(directory))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# What is typed


def test_init_prints_the_public_line_alone_and_says_what_is_next(directory: Path) -> None:
    made = keys_verb(directory, "signer", "init", "lab-1")

    assert made.returncode == 0, made.stderr
    line = made.stdout.removesuffix("\n")
    own = SignerFiles(directory).read_own()
    assert own is not None
    assert Signer.parse(line) == own.signer
    assert f"`compiler-daemon keys trust {line}`" in made.stderr
    assert str(SignerFiles(directory).own) in made.stderr


def test_one_machines_line_is_trusted_and_distrusted_on_another(directory: Path, tmp_path: Path) -> None:
    line = keys_verb(directory, "signer", "init", "lab-1").stdout.strip()
    other = tmp_path / "other"

    trusted = keys_verb(other, "trust", line)
    after_trust = SignerFiles(other).read().standing(Signer.parse(line))
    distrusted = keys_verb(other, "distrust", "lab-1")
    after_distrust = SignerFiles(other).read().standing(Signer.parse(line))

    assert (trusted.returncode, distrusted.returncode) == (0, 0), trusted.stderr + distrusted.stderr
    assert (after_trust, after_distrust) == ("trusted", "distrusted")
    assert "it is code" in trusted.stderr
    assert "keys rotate --secret" in distrusted.stderr


def test_signers_lists_the_own_key_and_the_others_with_their_dates(directory: Path) -> None:
    own = keys_verb(directory, "signer", "init", "lab-1").stdout.strip()
    for key in (CI, SigningKey.make("old-3")):
        work.trust(directory, key.signer.line)
    work.distrust(directory, "old-3")

    shown = keys_verb(directory, "signers")
    told = json.loads(keys_verb(directory, "signers", "--json").stdout)

    assert [(one["name"], one["state"]) for one in told["signers"]] == [
        ("lab-1", "own"),
        ("ci-1", "trusted"),
        ("old-3", "distrusted"),
    ]
    assert all(abs(one["since"] - time.time()) < 600 for one in told["signers"])
    assert told["signers"][0]["line"] == own
    assert all(one["line"] in shown.stdout for one in told["signers"])
    assert time.strftime("%Y-%m-", time.gmtime()) in shown.stdout


def test_init_trust_and_distrust_answer_in_json(directory: Path) -> None:
    made = json.loads(keys_verb(directory, "signer", "init", "lab-1", "--json").stdout)
    trusted = json.loads(keys_verb(directory, "trust", CI.signer.line, "--json").stdout)

    assert made["name"] == "lab-1"
    assert made["line"].startswith("lab-1:")
    assert trusted["done"] == ["ci-1 is trusted from now on"]


def test_no_verb_prints_a_private_key(directory: Path) -> None:
    said = [
        keys_verb(directory, "signer", "init", "lab-1"),
        keys_verb(directory, "signers"),
        keys_verb(directory, "signers", "--json"),
        keys_verb(directory, "signer", "init", "lab-1"),
        keys_verb(directory, "trust", SignerFiles(directory).own.read_text().strip()),
    ]

    seed = SignerFiles(directory).read_own()
    assert seed is not None
    secret = base64.b64encode(seed.seed).decode()[:40]
    assert not [one for one in said if secret in one.stdout + one.stderr]
    assert "show it to nobody" in said[-1].stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("signer", "init", "lab"), "'lab' is no signer's name"),
        (("signer", "init", ""), "is no signer's name"),
        (("trust", "lab-1"), "is no public line of a signer"),
        (("trust", "lab:" + CI.signer.line[5:]), "'lab' is no signer's name"),
        (("trust", "lab-1:AAAA"), "what stands after lab-1: is no public key"),
        (("trust", "lab-1:%%%"), "what stands after lab-1: is not base64"),
        (("trust", "lab-1:" + "A" * 43 + "="), "what stands after lab-1: is no public key"),
        (("distrust", "nobody-1"), "nothing of it is believed"),
    ],
)
def test_a_slip_is_said_in_words_and_changes_nothing(directory: Path, arguments: tuple[str, ...], said: str) -> None:
    work.trust(directory, CI.signer.line)
    before = contents(directory)

    refused = keys_verb(directory, *arguments)

    assert refused.returncode == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert contents(directory) == before


# What is asked for twice, or contradicts what is there


def test_a_directory_has_one_key_unless_it_is_to_be_replaced(directory: Path) -> None:
    first = Signer.parse(work.init(directory, "lab-1").line)
    with pytest.raises(KeysError, match="signs as lab-1 already"):
        work.init(directory, "lab-2")
    with pytest.raises(KeysError, match="takes the next number"):
        work.init(directory, "lab-1", renew=True)

    second = Signer.parse(work.init(directory, "lab-2", renew=True).line)

    known = SignerFiles(directory).read()
    assert known.trusted == (second, first)
    assert known.own is not None
    assert known.own.signer == second


def test_a_key_of_ones_own_is_distrusted_after_it_was_replaced(directory: Path) -> None:
    first = Signer.parse(work.init(directory, "lab-1").line)
    with pytest.raises(KeysError, match="--replace"):
        work.distrust(directory, "lab-1")

    work.init(directory, "lab-2", renew=True)
    work.distrust(directory, "lab-1")

    assert SignerFiles(directory).read().standing(first) == "distrusted"
    with pytest.raises(KeysError, match="takes the next number"):
        work.init(directory, "lab-1", renew=True)


def test_saying_the_same_again_changes_nothing(directory: Path) -> None:
    own = work.init(directory, "lab-1").line
    work.trust(directory, CI.signer.line)
    before = contents(directory)

    assert "already" in work.trust(directory, CI.signer.line).done[0]
    assert "own key" in work.trust(directory, own).done[0]
    assert contents(directory) == before
    work.distrust(directory, "ci-1")
    assert "already" in work.distrust(directory, CI.signer.line).done[0]


def test_a_signer_is_trusted_again_after_it_was_distrusted(directory: Path) -> None:
    signers = Signers(directory)
    work.trust(directory, CI.signer.line)
    work.distrust(directory, "ci-1")
    before = signers.current().standing(CI.signer)

    again = work.trust(directory, CI.signer.line)

    assert again.done == ("ci-1 is trusted again",)
    assert (before, signers.current().standing(CI.signer)) == ("distrusted", "trusted")


def test_one_name_has_one_key_and_one_key_one_name(directory: Path) -> None:
    work.init(directory, "lab-1")
    work.trust(directory, CI.signer.line)
    own = SignerFiles(directory).read_own()
    assert own is not None

    for line, said in (
        (SigningKey.make("ci-1").signer.line, "known here with another key"),
        (LAB.signer.line, "known here with another key"),
        (Signer("ci-2", CI.signer.public).line, "known here as ci-1"),
        (Signer("lab-2", own.signer.public).line, "known here as lab-1"),
    ):
        with pytest.raises(KeysError, match=said):
            work.trust(directory, line)


def test_a_distrusted_key_comes_in_under_no_other_name(directory: Path) -> None:
    work.trust(directory, CI.signer.line)
    work.distrust(directory, "ci-1")

    with pytest.raises(KeysError, match="known here as ci-1"):
        work.trust(directory, Signer("ci-2", CI.signer.public).line)


def test_a_replacement_that_was_cut_short_can_be_made_again(directory: Path) -> None:
    first = Signer.parse(work.init(directory, "lab-1").line)
    SignerFiles(directory).write_listed((Listed(signer=first, since=1.0),))

    work.init(directory, "lab-2", renew=True)

    assert [signer.name for signer in SignerFiles(directory).read().trusted] == ["lab-2", "lab-1"]


# Beside keys for TLS, and what doctor says


def test_signers_and_keys_for_tls_are_made_in_either_order(tmp_path: Path) -> None:
    for name, first in (("a", "signers"), ("b", "tls")):
        directory = tmp_path / name
        if first == "signers":
            work.init(directory, "lab-1")
            keys.init(directory, ())
        else:
            keys.init(directory, ())
            work.init(directory, "lab-1")
        keys.rotate(directory, authority=True)

        assert KeyFiles(directory).material(0).key
        assert SignerFiles(directory).read().own is not None
        assert all(not path.stat().st_mode & 0o077 for path in (directory, *directory.rglob("*")))
        assert not [path for path in directory.iterdir() if path.is_dir() and path.name != "keys"]
        with pytest.raises(KeysError, match="there already"):
            keys.init(directory, ())


def test_signers_alone_are_no_keys_for_tls(directory: Path) -> None:
    work.init(directory, "lab-1")

    assert not KeyFiles(directory).exist()


def test_doctor_says_who_signs_and_who_is_believed(directory: Path) -> None:
    work.init(directory, "lab-1")
    work.trust(directory, CI.signer.line)
    well = list(check_keys(directory))
    SignerFiles(directory).trusted.write_text("nonsense")
    damaged = list(check_keys(directory))

    assert [(one.level, one.check, one.text) for one in well] == [
        ("ok", "signers", "signs as lab-1, believes lab-1, ci-1")
    ]
    assert [(one.level, one.check) for one in damaged] == [("problem", "signers")]
    assert "trust anew" in damaged[0].text


def test_folders_that_others_can_reach_take_no_key(directory: Path) -> None:
    work.init(directory, "lab-1")
    KeyFiles(directory).folder.chmod(0o755)
    before = contents(directory)

    refused = keys_verb(directory, "trust", CI.signer.line)

    assert refused.returncode == 1
    assert "chmod 700" in refused.stderr
    assert contents(directory) == before


def test_two_who_trust_at_once_are_both_heard(directory: Path) -> None:
    lines = [SigningKey.make(f"lab-{number}").signer.line for number in range(4)]
    work.trust(directory, CI.signer.line)

    running = [
        subprocess.Popen(
            [sys.executable, "-m", "compiler_daemon", "keys", "trust", line, "--dir", str(directory)],
            stdout=subprocess.DEVNULL,
        )
        for line in lines
    ]

    assert [one.wait(timeout=60) for one in running] == [0] * 4
    assert {signer.line for signer in SignerFiles(directory).read().trusted} == {CI.signer.line, *lines}
