"""A trainer may choose settings from a list only, each with its values; the list is torch's own, reviewed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from compile_client.graphs.settings import functorch_settings, inductor_settings
from compile_client.graphs.tables import CannotCarryError
from compile_torch import setting_rules
from compile_torch.setting_rules import Which, configuration, fits, may_be_chosen, rules
from compile_wire.errors import MalformedError
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from tests.worker import worker_samples  # noqa: F401 - imports of torch's that warn are done there

REPOSITORY = Path(__file__).parents[2]
BOTH: list[Which] = ["inductor", "functorch"]
PATCHES = {"inductor": inductor_patch, "functorch": functorch_patch}
STRANGE: list[Any] = [
    "stranger",
    "",
    "../x",
    7,
    -1,
    True,
    False,
    None,
    2.5,
    ["l", "stranger"],
    ["d", "a", "b"],
    ["t", 1],
]


def here(which: Which) -> dict[str, Any]:
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    config: Any = inductor if which == "inductor" else functorch
    return dict(config.save_config_portable(ignore_private_configs=False))


@pytest.mark.parametrize("which", BOTH)
def test_every_setting_that_is_not_on_the_list_is_as_it_is_here_or_refused(which: Which) -> None:
    for name, value in here(which).items():
        for strange in STRANGE:
            same = type(strange) is type(value) and strange == value
            if name in rules()[which] or same:
                continue
            with pytest.raises(MalformedError):
                PATCHES[which]({name: strange})


@pytest.mark.parametrize("which", BOTH)
def test_every_setting_on_the_list_takes_its_own_default_and_values_of_its_rule_alone(which: Which) -> None:
    for name, rule in rules()[which].items():
        for strange in ("stranger", "../x", "$(x)", ["l"], ["t"], float("inf"), 2**60, object()):
            assert not fits(rule, strange), (name, strange)
        if name in here(which):
            assert fits(rule, here(which)[name]), name


@pytest.mark.parametrize("which", BOTH)
def test_the_list_names_no_private_setting_and_none_that_calls_or_reads(which: Which) -> None:
    for name, rule in rules()[which].items():
        assert not name.rpartition(".")[2].startswith("_"), name
        assert not {"path", "dir", "cxx", "cmd", "hook"} & set(name.replace(".", "_").split("_")), name
        assert isinstance(rule, str) or set(rule) <= {"one of", "words", "keys"}


def test_the_list_is_what_the_program_makes_of_this_torch() -> None:
    made = subprocess.run(
        [sys.executable, "tools/settings_table.py", "--check"], cwd=REPOSITORY, capture_output=True, check=False
    )

    assert made.returncode == 0, "run `.venv/bin/python tools/settings_table.py`, and review what has changed"


FOUND: list[tuple[Which, str, Any]] = [
    ("inductor", "reorder_for_compute_comm_overlap_passes", ["l", "decide_global_ordering_of_comms"]),
    ("inductor", "estimate_op_runtime", "stranger"),
    ("inductor", "cpu_backend", "halide"),
    ("inductor", "cuda_backend", "pallas"),
    ("inductor", "cpp.march", "native"),
    ("inductor", "cuda.compile_opt_level", "-O3"),
    ("inductor", "runtime_estimations_mms_benchmark", True),
    ("inductor", "autotune_in_subproc", True),
    ("inductor", "aten_distributed_optimizations.enable_overlap_scheduling", True),
    ("inductor", "add_pre_grad_passes", "stranger"),
    ("inductor", "custom_should_partition_ops", ["l", "aten.add"]),
    ("inductor", "unsafe_marked_cacheable_functions", ["d", "os.system", "1"]),
    ("inductor", "unsafe_marked_cacheable_functions", ["d", "torch.amp.autocast_mode._enter_autocast", "x" * 100]),
    ("functorch", "activation_memory_budget_runtime_estimator", "profile"),
    ("functorch", "activation_memory_budget_solver", "ilp"),
    ("functorch", "fake_tensor_propagate_real_tensors", True),
]


@pytest.mark.parametrize(("which", "name", "value"), FOUND)
def test_a_setting_that_could_do_more_than_choose_code_is_refused(which: Which, name: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        PATCHES[which]({name: value})


ORDINARY: list[tuple[Which, dict[str, Any]]] = [
    ("inductor", {"max_autotune": True, "coordinate_descent_tuning": True}),
    ("inductor", {"triton.cudagraphs": True}),
    ("inductor", {"max_autotune_gemm_backends": "ATEN,CPP"}),
    ("inductor", {"epilogue_fusion": False, "shape_padding": False, "max_fusion_size": 8}),
    ("inductor", {"cpp.enable_floating_point_contract_flag": "fast", "cpp.simdlen": 256}),
    ("inductor", {"cpp.simdlen": 0, "freezing": True, "fallback_random": True, "deterministic": True}),
    ("inductor", {"emulate_precision_casts": True, "combo_kernels": True, "cpp_wrapper": True}),
    ("inductor", {"unsafe_marked_cacheable_functions": ["d", "torch.amp.autocast_mode._enter_autocast", "1"]}),
    ("functorch", {"activation_memory_budget": 0.5, "donated_buffer": False, "functionalize_rng_ops": True}),
    ("functorch", {"bundled_autograd_cache": True, "force_non_lazy_backward_lowering": True}),
    ("functorch", {"autograd_cache_allow_custom_autograd_functions": True, "backward_pass_autocast": "off"}),
]


@pytest.mark.parametrize(("which", "chosen"), ORDINARY)
def test_ordinary_settings_are_chosen(which: Which, chosen: dict[str, Any]) -> None:
    assert set(PATCHES[which](chosen)) == set(chosen)


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_what_a_mode_of_torchs_chooses_is_on_the_list(mode: str) -> None:
    for name, value in torch._inductor.list_mode_options(mode).items():
        assert may_be_chosen("inductor", name, value), (name, value)


def test_a_trainer_does_not_send_a_graph_under_settings_that_no_worker_takes() -> None:
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    with inductor.patch(cpu_backend="halide"), pytest.raises(CannotCarryError, match="cpu_backend"):
        inductor_settings()
    with functorch.patch(activation_memory_budget_runtime_estimator="profile"), pytest.raises(CannotCarryError):
        functorch_settings()
    with inductor.patch(max_autotune=True):
        assert inductor_settings()["max_autotune"] is True


@pytest.mark.parametrize("version", ["2.16.0", "3.0.1+cpu", "2.11.0"])
def test_a_torch_without_a_list_of_its_own_takes_what_still_holds_and_says_so(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reviewed = rules()
    major, minor = str(torch.__version__).split(".")[:2]
    monkeypatch.setattr(setting_rules, "_versions", lambda: [(int(major), int(minor))])
    changed = dict(configuration("inductor"))
    del changed["max_autotune"]
    changed["shape_padding"] = changed["max_autotune_gemm_backends"]
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(
        setting_rules, "configuration", lambda which: changed if which == "inductor" else configuration(which)
    )
    setting_rules.rules.cache_clear()
    try:
        with caplog.at_level("WARNING"):
            derived = setting_rules.rules()
        assert "no reviewed list" in caplog.text
        assert set(reviewed["inductor"]) - set(derived["inductor"]) == {"max_autotune", "shape_padding"}
        assert derived["functorch"] == reviewed["functorch"]
    finally:
        setting_rules.rules.cache_clear()
