"""The grid of backbones: what its cells may spend, at which rates, and what is said of them."""

import math
from dataclasses import replace

import pytest
import torch

from benches.backbones import __main__ as backbones
from benches.backbones.cells import (
    EQUAL_STEPS,
    IDENTITY,
    best_rates,
    grid_cells,
    step_flops,
    training_steps,
    tuning_cells,
    varied,
    words,
)
from benches.backbones.marginal import Grid, of_budget, worth_words, worths
from benches.backbones.presets import BackbonesConfig, Variant, preset
from benches.backbones.report import best_of, found_words
from benches.harness.run_folder import RunFolder, latest
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.equal_tokens import EqualTokens, EqualTokensConfig
from diffusion.errors import ConfigError
from diffusion.optimizer import OptimizerConfig, optimizers

WIDER = Variant(axis="width", name="wider", changes=(("width", 64), ("heads", 4), ("hidden", 128)))
DEEPER = Variant(axis="depth", name="deeper", changes=(("depth", 8),))
OTHER = Variant(axis="feed-forward", name="experts", changes=(("feedforward", "moe"),))


def small(**changes):
    demo = preset("demo")
    plain = {"seeds": (0, 1, 2), "budgets": (1e10, 4e10), "equal_steps": True}
    return replace(demo, variants=(demo.variants[0], DEEPER, WIDER, OTHER), **(plain | changes))


def record(config, cell, excess):
    size = {"step_flops": step_flops(config, varied(config.base, cell.variant))}
    labels = dict(zip(IDENTITY, cell.identity, strict=True))
    return {"kind": "cell", "status": "ok", "axis": cell.variant.axis, "excess": excess, **labels, **size}


def test_every_variant_spends_the_budget_and_in_the_control_takes_the_bases_steps():
    config = preset("cpu-long")

    for budget in config.budgets:
        for variant in config.variants:
            backbone = varied(config.base, variant)
            steps = training_steps(config, backbone, words(budget))
            assert budget - step_flops(config, backbone) < steps * step_flops(config, backbone) <= budget
    control = {training_steps(config, varied(config.base, v), EQUAL_STEPS) for v in config.variants}
    assert control == {training_steps(config, config.base, words(config.control_budget))}
    assert set(config.buckets.resolutions) == {16, 32, 64}
    assert len(config.budgets) >= 3


def test_a_step_costs_the_mean_of_a_rounds_visits():
    config = small()
    once = replace(config, buckets=replace(config.buckets, resolutions=(16, 32)))
    often = replace(once, buckets=replace(once.buckets, visits=(3, 1)))
    of = [step_flops(replace(config, buckets=replace(config.buckets, resolutions=(r,))), config.base) for r in (16, 32)]

    assert step_flops(once, config.base) == pytest.approx((of[0] + of[1]) / 2)
    assert step_flops(often, config.base) == pytest.approx((3 * of[0] + of[1]) / 4)


def test_every_width_keeps_the_rate_of_its_least_mean_excess_and_a_rate_that_failed_once_is_not_taken():
    config = small(rates=(1e-3, 2e-3, 4e-3))
    tuned = tuning_cells(config)
    best_of_width = {"base": 2e-3, "wider": 4e-3}

    def excess(cell):
        return 0.1 + abs(math.log(cell.rate / best_of_width[cell.variant.name])) + 0.01 * cell.seed

    records = [record(config, cell, excess(cell)) for cell in tuned]
    failed = [
        r | {"status": "failed"} if (r["variant"], r["rate"], r["seed"]) == ("wider", 4e-3, 1) else r for r in records
    ]

    assert {cell.variant.name for cell in tuned} == {"base", "wider"}
    assert {cell.spent for cell in tuned} == {words(1e10)}
    assert best_rates(config, records) == {32: 2e-3, 64: 4e-3}
    assert best_rates(config, failed) == {32: 2e-3, 64: 2e-3}
    grid = grid_cells(config, best_rates(config, records))
    assert {(c.variant.name, c.rate) for c in grid} == {
        ("base", 2e-3), ("deeper", 2e-3), ("experts", 2e-3), ("wider", 4e-3),
    }  # fmt: skip
    assert len(grid) == 4 * 3 * 3


def measured(config, excess):
    return [record(config, cell, excess(cell)) for cell in grid_cells(config, best_rates(config, []))]


def test_a_doubling_is_worth_what_the_excess_falls_by_seed_by_seed():
    config = small()
    # Seeds differ by far more than what is asked for.
    base = math.log2(step_flops(config, config.base))

    def excess(cell):
        doublings = math.log2(step_flops(config, varied(config.base, cell.variant))) - base
        worth = {"depth": 0.02, "width": -0.03}.get(cell.variant.axis, 0.0) * doublings
        of_budget = 0.0 if cell.spent == EQUAL_STEPS else 0.05 * math.log2(float(cell.spent) / 1e10)
        luck = 0.0 if cell.variant.axis == "base" else 1e-4 * cell.seed
        gain = 0.004 * (-1) ** cell.seed if cell.variant.axis == "feed-forward" else 0.0
        return 1 + 0.1 * cell.seed - worth - of_budget - gain + luck

    grid = Grid(config, measured(config, excess))
    found = {(w.axis, w.spent): w for w in worths(grid)}

    assert sum(found["depth", words(4e10)].drops) / 3 == pytest.approx(0.02, abs=2e-4)
    assert sum(found["width", EQUAL_STEPS].drops) / 3 == pytest.approx(-0.03, abs=2e-4)
    assert found["depth", words(1e10)].best == "deeper"
    assert found["width", words(1e10)].best == "base"
    assert not found["feed-forward", words(1e10)].per_doubling
    assert of_budget(grid) == pytest.approx([0.05] * 3)
    said = found_words(grid, list(found.values()))
    assert "depth a doubling of operations lowers the excess (it falls by +0.0199" in said
    assert "width a doubling of operations raises the excess (it falls by -0.0301" in said
    assert "feed-forward (all of it) cannot be told from nothing" in said
    assert "A doubling of the base's budget lowers the excess (it falls by +0.0500" in said
    assert best_of(grid, words(1e10)).startswith("deeper is better than base")


def test_one_seed_allows_no_claim():
    config = small(seeds=(0,))

    grid = Grid(config, measured(config, lambda cell: 0.1 if cell.variant.axis == "base" else 0.05))

    assert all("which needs two seeds" in worth_words(w.drops, w.axis) for w in worths(grid))


@pytest.mark.parametrize("of", ["hybrid", "equal tokens"])
def test_the_rates_of_matrices_that_read_more_inputs_fall_with_the_width_and_those_of_inputs_and_vectors_do_not(of):
    model = {
        "hybrid": lambda: HybridDiT(BackboneConfig(width=32, depth=2, heads=2, hidden=64, places=True)),
        "equal tokens": lambda: EqualTokens(EqualTokensConfig(width=32, depth=2, heads=2)),
    }[of]()
    config = OptimizerConfig(backbone_lr=8e-3, interface_lr=8e-3, width_scale=4.0)

    groups = optimizers(model, config, steps=10).param_groups

    names = {id(p): name for name, p in model.named_parameters()}
    peak = {names[id(p)]: g["max_lr"] for g in groups for p in g["params"]}
    assert set(peak) == set(names.values())
    reads_inputs = {"place.weight", "noise_level.0.weight"} | {n for n in peak if "embed" in n}
    assert all(peak[name] == 8e-3 for name in reads_inputs)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and "v_HRK" not in name and name not in reads_inputs and "scale" not in name:
            assert peak[name] == pytest.approx(2e-3), name
        elif parameter.dim() < 2:
            assert peak[name] == 8e-3, name


def test_a_failed_cell_is_recorded_and_the_grid_goes_on_and_resumes_where_it_stopped(tmp_path):
    base = preset("demo")
    impossible = Variant(axis="width", name="width 47", changes=(("width", 47),))
    config = BackbonesConfig(
        preset="test", base=replace(base.base, width=16, heads=1, hidden=16), buckets=base.buckets, train=base.train,
        seeds=(0,), max_steps=2, variants=(base.variants[0], impossible, base.variants[1]), budgets=(1e9, 2e9),
        rates=(1e-3, 2e-3), validation_tokens=64, validation_bins=2,
    )  # fmt: skip
    torch.set_num_threads(1)

    with RunFolder.create(tmp_path, "backbones", config) as folder:
        backbones.run_grid(config, folder)
        first = latest(folder.records(), "cell", *IDENTITY)
        backbones.run_grid(config, folder)
        assert folder.records() == first

    status = {(r["variant"], r["spent"]): r["status"] for r in first}
    assert {spent for _, spent in status} == {"1e+09", "2e+09", EQUAL_STEPS}
    assert {s for (name, _), s in status.items() if name != "width 47"} == {"ok"}
    assert {s for (name, _), s in status.items() if name == "width 47"} == {"failed"}
    broken = next(r for r in first if r["status"] == "failed")
    assert broken["error"].startswith("ConfigError: width 47")
    assert first[0]["dense_flops"] == first[0]["counted_flops"]


@pytest.mark.parametrize("wrong", [{"budgets": ()}, {"budgets": (2e9, 1e9)}, {"rates": ()}, {"rates": (1e-3, 1e-3)}])
def test_impossible_grids_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(preset("demo"), **wrong)
