"""The options that a Triton kernel may bring along: names and types, for each backend.

Numbers, flags and words that choose among ways to compute. What names a file, gives words to an assembler's command
line or puts other code into the kernel (`NEVER_CARRIED`) does not travel: a kernel that has one is malformed. The names
are those of Triton 3.6 to 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from compile_wire.errors import MalformedError

Option = bool | int | float | str | tuple["Option", ...] | None
"""What an option of Triton's may be."""

NEVER_CARRIED = frozenset({"extern_libs", "ptx_options", "ir_override", "instrumentation_mode", "llvm_fn_attrs"})

_WORD = re.compile(r"[A-Za-z0-9_,-]{0,64}")
_LARGEST = 2**31

_NUMBER, _FLAG, _TEXT, _TEXTS = "a number", "a flag", "a word", "words"

_COMMON: Mapping[str, str] = {
    "num_warps": _NUMBER,
    "num_ctas": _NUMBER,
    "num_stages": _NUMBER,
    "warp_size": _NUMBER,
    "debug": _FLAG,
    "sanitize_overflow": _FLAG,
    "enable_fp_fusion": _FLAG,
    "launch_cooperative_grid": _FLAG,
    "supported_fp8_dtypes": _TEXTS,
    "deprecated_fp8_dot_operand_dtypes": _TEXTS,
    "default_dot_input_precision": _TEXT,
    "allowed_dot_input_precisions": _TEXTS,
    "max_num_imprecise_acc_default": _NUMBER,
    "backend_name": _TEXT,
    "arch": _TEXT,
}
_CUDA: Mapping[str, str] = {
    "maxnreg": _NUMBER,
    "ptx_version": _NUMBER,
    "enable_reflect_ftz": _FLAG,
    "launch_pdl": _FLAG,
    "sched4reg": _FLAG,
    "clc": _FLAG,
    "fpsan_homomorphic_casts": _FLAG,
    "min_shared_mem": _NUMBER,
}
_HIP: Mapping[str, str] = {
    "waves_per_eu": _NUMBER,
    "matrix_instr_nonkdim": _NUMBER,
    "kpack": _NUMBER,
    "allow_flush_denorm": _FLAG,
    "schedule_hint": _TEXT,
    "fpsan_homomorphic_casts": _FLAG,
    "wgp_cu_mode": _TEXT,
    "base_arch": _TEXT,
}
_BACKENDS: Mapping[str, Mapping[str, str]] = {"cuda": {**_COMMON, **_CUDA}, "hip": {**_COMMON, **_HIP}}


def check_options(backend: str, options: Mapping[str, Option]) -> None:
    """Raise `MalformedError` where an option of a kernel for this backend is not one that may travel."""
    known = _BACKENDS.get(backend, _COMMON)
    for name, value in options.items():
        kind = known.get(name)
        if kind is None:
            raise MalformedError(f"the option {name[:60]!r} of a kernel for {backend} does not travel")
        if not _is(value, kind):
            raise MalformedError(f"the option {name} is {kind}, not {str(value)[:60]!r}")


def _is(value: Option, kind: str) -> bool:
    if value is None:
        return True
    if kind == _FLAG:
        return isinstance(value, bool)
    if kind == _NUMBER:
        # Triton's own defaults have flags where numbers are meant.
        return isinstance(value, int) and 0 <= value <= _LARGEST
    if kind == _TEXT:
        return isinstance(value, str) and _WORD.fullmatch(value) is not None
    return isinstance(value, tuple) and all(item is not None and _is(item, _TEXT) for item in value)
