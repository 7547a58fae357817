"""Which of torch's settings a trainer may choose for its graph, and which it may not.

Numbers, flags and plain words, as long as they cannot name a file, a command or a function. Everything else must be as
it is here: a setting that is refused is named, and the trainer compiles by itself.
"""

from __future__ import annotations

import re
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph_spec import Value

_WORD = re.compile(r"[A-Za-z0-9_.,+:-]{0,200}")

_DENIED_WORDS = frozenset({
    "dir", "path", "cxx", "compiler", "cmd", "command", "log", "file", "output", "url", "hook", "callback", "custom",
    "debug", "dump", "upload", "profile", "remote", "package", "presets", "factory", "class", "logpath", "cutlass",
    "home", "root", "library", "spec", "temps", "args", "visualize", "objgraph", "proton", "tables", "table", "bisect",
    "runner", "autoheuristic", "numeric", "crossref", "real", "sleep", "tlparse", "regex", "matmul",
})  # fmt: skip
"""Settings that name places or programs, that write files, or that compute with real numbers while a graph is compiled:
words of the setting's name."""

_ALLOWED = frozenset({"autograd_cache_allow_custom_autograd_functions", "unsafe_marked_cacheable_functions"})
"""Settings that a word of the above would catch, though they name none of that."""

_MARKABLE = frozenset({"torch.amp.autocast_mode._enter_autocast", "torch.amp.autocast_mode._exit_autocast"})


def inductor_patch(settings: dict[str, Value]) -> dict[str, Any]:
    """Return what to change of inductor's configuration; raise `MalformedError` naming a setting that is refused."""
    from torch._inductor import config

    return _patch(config, settings, "inductor")


def functorch_patch(settings: dict[str, Value]) -> dict[str, Any]:
    """Return what to change of functorch's configuration, likewise."""
    from torch._functorch import config

    return _patch(config, settings, "functorch")


def _patch(config: Any, settings: dict[str, Value], which: str) -> dict[str, Any]:
    here = config.save_config_portable(ignore_private_configs=False)
    patch = {}
    for name, value in settings.items():
        if name not in here:
            raise MalformedError(f"{which} has no setting {name!r:.80} here")
        decoded = _plain(value, f"{which} setting {name}")
        if decoded == here[name] and type(decoded) is type(here[name]):
            continue
        words = set(name.replace(".", "_").split("_"))
        if name.startswith("_") or (name not in _ALLOWED and words & _DENIED_WORDS):
            raise MalformedError(f"{which} setting {name} may not be chosen from outside")
        if not _same_kind(decoded, here[name]):
            raise MalformedError(f"{which} setting {name} is not a {type(decoded).__name__}")
        if name == "unsafe_marked_cacheable_functions" and not set(decoded) <= _MARKABLE:
            raise MalformedError("functions of the trainer's are marked as cacheable; they are not known here")
        patch[name] = decoded
    return patch


def _same_kind(decoded: Any, here: Any) -> bool:
    """Whether a setting may become this: None may become anything plain, numbers and flags each other."""
    if here is None:
        return True
    if decoded is None:
        return not isinstance(here, (dict, list, tuple))
    numbers = (bool, int, float)
    return isinstance(decoded, type(here)) or (isinstance(decoded, numbers) and isinstance(here, numbers))


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
