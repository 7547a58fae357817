"""What two programs differ in, written down once: a few lines of a program, and where in it they may stand."""

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
"""Without the bodies of control flow, where not everything may stand."""
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
    """A pair of programs without its position: what makes the difference between A and B."""

    name: str
    kind: Kind
    differs: str
    """In which one thing A and B differ, as the end of "The twins differ in ..."."""
    setup: str = ""
    """Lines of the module before anything is compiled; `pick(a, b)` is `a` in program A and `b` in program B."""
    core: str = CORE
    """The body of `core(x, w)`, which the position puts somewhere. x has rows of 4, as has the result; w is 4 by 4."""
    around: str = "if True:"
    """The line that the compiled call stands under, where `drive` says AROUND."""
    drive: str = DRIVE
    """What is done with the compiled `run`, the plain `body` and the numbers of ROWS at each place."""
    more: tuple[str, ...] = ()
    """Names of further arguments of `core` and `run`, which take no gradient."""
    options: tuple[str, ...] = ()
    """Further arguments of `torch.compile`, as written in a call."""
    fullgraph: bool = True
    fits: tuple[Position, ...] = ("top",)
    times: tuple[Times, ...] = ("static",)
    environment: Mapping[Phase, Mapping[str, str]] = field(default_factory=dict)
    """Variables of the one program and of the other."""
    fresh: bool = False
    """Whether the process must be a new one, because torch reads the thing when it is imported."""
    file: Mapping[Phase, str] = field(default_factory=dict)
    """The path of the one program and of the other, below a folder of the pair's."""
    edits: tuple[tuple[str, str], ...] = ()
    """What is written otherwise in B's text: old and new. Where there are none, both programs are one text."""
    parts: tuple[str, ...] = ()
    """Parts of our key, guards and refusals that keep these twins apart: without any of them the harness must fail."""
    silent: bool = False
    """Whether A and B give the same numbers when they run plainly: they can only differ in how they go wrong."""
    since: tuple[int, int] = (2, 11)
    """The first torch that has the thing."""

    @property
    def harmless(self) -> bool:
        """Whether B must be served what was made for A."""
        return self.kind == "harmless"


@dataclass(frozen=True)
class Pair:
    """A thing at one position, with static or with dynamic sizes: one function in each of two programs."""

    thing: Thing
    position: Position
    times: Times
    number: int
    """Stands in the graph, so that no other pair's artifacts are this one's."""

    @property
    def place(self) -> str:
        return f"{self.position}, {self.times}"

    @property
    def name(self) -> str:
        return f"{self.thing.name} @ {self.place}"


@dataclass(frozen=True)
class Twins:
    """Two programs that differ in one thing, with a function for each of its pairs: processes are dear."""

    thing: Thing
    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        return f"{self.thing.name} @ {'; '.join(pair.place for pair in self.pairs)}"

    @property
    def folder(self) -> str:
        """Its own among all others'."""
        return f"twins-{self.pairs[0].number}"
