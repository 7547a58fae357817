"""Triton's options as data: which of them travel, and the digest by which both ends know that they mean the same.

`extern_libs` is the one option that holds paths: it does not travel. Both ends must come to the same libraries by
themselves, and the digest has their content.
"""

from __future__ import annotations

import functools
from typing import Any

from compile_wire.digest import digest_of
from compile_wire.kernel.options import NEVER_CARRIED, Option
from compile_wire.packing import pack

LIBRARIES = "extern_libs"


class CannotTravelError(Exception):
    """This kernel cannot be compiled by another process, and why; it is compiled here."""


def option_values(options: Any) -> dict[str, Option]:
    """Return the options that travel; raise `CannotTravelError` where one is set that must not, or is not plain."""
    for name in NEVER_CARRIED - {LIBRARIES}:
        if vars(options).get(name):
            raise CannotTravelError(f"the option {name} is set")
    return {name: _plain(name, value) for name, value in vars(options).items() if name not in NEVER_CARRIED}


def options_digest(options: Any) -> str:
    """Return the digest of all options, those with paths by the content of their files."""
    values = option_values(options)
    libraries = [[str(name), _file_digest(str(path))] for name, path in (getattr(options, LIBRARIES, None) or ())]
    return digest_of(pack([[[name, repr(values[name])] for name in sorted(values)], libraries]))


def _plain(name: str, value: object) -> Option:
    if isinstance(value, (tuple, list)):
        return tuple(_plain(name, item) for item in value)
    if value is None or type(value) in {bool, int, float, str}:
        return value  # type: ignore[return-value] # narrowed by the line above
    raise CannotTravelError(f"the option {name} is a {type(value).__name__}")


@functools.cache
def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return digest_of(file.read())
