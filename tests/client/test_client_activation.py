"""What `import torch` does with the switch, where the client stays off."""

from __future__ import annotations

import logging
import sys

import pytest

import compile_client
from compiler_daemon.__main__ import main


@pytest.mark.parametrize("text", ["", "0", "off", "no", "False"])
def test_a_switch_that_is_off_says_nothing(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_COMPILE_CLIENT", text)

    compile_client._activate()

    assert caplog.records == []


def test_a_word_that_means_nothing_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TORCH_COMPILE_CLIENT", "perhaps")

    with caplog.at_level(logging.WARNING, "compile_client"):
        compile_client._activate()

    assert "TORCH_COMPILE_CLIENT=perhaps means nothing" in caplog.text


def test_on_another_system_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_COMPILE_CLIENT", "1")
    monkeypatch.setattr(sys, "platform", "darwin")

    with caplog.at_level(logging.WARNING, "compile_client"):
        compile_client._activate()
    with pytest.raises(SystemExit) as ended:
        main()

    assert "it runs on Linux only" in caplog.text
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
