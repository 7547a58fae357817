"""The table of programs: who makes a model, of which package, at which sizes, and how it is trained and compiled.

A maker imports its package itself, so that the table can be read where a package is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benches.harness.output import say

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A model and what it is fed with."""

    model: nn.Module
    batch: Callable[[int], dict[str, Any]]
    """The model's arguments at a size; the same numbers each time."""
    loss: Callable[[Any], Tensor] | None = None
    """A loss of what the model returns; None for its own `loss`, or the mean of squares where it has none."""
    blocks: list[nn.Module] = field(default_factory=list)
    """What regional compilation compiles, one after the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One way to train and run one program."""

    name: str
    model: str
    """The maker's name: entries with the same are one model in several ways."""
    package: str
    make: Callable[[], Program]
    sizes: tuple[int, int]
    train: bool = True
    infer: bool = True
    autocast: bool = False
    """Whether the forward pass runs under bf16 autocast."""
    bf16_weights: bool = False
    """Whether the model itself is of bf16."""
    mode: str | None = None
    dynamic: bool | None = None
    regional: bool = False
    checkpoint: bool = False
    """Whether the model's own gradient checkpointing is on."""
    ema: bool = False
    accumulate: int = 1
    """Backward passes before a step of the optimizer."""
    compiled_optimizer: bool = False

    @property
    def traits(self) -> str:
        """In what it differs from a plain training, in words."""
        words = {
            "inference only": not self.train,
            "bf16 autocast": self.autocast,
            "bf16 weights": self.bf16_weights,
            f"mode {self.mode}": self.mode is not None,
            f"dynamic={self.dynamic}": self.dynamic is not None,
            "regional": self.regional,
            "checkpointing": self.checkpoint,
            "EMA": self.ema,
            f"accumulation of {self.accumulate}": self.accumulate > 1,
            "compiled optimizer": self.compiled_optimizer,
        }
        return ", ".join(word for word, holds in words.items() if holds)


CORPUS: dict[str, Entry] = {}

_MODULES = (
    "language",
    "mixtures",
    "sequences",
    "pictures",
    "denoisers",
    "latents",
    "xtransformers",
    "timm_families",
    "diffusion_packages",
)


def entry(
    package: str, *, sizes: tuple[int, int], ways: Iterable[tuple[str, dict[str, Any]]] = (), **traits: Any
) -> Callable[[Callable[[], Program]], Callable[[], Program]]:
    """Enter the decorated maker under its name, and once more for each of the `ways`, with its suffix and traits."""

    def enter(make: Callable[[], Program]) -> Callable[[], Program]:
        model = make.__name__.replace("_", "-")
        for suffix, more in [("", traits), *ways]:
            name = f"{model}-{suffix}" if suffix else model
            assert name not in CORPUS, f"two entries are called {name}"
            CORPUS[name] = Entry(name=name, model=model, package=package, make=make, sizes=sizes, **more)
        return make

    return enter


def installed(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries whose package is installed, and say which packages are not."""
    entries = list(entries)
    there = [entry for entry in entries if find_spec(entry.package.replace("-", "_")) is not None]
    if missing := sorted({entry.package for entry in entries} - {entry.package for entry in there}):
        say(f"left out, because not installed: {', '.join(missing)}")
    return there


def whole_corpus() -> dict[str, Entry]:
    """Return all entries by name, in the order of the table."""
    for name in _MODULES:
        import_module(f"benches.corpus.models.{name}")
    return CORPUS
