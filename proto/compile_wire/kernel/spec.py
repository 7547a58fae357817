"""KernelSpec: a Triton kernel as data, between a trainer that has lowered it and a worker that compiles it.

It holds text in Triton's first IR (TTIR) and the options that the rest of the pipeline reads: no Python, nothing that
is evaluated. The text is parsed by Triton's own parser in a worker. Guarantees: `decode(encode(s)) == s`, and every
accepted spec is within the bounds of `compile_wire.limits`.

The texts name the kernel's source file and lines, because Triton puts them into the binary for profilers and debuggers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.kernel.options import Option, check_options
from compile_wire.limits import (
    MAX_KERNEL_ARGUMENTS,
    MAX_KERNEL_BYTES,
    MAX_KERNEL_OPTION_TEXT,
    MAX_KERNEL_OPTIONS,
    MAX_NAME_TEXT,
)
from compile_wire.packing import pack, unpack

_VERSION = 2
_FIELDS = frozenset(
    {"v", "name", "backend", "arch", "warp_size", "source", "ttir", "options", "options_digest", "code", "arguments"}
)
_MAX_CODE = 128
_MAX_LISTS = 8 * (MAX_KERNEL_ARGUMENTS + MAX_KERNEL_OPTIONS)
"""An argument is a list of four, and a special one of a few more."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,149}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelArgument:
    """One parameter of a kernel, as Triton's key knows it: for people, and not compiled from."""

    name: str
    type: str
    """"*fp16", "i32"; "constexpr" for a constant."""
    constant: str | None
    """Its value, as Python writes it; None where it is no constant."""
    special: str
    """What is taken for granted of its value: "divisible by 16"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelSpec:
    """One kernel, for one target."""

    name: str
    """Triton's file name of the kernel, without a suffix: one plain component."""
    backend: str
    """"cuda", "hip"."""
    arch: int | str
    warp_size: int
    source: str
    """What the frontend made, before any pass: kept for people, and not compiled from."""
    ttir: str
    """After the first stage: what is compiled."""
    options: Mapping[str, Option]
    """Those of Triton's options that `compile_wire.kernel.options` knows."""
    options_digest: str
    """What the worker must arrive at, see `compile_torch.triton.options`."""
    code: str = ""
    """Triton's digest of the kernel's source and what it uses; empty where it is not known."""
    arguments: tuple[KernelArgument, ...] = ()


def encode_kernel(spec: KernelSpec) -> bytes:
    """Return the bytes; raise `MalformedError` where a bound is broken."""
    try:
        data = pack(
            {
                "v": _VERSION,
                "name": spec.name,
                "backend": spec.backend,
                "arch": spec.arch,
                "warp_size": spec.warp_size,
                "source": spec.source,
                "ttir": spec.ttir,
                "options": {name: _listed(spec.options[name]) for name in sorted(spec.options)},
                "options_digest": spec.options_digest,
                "code": spec.code,
                "arguments": [[one.name, one.type, one.constant, one.special] for one in spec.arguments],
            }
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"the kernel cannot be written as data: {error}") from error
    decode_kernel(data)
    return data


def decode_kernel(data: bytes) -> KernelSpec:
    """Return the kernel in `data`; raise `MalformedError` where it is anything else."""
    fields = unpack(data, max_bytes=MAX_KERNEL_BYTES, what="kernel", max_lists=_MAX_LISTS)
    if not isinstance(fields, dict) or fields.get("v") != _VERSION:
        raise MalformedError("not a kernel of a version known here")
    if set(fields) != _FIELDS:
        raise MalformedError(f"kernel fields {sorted(set(fields) ^ _FIELDS)} are missing or unknown")
    options = fields["options"]
    if not isinstance(options, dict) or len(options) > MAX_KERNEL_OPTIONS:
        raise MalformedError(f"a kernel has a map of at most {MAX_KERNEL_OPTIONS} options")
    arch = fields["arch"]
    if type(arch) is not int:
        arch = _name(arch, "arch")
    elif not 0 <= arch < 2**16:
        raise MalformedError("a kernel's arch is a small number, or a name")
    warp_size = fields["warp_size"]
    if type(warp_size) is not int or not 0 < warp_size <= 1024:
        raise MalformedError("a warp has from 1 to 1024 threads")
    backend = _name(fields["backend"], "backend")
    plain = {_text(name, "option", MAX_NAME_TEXT): _option(value) for name, value in options.items()}
    check_options(backend, plain)
    return KernelSpec(
        name=_name(fields["name"], "name"),
        backend=backend,
        arch=arch,
        warp_size=warp_size,
        source=_text(fields["source"], "source", MAX_KERNEL_BYTES),
        ttir=_text(fields["ttir"], "ttir", MAX_KERNEL_BYTES),
        options=plain,
        options_digest=_text(fields["options_digest"], "options_digest", 64),
        code=_text(fields["code"], "code", _MAX_CODE),
        arguments=_arguments(fields["arguments"]),
    )


def is_plain_name(name: str) -> bool:
    """Whether a kernel's file name is one plain component; only such names travel."""
    return _NAME.fullmatch(name) is not None


def _arguments(value: object) -> tuple[KernelArgument, ...]:
    if not isinstance(value, list) or len(value) > MAX_KERNEL_ARGUMENTS:
        raise MalformedError(f"a kernel has a list of at most {MAX_KERNEL_ARGUMENTS} arguments")
    return tuple(_argument(item) for item in value)


def _argument(value: object) -> KernelArgument:
    if not isinstance(value, list) or len(value) != 4:
        raise MalformedError("an argument is its name, type, constant and what is known of it")
    name, kind, constant, special = value
    return KernelArgument(
        name=_text(name, "an argument's name", MAX_NAME_TEXT),
        type=_text(kind, "an argument's type", MAX_NAME_TEXT),
        constant=None if constant is None else _text(constant, "a constant", MAX_NAME_TEXT),
        special=_text(special, "what is known of an argument", MAX_NAME_TEXT),
    )


def _listed(value: Option) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _option(value: object) -> Option:
    if isinstance(value, list):
        if len(value) > MAX_KERNEL_OPTION_TEXT:
            raise MalformedError("an option's list is too long")
        return tuple(_option(item) for item in value)
    if isinstance(value, str):
        return _text(value, "an option", MAX_KERNEL_OPTION_TEXT)
    if value is None or type(value) in {bool, int} or (type(value) is float and math.isfinite(value)):
        return value  # type: ignore[return-value] # narrowed by the line above
    raise MalformedError(f"an option is a plain value, not {type(value).__name__}")


def _name(value: object, what: str) -> str:
    text = _text(value, what, MAX_NAME_TEXT)
    if not is_plain_name(text):
        raise MalformedError(f"a kernel's {what} is one plain component, not {text[:80]!r}")
    return text


def _text(value: object, what: str, max_length: int) -> str:
    if not isinstance(value, str) or len(value) > max_length:
        raise MalformedError(f"{what} is text of at most {max_length} characters")
    return value
