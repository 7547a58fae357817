"""How `benches.multires` looks at a model during training: validation, samples and the panel of metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benches.harness.run_folder import RunFolder, latest
from benches.harness.validated import validated
from benches.multires.perfect import perfect_scores
from benches.multires.presets import MultiresConfig
from diffusion.images import save_grid
from diffusion.metrics.nulls import true_images
from diffusion.metrics.panel import Score, panel, panel_png
from diffusion.metrics.parallelism import checkerboard_fit
from diffusion.parametrization import Mode
from diffusion.sampling import sample_images
from diffusion.training import Trainer

Record = dict[str, Any]


def log_perfect(config: MultiresConfig, folder: RunFolder) -> None:
    """Append the panel of a perfect denoiser to the log, where it is not there yet."""
    evaluation = config.evaluation
    if evaluation is None:
        return
    done = {r["resolution"] for r in latest(folder.records(), "perfect", "resolution", "metric")}
    for resolution in config.buckets.resolutions:
        if resolution > min(evaluation.max_resolution, evaluation.perfect_up_to) or resolution in done:
            continue
        scores = perfect_scores(
            config.source,
            config.schedule,
            resolution=resolution,
            images=evaluation.images,
            drawing=evaluation.drawing,
            seed=config.train.seed,
            nulls=evaluation.nulls,
            cache=folder.path.parent / "nulls",
        )
        for score in scores or ():
            folder.log({"kind": "perfect", **score._asdict()})


def evaluate(config: MultiresConfig, mode: Mode, trainer: Trainer, folder: RunFolder) -> None:
    """Measure the averaged weights and append everything to the log; draw samples and panel of the first seed."""
    evaluation = config.evaluation
    if evaluation is None:
        return
    step, seed = trainer.step, trainer.config.seed
    labels = {"mode": mode.value, "seed": seed, "step": step}
    points = validated(trainer, bins=evaluation.validation_bins, tokens=evaluation.validation_tokens)
    for point in points:
        folder.log({"kind": "validation", **labels, **point._asdict()})
    pictures: dict[int, torch.Tensor] = {}
    panels: dict[str, list[Score]] = {}
    for resolution in config.buckets.resolutions:
        measured = resolution <= evaluation.max_resolution
        samples = sample_images(
            trainer.averaged,
            trainer.objective.parametrization,
            trainer.schedule,
            count=evaluation.images if measured else max(evaluation.drawn, evaluation.fitted),
            resolution=resolution,
            drawing=evaluation.drawing,
            seed=seed,
        )
        pictures[resolution] = samples[: evaluation.drawn]
        true = true_images(config.source, resolution, len(samples), 0)
        r2, of_true = (float(np.median(checkerboard_fit(images))) for images in (samples.numpy(), true))
        folder.log({"kind": "fit", **labels, "resolution": resolution, "r2": r2, "true": of_true})
        if measured:
            # The cache of nulls lies beside the numbered runs and serves all of them.
            scores = panel(samples, config.source, nulls=evaluation.nulls, cache=folder.path.parent / "nulls")
            panels[f"{resolution} px"] = scores
            for score in scores:
                folder.log({"kind": "score", **labels, **score._asdict()})
    if seed != config.seeds[0]:
        return
    save_grid(folder.path / f"samples-{mode.value}-{step:05d}.png", pictures)
    if panels:
        panel_png(folder.path / f"panel-{mode.value}.png", panels)
