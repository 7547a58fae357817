"""The compiler's half of the backend: its options and two stages."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget

from triton_host.program import HEADER, Program


@dataclass(frozen=True)
class HostOptions:
    num_warps: int = 1
    warp_size: int = 32
    num_ctas: int = 1
    num_stages: int = 1
    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = False
    supported_fp8_dtypes: tuple[str, ...] = ()
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee",)
    max_num_imprecise_acc_default: int = 0
    instrumentation_mode: str = ""
    backend_name: str = "cpu"

    def hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()


class HostBackend(BaseBackend):
    supports_native_tensor_specialization = False
    instrumentation = None

    def __init__(self, target: GPUTarget) -> None:
        super().__init__(target)
        self.binary_ext = "hostbin"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return target.backend == "cpu"

    @functools.lru_cache  # noqa: B019 - as Triton's own backends
    def hash(self) -> str:
        """Return what a kernel's key has in place of an assembler's version: the digest of this folder."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
        return "host-" + hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    def parse_options(self, options: dict[str, Any]) -> HostOptions:
        known = HostOptions.__dataclass_fields__
        return HostOptions(**{name: value for name, value in options.items() if name in known and value is not None})

    def pack_metadata(self, metadata: Any) -> tuple[int, int, int]:
        return metadata.num_warps, metadata.num_ctas, metadata.shared

    def get_codegen_implementation(self, options: HostOptions) -> dict[str, Any]:
        return {"min_dot_size": lambda left, right: (1, 1, 1)}

    def get_module_map(self) -> dict[str, ModuleType]:
        return {}

    def load_dialects(self, context: Any) -> None:
        """Do nothing, because Triton's own dialects are enough."""

    def add_stages(self, stages: dict[str, Any], options: HostOptions, language: Any) -> None:
        stages["ttir"] = self._ttir
        stages["hostbin"] = self._binary

    @staticmethod
    def _ttir(module: Any, metadata: dict[str, Any]) -> Any:
        manager = ir.pass_manager(module.context)
        passes.common.add_inliner(manager)
        passes.ttir.add_combine(manager)
        passes.common.add_canonicalizer(manager)
        passes.ttir.add_reorder_broadcast(manager)
        passes.common.add_cse(manager)
        passes.common.add_symbol_dce(manager)
        manager.run(module, "make_ttir")
        return module

    @staticmethod
    def _binary(module: Any, metadata: dict[str, Any]) -> bytes:
        if log := os.environ.get("HOST_KERNELS_LOG"):
            with open(log, "a") as file:
                file.write(f"compiled {module.get_entry_func_name()}\n")
        metadata["name"] = module.get_entry_func_name()
        metadata["shared"] = 0
        binary = HEADER + module.str_nodebug().encode()
        Program(binary)  # refuses here, and not at launch, a kernel that it does not understand
        return binary
