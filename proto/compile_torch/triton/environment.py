"""The environment of kernels: what decides, beside Triton's own key, whether a compiled kernel can be used here.

Triton's key names source, options, target and assembler. What it does not need to name is the machine: a kernel is code
for its target and for nothing else, so that a machine without a GPU may compile for those that have one. Its version
stands here in the open, so that what a daemon lists can be told apart.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
from collections.abc import Mapping

from compile_wire.digest import digest_of
from compile_wire.kernel.environment import KIND, KIND_FIELD


@functools.cache
def kernel_environment() -> Mapping[str, str]:
    """Return the environment's fields, by name."""
    import triton
    from triton.runtime.cache import triton_key

    return {KIND_FIELD: KIND, "triton": f"{triton.__version__}-{digest_of(triton_key().encode())[:32]}"}
