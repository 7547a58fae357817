"""One process that needs every kernel of the corpus, for each target that it is given; started by the bench.

    python -m benches.kernels.process cuda:90 hip:gfx942

It imports torch as a trainer does (which is what switches the compile client on), compiles, and prints one JSON
document: seconds, compiles and hits as Triton's own listener counts them, digests of the binaries.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from compile_wire.digest import digest_of

_WARP = {"cuda": 32, "hip": 64}


def main(targets: list[str]) -> int:
    """Compile; return the exit code."""
    import torch  # noqa: F401 - a trainer has imported it, and with it the client
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget

    from benches.kernels.corpus import corpus

    outcomes: list[bool] = []
    knobs.compilation.listener = lambda **about: outcomes.append(bool(about["cache_hit"]))
    digests: dict[str, str] = {}
    kernels = corpus()
    compile_kernel: Any = triton.compile  # untyped
    start = time.monotonic()
    for text in targets:
        backend, _, arch = text.partition(":")
        target = GPUTarget(backend, int(arch) if arch.isdigit() else arch, _WARP[backend])
        for kernel in kernels:
            compiled = compile_kernel(kernel.source(), target=target, options=dict(kernel.options))
            digests[f"{text}/{kernel.name}"] = digest_of(compiled.kernel)
    document = {
        "seconds": round(time.monotonic() - start, 3),
        "kernels": len(digests),
        "compiles": outcomes.count(False),
        "hits": outcomes.count(True),
        "triton": triton.__version__,
        "digests": digests,
    }
    print(json.dumps(document), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
