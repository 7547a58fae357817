"""The difference between two programs, written down once: a few lines of code, and where they may stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "ambient state",
    "configuration",
    "environment variable",
    "burned in",
    "declared range",
    "custom operator",
    "opaque callable",
    "tensor subclass",
    "rank",
    "custom pass",
    "registration",
    "same behaviour",
    "harmless",
]
Position = Literal["top", "submodule", "checkpoint", "function", "backward", "cond", "while_loop", "region"]
Times = Literal["static", "dynamic", "automatic"]
Phase = Literal["A", "B"]

PHASES: tuple[Phase, Phase] = ("A", "B")
ALL: tuple[Position, ...] = (
    "top",
    "submodule",
    "checkpoint",
    "function",
    "backward",
    "cond",
    "while_loop",
    "region",
)
BODIES: tuple[Position, ...] = ("top", "submodule", "checkpoint", "function", "backward")
"""The positions without the bodies of control flow, where some code may not stand."""
AUTOMATIC: tuple[Times, ...] = ("automatic",)
BOTH: tuple[Times, ...] = ("static", "dynamic")

CORE = "return torch.tanh(x @ w) * 0.5"
DRIVE = """
for rows in ROWS:
    x, w = inputs(rows)
    with account.step(f"{rows} rows"):
        AROUND
            y = run(x, w)
        account.tell(y=y)
        learn(y)
        account.tell(dx=x.grad, dw=w.grad)
"""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A pair of programs without its position: everything that makes the difference between A and B."""

    name: str
    kind: Kind
    differs: str
    """The one thing in which A and B differ, as the end of "The twins differ in ..."."""
    setup: str = ""
    """Lines of the module before anything is compiled; `pick(a, b)` is `a` in program A and `b` in program B."""
    core: str = CORE
    """The body of `core(x, w)`, which the position puts somewhere. x and the result have rows of 4, w is 4 by 4."""
    around: str = "if True:"
    """The line above the compiled call, where `drive` says AROUND."""
    drive: str = DRIVE
    """The calls of the compiled `run` and of the plain `body` with the numbers of ROWS, at each place."""
    more: tuple[str, ...] = ()
    """Names of further arguments of `core` and `run`, which take no gradient."""
    options: tuple[str, ...] = ()
    """Further arguments of `torch.compile`, as written in a call."""
    fullgraph: bool = True
    fits: tuple[Position, ...] = ("top",)
    times: tuple[Times, ...] = ("static",)
    environment: Mapping[Phase, Mapping[str, str]] = field(default_factory=dict)
    """Environment variables of program A and of program B."""
    fresh: bool = False
    """Whether the process must be a new one, because torch reads the thing when it is imported."""
    file: Mapping[Phase, str] = field(default_factory=dict)
    """The paths of program A and of program B, below a folder of the pair's own."""
    edits: tuple[tuple[str, str], ...] = ()
    """Changes that turn A's text into B's, as old and new text. Without any, both programs have the same text."""
    parts: tuple[str, ...] = ()
    """Parts of our key, guards and refusals that keep these twins apart: without any of them the harness must fail."""
    silent: bool = False
    """Whether A and B give the same numbers when they run plainly, so that they differ only in how they go wrong."""
    since: tuple[int, int] = (2, 11)
    """The first version of torch that has the thing."""

    @property
    def harmless(self) -> bool:
        """Whether B must be served what was made for A."""
        return self.kind == "harmless"


@dataclass(frozen=True)
class Pair:
    """A thing at one position, with static or dynamic sizes: one function in each of two programs."""

    thing: Thing
    position: Position
    times: Times
    number: int
    """This number is part of the graph, so that no other pair's artifact can be this one's."""

    @property
    def place(self) -> str:
        return f"{self.position}, {self.times}"

    @property
    def name(self) -> str:
        return f"{self.thing.name} @ {self.place}"


@dataclass(frozen=True)
class Twins:
    """Two programs that differ in one thing, with a function for each of several pairs, since processes are costly."""

    thing: Thing
    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        return f"{self.thing.name} @ {'; '.join(pair.place for pair in self.pairs)}"

    @property
    def folder(self) -> str:
        """The name of a folder that no other twins use."""
        return f"twins-{self.pairs[0].number}"
