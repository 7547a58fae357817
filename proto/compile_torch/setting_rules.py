"""Which of torch's settings a trainer may choose for its graph, and with which values: a list for each torch.

The list is a file beside this one, `settings_2_13.json`, made from torch's configuration and reviewed
(`tools/settings_table.py`). A setting that is not on it must be as torch has it by default. A torch that has no list of
its own takes the newest older one, or the oldest there is, as far as its own configuration still says the same of a
setting: that is a part of what could be allowed, never more.

A rule is "flag", "number", either with " or none", or a map: {"one of": [...]} a value of these, {"words": [...]} text
that is a list of these words with commas, {"keys": [...]} a map with these keys and plain values.

torch is imported inside the functions, because both ends share this and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import json
import logging
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Rule = str | Mapping[str, list[Any]]
Which = typing.Literal["inductor", "functorch"]

_OR_NONE = " or none"
_LARGEST = 2**40

_logger = logging.getLogger(__name__)


def may_be_chosen(which: Which, name: str, value: object) -> bool:
    """Return whether the setting may have this value where torch's default is another."""
    rule = rules()[which].get(name)
    return rule is not None and fits(rule, value)


def fits(rule: Rule, value: object) -> bool:
    """Return whether a value is one that the rule allows."""
    if isinstance(rule, str):
        if value is None:
            return rule.endswith(_OR_NONE)
        if rule.removesuffix(_OR_NONE) == "flag":
            return isinstance(value, bool)
        return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= _LARGEST
    ((form, allowed),) = rule.items()
    if form == "one of":
        return any(type(value) is type(one) and value == one for one in allowed)
    if form == "words":
        return isinstance(value, str) and all(word in allowed for word in value.split(",") if value)
    return isinstance(value, dict) and all(
        key in allowed and type(item) in {bool, int, str} and len(str(item)) < 20 for key, item in value.items()
    )


@functools.cache
def rules() -> Mapping[Which, Mapping[str, Rule]]:
    """Return the rules for this torch."""
    import torch

    major, minor = (int(part) for part in str(torch.__version__).split(".")[:2])
    own = _file(major, minor)
    if own.exists():
        return _read(own)
    known = sorted(_versions())
    older = [version for version in known if version <= (major, minor)]
    taken = older[-1] if older else known[0]
    _logger.warning(
        "torch %d.%d has no reviewed list of settings: those of %d.%d are allowed that mean the same here",
        *(major, minor, *taken),
    )
    reviewed = _read(_file(*taken))
    return {which: _still_true(table, configuration(which)) for which, table in reviewed.items()}


def configuration(which: Which) -> Mapping[str, Any]:
    """Return torch's own description of its settings: type and default by name."""
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    entries: Mapping[str, Any] = (inductor if which == "inductor" else functorch)._config
    return entries


def rule_by_type(entry: Any) -> Rule | None:
    """Return what the type that torch gives a setting says of its values; None where it says too little."""
    kind = getattr(entry, "value_type", None) or type(entry.default)
    parts = list(typing.get_args(kind)) if isinstance(kind, types.UnionType) or _is_optional(kind) else [kind]
    none = types.NoneType in parts
    parts = [part for part in parts if part is not types.NoneType]
    if len(parts) != 1:
        return None
    if parts[0] is bool:
        return "flag" + _OR_NONE * none
    if parts[0] in {int, float}:
        return "number" + _OR_NONE * none
    if typing.get_origin(parts[0]) is typing.Literal:
        return {"one of": [*typing.get_args(parts[0]), *([None] if none else [])]}
    return None


def _is_optional(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Union


def _still_true(table: Mapping[str, Rule], entries: Mapping[str, Any]) -> Mapping[str, Rule]:
    """Return the rules of another torch that hold here: the setting is there, and what its type says is the same."""
    kept = {}
    for name, rule in table.items():
        if name not in entries:
            continue
        by_type = rule_by_type(entries[name])
        if by_type == rule or (isinstance(rule, Mapping) and _is_narrower(rule, by_type)):
            kept[name] = rule
    return kept


def _is_narrower(rule: Mapping[str, list[Any]], by_type: Rule | None) -> bool:
    """Whether a rule made by hand allows no more than the type; text and maps are types that say nothing."""
    return by_type is None or ("one of" in rule and all(fits(by_type, value) for value in rule["one of"]))


def _file(major: int, minor: int) -> Path:
    return Path(__file__).with_name(f"settings_{major}_{minor}.json")


def _versions() -> list[tuple[int, int]]:
    names = [path.stem.split("_")[1:] for path in Path(__file__).parent.glob("settings_*_*.json")]
    return [(int(major), int(minor)) for major, minor in names]


def _read(path: Path) -> Mapping[Which, Mapping[str, Rule]]:
    read = json.loads(path.read_text())
    return {"inductor": read["inductor"], "functorch": read["functorch"]}
