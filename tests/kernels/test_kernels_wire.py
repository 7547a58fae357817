"""Kernels on the wire: specs, manifests, and what the client reads from binaries. No test needs Triton."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile_torch.triton.metadata import local_metadata, portable_metadata
from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError
from compile_wire.kernel.about import about_kernel, about_timings, about_winner, read_about
from compile_wire.kernel.options import NEVER_CARRIED
from compile_wire.kernel.spec import KernelArgument, KernelSpec, decode_kernel, encode_kernel
from compile_wire.limits import MAX_KERNEL_BYTES
from compile_wire.manifest import BlobRef, Manifest, decode_manifest, encode_manifest
from compile_wire.packing import pack, unpack

SPEC = KernelSpec(
    name="softmax",
    backend="cuda",
    arch=90,
    warp_size=32,
    source="module {}",
    ttir="module {}",
    options={"num_warps": 4, "enable_fp_fusion": True, "maxnreg": None, "supported_fp8_dtypes": ("fp8e5", "fp8e4nv")},
    options_digest=digest_of(b"options"),
    code=digest_of(b"code"),
    arguments=(KernelArgument(name="x", type="*fp32", constant=None, special="divisible by 16"),),
)


def manifest(*roles: str) -> Manifest:
    return Manifest(
        key="k",
        environment=digest_of(b"e"),
        guards="",
        graph="",
        compile_s=0.5,
        origin="trainer",
        blobs=tuple(
            BlobRef(role=role, name=f"n{number}", sha256=digest_of(b""), size=0)  # type: ignore[arg-type] # also wrong ones
            for number, role in enumerate(roles)
        ),
    )


def changed(**fields: Any) -> bytes:
    return pack(unpack(encode_kernel(SPEC), max_bytes=MAX_KERNEL_BYTES, what="kernel") | fields)


def test_a_spec_comes_back_as_it_went() -> None:
    assert decode_kernel(encode_kernel(SPEC)) == SPEC
    assert encode_kernel(decode_kernel(encode_kernel(SPEC))) == encode_kernel(SPEC)


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 1},
        {"v": 3},
        {"code": "0" * 129},
        {"arguments": [["x"] * 4] * 1025},
        {"arguments": [["x", "*fp32", None]]},
        {"arguments": [["x", "*fp32", 1, ""]]},
        {"arguments": [["x" * 1025, "*fp32", None, ""]]},
        {"arguments": {"x": "*fp32"}},
        {"more": 1},
        {"name": "../../etc/passwd"},
        {"name": ""},
        {"arch": "a b"},
        {"arch": -1},
        {"arch": True},
        {"warp_size": 0},
        {"options": {"num_warps": {"b": 1}}},
        {"options": {"num_warps": b"bytes"}},
        {"options": {"num_warps": float("nan")}},
        {"options": {f"o{n}": 1 for n in range(257)}},
        {"options": {"supported_fp8_dtypes": ["a"] * 5000}},
        {"ttir": 1},
        {"options_digest": "0" * 65},
    ],
)
def test_what_is_no_kernel_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        decode_kernel(changed(**fields))


OPTIONS = [
    *(
        (name, value)
        for name in sorted(NEVER_CARRIED)
        for value in ("/etc/passwd", "", None, [["a", "/etc/passwd"]], 1)
    ),
    ("no_such_option", 1),
    ("", 1),
    ("__class__", 1),
    ("num_warps", "4"),
    ("num_warps", 4.0),
    ("num_warps", -1),
    ("num_warps", 2**40),
    ("num_warps", [4]),
    ("enable_fp_fusion", 1),
    ("enable_fp_fusion", "yes"),
    ("arch", "../sm90"),
    ("arch", "sm 90"),
    ("arch", 90),
    ("default_dot_input_precision", "tf32\n"),
    ("default_dot_input_precision", "x" * 65),
    ("supported_fp8_dtypes", "fp8e5"),
    ("supported_fp8_dtypes", ["a/b"]),
    ("supported_fp8_dtypes", [None]),
    ("supported_fp8_dtypes", [["fp8e5"]]),
    ("schedule_hint", "none"),
    ("kpack", 1),
]


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_an_option_is_one_of_the_backends_and_of_its_type(name: str, value: Any) -> None:
    with pytest.raises(MalformedError, match="option"):
        decode_kernel(changed(options={name: value}))


@pytest.mark.parametrize("backend", ["hip", "cpu", "abacus"])
def test_another_backend_has_its_own_options(backend: str) -> None:
    with pytest.raises(MalformedError, match="does not travel"):
        decode_kernel(changed(backend=backend, options={"maxnreg": 32}))
    decode_kernel(changed(backend=backend, options={"num_warps": 4}))


def test_a_kernel_that_is_too_long_is_not_written() -> None:
    with pytest.raises(MalformedError):
        encode_kernel(dataclasses.replace(SPEC, ttir="x" * MAX_KERNEL_BYTES))


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decode_kernel(data)


@pytest.mark.parametrize(
    ("roles", "kind"),
    [(("entry", "object"), "graph"), (("stage", "metadata", "stage"), "kernel"), (("timings",), "timings")],
)
def test_the_roles_of_its_blobs_say_what_an_artifact_is(roles: tuple[str, ...], kind: str) -> None:
    assert decode_manifest(encode_manifest(manifest(*roles))).kind == kind


@pytest.mark.parametrize(
    "roles",
    [
        (),
        ("stage",),
        ("entry", "entry"),
        ("metadata", "metadata"),
        ("entry", "metadata"),
        ("entry", "stage"),
        ("metadata", "object"),
        ("timings", "stage"),
        ("timings", "timings"),
    ],
)
def test_kinds_are_not_mixed(roles: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError):
        encode_manifest(manifest(*roles))


def elf(sections: dict[bytes, bytes]) -> bytes:
    """Return a 64-bit ELF file with these sections, and one more for their names."""
    names = b"\0" + b"".join(name + b"\0" for name in sections) + b".shstrtab\0"
    content, headers = bytearray(64), [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for name, data in {**sections, b".shstrtab": names}.items():
        headers.append(struct.pack("<IIQQQQIIQQ", names.index(name), 1, 0, 0, len(content), len(data), 0, 0, 0, 0))
        content += data
    struct.pack_into("<6s", content, 0, b"\x7fELF\x02\x01")
    struct.pack_into("<Q", content, 0x28, len(content))
    struct.pack_into("<HHH", content, 0x3A, 64, len(headers), len(headers) - 1)
    return bytes(content) + b"".join(headers)


CUBIN = elf({b".nv.info": struct.pack("<BBHII", 4, 0x2F, 8, 7, 40) + struct.pack("<BBHII", 4, 0x11, 8, 7, 16)})
HSACO = elf(
    {
        b".note": (note := pack({"amdhsa.kernels": [{".vgpr_count": 64, ".vgpr_spill_count": 3}]}))
        and struct.pack("<III", 7, len(note), 32) + b"AMDGPU\0\0" + note
    }
)
METADATA = {"target": {"backend": "cuda", "arch": 90}, "num_warps": 4, "shared": 1024, "name": "f", "hash": "abc"}


def test_registers_and_stack_are_read_from_a_cubin() -> None:
    about = read_about(about_kernel("f", METADATA, {"ttir": b"", "cubin": CUBIN}))

    assert about == {
        "kernel": "f",
        "target": "cuda:90",
        "num_warps": 4,
        "shared": 1024,
        "registers": 40,
        "stack_bytes": 16,
        "spills": 4,
        "stages": ["ttir", "cubin"],
    }


def test_registers_and_spills_are_read_from_an_hsaco() -> None:
    about = read_about(about_kernel("f", METADATA, {"hsaco": HSACO}))

    assert (about["registers"], about["spills"]) == (64, 3)


def test_what_an_autotuner_measured_is_told_with_the_winner() -> None:
    candidates = [
        [{"kwargs": {"BLOCK": 64}, "num_warps": 4, "maxnreg": None}, [3.0, 2.9, 3.1]],
        [{"kwargs": {"BLOCK": 128}, "num_warps": 8, "maxnreg": None}, [1.5, 1.4, 1.6]],
    ]
    data = json.dumps({"key": [1000, "torch.float32"], "configs_timings": candidates}).encode()

    assert read_about(about_timings("f", data)) == {
        "kernel": "f",
        "tuned for": "1000, torch.float32",
        "candidates": 2,
        "best": "BLOCK=128, num_warps=8",
        "milliseconds": "1.5",
        "slowest": "3",
    }


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"key": 1, "configs_timings": [[1, 2]]}', b"[" * 100_000])
def test_timings_of_another_form_tell_nothing_but_the_name(data: bytes) -> None:
    assert read_about(about_timings("f", data)) == {"kernel": "f"}


@given(st.sampled_from([CUBIN, HSACO]), st.data())
def test_no_binary_makes_it_raise(binary: bytes, data: st.DataObject) -> None:
    broken = bytearray(binary)
    for _ in range(4):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])

    for suffix in ("cubin", "hsaco"):
        assert read_about(about_kernel("f", METADATA, {suffix: cut}))["kernel"] == "f"


@pytest.mark.parametrize("text", ["", "L['x'].size()[0] > 2", "[]", "{}", '{"kernel": 3}', "[" * 5000])
def test_what_is_not_about_a_kernel_says_nothing(text: str) -> None:
    assert read_about(text) == {}


def test_metadata_travels_without_hash_and_paths_and_is_whole_again_where_it_arrives() -> None:
    libraries = (("libdevice", "/somewhere/libdevice.10.bc"),)
    here = {**METADATA, "extern_libs": libraries}

    portable = portable_metadata(here)
    there = local_metadata(portable, key="def", libraries=(("libdevice", "/elsewhere/libdevice.10.bc"),))

    assert b"somewhere" not in portable
    assert b'"hash": "def"' in there
    assert b"/elsewhere/libdevice.10.bc" in there
    assert local_metadata(portable, key="abc", libraries=libraries) == local_metadata(
        portable_metadata({**here, "hash": "xyz"}), key="abc", libraries=libraries
    )


def test_metadata_with_another_path_does_not_travel() -> None:
    with pytest.raises(MalformedError, match="CUSTOM"):
        portable_metadata({**METADATA, "CUSTOM": "/home/somebody/passes.so"})


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"target": 1, "name": "f"}', b"\xff", b"[" * 100_000])
def test_what_is_no_metadata_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        local_metadata(data, key="k", libraries=None)


def test_what_inductor_found_fastest_is_told_as_its_author_would_write_it() -> None:
    best = {"XBLOCK": 128, "num_warps": 4, "num_stages": 1, "configs_hash": "c", "time_taken_ms": 3, "instr": None}
    assert read_about(about_winner("f", best)) == {"kernel": "f", "best": "XBLOCK=128, num_warps=4, num_stages=1"}
