"""The settings that a trainer chose for its graph become those that the graph is compiled under.

What is chosen is on the list of this torch (`compile_torch.setting_rules`). Everything else must be as it is
here: a setting that is refused is named, and the trainer compiles by itself.
"""

from __future__ import annotations

import re
from typing import Any

from compile_torch.setting_rules import Which, may_be_chosen
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value

_WORD = re.compile(r"[A-Za-z0-9_.,+:-]{0,200}")


def inductor_patch(settings: dict[str, Value]) -> dict[str, Any]:
    """Return what to change of inductor's configuration; raise `MalformedError` naming a setting that is refused."""
    from torch._inductor import config

    return _patch(config, settings, "inductor")


def functorch_patch(settings: dict[str, Value]) -> dict[str, Any]:
    """Return what to change of functorch's configuration, likewise."""
    from torch._functorch import config

    return _patch(config, settings, "functorch")


def _patch(config: Any, settings: dict[str, Value], which: Which) -> dict[str, Any]:
    here = config.save_config_portable(ignore_private_configs=False)
    patch = {}
    for name, value in settings.items():
        if name not in here:
            raise MalformedError(f"{which} has no setting {name!r:.80} here")
        decoded = _plain(value, f"{which} setting {name}")
        if decoded == here[name] and type(decoded) is type(here[name]):
            continue
        if not may_be_chosen(which, name, decoded):
            raise MalformedError(f"{which} setting {name} may not be chosen from outside, or not as {decoded!r:.60}")
        patch[name] = decoded
    return patch


def _plain(value: Value, what: str) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise MalformedError(f"{what} is no plain word")
        return value
    tag, items = value[0], value[1:]
    if tag == "l":
        return [_plain(item, what) for item in items]
    if tag == "t":
        return tuple(_plain(item, what) for item in items)
    if tag == "d":
        return {_plain(key, what): _plain(item, what) for key, item in zip(items[::2], items[1::2], strict=True)}
    raise MalformedError(f"{what} is not a plain value")
