"""`--set PATH=VALUE`: any field of a bench's configuration, by its path through the dataclasses.

A value is read as the field's own type says: numbers, words, true or false, none, the value of an enum, and tuples as
values separated by commas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from diffusion.errors import ConfigError

T = TypeVar("T")


def overridden(config: T, settings: Sequence[str]) -> T:
    """Return the configuration with each PATH=VALUE set in turn; raise `ConfigError` for what cannot be set."""
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes PATH=VALUE, such as backbone.width=96, got {setting!r}")
        config = _set(config, path.strip().split("."), value.strip(), path)
    return config


def _set(config: Any, parts: list[str], value: str, path: str) -> Any:
    first, *rest = parts
    known = [field.name for field in fields(config)]
    if first not in known:
        raise ConfigError(f"--set {path}: {type(config).__name__} has no {first!r}; it has {', '.join(known)}")
    now = getattr(config, first)
    if rest:
        if not is_dataclass(now) or isinstance(now, type):
            raise ConfigError(f"--set {path}: {first} is {now!r}, which has no parts")
        return replace(config, **{first: _set(now, rest, value, path)})
    return replace(config, **{first: _read(value, get_type_hints(type(config))[first], path)})


def _read(text: str, kind: Any, path: str) -> Any:
    """Return a text as a value of a type; the first of a union's types that can read it wins."""
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        try:
            return _plain(text, one, path)
        except ValueError:
            continue
    raise ConfigError(f"--set {path}: {text!r} is no {getattr(kind, '__name__', kind)}")


def _plain(text: str, kind: Any, path: str) -> Any:
    if kind is NoneType and text == "none":
        return None
    if kind is bool and text in {"true", "false"}:
        return text == "true"
    if kind in (int, float):
        return kind(text)
    if kind is str:
        return text
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(text)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        parts = text.split(",")
        kinds = [inner[0]] * len(parts) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) == len(parts):
            return tuple(_read(part.strip(), one, path) for part, one in zip(parts, kinds, strict=True))
    raise ValueError(text)
