"""A process that calls an autotuned kernel, with a driver that launches nothing and a timer that invents times.

No device is needed. Triton's autotuner, its cache and the compile of each candidate are real. The process prints how
often the timer ran, and which configuration won.
"""

import json
import os

import compile_client

compile_client._activate()

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton import knobs  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import MockTensor  # noqa: E402

TIMES = {64: 3.0, 128: 1.0, 256: 2.0}
timed: list[float] = []
ready: list[int] = []
seen: list[bool] = []


class Utils:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        return 0, 0, 32, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 17}

    def unload_module(self, module: int) -> None:
        pass


class Driver:
    """A driver with just enough in it for a launch that does nothing."""

    utils = Utils()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def launcher_cls(self, source: object, metadata: object) -> object:
        return lambda *arguments: None


def timer(call: object, quantiles: object = None) -> list[float]:
    ready.append(len(seen))
    call()  # type: ignore[operator] # compiles, and launches nothing
    timed.append(1.0)
    return [TIMES[64 * 2 ** (len(timed) - 1)]] * 3


@triton.autotune([triton.Config({"BLOCK": block}, num_warps=4) for block in TIMES], key=["n"], do_bench=timer)
@triton.jit
def scaled(x_ptr, n, BLOCK: tl.constexpr):  # noqa: N803 - as constants of kernels are written
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n) * 2.0, mask=offsets < n)


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    knobs.compilation.listener = lambda **about: seen.append(about["cache_hit"])
    for n in (int(text) for text in os.environ["SIZES"].split(",")):
        scaled[(1,)](MockTensor("fp32"), n)
    print(
        json.dumps(
            {
                "timed": len(timed),
                "best": scaled.best_config.kwargs["BLOCK"],
                "compiles": seen.count(False),
                "ready": ready[:1],
            }
        )
    )


main()
