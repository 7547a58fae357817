"""What a compiled kernel is, in a few plain values for people: kept in its manifest, as JSON, and never acted upon."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.packing import unpack

BINARIES = ("cubin", "hsaco")

_MAX_TEXT = 4096
_MAX_CONFIG = 400
_MAX_SECTIONS = 4096
_REGISTERS, _FRAME = 0x2F, 0x11
"""Attributes in a cubin's `.nv.info`: registers of a thread; bytes of its stack, which is where spills go."""
_WORD = 4


def about_kernel(name: str, metadata: Mapping[str, Any], stages: Mapping[str, bytes]) -> str:
    """Return the JSON: name, target, warps, stages of the software pipeline, shared memory, registers, stack, spills.

    `stages` are the kernel's files by their suffix. What a binary does not tell is left out.
    """
    target = metadata.get("target")
    target = target if isinstance(target, Mapping) else vars(target) if target is not None else {}
    about: dict[str, Any] = {
        "kernel": name[:200],
        "target": f"{target.get('backend', '')}:{target.get('arch', '')}",
        **{what: metadata[what] for what in ("num_warps", "num_stages", "num_ctas", "shared") if what in metadata},
    }
    binary = next(((suffix, stages[suffix]) for suffix in BINARIES if suffix in stages), None)
    if binary is not None:
        about |= (_cubin if binary[0] == "cubin" else _hsaco)(binary[1])
    about["stages"] = list(stages)
    return json.dumps(about)


def about_timings(name: str, data: bytes) -> str:
    """Return the JSON about what an autotuner measured: kernel, values of its key, candidates, the best and its time.

    `data` is Triton's file; one that has another form tells nothing but the name.
    """
    about: dict[str, Any] = {"kernel": name[:200]}
    try:
        content = json.loads(data)
        rows = [(_milliseconds(timing), config) for config, timing in content["configs_timings"]]
        about["tuned for"] = ", ".join(map(str, content["key"]))[:_MAX_CONFIG]
        about["candidates"] = len(rows)
        about["best"] = _config(min(rows, key=lambda row: row[0])[1])
        about["milliseconds"] = f"{min(rows, key=lambda row: row[0])[0]:.6g}"
        about["slowest"] = f"{max(rows, key=lambda row: row[0])[0]:.6g}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return json.dumps({"kernel": name[:200]})
    return json.dumps(about)


def about_winner(name: str, best: Mapping[str, Any]) -> str:
    """Return the JSON about the candidate that inductor found to be the fastest, from what it keeps of it."""
    said = ("configs_hash", "found_by_coordesc", "time_taken_ms", "triton_cache_hash")
    config = ", ".join(f"{key}={value}" for key, value in best.items() if key not in said and value is not None)
    return json.dumps({"kernel": name[:200], "best": config[:_MAX_CONFIG]})


def _milliseconds(timing: Any) -> float:
    """Return the median: Triton writes it first, before the quantiles around it."""
    return float(timing[0] if isinstance(timing, list) else timing)


def _config(config: Mapping[str, Any]) -> str:
    """Return a candidate as its author wrote it: the constants first, then the options."""
    constants = [f"{name}={value}" for name, value in config["kwargs"].items()]
    options = [f"{name}={value}" for name, value in config.items() if name != "kwargs" and value is not None]
    return ", ".join(constants + options)[:_MAX_CONFIG]


def read_about(text: str) -> dict[str, Any]:
    """Return the values; nothing where the text is none of ours."""
    try:
        values = json.loads(text) if len(text) <= _MAX_TEXT else None
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) and isinstance(values.get("kernel"), str) else {}


def _cubin(data: bytes) -> dict[str, int]:
    """Return the registers and the stack of a cubin; a file that has another form tells nothing."""
    found: dict[str, int] = {}
    try:
        for name, content in _sections(data):
            if name != b".nv.info":
                continue
            at = 0
            while at + 4 <= len(content):
                form, attribute, value = struct.unpack_from("<BBH", content, at)
                at += 4
                if form != 4:  # the value is in place
                    continue
                if attribute in {_REGISTERS, _FRAME} and value == 8:
                    what = "registers" if attribute == _REGISTERS else "stack_bytes"
                    found[what] = max(found.get(what, 0), struct.unpack_from("<I", content, at + 4)[0])
                at += value
    except (struct.error, ValueError, IndexError, OverflowError):
        return {}
    if "stack_bytes" in found:
        found["spills"] = found["stack_bytes"] // _WORD  # as Triton counts them when it loads the kernel
    return found


def _hsaco(data: bytes) -> dict[str, int]:
    """Return the registers and spills from the notes of an AMD code object."""
    names = {
        ".vgpr_count": "registers",
        ".sgpr_count": "scalar_registers",
        ".vgpr_spill_count": "spills",
        ".private_segment_fixed_size": "stack_bytes",
    }
    try:
        for name, content in _sections(data):
            if name != b".note":
                continue
            owner, length, _ = struct.unpack_from("<III", content)
            start = 12 + (owner + 3) // 4 * 4
            notes = unpack(content[start : start + length], max_bytes=2**20, what="notes")
            kernel = notes["amdhsa.kernels"][0]
            return {ours: kernel[theirs] for theirs, ours in names.items() if type(kernel.get(theirs)) is int}
    except (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError, MalformedError):
        pass
    return {}


def _sections(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the sections of a 64-bit little-endian ELF file: name and content."""
    if data[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + size * i) for i in range(min(count, _MAX_SECTIONS))]
    names = headers[names_at][4]
    for header in headers:
        start = names + header[0]
        yield data[start : data.index(b"\0", start)], data[header[4] : header[4] + header[5]]
