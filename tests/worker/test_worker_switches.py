"""Everything that torch reads while it compiles, but leaves out of its key, is known and changes the daemon's key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from compile_torch.key.compile_reads import (
    DYNAMO_SETTINGS,
    SHAPE_SETTINGS_WITHOUT_EFFECT,
    VARIABLES,
    VARIABLES_WITHOUT_EFFECT,
)
from compile_torch.key.key_parts import LEFT_OUT, PARTS, full_key, gathered_parts
from compile_torch.key.state import apply_state, read_state
from compile_torch.key.switches import AT_START, WITHOUT_EFFECT, switches, unknown_switches
from compile_torch.versions import torch_version
from tools.compile_reads import found_settings, found_variables, unsorted_reads

FLIPPED: dict[str, tuple[Callable[[Any], object], Any, Any]] = {
    "autocast's dtype where it is off": (lambda v: torch.set_autocast_dtype("cpu", v), torch.float16, torch.bfloat16),
    "denormals": (torch.set_flush_denormal, True, False),
    "anomaly mode": (torch.set_anomaly_enabled, True, False),
    "mkldnn": (torch._C._set_mkldnn_enabled, False, True),
    "mkldnn's determinism": (torch._C._set_mkldnn_deterministic, True, False),
    "flash attention": (torch._C._set_sdp_use_flash, False, True),
    "cudnn's tf32": (torch._C._set_cudnn_allow_tf32, False, True),
    "uninitialized memory": (torch._C._set_deterministic_fill_uninitialized_memory, False, True),
    "nnpack": (torch._C._set_nnpack_enabled, False, True),
    "forward gradients": (torch._C._set_fwd_grad_enabled, False, True),
    "view replay": (torch._C._set_view_replay_enabled, True, False),
}


def key() -> str:
    version = torch_version()
    assert version is not None
    return full_key("torch's", gathered_parts(version, [torch.ones(2)]))


@pytest.mark.parametrize("name", FLIPPED)
def test_a_switch_that_is_set_differently_is_another_key(name: str) -> None:
    set_to, value, back = FLIPPED[name]
    before = key()
    set_to(value)
    try:
        flipped = key()
    finally:
        set_to(back)

    assert flipped != before
    assert key() == before


def test_as_torch_starts_up_the_key_is_torchs_own() -> None:
    assert key() == "torch's"


def test_what_scikit_learn_leaves_in_the_environment_is_in_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")

    assert key() == "torch's"


def test_keys_that_differ_only_in_what_torch_leaves_out_differ_from_their_first_characters_on() -> None:
    torchs = "a" + "b" * 51
    keys = {full_key(torchs, {"user_code": code}) for code in ("", "one", "two")}

    assert len({key[:12] for key in keys}) == len(keys)
    assert {len(key) for key in keys} == {len(torchs)}


def test_every_switch_of_this_torch_has_been_looked_at() -> None:
    assert unknown_switches() == []
    assert not set(AT_START) & set(WITHOUT_EFFECT)
    assert len(switches()) >= 30


def test_every_variable_and_setting_that_this_torchs_compiler_reads_has_been_looked_at() -> None:
    assert unsorted_reads() == []
    assert len(found_variables()) > 50
    assert "capture_scalar_outputs" in found_settings()
    assert not set(VARIABLES_WITHOUT_EFFECT) & VARIABLES


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_variable_that_decides_what_is_made_is_in_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = key()
    monkeypatch.setenv(name, "1")

    assert key() != before


def test_settings_that_are_read_after_dynamo_are_in_the_key() -> None:
    import torch._dynamo.config as dynamo
    import torch.fx.experimental._config as shapes

    before = key()
    for config, names in ((dynamo, DYNAMO_SETTINGS), (shapes, set(shapes._config) - SHAPE_SETTINGS_WITHOUT_EFFECT)):
        flags = [name for name in sorted(names & set(config._config)) if isinstance(getattr(config, name), bool)]
        assert flags
        for name in flags:
            with config.patch(**{name: not getattr(config, name)}):
                assert key() != before, name


def test_what_autocast_would_take_travels_to_the_worker() -> None:
    plain = read_state()
    torch.set_autocast_dtype("cpu", torch.float16)
    chosen = read_state()
    torch.set_autocast_dtype("cpu", torch.bfloat16)
    try:
        apply_state(chosen)
        assert torch.get_autocast_dtype("cpu") is torch.float16
        assert not torch.is_autocast_enabled("cpu")
    finally:
        apply_state(plain)
    assert torch.get_autocast_dtype("cpu") is torch.bfloat16


def test_a_part_that_is_left_out_is_in_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPATH", "/elsewhere")
    whole = key()
    LEFT_OUT.add("variables")
    try:
        assert whole != key() == "torch's"
    finally:
        LEFT_OUT.clear()
    assert "variables" in PARTS


@pytest.mark.parametrize(("options", "rows"), [([], "[]"), (["-O"], "[['l', 'python -O', 1]]")])
def test_a_process_without_assertions_has_another_key(options: list[str], rows: str) -> None:
    code = "from compile_torch.key.compile_reads import variables_set; print(variables_set())"

    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, env={})

    assert done.stdout.strip() == rows
