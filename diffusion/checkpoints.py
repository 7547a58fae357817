"""Checkpoints of a trainer on disk: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from diffusion.errors import RunFolderError
from diffusion.training import Trainer


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the trainer's state to `path`, replacing an older checkpoint only when the new one is complete."""
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        torch.save(trainer.state_dict(), draft)
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a missing folder as a RuntimeError
        raise RunFolderError(f"cannot write the checkpoint {path}") from error


def load_checkpoint(trainer: Trainer, path: Path) -> None:
    """Continue from `path`. Raises `RunFolderError` where there is none, `CheckpointMismatchError` for another run's.

    Only tensors and plain values are read (`weights_only`), so a foreign file cannot run code.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=trainer.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunFolderError(f"{path} is not a readable checkpoint") from error
    trainer.load_state_dict(state)
