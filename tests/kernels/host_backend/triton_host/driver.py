"""The driver's half of the backend: it loads binaries and launches them on the calling thread."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from triton_host.program import Program


class HostLauncher:
    """Launches a kernel for Triton. `source` has the parameters' types; constants are part of the binary."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._taken = [kind != "constexpr" for kind in source.signature.values()]

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: int,
        program: Program,
        packed: Any,
        about: Any,
        enter: Any,
        leave: Any,
        *args: Any,
    ) -> None:
        if enter is not None:
            enter(about)
        values = [
            arg.data_ptr() if hasattr(arg, "data_ptr") else arg
            for arg, taken in zip(args, self._taken, strict=True)
            if taken
        ]
        for at in itertools.product(range(x), range(y), range(z)):
            program.run(values, at, (x, y, z))
        if leave is not None:
            leave(about)


class HostUtils:
    @staticmethod
    def load_binary(name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Program, int, int, int]:
        """Return a module, the function, registers, spills, and the largest number of threads in a block."""
        program = Program(binary)
        if program.name != name:
            raise RuntimeError(f"the binary of {name} is one of {program.name}")
        if log := os.environ.get("HOST_KERNELS_LOG"):
            with open(log, "a") as file:
                file.write(f"loaded {name}\n")
        return program, program, 0, 0, 1024

    @staticmethod
    def unload_module(module: Program) -> None:
        """Do nothing: a program goes when nobody has it any more. Triton calls this from 3.9 on."""

    @staticmethod
    def get_device_properties(device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**16, "multiprocessor_count": 1, "warpSize": 32}


class HostDriver(DriverBase):
    def __init__(self) -> None:
        super().__init__()
        self.utils = HostUtils()
        self.launcher_cls = HostLauncher

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("nothing is compiled from C++")

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", "", 32)

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """Do nothing, because there is only one device."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_interface(self) -> Any:
        import torch

        return torch.cpu

    def get_empty_cache_for_benchmark(self) -> Any:
        import torch

        return torch.empty(1)

    def clear_cache(self, cache: Any) -> None:
        cache.zero_()

    def get_benchmarker(self) -> Callable[..., Any]:
        def benchmark(call: Callable[[], Any], *, quantiles: Sequence[float] | None = None, **_: Any) -> Any:
            begun = time.perf_counter()
            call()
            milliseconds = (time.perf_counter() - begun) * 1000
            return [milliseconds] * len(quantiles) if quantiles else milliseconds

        return benchmark
