"""A tier's address is read in one way, refused with a reason, and printed without its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler_daemon.errors import DirectoryError, UsageError
from compiler_daemon.tier.address import (
    PASSWORD_FILE_VARIABLE,
    PASSWORD_VARIABLE,
    TIER_VARIABLE,
    TierAddress,
    beat_name,
    compile_sha,
    facts_name,
    lease_name,
    object_name,
    objects_prefix,
    read_tier,
    refused_name,
    tier_of,
)

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("file:///shared/tier", TierAddress(scheme="file", place="/shared/tier")),
        ("file:///shared/tier/", TierAddress(scheme="file", place="/shared/tier")),
        ("file:///shared/our%20tier", TierAddress(scheme="file", place="/shared/our tier")),
        ("file:///shared/a%23b%3Fc", TierAddress(scheme="file", place="/shared/a#b?c")),
        ("s3://bucket", TierAddress(scheme="s3", place="bucket")),
        ("s3://bucket/a/b/", TierAddress(scheme="s3", place="bucket", prefix="a/b")),
        ("gs://bucket/a", TierAddress(scheme="gs", place="bucket", prefix="a")),
        ("az://container/a", TierAddress(scheme="az", place="container", prefix="a")),
        ("redis://cache", TierAddress(scheme="redis", place="cache:6379")),
        ("rediss://user@cache:7000/3", TierAddress(scheme="rediss", place="cache:7000", database=3, user="user")),
        ("redis://[::1]:7000", TierAddress(scheme="redis", place="[::1]:7000")),
        ("unix:///run/redis.sock?db=2", TierAddress(scheme="unix", place="/run/redis.sock", database=2)),
    ],
)
def test_address_is_read_and_written_back(text: str, address: TierAddress) -> None:
    assert read_tier(text) == address
    assert read_tier(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/shared/tier",
        "file://shared/tier",
        "file:///",
        "file:relative",
        "http://bucket",
        "s3://",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket?endpoint=http://x",
        "s3://key@bucket",
        "redis://",
        "redis://host:port",
        "redis://host/name",
        "redis://host?db=1",
        "unix://host/run/redis.sock",
        "unix:///run/redis.sock?password=x",
        "memory:///",
    ],
)
def test_what_is_no_tier_is_refused_with_the_form_it_should_have(text: str) -> None:
    with pytest.raises(UsageError, match=r"write |variables"):
        read_tier(text)


@pytest.mark.parametrize(
    "text",
    ["redis://:p@ss-word@host", "redis://u:p@ss-word@host/1", "unix://u:p@ss-word@/run/r", "s3://k:p@ss-word@bucket"],
)
def test_password_on_the_command_line_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as error:
        tier_of(text, {})

    assert PASSWORD_VARIABLE in str(error.value)
    assert "ss-word" not in str(error.value)


def test_password_in_the_environment_is_used_and_never_printed() -> None:
    address = tier_of("", {TIER_VARIABLE: "redis://u:hush%40hush@host"})

    assert address is not None
    assert address.password == "hush@hush"
    assert "hush" not in f"{address} {address!r}"
    assert str(address) == "redis://u:***@host:6379/0"


def test_password_is_taken_from_a_variable_or_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("from-file\n")

    by_variable = tier_of("redis://host", {PASSWORD_VARIABLE: "from-variable"})
    by_file = tier_of("redis://host", {PASSWORD_FILE_VARIABLE: str(file), PASSWORD_VARIABLE: "from-variable"})

    assert by_variable is not None
    assert by_file is not None
    assert (by_variable.password, by_file.password) == ("from-variable", "from-file")


def test_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("open")
    file.chmod(0o644)

    with pytest.raises(DirectoryError, match="chmod 600"):
        tier_of("redis://host", {PASSWORD_FILE_VARIABLE: str(file)})


def test_command_line_goes_before_the_environment_and_neither_is_no_tier() -> None:
    assert tier_of("s3://one", {TIER_VARIABLE: "s3://two"}) == read_tier("s3://one")
    assert tier_of("", {TIER_VARIABLE: "s3://two"}) == read_tier("s3://two")
    assert tier_of("", {}) is None


@pytest.mark.parametrize(
    "text",
    [
        "redis://u:hush@host:port",
        "redis:u:hush@host",
        "u:hush@host",
        "redis://host?password=hush",
        "unix:///run/redis.sock?password=hush",
        "redis://u:hu/hush@host",
        "http://u:hush@host/path",
    ],
)
def test_broken_address_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(UsageError) as error:
        tier_of("", {TIER_VARIABLE: text})

    assert "hush" not in str(error.value)


def test_names_have_the_layout_of_the_tier() -> None:
    assert object_name("lab", "e" * 64, "key", 7) == (
        f"v1/lab/{'e' * 64}/2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683/7"
    )
    assert objects_prefix("lab") == "v1/lab/"
    assert objects_prefix("lab", "env") == "v1/lab/env/"
    assert facts_name("env") == "facts/env"
    assert lease_name(SHA, 3) == f"lease/{SHA}/3"
    assert lease_name(SHA) == f"lease/{SHA}"
    assert beat_name(SHA, 3) == f"beat/{SHA}/3"
    assert refused_name(SHA) == f"refused/{SHA}"


def test_same_key_in_another_environment_or_namespace_is_another_compile() -> None:
    shas = {compile_sha(*each) for each in [("a", "e", "k"), ("a", "f", "k"), ("b", "e", "k"), ("a", "e", "l")]}

    assert len(shas) == 4


def test_names_take_no_parts_that_lead_elsewhere() -> None:
    for part in ("..", "a/b", "", ".hidden", "a b"):
        with pytest.raises(ValueError, match="cannot be a part"):
            object_name(part, "env", "key", 0)
        with pytest.raises(ValueError, match="cannot be a part"):
            facts_name(part)
    with pytest.raises(ValueError, match="slots"):
        object_name("lab", "env", "key", 8)
    with pytest.raises(ValueError, match="SHA"):
        lease_name("short", 0)
