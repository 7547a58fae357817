"""Settings of inductor and functorch that differ from torch's defaults, as values.

Both configurations are part of torch's key, so a setting that is left out, or that the worker will not take, shows as
another key and the graph is refused: never compiled under other settings.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from compile_client.graphs.tables import CannotCarryError, Tables
from compile_client.graphs.values import Values
from compile_torch.setting_rules import Which, may_be_chosen
from compile_wire.graph.spec import Value


def inductor_settings() -> dict[str, Value]:
    """Return inductor's settings; all of them where the environment changes defaults, else those that differ."""
    from torch._inductor import config

    return _settings(config, "inductor")


def functorch_settings() -> dict[str, Value]:
    """Return functorch's settings, likewise."""
    from torch._functorch import config

    return _settings(config, "functorch")


def _settings(config: Any, which: Which) -> dict[str, Value]:
    values = Values(Tables(None), {})
    defaults = {} if _environment_changes_defaults() else _defaults(config)
    found: dict[str, Value] = {}
    for name, value in config.save_config_portable(ignore_private_configs=False).items():
        if name.startswith("_") and name not in defaults:
            continue
        try:
            encoded = values.encode(value, name)
        except CannotCarryError:
            encoded = ["?", type(value).__name__]
        if name not in defaults or encoded != defaults[name]:
            found[name] = encoded
            # Where the environment changes torch's defaults, the worker alone can tell which of all these it has, too.
            if name in defaults and not may_be_chosen(which, name, value):
                raise CannotCarryError(
                    f"{which}'s setting {name} is {value!r:.60}, and only torch's default is carried"
                )
    return found


_HARMLESS = ("TORCH_COMPILE_CLIENT", "TORCHINDUCTOR_CACHE_DIR")
_CHANGING = tuple(
    "TORCHINDUCTOR_ TORCH_COMPILE TORCHDYNAMO_ TORCHAOT_ AOT_INDUCTOR_ AOTINDUCTOR_ AOT_PARTITIONER_ CUTEDSL_ENABLE "
    "CUTLASS_EPILOGUE ENABLE_PERSISTENT_TMA ENABLE_TEMPLATE_TMA ENABLE_TMA_LOAD FAKE_ALLOW_META INDUCTOR_ "
    "LOG_AUTOTUNE_RESULTS LOG_TLPARSE PARTITIONER_MEMORY_BUDGET".split()
)
"""Beginnings of the variables that torch's configuration modules read; a worker has none of them."""
_WITHOUT: dict[str, dict[str, Value]] = {"CI": {"error_on_custom_op_aliasing": False}}
"""Variables that are set often, with the defaults that torch has without them: only what differs travels."""


@functools.cache
def _environment_changes_defaults() -> bool:
    """Whether variables are set from which torch's configuration modules may take their defaults."""
    return any(name.startswith(_CHANGING) and not name.startswith(_HARMLESS) for name in os.environ)


@functools.cache
def _defaults(config: Any) -> dict[str, Value]:
    values = Values(Tables(None), {})
    found = {}
    for name, entry in config._config.items():
        try:
            found[name] = values.encode(entry.default, name)
        except CannotCarryError:
            found[name] = ["?", type(entry.default).__name__]
    for variable, without in _WITHOUT.items():
        if variable in os.environ:
            found |= {name: default for name, default in without.items() if name in found}
    return found
