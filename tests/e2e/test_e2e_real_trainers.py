"""Trainers of other people's packages, unchanged: with the daemon, cold and warm, they end as they do without it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, TRAINERS, Daemon, Lab, Outcome

_RANKS = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")
_PAIRS = tuple(part.replace("node=2", "node=4") for part in _RANKS)
_ACCELERATE = (
    "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1", "--mixed_precision=no",
    "--dynamo_backend=inductor",
)  # fmt: skip
_LIMIT_S = 600.0
_PATH = os.pathsep.join(str(place) for place in (REPOSITORY, REPOSITORY / "proto", TRAINERS / "real"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trainer, and what it is started with."""

    script: str
    needs: tuple[str, ...] = ()
    """Packages that it imports."""
    launcher: tuple[str, ...] = ()
    in_folder: bool = False
    """Whether it is told a folder to change to."""
    environment: dict[str, str] = field(default_factory=dict)


ROWS = {
    "transformers Trainer, torch_compile, bf16, accumulation": Row(
        script="huggingface.py", needs=("transformers", "accelerate")
    ),
    "Lightning Trainer": Row(script="lit.py", needs=("lightning",)),
    "accelerate launch --dynamo_backend inductor": Row(
        script="accelerated.py", needs=("accelerate",), launcher=_ACCELERATE
    ),
    "diffusers loop, EMA": Row(script="denoising.py", needs=("diffusers",)),
    "denoising-diffusion-pytorch's Trainer, EMA, samples": Row(
        script="ddpm.py", needs=("denoising_diffusion_pytorch", "torchvision")
    ),
    "x-transformers' loop, accumulation": Row(script="autoregressive.py", needs=("x_transformers",)),
    "transformers' experts in float32": Row(script="experts.py", needs=("transformers",)),
    "torchvision's operators": Row(script="boxes.py", needs=("torchvision",)),
    "a DataLoader with workers": Row(script="loading.py"),
    "torchrun, FSDP2 over gloo": Row(script="sharded.py", launcher=_RANKS),
    "torchrun, tensor parallelism over gloo": Row(script="tensor_parallel.py", launcher=_RANKS),
    "torchrun, two dimensions, collectives, compiled optimizer": Row(script="two_dimensions.py", launcher=_PAIRS),
    "python -m of a package that changes its folder": Row(
        script="packaged", launcher=("-m", "packaged"), in_folder=True, environment={"PYTHONPATH": _PATH}
    ),
    "a notebook's kernel": Row(script="notebook.py", needs=("ipykernel", "jupyter_client")),
}


@pytest.mark.timeout(1800)  # three trainers, one after the other, each with packages that take seconds to import
@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_trainer_of_another_package_is_what_it_is_without_the_daemon_and_is_served_the_second_time(
    name: str, one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    row = ROWS[name]
    if missing := [package for package in row.needs if find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -e '.[trainers,pictures]'")

    alone = _run(row, one_lab, None, tmp_path / "alone")
    cold = _run(row, one_lab, daemon, tmp_path / "cold")
    warm = _run(row, one_lab, daemon, tmp_path / "warm")

    assert alone.code == cold.code == warm.code == 0
    assert cold.result == warm.result == alone.result
    first, second = _sums(cold), _sums(warm)
    assert first["compiled_by_daemon"] > 0, first
    assert second["graphs"] == first["graphs"]
    assert second["hits"] + second["hits_local"] == second["graphs"], second
    assert second["hits"] > 0
    assert (second["compiled_here"], second["fallbacks"]) == (0, 0), second
    assert second["cpp_builds"] == 0, second
    _write(name, first, second)


@pytest.mark.slow
def test_in_async_mode_ranks_that_speak_to_each_other_wait_for_what_is_compiled(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    row = ROWS["torchrun, tensor parallelism over gloo"]
    waiting = replace(row, environment={"TORCH_COMPILE_CLIENT_ASYNC": "1"})

    outcome = _run(waiting, one_lab, daemon, tmp_path / "waiting")

    counts = _sums(outcome)
    assert counts["graphs"] == 2
    assert counts["deferred"] == 0, "a rank that runs eagerly need not send what another one waits for"
    assert outcome.result == _run(row, one_lab, None, tmp_path / "alone").result


def _run(row: Row, lab: Lab, daemon: Daemon | None, folder: Path) -> Outcome:
    folder.mkdir()
    arguments = (str(folder),) if row.in_folder else ()
    trainer = lab.start(
        f"real/{row.script}",
        *arguments,
        daemon=daemon,
        bare=True,
        healthy=False,
        launcher=row.launcher,
        HF_HUB_OFFLINE="1",
        **row.environment,
    )
    outcome = trainer.wait(_LIMIT_S)
    assert outcome.code == 0, outcome.err
    return outcome


def _sums(outcome: Outcome) -> Counter[str]:
    """Return the counters of all of a trainer's processes, added up."""
    found: Counter[str] = Counter()
    for report in _reports(outcome.folder):
        found.update({key: value for key, value in report.items() if isinstance(value, int)})
        found["fallbacks"] += sum(report["fallbacks"].values())
    return found


def _reports(folder: Path) -> Iterator[dict[str, Any]]:
    for file in folder.glob("report.json*"):
        yield json.loads(file.read_text())


def _write(name: str, first: Counter[str], second: Counter[str]) -> None:
    """Say the row, for docs/limits.md."""
    print(
        f"| {name} | {first['graphs']} | {first['compiled_by_daemon']} | {second['hits'] + second['hits_local']} of "
        f"{second['graphs']} | equal |"
    )
