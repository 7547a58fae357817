"""The corpus as a table: each kernel with the types, constants and options that it is compiled for."""

from dataclasses import dataclass, field
from typing import Any

from benches.kernels.corpus import attention, elementwise, prefixes, products, rows

_ALIGNED = [["tt.divisibility", 16]]


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A kernel as a trainer would have it compiled."""

    function: Any
    types: str
    """Of its arguments that are not constants, in order."""
    constants: dict[str, int | bool] = field(default_factory=dict)
    options: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.function.__name__)

    def source(self) -> Any:
        """Return what `triton.compile` takes; every pointer is aligned, as those of tensors are."""
        from triton.compiler import ASTSource

        given = iter(self.types.split())
        names = self.function.arg_names
        signature = {name: "constexpr" if name in self.constants else next(given) for name in names}
        aligned = {(at,): _ALIGNED for at, name in enumerate(names) if signature[name].startswith("*")}
        return ASTSource(self.function, signature, dict(self.constants), aligned)


def corpus() -> list[Specimen]:
    """Return all kernels."""
    return [
        Specimen(function=elementwise.vector_add, types="*fp32 *fp32 *fp32 i32", constants={"BLOCK": 1024}),
        Specimen(function=elementwise.seeded_dropout, types="*fp32 *fp32 i32 fp32 i32", constants={"BLOCK": 1024}),
        Specimen(function=elementwise.gelu_backward, types="*bf16 *bf16 *bf16 i32", constants={"BLOCK": 512}),
        Specimen(function=rows.softmax, types="*fp16 *fp16 i32 i32", constants={"BLOCK": 1024}),
        Specimen(
            function=rows.layer_norm,
            types="*fp16 *fp32 *fp32 *fp16 *fp32 *fp32 i32 i32 fp32",
            constants={"BLOCK": 1024},
        ),
        Specimen(
            function=rows.layer_norm_backward,
            types="*fp16 *fp16 *fp32 *fp32 *fp32 *fp16 *fp32 *fp32 i32 i32",
            constants={"BLOCK": 1024},
            options={"num_warps": 8},
        ),
        Specimen(function=rows.group_norm, types="*bf16 *fp32 *fp32 *bf16 i32 i32 i32 fp32", constants={"BLOCK": 1024}),
        Specimen(function=rows.cross_entropy, types="*bf16 *i64 *fp32 *bf16 i32 i32", constants={"BLOCK": 2048}),
        Specimen(
            function=products.matmul,
            types="*fp16 *fp16 *fp16 i32 i32 i32",
            constants={"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "GROUP": 8},
            options={"num_warps": 4, "num_stages": 3},
        ),
        Specimen(
            function=products.quantised_matmul,
            types="*i8 *i8 *fp32 *fp32 i32 i32 i32",
            constants={"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64},
        ),
        Specimen(
            function=attention.attention,
            types="*fp16 *fp16 *fp16 *fp16 *fp32 i32 fp32",
            constants={"WIDTH": 64, "BLOCK_M": 64, "BLOCK_N": 32, "CAUSAL": True},
            options={"num_warps": 4, "num_stages": 2},
        ),
        Specimen(
            function=attention.attention_backward,
            types="*fp16 *fp16 *fp16 *fp16 *fp32 *fp32 *fp32 *fp16 *fp16 i32 fp32",
            constants={"WIDTH": 64, "BLOCK_M": 32, "BLOCK_N": 64},
            options={"num_warps": 4, "num_stages": 1},
        ),
        Specimen(function=prefixes.decayed_scan, types="*fp32 *fp32 *fp32 i32", constants={"BLOCK": 1024}),
        Specimen(function=prefixes.histogram, types="*i32 *i32 i32", constants={"BINS": 256, "BLOCK": 1024}),
    ]
