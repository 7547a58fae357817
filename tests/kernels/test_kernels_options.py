"""Every option that Triton gives a kernel for some target either travels or is one that never does."""

from __future__ import annotations

import pytest

from compile_torch.triton.options import option_values
from compile_wire.kernel.options import check_options
from tests.kernels.conftest import needs_triton

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")]

TARGETS = [
    *(("cuda", arch, 32) for arch in (75, 80, 86, 89, 90, 100, 120)),
    *(("hip", arch, 64) for arch in ("gfx90a", "gfx942", "gfx950")),
    *(("hip", arch, 32) for arch in ("gfx1100", "gfx1201", "gfx1250")),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target[0]}:{target[1]}")
def test_what_triton_itself_sets_for_a_target_keeps_no_kernel_from_travelling(
    target: tuple[str, int | str, int],
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    options = make_backend(GPUTarget(*target)).parse_options({})

    check_options(target[0], option_values(options))
