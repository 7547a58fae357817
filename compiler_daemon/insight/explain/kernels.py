"""Two Triton kernels compared: target, source, arguments, constants, options. And the nearest known one of a name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.kernel.spec import KernelArgument, KernelSpec
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.nearest import Candidate, Nearest, SearchBounds, search_nearest
from compiler_daemon.insight.explain.surroundings import environment_differences

_KERNELS = SearchBounds(
    max_read=256,  # kernels are small, and a program may have several hundred of them
    max_read_bytes=32 * 2**20,
    max_candidates=sys.maxsize,
    other_program=0.1,
    seems_other_program=0.1,
    seems_other_environment=0.0,
)
_MAX_TEXT = 100
_CONSTANT = "constexpr"
_OF_TARGET = frozenset({"arch", "warp_size", "backend_name"})
"""Options that follow from the target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRequest:
    """What decides a kernel's key: the environment's fields, and the kernel."""

    environment: Mapping[str, str]
    spec: KernelSpec


def kernel_differences(ours: KernelRequest, theirs: KernelRequest) -> list[Difference]:
    """Return in what `ours` differs from `theirs`, the most telling first; each text says what is, then what was."""
    now, before = ours.spec, theirs.spec
    found = environment_differences(ours.environment, theirs.environment)
    if (now.backend, now.arch) != (before.backend, before.arch):
        text = f"target {_target(now)}, was {_target(before)}"
        found.append(Difference(kind="target", text=text, cost=2.0))
    found += _code(now, before)
    found += _arguments(now, before)
    found += _options(now, before, same_target=(now.backend, now.arch) == (before.backend, before.arch))
    return sorted(found, key=lambda item: (item.place, -item.cost))


def find_nearest_kernel(
    ours: KernelRequest,
    candidates: Collection[Candidate],
    *,
    program: str,
    size: int,
    fields: Mapping[Digest, Mapping[str, str]],
    read: Callable[[Digest], KernelSpec | None],
) -> Nearest | None:
    """Return the candidate of the same name from which the fewest differences lead to a kernel of `size` bytes.

    None where none of those that can be read has its name.
    """

    def compare(candidate: Candidate, spec: KernelSpec) -> tuple[Sequence[Difference], bool] | None:
        if spec.name != ours.spec.name:
            return None
        theirs = KernelRequest(environment=fields.get(candidate.environment, {}), spec=spec)
        return kernel_differences(ours, theirs), True

    return search_nearest(
        candidates, _KERNELS, program=program, environment=None, size=size, read=read, compare=compare
    )


def _target(spec: KernelSpec) -> str:
    return f"sm_{spec.arch}" if spec.backend == "cuda" else f"{spec.backend} {_short(str(spec.arch))}"


def _code(now: KernelSpec, before: KernelSpec) -> list[Difference]:
    if not now.code or not before.code:  # an older client did not say
        same = now.source == before.source
        return [] if same else [Difference(kind="code", text="another text of the kernel itself", cost=0.5)]
    if now.code == before.code:
        return []
    text = f"its source, or something that it uses, was changed: digest {now.code[:12]}, was {before.code[:12]}"
    return [Difference(kind="code", text=text, cost=2.0)]


def _arguments(now: KernelSpec, before: KernelSpec) -> list[Difference]:
    if not now.arguments or not before.arguments:
        return []
    found: list[Difference] = []
    known = {argument.name: argument for argument in before.arguments}
    for place, argument in enumerate(now.arguments):
        other = known.pop(argument.name, None)
        if other is None:
            found.append(Difference(kind="inputs", text=f"argument {place} ({_short(argument.name)}) is new"))
        elif difference := _argument(f"argument {place} ({_short(argument.name)})", argument, other):
            found.append(difference)
    found += [Difference(kind="inputs", text=f"the argument {_short(name)} is gone") for name in known]
    return found


def _argument(which: str, now: KernelArgument, before: KernelArgument) -> Difference | None:
    if now.type != before.type:
        kind = "constant" if _CONSTANT in (now.type, before.type) else "dtype"
        return Difference(kind=kind, text=f"{which}: {_kind(now)}, was {_kind(before)}")
    if now.constant != before.constant:
        text = f"constant {_short(now.name)} {_value(now.constant)}, was {_value(before.constant)}"
        return Difference(kind="constant", text=text)
    if now.special != before.special:
        text = f"{which}: {_special(now)}, was {_special(before)}"
        return Difference(kind="specialisation", text=text, cost=0.5)
    return None


def _kind(argument: KernelArgument) -> str:
    """Return in words what an argument is. Triton makes constants of None and of 1 where the author wrote none."""
    if argument.type == _CONSTANT:
        return f"the constant {_value(argument.constant)}"
    return f"type {_short(argument.type)}"


def _value(constant: str | None) -> str:
    return "none" if constant is None else _short(constant)


def _special(argument: KernelArgument) -> str:
    return _short(argument.special) or "nothing known of its value"


def _options(now: KernelSpec, before: KernelSpec, *, same_target: bool) -> list[Difference]:
    found = []
    for name in sorted(now.options.keys() | before.options.keys()):
        mine, other = now.options.get(name), before.options.get(name)
        if mine == other and type(mine) is type(other):
            continue
        if same_target or name not in _OF_TARGET:
            text = f"option {_short(name)} {_short(str(mine))}, was {_short(str(other))}"
            found.append(Difference(kind="option", text=text))
    return found


def _short(text: str) -> str:
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain if len(plain) <= _MAX_TEXT else f"{plain[: _MAX_TEXT - 3]}..."
