"""What differs between the versions of Triton that are supported: one table, and the signatures that must hold.

| triton    | inspection hook   | the key of a `hip` kernel       | a group with a file missing | a damaged group file |
|-----------|-------------------|---------------------------------|-----------------------------|----------------------|
| 3.6       | not in the key    | holds paths of the installation | served in part              | raises               |
| 3.7       | in the key        | holds paths of the installation | served in part              | is a miss            |
| 3.8       | in the key        | holds paths of the installation | is a miss                   | is a miss            |
| 3.9       | in the key        | holds the libraries' digests    | is a miss                   | is a miss            |

All four were run here, for targets without a device. The last two columns are bridged without asking for the version:
a group is looked at before Triton is given it. Where a signature differs, the hook stays off and says so.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

OLDEST, NEWEST = (3, 6), (3, 9)


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonVersion:
    """Says in what one version of Triton differs from the others."""

    hook_in_key: bool
    """An inspection hook joins the key; where not, kernels compiled under one must not be kept at all."""
    hip_key_has_paths: bool
    """A `hip` kernel's key differs from one installation of the same Triton to the next; ours replaces the paths."""


def triton_version() -> TritonVersion | None:
    """Return what is known of this Triton; None where it is too old or too new to be known."""
    import triton

    try:
        major, minor = (int(part) for part in str(triton.__version__).split(".")[:2])
    except ValueError:
        return None
    version = (major, minor)
    if not OLDEST <= version <= NEWEST:
        return None
    return TritonVersion(hook_in_key=version >= (3, 7), hip_key_has_paths=version < (3, 9))


def unsupported_reasons() -> list[str]:
    """Return in words what of Triton is not as it should be; empty means that everything touched is as known."""
    import triton

    if triton_version() is None:
        span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        return [f"triton {triton.__version__} is not one of the versions known ({span})"]
    try:
        expected, compile_names = _expected()
    except (ImportError, AttributeError) as error:
        return [f"triton has changed: {error}"]
    found = []
    for name, function, parameters in expected:
        actual = list(inspect.signature(function).parameters)
        if actual != parameters:
            found.append(f"{name} takes ({', '.join(actual)}), expected ({', '.join(parameters)})")
    found += [
        f"triton.compile does not call {name}"
        for name in ("get_cache_key", "get_cache_manager")
        if name not in compile_names
    ]
    return found


def _expected() -> tuple[list[tuple[str, Any, list[str]]], tuple[str, ...]]:
    """Return all that is replaced, derived from or called with arguments of ours, and the names that `compile` uses."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import compiler
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.cache import FileCacheManager

    functions = [
        ("triton.compile", compiler.compile, ["src", "target", "options", "_env_vars"]),
        ("get_cache_key", compiler.get_cache_key, ["src", "backend", "backend_options", "env_vars"]),
        ("make_backend", compiler.make_backend, ["target"]),
        ("FileCacheManager", FileCacheManager, ["key", "override", "dump"]),
        ("FileCacheManager.get_file", FileCacheManager.get_file, ["self", "filename"]),
        ("FileCacheManager.get_group", FileCacheManager.get_group, ["self", "filename"]),
        ("FileCacheManager.put_group", FileCacheManager.put_group, ["self", "filename", "group"]),
        ("FileCacheManager.put", FileCacheManager.put, ["self", "data", "filename", "binary"]),
        (
            "ASTSource.make_ir",
            compiler.ASTSource.make_ir,
            ["self", "target", "options", "codegen_fns", "module_map", "context"],
        ),
        (
            "Autotuner.check_disk_cache",
            Autotuner.check_disk_cache,
            ["self", "tuning_key", "configs", "bench_fn"],
        ),
        ("Autotuner._bench", Autotuner._bench, ["self", "args", "config", "meta"]),
        ("Autotuner.prune_configs", Autotuner.prune_configs, ["self", "kwargs"]),
        ("GPUTarget", GPUTarget, ["backend", "arch", "warp_size"]),
    ]
    return functions, compiler.compile.__code__.co_names
