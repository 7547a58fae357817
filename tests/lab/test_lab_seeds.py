"""What the benches' reports claim, and that no claim is made without an interval over seeds."""

from dataclasses import replace

import pytest

from benches.backbones import __main__ as backbones
from benches.backbones import report as backbones_report
from benches.backbones.presets import preset as backbones_preset
from benches.gradients import __main__ as gradients
from benches.gradients import report as gradients_report
from benches.gradients.presets import preset as gradients_preset
from benches.harness import lab_cli as cli
from benches.harness import paired
from benches.multires import __main__ as multires
from benches.multires.report import Log
from diffusion.errors import ConfigError

CONFIGURED = {
    "multires": multires.BENCH.configured,
    "gradients": gradients.BENCH.configured,
    "backbones": backbones.BENCH.configured,
}
# Seeds differ by far more than modes, so that only pairs can tell.
OF_SEED = {0: 0.10, 1: 0.30, 2: 0.20}


def test_a_mean_over_seeds_carries_half_of_its_interval():
    # t = 4.303 at two degrees of freedom; the standard deviation of 1, 2, 3 is 1.
    assert paired.mean_words([1.0, 2.0, 3.0]) == "2 ± 2.5"
    assert paired.mean_words([1.25]) == "1.25"
    assert paired.mean_words([]) == "-"


def test_only_seeds_that_both_have_are_compared():
    assert paired.differences({0: 1.0, 1: 5.0}, {1: 3.0, 2: 9.0}) == [2.0]


@pytest.mark.parametrize("bench", list(CONFIGURED))
def test_seeds_are_counted_up_from_the_command_lines_and_are_as_many_as_asked_for(bench):
    options = cli.LabOptions(preset="demo", seed=5, seeds=3)

    assert CONFIGURED[bench](options).seeds == (5, 6, 7)
    with pytest.raises(ConfigError, match="--seeds"):
        CONFIGURED[bench](replace(options, seeds=0))


@pytest.mark.parametrize("bench", list(CONFIGURED))
def test_the_run_behind_the_results_has_three_seeds(bench):
    assert len(CONFIGURED[bench](cli.LabOptions(preset="cpu-long")).seeds) == 3


def validation(mode, seed, loss):
    return {
        "kind": "validation", "mode": mode, "seed": seed, "step": 4, "resolution": 16, "t": 0.5, "logsnr": 0.0,
        "loss": loss, "mse_x0": loss, "optimal": 0.05, "excess": loss - 0.05,
    }  # fmt: skip


def test_multires_claims_what_the_paired_interval_allows():
    naive = [validation("naive", seed, loss) for seed, loss in OF_SEED.items()]
    worse = [validation("worse", seed, loss + 0.01 + 1e-4 * seed) for seed, loss in OF_SEED.items()]
    alike = [validation("alike", seed, loss + 0.01 * (-1) ** seed) for seed, loss in OF_SEED.items()]

    log = Log([*naive, *worse, *alike])

    said = log.found()
    assert "worse is worse than naive (+0.0101" in said
    assert "alike and naive cannot be told apart" in said
    assert log.excess_table()[1][0][1] == "0.2 ± 0.25"
    assert "an interval needs two seeds" in Log([naive[0], worse[0]]).found()


def test_a_variant_is_compared_to_the_base_seed_by_seed():
    config = backbones_preset("demo")

    def cells(variant, add):
        common = {"status": "ok", "steps": 3, "parameters": 5, "dense_flops": 2e6, "counted_flops": 2e6, "seconds": 1.0}
        flops = {"effective_flops": 1e6 if variant == "base" else 5e5}
        return [
            {"variant": variant, "seed": seed, "excess": excess + add(seed), **common, **flops}
            for seed, excess in OF_SEED.items()
        ]

    better, alike = config.variants[1].name, config.variants[2].name
    measured = cells("base", lambda _: 0.0) + cells(better, lambda s: -0.02 - 1e-4 * s)
    measured += cells(alike, lambda s: 0.01 - 0.02 * (s % 2))

    summary = backbones_report.summarise(config, measured)

    said = backbones_report.found(summary)
    assert f"{better} is better than base" in said
    assert f"{alike} and base cannot be told apart" in said
    # Half the operations of the base and a gain of 0.02: a doubling costs as much.
    assert paired.mean_words(summary[1]["benefits"]).startswith("-0.0201 ±")
    assert summary[1]["gain_low"] > 0 > summary[2]["gain_low"]


def test_exponents_of_gradients_are_compared_seed_by_seed():
    config = replace(gradients_preset("demo"), targets=gradients_preset("cpu").targets, seeds=(0, 1, 2))

    def rows(target, exponent):
        return [
            {
                "phase": "trained", "target": target, "mode": "naive", "seed": seed, "resolution": side,
                "mean_gradient_norm": side ** exponent(seed),
            }
            for seed in config.seeds
            for side in config.buckets.resolutions
        ]  # fmt: skip

    records = rows("x0", lambda s: OF_SEED[s]) + rows("v", lambda s: OF_SEED[s] + 0.5 + 0.01 * s)
    records += rows("epsilon", lambda s: OF_SEED[s] + 0.1 * (-1) ** s)

    said = gradients_report.exponents(config, gradients_report.scaling(config, records))

    assert "v, naive is steeper than x0, naive" in said
    assert "epsilon, naive and x0, naive cannot be told apart" in said
