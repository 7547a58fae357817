from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from compile_client.config import ClientConfig


def test_an_empty_environment_is_the_defaults_and_complains_of_nothing() -> None:
    config = ClientConfig.from_environment({"HOME": "/home/me"})

    assert config.directory == Path("/home/me/.cache/compiler-daemon")
    assert config.graph_timeout_s == 600
    assert config.log_level is None
    assert config.complaints == ()


def test_every_variable_is_read() -> None:
    config = ClientConfig.from_environment(
        {
            "TORCH_COMPILE_CLIENT": "1",
            "COMPILER_DAEMON_DIR": "/run/daemon",
            "COMPILER_DAEMON_ADDRESS": "127.0.0.1:5000",
            "TORCH_COMPILE_CLIENT_TIMEOUT": "2.5",
            "TORCH_COMPILE_CLIENT_READONLY": "1",
            "TORCH_COMPILE_CLIENT_REPORT": "/tmp/report.json",
            "TORCH_COMPILE_CLIENT_WITHOUT": "digests,collector",
            "TORCH_COMPILE_CLIENT_LOG": "Debug",
        }
    )

    assert config == ClientConfig(
        directory=Path("/run/daemon"),
        address="127.0.0.1:5000",
        graph_timeout_s=2.5,
        read_only=True,
        report=Path("/tmp/report.json"),
        without=frozenset({"digests", "collector"}),
        log_level=logging.DEBUG,
    )


def test_the_cache_directory_of_the_user_is_honoured_where_it_is_absolute() -> None:
    assert ClientConfig.from_environment({"XDG_CACHE_HOME": "/c"}).directory == Path("/c/compiler-daemon")
    assert ClientConfig.from_environment({"XDG_CACHE_HOME": "c", "HOME": "/h"}).directory == Path(
        "/h/.cache/compiler-daemon"
    )


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "1e999"])
def test_a_timeout_that_is_none_leaves_the_default_and_a_complaint(text: str) -> None:
    config = ClientConfig.from_environment({"HOME": "/h", "TORCH_COMPILE_CLIENT_TIMEOUT": text})

    assert config.graph_timeout_s == 600
    (complaint,) = config.complaints
    assert "TORCH_COMPILE_CLIENT_TIMEOUT" in complaint


def test_a_malformed_switch_or_level_is_the_default_and_a_complaint() -> None:
    config = ClientConfig.from_environment(
        {"HOME": "/h", "TORCH_COMPILE_CLIENT": "perhaps", "TORCH_COMPILE_CLIENT_LOG": "loud"}
    )

    assert config.log_level == logging.INFO
    assert len(config.complaints) == 2


@pytest.mark.parametrize("text", ["1", "true", "Yes", " ON "])
def test_a_switch_is_on_in_whichever_of_the_usual_words(text: str) -> None:
    config = ClientConfig.from_environment(
        {"HOME": "/h", "TORCH_COMPILE_CLIENT": text, "TORCH_COMPILE_CLIENT_READONLY": text}
    )

    assert (config.read_only, config.starts_daemon, config.complaints) == (True, False, ())


def test_auto_starts_a_daemon_and_is_no_word_for_another_switch() -> None:
    config = ClientConfig.from_environment(
        {"HOME": "/h", "TORCH_COMPILE_CLIENT": "auto", "TORCH_COMPILE_CLIENT_READONLY": "auto"}
    )

    assert (config.starts_daemon, config.read_only, len(config.complaints)) == (True, False, 1)


def test_a_part_that_is_none_is_a_complaint_and_the_others_are_left_out() -> None:
    config = ClientConfig.from_environment({"HOME": "/h", "TORCH_COMPILE_CLIENT_WITHOUT": "digests,tracing"})

    assert config.without == {"digests"}
    (complaint,) = config.complaints
    assert "tracing" in complaint


def test_compile_only_mode_waits_for_compiles_however_long_they_run() -> None:
    config = ClientConfig.from_environment({"HOME": "/h", "TORCH_COMPILE_CLIENT_WARM": "1"})

    assert config.warm
    assert config.hedge_s == math.inf
