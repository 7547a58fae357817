"""A kernel on its way to another process: which may go, and the text that goes.

A kernel is compiled elsewhere only where the result cannot differ from a compile here. Others are compiled here, and
published where their key says everything that they were made of.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any

from compile_torch.triton.options import LIBRARIES, CannotTravelError, option_values, options_digest
from compile_torch.triton.versions import TritonVersion
from compile_wire.kernel.spec import KernelArgument, KernelSpec, encode_kernel, is_plain_name
from compile_wire.limits import MAX_NAME_TEXT


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """What `triton.compile` is about to compile, as its key was computed from it."""

    source: Any
    backend: Any
    options: Any
    env_vars: dict[str, str]
    key: str
    """Triton's hash, in hex."""
    manager_key: str
    """The same as the cache manager is given it."""
    store_key: str
    """What the daemon files it under: Triton's hash, without the paths that some versions put into it."""


def store_key(key: str, parts: tuple[Any, Any, Any, Any], version: TritonVersion) -> str:
    """Return Triton's key, or one of the same parts that holds in every installation of this Triton."""
    source, backend, options, env_vars = parts
    if not version.hip_key_has_paths or getattr(options, "backend_name", "") != "hip":
        return key
    portable = f"{source.hash()}-{backend.hash()}-{options_digest(options)}-{sorted(env_vars.items())}"
    return hashlib.sha256(portable.encode()).hexdigest()


def why_not_kept(request: KernelRequest) -> str:
    """Return why this kernel must neither be served nor published; empty where it may.

    These change the result, or mean to, and are not in the key.
    """
    from triton import knobs

    compilation = knobs.compilation
    if compilation.override or compilation.always_compile or compilation.dump_ir or compilation.use_ir_loc:
        return "Triton was told to override, to dump or always to compile"
    if compilation.instrumentation_mode or getattr(type(request.backend), "instrumentation", None):
        return "kernels are instrumented"
    if getattr(request.options, "ir_override", None):
        return "its configuration overrides it with a file"
    if any(os.path.isabs(str(value)) for value in request.env_vars.values()):
        return "a variable that is in its key holds a path"
    return ""


def lowered(request: KernelRequest) -> bytes:
    """Return the KernelSpec; raise `CannotTravelError` or `MalformedError` where it is better compiled here.

    What Triton's frontend raises about the kernel passes through: the compile here raises it again, to the user.
    """
    from triton import knobs
    from triton._C.libtriton import ir
    from triton.backends.compiler import Language
    from triton.compiler.compiler import ASTSource

    source, backend, options = request.source, request.backend, request.options
    if type(source) is not ASTSource or source.language != Language.TRITON:
        raise CannotTravelError("it is not written in Triton's own language")
    if request.env_vars:
        raise CannotTravelError(f"{', '.join(sorted(request.env_vars))} is set in this process")
    if knobs.runtime.add_stages_inspection_hook is not None:
        raise CannotTravelError("a hook inspects the stages of its compile")
    if knobs.compilation.store_binary_only or knobs.runtime.override_arch:
        raise CannotTravelError("Triton was told to store less, or to take another architecture")
    default = dict(getattr(backend.parse_options({}), LIBRARIES, None) or ())
    if dict(getattr(options, LIBRARIES, None) or ()) != default:
        raise CannotTravelError("it links libraries of its own")

    if not is_plain_name(str(backend.target.arch)):
        raise CannotTravelError(f"its target {backend.target.backend} names no architecture")
    values = option_values(options)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = source.make_ir(
        backend.target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    text = str(module)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, source.language)
    if next(iter(stages), "") != "ttir":
        raise CannotTravelError("its pipeline does not begin with ttir")
    metadata = dict(vars(options))
    before = dict(metadata)
    module = stages["ttir"](module, metadata)
    if metadata != before:
        raise CannotTravelError("the first stage of its pipeline says something about it")
    target = backend.target
    return encode_kernel(
        KernelSpec(
            name=plain_name(source.name),
            backend=target.backend,
            arch=target.arch,
            warp_size=target.warp_size,
            source=text,
            ttir=str(module),
            options=values,
            options_digest=options_digest(options),
            code=str(source.fn.cache_key),
            arguments=_arguments(source),
        )
    )


def _arguments(source: Any) -> tuple[KernelArgument, ...]:
    """Return what Triton's key has of each parameter; of values inside of tuples, their tuple's type alone."""
    return tuple(
        KernelArgument(
            name=_short(name),
            type=_short(source.signature.get(name, "")),
            constant=_short(_constant(source.constants[(at,)])) if (at,) in source.constants else None,
            special=_short(", ".join(_fact(*fact) for fact in source.attrs.get((at,), ()))),
        )
        for at, name in enumerate(source.fn.arg_names)
    )


def _constant(value: Any) -> str:
    """Return a constant as its author wrote it; for a function, its name and the digest that Triton knows it by."""
    if hasattr(value, "cache_key"):
        return f"{getattr(value, '__name__', 'function')} {str(value.cache_key)[:16]}"
    return str(value) if isinstance(value, (bool, int, float)) or value is None else repr(value)


def _fact(name: Any, value: Any) -> str:
    return f"divisible by {value}" if name == "tt.divisibility" else f"{name}={value}"


def _short(text: Any) -> str:
    """Return text within the wire's bound; of what is longer, the beginning and a digest of all of it."""
    whole = str(text)
    if len(whole) <= MAX_NAME_TEXT // 4:
        return whole
    return f"{whole[: MAX_NAME_TEXT // 8]}... {hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def plain_name(name: str) -> str:
    """Return a kernel's name as it may stand in a spec and in a list."""
    plain = re.sub(r"[^A-Za-z0-9_.\-]", "_", name).lstrip(".-")[:150]
    return plain if is_plain_name(plain) else "kernel"
