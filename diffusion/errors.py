"""What can go wrong in the lab; every message is one sentence a person can act on.

DiffusionError
  ConfigError               a value from which no run can be made; also a ValueError
    ResolutionError         a side that is not positive or not divisible by the stride
    PresetError             a preset nobody defined
  RunError                  the surroundings of a run do not allow it
    RunFolderError          a folder that cannot be written, or would be overwritten
    CheckpointMismatchError resuming from a run that had another configuration
  LossDivergedError         the loss is no longer a finite number; training stopped
"""

from __future__ import annotations


class DiffusionError(Exception):
    """Anything the lab refuses to do, with its reason."""


class ConfigError(DiffusionError, ValueError):
    """A configuration value from which no run can be made."""


class ResolutionError(ConfigError):
    """A resolution that the patch embedding cannot cut into tokens."""

    def __init__(self, resolution: int, stride: int) -> None:
        super().__init__(
            f"resolution {resolution} is not a positive multiple of {stride} px that is at least {2 * stride}"
        )
        self.resolution = resolution
        self.stride = stride


class PresetError(ConfigError):
    """A preset nobody defined."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown preset {name!r}; there are {', '.join(known)}")
        self.name = name


class RunError(DiffusionError):
    """The surroundings of a run do not allow it."""


class RunFolderError(RunError):
    """A folder that cannot be written, or holds something that would be overwritten."""


class CheckpointMismatchError(RunError):
    """The run to resume had another configuration; `fields` says where they differ."""

    def __init__(self, where: str, fields: tuple[str, ...]) -> None:
        super().__init__(f"{where} was made with another configuration; different: {', '.join(fields)}")
        self.fields = fields


class LossDivergedError(DiffusionError, ArithmeticError):
    """The loss stopped being finite at `step`; the weights before that step are still in the trainer."""

    def __init__(self, step: int, resolution: int, loss: float) -> None:
        super().__init__(f"the loss became {loss} at step {step} ({resolution} px); lower the learning rate")
        self.step = step
        self.resolution = resolution
