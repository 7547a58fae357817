"""A worker for kernels, given what a trainer sends and what nobody should send."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import check_digest, digest_of, parse_digest
from compile_wire.kernel.about import read_about
from compile_wire.kernel.spec import KernelSpec, decode_kernel, encode_kernel
from compile_wire.manifest import decode_manifest
from tests.kernels.conftest import Bench, needs_triton

# Triton 3.9 warns about a default that 3.10 will change.
pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")]


@pytest.fixture(scope="module")
def worker() -> Any:
    from compiler_daemon.worker.kernels import KernelCompiler

    return KernelCompiler()


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    """Return softmax for sm_90, lowered as a trainer lowers it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    from benches.kernels.corpus import corpus
    from compile_client.kernels.lowering import KernelRequest, lowered

    (kernel,) = (one for one in corpus() if one.name == "softmax")
    backend = make_backend(GPUTarget("cuda", 90, 32))
    request = KernelRequest(kernel.source(), backend, backend.parse_options({}), {}, "", "", "")
    return decode_kernel(lowered(request))


def answer(worker: Any, spec: KernelSpec | bytes) -> dict[str, Any]:
    data = spec if isinstance(spec, bytes) else encode_kernel(spec)
    *_, last = worker.run(7, "key", data)
    return dict(last)


def test_what_it_hands_over_is_a_whole_kernel_that_names_no_installation(worker: Any, spec: KernelSpec) -> None:
    import triton

    *messages, done = worker.run(7, "key", encode_kernel(spec))

    blobs = {message["sha256"]: message["data"] for message in messages if message["type"] == "blob"}
    manifest = decode_manifest(done["manifest"])
    for digest, data in blobs.items():
        check_digest(data, parse_digest(digest))
    assert [message["phase"] for message in messages if message["type"] == "progress"] == [
        "rebuilding",
        "compiling",
        "packing",
    ]
    assert (manifest.kind, manifest.key, manifest.graph) == ("kernel", "key", digest_of(encode_kernel(spec)))
    assert [blob.name for blob in manifest.blobs] == ["source", "ttir", "ttgir", "llir", "ptx", "cubin", "json"]
    assert blobs.keys() == {blob.sha256 for blob in manifest.blobs}
    about = read_about(manifest.guards)
    assert (about["kernel"], about["target"], about["num_warps"]) == ("softmax", "cuda:90", 4)
    assert 0 < about["registers"] < 256
    (metadata,) = (blobs[blob.sha256] for blob in manifest.blobs if blob.name == "json")
    assert str(Path(triton.__file__).parent).encode() not in metadata


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ttir": "nothing of MLIR"}, "UNSUPPORTED"),
        ({"ttir": "module { llvm.func @f() }"}, "UNSUPPORTED"),
        ({"ttir": "tt.func public nothing of MLIR"}, "UNSUPPORTED"),
        ({"ttir": ""}, "UNSUPPORTED"),
        ({"backend": "abacus", "options": {}}, "UNSUPPORTED"),
        ({"options_digest": "0" * 64}, "KEY_MISMATCH"),
        ({"options": {"num_warps": 8}}, "KEY_MISMATCH"),
        ({"arch": 80}, "KEY_MISMATCH"),
        ({"options": {"num_warps": 3}}, "COMPILE_ERROR"),
    ],
)
def test_what_is_not_the_kernel_that_it_says_is_refused_and_the_worker_lives_on(
    worker: Any, spec: KernelSpec, change: dict[str, Any], reason: str
) -> None:
    if change.get("options"):
        change = {**change, "options": {**spec.options, **change["options"]}}

    refused = answer(worker, dataclasses.replace(spec, **change))

    assert (refused["type"], refused["reason"]) == ("refused", reason)
    assert answer(worker, spec)["type"] == "done"


FUNCTION = "tt.func public @f(%arg0: i32) {{ {} tt.return }}"
ASSEMBLY = (
    '%0 = tt.elementwise_inline_asm ".incbin \\22/etc/hostname\\22" {constraints = "=r,r", '
    "packed_element = 1 : i32, pure = false} %arg0 : i32 -> i32"
)
LLVM_ASSEMBLY = 'llvm.func @g() { llvm.inline_asm has_side_effects "nop", "" : () -> () llvm.return }'
CALLS = '%0 = tt.extern_elementwise %arg0 {libname = "", libpath = "", pure = true, symbol = "SYMBOL"} : (i32) -> i32'

TEXTS = {
    "assembly": "module { " + FUNCTION.format(ASSEMBLY) + " }",
    "assembly in a branch": "module { "
    + FUNCTION.format("%c = arith.constant true scf.if %c { " + ASSEMBLY + " }")
    + " }",
    "LLVM's assembly": "module { " + LLVM_ASSEMBLY + FUNCTION.format("") + " }",
    "a module's assembly": 'module attributes {llvm.module_asm = [".incbin"]} { ' + FUNCTION.format("") + " }",
    "a quoted module's assembly": 'module attributes {"llvm\\2Emodule_asm" = ["x"]} { ' + FUNCTION.format("") + " }",
    "LLVM's global": "module { llvm.mlir.global external @x() : i32 " + FUNCTION.format("") + " }",
    "a function of no name": "module { " + FUNCTION.format("").replace("@f", '@"f .incbin"') + " }",
    "a call of no name": "module { " + FUNCTION.format(CALLS.replace("SYMBOL", "f .incbin")) + " }",
    "an unknown dialect": "module { " + FUNCTION.format('"nvvm.barrier0"() : () -> ()') + " }",
}
EVERYWHERE = {name: text for name, text in TEXTS.items() if not name.startswith("assembly")}
TARGETS = {"cuda": {}, "hip": {"backend": "hip", "arch": "gfx942", "warp_size": 64, "options": {"num_warps": 4}}}


def for_target(spec: KernelSpec, backend: str, text: str) -> KernelSpec:
    """Return the kernel with another target and text, with the options that the worker itself would choose."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    from compile_torch.triton.options import options_digest

    changed = dataclasses.replace(spec, ttir=text, **TARGETS[backend])
    options = make_backend(GPUTarget(changed.backend, changed.arch, changed.warp_size)).parse_options(
        {name: value for name, value in changed.options.items() if name != "arch"}
    )
    return dataclasses.replace(changed, options_digest=options_digest(options))


@pytest.mark.parametrize(
    ("backend", "name"), [*(("hip", name) for name in TEXTS), *(("cuda", name) for name in EVERYWHERE)]
)
def test_a_kernel_brings_no_assembly_that_reads_files_and_no_other_language(
    worker: Any, spec: KernelSpec, backend: str, name: str
) -> None:
    refused = answer(worker, for_target(spec, backend, TEXTS[name]))

    assert (refused["type"], refused["reason"]) == ("refused", "UNSUPPORTED"), refused


def test_assembly_for_nvidias_assembler_is_compiled(worker: Any, spec: KernelSpec) -> None:
    text = TEXTS["assembly"].replace(".incbin \\22/etc/hostname\\22", "mov.u32 $0, $1;")

    assert answer(worker, for_target(spec, "cuda", text))["type"] == "done"


def test_a_kernel_that_fails_leaves_no_file_behind(
    worker: Any, spec: KernelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    failed = answer(worker, for_target(spec, "cuda", TEXTS["assembly"]))

    assert failed["reason"] == "COMPILE_ERROR"
    assert list(tmp_path.iterdir()) == []


def test_text_that_brings_mlir_down_costs_workers_and_never_the_daemon(bench: Bench, spec: KernelSpec) -> None:
    import grpc

    from compile_torch.triton.environment import kernel_environment
    from compile_wire.environment import environment_id
    from compile_wire.limits import PROTOCOL_VERSION
    from compile_wire.v1 import compiler_daemon_pb2 as pb
    from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
    from compile_wire.v1 import kernels_pb2, kernels_pb2_grpc

    daemon = bench.daemon("--workers", "1")
    fields = dict(kernel_environment())
    other = {"python": "another"}
    # No stage turns this call of a function into PTX: depending on its version, LLVM fails an assertion or reports it.
    bad = "module { tt.func private @g() -> i32\n tt.func public @f() { %0 = tt.call @g() : () -> i32\n tt.return } }"

    with grpc.insecure_channel(daemon.address) as channel:
        graphs, kernels = pb_grpc.CompileServiceStub(channel), kernels_pb2_grpc.KernelServiceStub(channel)
        options: Any = {"timeout": 120, "metadata": daemon.metadata}
        for environment in (fields, other):
            graphs.Handshake(pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=environment), **options)

        def compiled(key: str, text: str, environment: dict[str, str] = fields) -> pb.CompileGraphResponse:
            request = kernels_pb2.CompileKernelRequest(
                environment_id=environment_id(environment),
                key=key,
                kernel=pb.Graph(data=encode_kernel(dataclasses.replace(spec, ttir=text))),
                interpreter=sys.executable,
            )
            *_, last = kernels.CompileKernel(request, **options)
            return last

        assert compiled("bad", bad).WhichOneof("event") == "refused"
        assert compiled("good", spec.ttir).WhichOneof("event") == "artifact"
        with pytest.raises(grpc.RpcError) as error:
            compiled("good", spec.ttir, other)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_bytes_that_are_no_kernel_are_refused(worker: Any) -> None:
    assert answer(worker, b"\x00" * 40)["reason"] == "UNSUPPORTED"


def test_a_kernels_worker_imports_no_torch() -> None:
    code = "import sys, compiler_daemon.worker.kernels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
