"""Fuzz the readers of what comes from outside: GraphSpec, manifest, facts, and the worker's frames.

    python tools/fuzz_wire.py [--cases N] [--seed N] [TARGET ...]

Valid bytes are broken in many ways, of one seed, so that a run can be repeated. A reader may accept what it is given
or raise `MalformedError`; any other exception, or more than a second for one case, is a crash, and its bytes are shown.
Talk goes to stderr; the last line on stdout is one JSON document. Exit code 1 where anything crashed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from compile_wire.digest import Digest
from compile_wire.errors import MalformedError
from compile_wire.facts import Facts, decode_facts, encode_facts
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import (
    DTensorSpec,
    GraphSpec,
    MeshSpec,
    ModuleSpec,
    NodeSpec,
    SymbolSpec,
    TensorSpec,
    dtensor_value,
    encode_graph,
    tensor_value,
)
from compile_wire.manifest import BlobRef, Manifest, decode_manifest, encode_manifest
from compile_wire.packing import pack
from compiler_daemon.worker.protocol import decode_body
from compiler_daemon.workers.frames import read_hello, read_reply

SLOW_S = 1.0
REPORT_EVERY = 20_000
JOB = 7

Read = Callable[[bytes], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A reader and valid input for it."""

    read: Read
    seeds: tuple[bytes, ...]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of a target's cases."""

    cases: int = 0
    accepted: int = 0
    rejected: int = 0
    crashes: int = 0
    seconds: float = 0.0
    max_rss_growth_mib: float = 0.0


def main(argv: list[str] | None = None) -> int:
    """Run the targets; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of what comes from outside.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="graph, manifest, facts, frames; all by default")
    parser.add_argument("--cases", type=int, default=200_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for fuzz-wire.json")
    given = parser.parse_args(argv)
    targets = _targets()
    if unknown := set(given.targets) - set(targets):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    tallies = {name: fuzz(name, targets[name], given.cases, given.seed) for name in given.targets or targets}
    document = {name: _fields(tally) for name, tally in tallies.items()}
    if given.out is not None:
        (given.out / "fuzz-wire.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))  # noqa: T201 - the tool's one result
    return 1 if any(tally.crashes for tally in tallies.values()) else 0


def fuzz(name: str, target: Target, cases: int, seed: int) -> Tally:
    """Give the target so many cases."""
    mutator = Mutator(random.Random(f"{seed} {name}"), target.seeds)  # noqa: S311 - a run must be repeatable
    tally = Tally()
    begin = time.monotonic()
    rss_before = 0
    for case in range(cases):
        data = mutator.case()
        start = time.monotonic()
        try:
            target.read(data)
            tally.accepted += 1
        except MalformedError:
            tally.rejected += 1
        except Exception:  # noqa: BLE001 - a crash is what is looked for
            tally.crashes += 1
            _say(f"{name}: case {case} crashed on {data[:2000]!r}\n{traceback.format_exc()}")
        if (took := time.monotonic() - start) > SLOW_S:
            tally.crashes += 1
            _say(f"{name}: case {case} took {took:.1f} s on {len(data)} bytes {data[:2000]!r}")
        tally.cases += 1
        if case == cases // 20:  # caches and the allocator's arenas are full by now
            rss_before = _rss_bytes()
        if case % REPORT_EVERY == REPORT_EVERY - 1 or case == cases - 1:
            growth = (_rss_bytes() - rss_before) / 2**20
            tally.max_rss_growth_mib = round(max(tally.max_rss_growth_mib, growth), 1)
            _say(f"{name}: {tally.cases} cases, {tally.accepted} accepted, {tally.crashes} crashes, +{growth:.1f} MiB")
    tally.seconds = round(time.monotonic() - begin, 1)
    return tally


class Mutator:
    """Breaks valid bytes: as bytes, and as values that are packed again, so that the damage lies deep inside."""

    def __init__(self, source: random.Random, seeds: tuple[bytes, ...]) -> None:
        self._random = source
        self._seeds = seeds
        self._values = [msgpack.unpackb(seed) for seed in seeds]

    def case(self) -> bytes:
        """Return the next case."""
        pick = self._random
        kind = pick.random()
        if kind < 0.05:
            return pick.randbytes(pick.randrange(200))
        if kind < 0.5:
            return self._broken_bytes(bytearray(pick.choice(self._seeds)))
        value = pick.choice(self._values)
        for _ in range(pick.choice((1, 1, 1, 2, 4))):
            value = self._broken_value(value)
        return bytes(msgpack.packb(value, use_bin_type=True))

    def _broken_bytes(self, data: bytearray) -> bytes:
        pick = self._random
        for _ in range(pick.choice((1, 1, 2, 4, 16))):
            at = pick.randrange(len(data) + 1)
            match pick.randrange(7):
                case 0:
                    data[at : at + 1] = bytes([pick.randrange(256)])
                case 1:
                    del data[at : at + pick.choice((1, 1, 2, 4, 40))]
                case 2:
                    data[at:at] = pick.randbytes(pick.choice((1, 2, 4, 40)))
                case 3:
                    del data[at:]
                case 4:  # a length that lies
                    data[at : at + 1] = bytes([pick.choice((0xDC, 0xDD, 0xDE, 0xDF, 0xC6, 0xDB))]) + pick.randbytes(4)
                case 5:  # depth
                    data[at:at] = b"\x91" * pick.choice((10, 70, 600, 2000))
                case _:
                    again = pick.randrange(len(data) + 1)
                    data[at:at] = data[again : again + pick.randrange(60)]
        return bytes(data)

    def _broken_value(self, value: Any) -> Any:
        """Return `value` with one thing in it changed; what is not on the way is shared, not copied."""
        pick = self._random
        if isinstance(value, dict) and value and pick.random() < 0.97:
            name = pick.choice(list(value))
            change = pick.random()
            if change < 0.9:
                return {**value, name: self._broken_value(value[name])}
            if change < 0.93:
                return {key: item for key, item in value.items() if key != name}
            if change < 0.96:
                return dict(reversed(value.items()))
            return {**value, pick.choice(("x", b"v", "v", "", b"\xff")): self._odd()}
        if isinstance(value, list) and value and pick.random() < 0.93:
            changed = list(value)
            at = pick.randrange(len(value))
            match pick.randrange(14):
                case 0:
                    del changed[at]
                case 1:
                    changed.insert(at, self._odd())
                case 2:
                    changed.insert(at, changed[pick.randrange(len(changed))])
                case 3:
                    changed[at] = changed[pick.randrange(len(changed))]
                case _:
                    changed[at] = self._broken_value(changed[at])
            return changed
        return self._odd()

    def _odd(self) -> Any:
        pick = self._random
        match pick.randrange(16):
            case 0:
                return None
            case 1:
                return pick.random() < 0.5
            case 2:
                return pick.choice((0, 1, -1, 2**31, 2**63, 2**64 - 1, -(2**63), pick.randrange(100)))
            case 3:
                return pick.choice((0.0, -0.0, -1.5, 1e308, float("inf"), float("nan")))
            case 4:
                return pick.choice(("", "n", "x", "../../etc/passwd", "a" * 2000, "\0", "9" * 5000, "__class__"))
            case 5:
                return pick.randbytes(pick.randrange(10))
            case 6:
                return {}
            case 7:
                return {pick.choice(("a", b"b")): self._odd()}
            case 8:
                nested: Any = []
                for _ in range(pick.choice((3, 60, 70, 400))):
                    nested = ["l", nested]
                return nested
            case 9:
                return msgpack.ExtType(pick.randrange(128), b"abc")
            case 10:
                return msgpack.Timestamp(1)
            case 11:
                return []
            case _:
                tag = pick.choice("n l t z d s i c e dt ly mf dv f x T ? S E".split())
                return [tag, *(self._odd() for _ in range(pick.randrange(4)))]


def _targets() -> dict[str, Target]:
    return {
        "graph": Target(read=_read_graph, seeds=(_graph(),)),
        "manifest": Target(read=_read_manifest, seeds=(_manifest(0), _manifest(6))),
        "facts": Target(read=_read_facts, seeds=(encode_facts(Facts()), _facts())),
        "frames": Target(read=_read_frame, seeds=_frames()),
    }


def _read_graph(data: bytes) -> None:
    encode_graph(decode_graph(data))


def _read_manifest(data: bytes) -> None:
    if encode_manifest(decode_manifest(data)) != data:
        raise AssertionError("accepted, but not in the form in which it is written")


def _read_facts(data: bytes) -> None:
    encode_facts(decode_facts(data))


def _read_frame(data: bytes) -> None:
    message = decode_body(data)
    if message["type"] == "hello":
        read_hello(message)
    else:
        read_reply(message, JOB)


def _graph() -> bytes:
    tensor = TensorSpec(
        dtype="float32",
        device="cpu",
        device_index=None,
        shape=[["x", 0, "int"], 4],
        stride=[4, 1],
        offset=0,
        requires_grad=True,
        leaf=True,
        parameter=False,
        view=False,
        inference=False,
        storage=0,
        storage_bytes=["x", 2, "int"],
        item=None,
    )
    shared_out = DTensorSpec(
        mesh=0, placements=[["P", "S", 0, None]], shape=["z", 8, 4], stride=[4, 1], requires_grad=True, leaf=True,
        parameter=True,
        part=tensor_value(tensor),
    )  # fmt: skip
    plain = {"kwargs": ["d"], "type": "", "value": None, "source": -1, "static": "", "meta": ["d"]}
    nodes = [
        NodeSpec(op="placeholder", name="x", target="x", args=["t"], **{**plain, "type": "Tensor", "source": 1}),
        NodeSpec(
            op="call_function",
            name="y",
            target="torch.nn.functional.pad",
            args=["t", ["n", 0], ["l", 1, ["i", "9" * 30], ["s", None, 1, None]], ["dt", "float32"], ["dv", "cpu", 0]],
            **{**plain, "kwargs": ["d", "mode", "constant", "value", ["c", 1.0, 2.0]], "value": ["?", ""]},
        ),
        NodeSpec(op="output", name="output", target="output", args=["t", ["t", ["n", 1], ["z", 1], ["e"]]], **plain),
    ]
    module = {
        "attributes": ["training", "meta"],
        "scalars": ["d", "__name__", "body"],
        "training": True,
        "nodes": nodes,
    }
    return encode_graph(
        GraphSpec(
            torch="2.13.0",
            modules=[
                ModuleSpec(tensors=[["buffer", "b", tensor_value(tensor)]], children=["body"], bodies=[1], **module),
                ModuleSpec(tensors=[], children=[], bodies=[], **module),
            ],
            inputs=[tensor_value(tensor), ["x", 1, "int"], ["M", 0], dtensor_value(shared_out)],
            params=[["x", 1]],
            symbols=[
                SymbolSpec(name="s0", hint=5, source=1, lower=1, upper=None, positive=True, replacement=-1),
                SymbolSpec(name="s1", hint=2.5, source=0, lower=None, upper=None, positive=None, replacement=2),
            ],
            guards=[3],
            sources=[
                ["LocalSource", ["local_name", "x", "is_input", True]],
                ["TensorPropertySource", ["base", ["S", 0], "prop", ["E", "TensorProperty", "SIZE"], "idx", 0]],
            ],
            expressions=[["Symbol", "s0"], ["Integer", "2"], ["Mul", 0, 1], ["StrictLessThan", 1, 0]],
            dynamic_shapes=True,
            state={"grad": True, "cudnn": ["l", True, False, True]},
            inductor={"max_autotune": True},
            functorch={},
            ranks=[1, 2, ["l", "0", 0, 1]],
            meshes=[
                MeshSpec(
                    device="cpu", ranks=[0, 1], axes=[[[2], [1]]], names=["tp"], groups=["0"], root=-1, flattened=""
                )
            ],
        )
    )


def _manifest(objects: int) -> bytes:
    return encode_manifest(
        Manifest(
            key="a" + "1" * 52,
            environment=Digest("2" * 64),
            guards="L['t0'] < 7",
            graph="3" * 64,
            compile_s=1.25,
            origin="worker",
            blobs=(
                BlobRef(role="entry", name="", sha256=Digest("4" * 64), size=1000),
                *(
                    BlobRef(role="object", name=f"k{number}.so", sha256=Digest(f"{number}" * 64), size=10**number)
                    for number in range(objects)
                ),
            ),
        )
    )


def _facts() -> bytes:
    return encode_facts(Facts(vec_isa={"avx2 -mavx2 0123456789abcdef": True, "amx": False}))


def _frames() -> tuple[bytes, ...]:
    return tuple(
        pack(frame)
        for frame in (
            {"type": "hello", "protocol": 1, "environment": {"torch": "2.13.0", "gpu": ""}, "facts": _facts()},
            {"type": "progress", "id": JOB, "phase": "compiling"},
            {"type": "blob", "id": JOB, "sha256": "5" * 64, "data": struct.pack(">100I", *range(100))},
            {"type": "done", "id": JOB, "manifest": _manifest(1), "facts": b""},
            {"type": "refused", "id": JOB, "reason": "UNSUPPORTED", "message": "no", "fields": ["a", "b"]},
        )
    )


def _fields(tally: Tally) -> dict[str, float]:
    return {name: getattr(tally, name) for name in Tally.__slots__}


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command-line tool


if __name__ == "__main__":
    sys.exit(main())
