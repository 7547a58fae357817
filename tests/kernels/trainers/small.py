"""A process that needs a few Triton kernels: `small.py TARGET,... NAME...`.

It calls the client's entry point itself, as the end of torch's import would. It prints one JSON document: the digest of
every file of every kernel, and what Triton's listener saw.
"""

import hashlib
import json
import os
import sys

import compile_client

pretended = os.environ.get("PRETEND", "")
if not pretended:
    compile_client._activate()

import triton  # noqa: E402 - after the client, as in a trainer that imports torch first
import triton.language as tl  # noqa: E402
from triton import knobs  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402

from benches.kernels.corpus import Specimen, corpus  # noqa: E402

if pretended == "version":
    triton.__version__ = "4.0.0"

original = triton.compiler.compiler.ASTSource.make_ir


def other_signature(self: object, *arguments: object) -> object:
    return original(self, *arguments)


if pretended == "signature":
    triton.compiler.compiler.ASTSource.make_ir = other_signature
if pretended:
    compile_client._activate()
    assert "manager_class" not in vars(knobs.cache)


def hook(*arguments: object) -> tuple[str, str]:
    return ("hooked", "hooked")


@triton.jit
def spilling(x_ptr, out_ptr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803 - as constants of kernels are written
    """Needs more registers than a thread has."""
    at = tl.arange(0, BLOCK)
    a, b = tl.load(x_ptr + at), tl.load(x_ptr + BLOCK + at)
    c, d = tl.load(x_ptr + 2 * BLOCK + at), tl.load(x_ptr + 3 * BLOCK + at)
    for _ in range(ROUNDS):
        a = a * b + c
        b = b * d + a
        c = c * b + d
        d = d * a + b
    tl.store(out_ptr + at, a + b + c + d)


SPILLING = Specimen(
    function=spilling, types="*fp32 *fp32", constants={"ROUNDS": 8, "BLOCK": 4096}, options={"num_warps": 1}
)


@triton.jit
def planted(x_ptr, y_ptr, n, BLOCK: tl.constexpr):  # noqa: N803
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n) * 2, mask=offsets < n)


def planted_source(fields: dict[str, object]) -> object:
    """Return a kernel with the differences that the test plants."""
    if "code" in fields:
        planted._unsafe_update_src(planted.src.replace("* 2", str(fields["code"])))
    types = {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr", **fields.get("types", {})}  # type: ignore[dict-item]
    constants = {(3,): fields.get("BLOCK", 128)} | ({(2,): 1} if types["n"] == "constexpr" else {})
    aligned = {(place,): [["tt.divisibility", 16]] for place in fields.get("aligned", [0, 1])}  # type: ignore[attr-defined]
    return triton.compiler.ASTSource(planted, types, constants, aligned)


def main() -> None:
    targets, *names = sys.argv[1:]
    if os.environ.get("WITH_HOOK"):
        knobs.runtime.add_stages_inspection_hook = hook
    seen: list[bool] = []
    knobs.compilation.listener = lambda **about: seen.append(about["cache_hit"])
    files: dict[str, str] = {}
    for target in targets.split(","):
        backend, _, arch = target.partition(":")
        gpu = GPUTarget(backend, int(arch) if arch.isdigit() else arch, 64 if backend == "hip" else 32)
        for kernel in (*corpus(), SPILLING):
            if "planted" in names:
                continue
            if kernel.name in names:
                compiled = triton.compile(kernel.source(), target=gpu, options=dict(kernel.options))
                for name, path in sorted(compiled.metadata_group.items()):
                    with open(path, "rb") as file:
                        files[f"{target} {name}"] = hashlib.sha256(file.read()).hexdigest()
        if "planted" in names:
            fields = json.loads(os.environ["PLANTED"])
            options = {"num_warps": fields.get("num_warps", 4)}
            triton.compile(planted_source(fields), target=gpu, options=options)
    print(json.dumps({"files": files, "compiles": seen.count(False), "hits": seen.count(True)}))


main()
