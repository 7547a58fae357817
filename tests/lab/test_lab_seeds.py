"""What the benches' reports claim, and that no claim is made without an interval over seeds."""

from dataclasses import replace

import pytest

from benches.backbones import __main__ as backbones
from benches.gradients import __main__ as gradients
from benches.gradients import report as gradients_report
from benches.gradients.presets import preset as gradients_preset
from benches.harness import lab_cli as cli
from benches.harness import paired
from benches.multires import __main__ as multires
from benches.multires.run_log import Log
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


def looked_at(seed, r2, z):
    labels = {"mode": "naive", "seed": seed, "step": 4, "resolution": 16}
    scores = [{"kind": "score", "metric": name, "z": value, **labels} for name, value in z.items()]
    return [{"kind": "fit", "r2": r2, "true": 0.63, **labels}, *scores]


def test_multires_answers_for_each_resolution_with_an_interval_and_what_the_sampler_costs():
    records = [r for seed in range(3) for r in looked_at(seed, 0.5 + 0.01 * seed, {"a": 4.0 + seed, "b": -40.0})]
    perfect = [{"kind": "perfect", "resolution": 16, "metric": name, "z": z} for name, z in (("a", 1.0), ("b", 2.0))]

    (said,) = Log([*records, *perfect]).answer()

    assert said.startswith("At 16 px naive samples have a median checkerboard R2 of 0.51 ± 0.025, true draws 0.630;")
    assert "what tells them best is b (z -40), where a perfect denoiser has 1.41 and 2.0." in said


def test_thinned_losses_keep_all_seconds_and_end_where_the_model_was_looked_at():
    steps = [
        {
            "kind": "step", "mode": "naive", "seed": seed, "step": step, "loss": float(step), "mse": 1.0,
            "grad_norm": 1.0, "lr": 0.1, "seconds": 2.0, "cpu_seconds": 1.0,
        }
        for seed in range(2) for step in range(1000)
    ]  # fmt: skip
    looks = [{"kind": "fit", "mode": "naive", "seed": 0, "step": 503, "resolution": 16, "r2": 0.1, "true": 0.6}]

    windows = Log([*steps, *looks]).windows(count=100)

    assert len(windows) <= 2 * 102
    assert sum(w["cpu_seconds"] for w in windows) == 2000
    assert sum(w["cpu_seconds"] for w in windows if w["seed"] == 0 and w["step"] < 503) == 503
    assert windows[0]["loss"] == 4.5
