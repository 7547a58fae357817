"""Which entries of a bundle fit this machine, and why the others do not, in words.

An entry fits where its environment is one that processes here have had. Otherwise it is compared with the nearest of
those, and the weightiest difference is the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.environment import differing_fields
from compile_wire.kernel.environment import is_kernel_environment

Fields = Mapping[str, str]

_PYTHON = re.compile(r"[a-z]+-([0-9])([0-9]+).*", re.DOTALL)
_MAX_REASON = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Says what an import would find."""

    entries: int
    fitting: int
    reasons: Mapping[str, int]
    """Why the others do not fit, and how many of them, most first."""

    @property
    def sentence(self) -> str:
        """`38 of 41 entries fit this machine; 3 need CUDA`."""
        noun = "entry fits" if self.entries == 1 else "entries fit"
        parts = [f"{self.fitting} of {self.entries} {noun} this machine"]
        parts += [f"{count} {reason if count > 1 else _singular(reason)}" for reason, count in self.reasons.items()]
        return "; ".join(parts)


def judge(wanted: Iterable[Digest], environments: Mapping[Digest, Fields], here: Mapping[Digest, Fields]) -> Preflight:
    """Judge entries by their environments; `here` are those of this machine's processes."""
    reasons = {
        environment: reason_of(fields, here) for environment, fields in environments.items() if environment not in here
    }
    counted: Counter[str] = Counter()
    entries = 0
    for environment in wanted:
        entries += 1
        if environment in reasons:
            counted[reasons[environment]] += 1
    return Preflight(entries=entries, fitting=entries - counted.total(), reasons=dict(counted.most_common()))


def reason_of(fields: Fields, here: Mapping[Digest, Fields]) -> str:
    """Return why things of this environment do not fit, after `they`: `need CUDA`, `were made with torch 2.11.0`."""
    return "".join(c for c in _reason(fields, here)[:_MAX_REASON] if c.isprintable())


def _reason(fields: Fields, here: Mapping[Digest, Fields]) -> str:
    alike = [ours for ours in here.values() if is_kernel_environment(ours) == is_kernel_environment(fields)]
    if not alike and is_kernel_environment(fields):
        return f"were made with triton {fields.get('triton', '').partition('-')[0]}, which nothing here has used yet"
    if not alike:
        return "cannot be judged: nothing here has named its environment yet"
    nearest = min(alike, key=lambda ours: len(differing_fields(ours, fields)))
    for name, words in _REASONS.items():
        if fields.get(name, "") != nearest.get(name, "") and (text := words(fields, nearest)):
            return text
    others = sorted(name for name in {*fields, *nearest} if fields.get(name) != nearest.get(name))
    return f"were made where {others[0]} is {fields.get(others[0], 'not known')!r:.80}"


def _version(tag: re.Match[str]) -> str:
    return f"{tag[1]}.{tag[2]}" + ("" if "cpython" in tag[0] else f" ({tag[0].partition('-')[0]})")


def _toolkit(theirs: Fields, ours: Fields) -> str:
    kind = theirs.get("toolkit", "").partition(" ")[0]
    if not kind:
        return "were made with a torch for the CPU only"
    name = {"cuda": "CUDA", "hip": "ROCm"}.get(kind, kind)
    if ours.get("toolkit", "").startswith(kind):
        return f"were made with {name} {theirs['toolkit'].partition(' ')[2]}"
    return f"need {name}"


def _gpu(theirs: Fields, ours: Fields) -> str:
    if not theirs.get("gpu"):
        return "were made on a machine without a GPU"
    return f"need another GPU ({theirs['gpu'][:60]})"


_REASONS: Mapping[str, Callable[[Fields, Fields], str]] = {
    "system": lambda theirs, ours: f"were made on {theirs.get('system')}",
    "toolkit": _toolkit,
    "gpu": _gpu,
    "torch": lambda theirs, ours: f"were made with torch {theirs.get('torch')}",
    "python": lambda theirs, ours: f"were made with Python {_PYTHON.sub(_version, theirs.get('python', ''))[:40]}",
    "cpu_flags": lambda theirs, ours: (
        f"were made for another processor ({theirs.get('cpu_flags', '').partition(':')[0]})"
    ),
    "cpu_capability": lambda theirs, ours: f"were made for {theirs.get('cpu_capability')}",
    "torch_key": lambda theirs, ours: f"were made with another build of torch {theirs.get('torch')}",
    "triton": lambda theirs, ours: f"were made with triton {theirs.get('triton', '').partition('-')[0] or 'absent'}",
    "driver": lambda theirs, ours: f"were made with GPU driver {theirs.get('driver') or 'absent'}",
    "compiler": lambda theirs, ours: f"were made with another compiler ({theirs.get('compiler') or 'none'})",
    "libc": lambda theirs, ours: f"were made with {theirs.get('libc')}",
}
"""The weightiest first."""


def _singular(reason: str) -> str:
    verb, _, rest = reason.partition(" ")
    return f"{ {'need': 'needs', 'were': 'was'}.get(verb, verb) } {rest}"
