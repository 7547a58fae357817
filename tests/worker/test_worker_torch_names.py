from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compile_torch import driver
from compile_torch.driver import UNKNOWN, driver_version
from tools.torch_names import is_there, missing_names, names_in, used_names

_NVIDIA = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:55:26 UTC 2025\nGCC version: gcc 12.2.0\n"
)
_OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57  Release Build\n"


def test_this_torch_has_every_private_name_that_is_used_of_it() -> None:
    assert len(used_names()) > 30

    assert missing_names() == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import torch\ntorch._C._gone()", "torch._C._gone"),
        ("import torch\nc = torch._C\nprint(c._functorch._gone)", "torch._C._functorch._gone"),
        ("import torch\nc = torch._C\nasked(c._functorch, '_gone')", "torch._C._functorch._gone"),
        ("import torch\ngetattr(torch._C, '_gone')", "torch._C._gone"),
        ("from torch import _C\n_C._gone()", "torch._C._gone"),
        ("from torch._C import _gone", "torch._C._gone"),
    ],
)
def test_a_private_name_is_found_however_it_is_written(text: str, name: str) -> None:
    assert name in names_in(text)
    assert not is_there(name)


def test_names_that_are_there_are_there() -> None:
    assert is_there("torch._C._functorch.maybe_current_level")
    assert is_there("torch._C._set_grad_enabled")


@pytest.mark.parametrize(("text", "version"), [(_NVIDIA, "580.65.06"), (_OPEN, "575.57"), ("6.10.5\n", "6.10.5")])
def test_the_drivers_version_is_read_where_the_driver_says_it(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "version").write_text(text)

    assert driver_version([tmp_path / "none", tmp_path / "version"]) == version


def test_a_gpu_whose_driver_says_nothing_is_told_from_no_gpu_and_from_another_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "_LIBRARY", "libnosuch-driver.so.1")

    here = driver_version([])
    monkeypatch.setattr("platform.node", lambda: "another-machine")

    assert here.startswith(UNKNOWN)
    assert driver_version([]) == f"{UNKNOWN}another-machine" != here


def test_the_environment_of_a_process_with_a_gpu_has_the_driver_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from compile_torch import environment

    class Properties:
        name, major, minor, multi_processor_count = "NVIDIA H100", 9, 0, 132

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(environment, "driver_version", lambda: "580.65.06")

    fields = environment.process_environment.__wrapped__()

    assert (fields["toolkit"], fields["driver"]) == ("cuda 13.0", "580.65.06")
    assert fields["gpu"] == "NVIDIA H100 9.0 132"
