"""Any field of a bench's configuration can be set from the command line, and what cannot be is refused in words."""

import json
import sys

import pytest
import torch

from benches.gradients import __main__ as gradients
from benches.harness import lab_cli as cli
from benches.harness.overrides import overridden
from benches.multires import __main__ as multires
from benches.multires.presets import preset
from diffusion.data import Checkerboards
from diffusion.digits import Digits
from diffusion.errors import ConfigError
from diffusion.metrics.panel import panel
from diffusion.optimizer import Policy
from diffusion.parametrization import Target


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("backbone.width=96", lambda c: c.backbone.width == 96),
        ("train.optimizer.muon_lr=0.01", lambda c: c.train.optimizer.muon_lr == 0.01),
        ("train.optimizer.muon_lr=none", lambda c: c.train.optimizer.muon_lr is None),
        ("train.optimizer.policy=wsd", lambda c: c.train.optimizer.policy is Policy.WSD),
        ("train.optimizer.betas=0.9, 0.95", lambda c: c.train.optimizer.betas == (0.9, 0.95)),
        ("backbone.places=false", lambda c: c.backbone.places is False),
        ("target=epsilon", lambda c: c.target is Target.EPSILON),
        ("seeds=3,4", lambda c: c.seeds == (3, 4)),
        ("buckets.visits=none", lambda c: c.buckets.visits is None),
        ("evaluation.drawing.steps=9", lambda c: c.evaluation.drawing.steps == 9),
        ("schedule.inner.start=12", lambda c: c.schedule.inner.start == 12.0),
    ],
)
def test_a_field_is_set_by_its_path_and_read_as_its_type_says(setting, read):
    config = overridden(preset("cpu"), [setting])

    assert read(config)
    assert not read(preset("cpu")) or "none" in setting


def test_several_are_set_in_turn():
    config = overridden(preset("cpu"), ["backbone.width=96", "backbone.heads=6"])

    assert (config.backbone.width, config.backbone.heads) == (96, 6)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("backbone.width", "PATH=VALUE"),
        ("backbone.girth=3", "has no 'girth'; it has width"),
        ("backbone.width=wide", "'wide' is no int"),
        ("train.optimizer.betas=1", "is no"),
        ("backbone.width.more=3", "has no parts"),
        ("backbone.width=0", "width must be positive"),
    ],
    ids=["no value", "no field", "no number", "too few", "too deep", "impossible"],
)
def test_what_cannot_be_set_is_refused_in_words(setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        overridden(preset("cpu"), [setting])


def test_the_command_line_sets_fields_and_chooses_the_source(monkeypatch, capsys):
    arguments = ("--source", "digits", "--set", "backbone.width=96", "--set", "source.tilt=5", "--dry-run")
    monkeypatch.setattr(sys, "argv", ["multires", *arguments])

    with pytest.raises(SystemExit):
        cli.run(multires.BENCH)

    config = json.loads(capsys.readouterr().out)
    assert config["backbone"]["width"] == 96
    assert config["source"] == {"kind": "Digits", "tilt": 5.0}


def test_an_unknown_source_is_refused():
    with pytest.raises(ConfigError, match="unknown source 'cats'; there are boards, digits"):
        gradients.configured(cli.LabOptions(preset="demo", source="cats"))


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    from diffusion import digits

    digits._ink.cache_clear()
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        Digits().draw(1, 8, seed=0, step=0)


def test_digits_are_the_same_for_one_seed_and_step_at_every_resolution():
    pytest.importorskip("sklearn", exc_type=ImportError)
    source = Digits()

    small, large = (source.draw(16, side, seed=1, step=2) for side in (16, 64))

    assert torch.equal(small, source.draw(16, 16, seed=1, step=2))
    assert not torch.equal(small, source.draw(16, 16, seed=1, step=3))
    assert float((torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean()) < 0.01
    assert small.abs().max() <= 1
    assert source.name != Digits(tilt=5).name


def test_a_panel_tells_digits_from_boards_and_true_digits_from_nothing():
    pytest.importorskip("sklearn", exc_type=ImportError)

    true = {s.metric: s.z for s in panel(Digits().draw(64, 16, seed=3, step=0), Digits(), nulls=8)}
    boards = {s.metric: s.z for s in panel(Checkerboards().draw(64, 16, seed=3, step=0), Digits(), nulls=8)}

    assert max(abs(z) for z in true.values()) < 6
    assert boards["w1_checkerboard_r2"] > 10
