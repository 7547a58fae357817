"""The files of a graph's Triton kernels before they are stored, as Triton makes them for an absent GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kernels.conftest import needs_triton

# Triton 3.9 warns about a default that 3.10 will change.
pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")]

# torch writes such kernels: they use functions of Triton's, of torch's for kernels, and of NVIDIA's library.
KERNEL = """
import triton
import triton.language as tl
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math
from torch._inductor.runtime import triton_helpers

@triton.jit
def softened(in_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(in_ptr + at, mask=at < n, other=0.0)
    most = triton_helpers.max2(x[None, :], 1)[:, None]
    tl.store(out_ptr + at[None, :], libdevice.erf(x[None, :] - most) * tl.sigmoid(tl.sum(x, 0)), mask=(at < n)[None, :])
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the files in Triton's cache after a compile for sm_90 from a file in torch's cache."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    caches = tmp_path / "torchinductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(caches))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    path = caches / "ab" / "cab.py"
    path.parent.mkdir(parents=True)
    path.write_text(KERNEL)
    spec = importlib.util.spec_from_file_location("cab", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = ASTSource(
        module.softened,
        {"in_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"},
        {"BLOCK": 64},
    )
    triton.compile(source, target=GPUTarget("cuda", 90, 32))
    return {found.name: found.read_bytes() for found in (tmp_path / "triton").rglob("softened.*")}


def test_kernels_of_a_graph_name_no_folder_and_run_the_same(files: dict[str, bytes], tmp_path: Path) -> None:
    import torch
    import triton
    from torch._inductor.triton_bundler import TritonBundle, TritonKernelArtifact, TritonKernelArtifacts

    from compile_torch.entries import scrub

    kernel = TritonKernelArtifacts("HASH", 0, [TritonKernelArtifact(name, data) for name, data in files.items()])
    code = SimpleNamespace(_triton_bundle=TritonBundle([kernel], []))
    places = [str(tmp_path), str(Path(torch.__file__).parent), str(Path(triton.__file__).parent)]
    named = {place: [name for name, data in files.items() if place.encode() in data] for place in places}
    assert all(len(names) >= 3 for names in named.values()), named  # otherwise the test shows nothing

    scrub(SimpleNamespace(compiled_fw=SimpleNamespace(result=code)))

    (after,) = code._triton_bundle.kernel_artifacts
    kept = {file.filename: file.payload for file in after.artifacts}
    assert {name: len(data) for name, data in kept.items()} == {name: len(data) for name, data in files.items()}
    for place in places:
        assert not [name for name, data in kept.items() if place.encode() in data], place
    assert b'ab/cab.py"' in kept["softened.ttir"]
    assert instructions(kept["softened.cubin"], tmp_path) == instructions(files["softened.cubin"], tmp_path)


def instructions(binary: bytes, folder: Path) -> str:
    import triton

    path = folder / "softened.cubin"
    path.write_bytes(binary)
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    listing = subprocess.run([program, "-sass", path], capture_output=True, text=True, check=True).stdout
    assert "EXIT" in listing
    return listing


def test_a_kernel_that_torch_launches_statically_is_at_home_where_it_is_loaded(tmp_path: Path) -> None:
    """Its file and the best of its configurations are sought and kept in the cache of the process that runs it."""
    payload, there, here = tmp_path / "payload", tmp_path / "there", tmp_path / "here"

    _static("write", payload, there)
    shutil.rmtree(there)
    said = _static("read", payload, here)

    assert str(there).encode() not in payload.read_bytes()
    assert said["launched_statically"] == [said["name"]] == ["doubled"]
    assert said["arguments"] == "OOi"
    assert said["below_its_own_cache"]
    assert (said["kept_below_its_own_cache"], said["found_again"]) == (1, [1, "hit"])
    assert not there.exists()


def _static(what: str, payload: Path, caches: Path) -> dict[str, Any]:
    script = Path(__file__).parent / "trainers" / "static_payload.py"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "TRITON"))}
    places = {"TORCHINDUCTOR_CACHE_DIR": str(caches), "TRITON_CACHE_DIR": str(caches / "triton")}
    command = [sys.executable, script, what, payload]
    done = subprocess.run(command, capture_output=True, text=True, env=kept | places, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
