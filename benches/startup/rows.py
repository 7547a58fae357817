"""The rows of the bench, what each one needs, and what their ratios should come to."""

from __future__ import annotations

from benches.harness.measure import Ratio

ROWS = (
    "eager",
    "traced",
    "torch_cold",
    "torch_local_warm",
    "torch_portable_empty",
    "torch_redis_empty",
    "torch_precompile_local",
    "torch_precompile_portable",
    "daemon_cold",
    "daemon_warm_empty",
    "daemon_warm_local",
    "daemon_skip_empty",
    "eager_x8",
    "daemon_skip_x8",
)
WITHOUT = "daemon_without_"
PARTS = ("collector", "digests", "traces", "imports")
"""What `--without` may name."""

NEEDS = {
    "torch_local_warm": "torch_cold",
    "torch_portable_empty": "torch_cold",
    "torch_redis_empty": "torch_redis_filled",
    "torch_precompile_local": "torch_precompile_cold",
    "torch_precompile_portable": "torch_precompile_cold",
    "daemon_warm_empty": "daemon_cold",
    "daemon_warm_local": "daemon_cold",
    "daemon_skip_empty": "daemon_recorded",
    "daemon_skip_x8": "daemon_recorded",
    "daemon_recorded": "daemon_cold",
}
"""Starts that live on what another one has left behind; that one comes first, once."""

MAY_FAIL = ("torch_precompile_local", "torch_precompile_portable")
"""torch 2.13 cannot run each model with its precompile: the row then says how it ended."""
UNCOMPILED = ("eager", "traced", "eager_x8")
"""Rows whose kernels are eager's, and round otherwise."""

RATIOS = (
    Ratio("daemon_warm_empty", "torch_portable_empty", 0.25),
    Ratio("daemon_warm_empty", "torch_local_warm", 0.65),
    Ratio("daemon_cold", "torch_cold", 0.85),
    Ratio("daemon_warm_empty", "torch_redis_empty"),
    Ratio("daemon_warm_empty", "torch_cold"),
    Ratio("daemon_warm_empty", "eager"),
    Ratio("daemon_warm_empty", "traced"),
    Ratio("traced", "torch_local_warm"),
    Ratio("daemon_warm_local", "torch_local_warm"),
    Ratio("daemon_skip_empty", "torch_local_warm", 0.55),
    Ratio("daemon_skip_empty", "torch_portable_empty", 0.09),
    Ratio("daemon_skip_empty", "torch_precompile_local"),
    Ratio("daemon_skip_empty", "torch_precompile_portable"),
    Ratio("daemon_skip_empty", "daemon_warm_empty"),
    Ratio("daemon_skip_empty", "traced"),
    Ratio("torch_precompile_local", "eager"),
    Ratio("torch_local_warm", "eager"),
    Ratio("daemon_skip_x8", "eager_x8", 1.6),
)
OF_EAGER = {"multires": 1.5, "multires@8": 1.6, "dit@24": 1.6}
"""What a start without a trace should come to, in starts of the same model without a compiler."""
FRAMES = "daemon_skip_empty:frames_traced"
"""0 is the goal, for each model."""


def ratios_of(model: str, without: list[str]) -> list[Ratio]:
    """Return the ratios of one model's rows with their goals."""
    found = [*RATIOS, Ratio("daemon_skip_empty", "eager", OF_EAGER.get(model))]
    found += [Ratio("daemon_skip_empty", WITHOUT + part, None, "cpu_s") for part in without]
    return [*found, *(Ratio("daemon_skip_empty", WITHOUT + part) for part in without)]


def needed(name: str) -> str:
    """Return the start that a row lives on; empty where it needs none."""
    return NEEDS.get(name, "daemon_recorded" if name.startswith(WITHOUT) else "")
