"""The shared parts of the inventory's tests: a filled daemon, real graphs, and the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from compile_wire.environment import environment_id
from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec, SymbolSpec, TensorSpec, encode_graph, tensor_value
from compile_wire.manifest import manifest_digest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.cli import run
from tests.daemon.daemon_process import FIELDS, DaemonProcess, manifest_of

CLI_S = 90.0


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def cli(directory: Path, *arguments: str, terminal_says: str | None = None, columns: int | None = None) -> Ended:
    """Run the command line in this process; with `terminal_says` it believes to be at a terminal that answers so.

    With `columns`, what it prints goes to a terminal of that width, else into a pipe.
    """
    out, err = io.StringIO(), io.StringIO()
    told = io.StringIO(terminal_says or "")
    if terminal_says is not None:
        for end in (err, told):
            end.isatty = lambda: True  # type: ignore[method-assign]
    environ = {"COMPILER_DAEMON_DIR": str(directory), "COLUMNS": str(columns or 200), "NO_COLOR": "1"}
    if columns is not None:
        out.isatty = lambda: True  # type: ignore[method-assign]
        environ["TERM"] = "dumb"
    code: object = 0
    with (
        patch.dict(os.environ, environ),
        patch.object(sys, "argv", ["compiler-daemon", *arguments]),
        patch.object(sys, "stdin", told),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code
    return Ended(int(code or 0), out.getvalue(), err.getvalue())  # type: ignore[call-overload]


def cli_process(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments],
        capture_output=True,
        text=True,
        timeout=CLI_S,
        check=False,
        env={**os.environ, "COMPILER_DAEMON_DIR": str(directory), "COLUMNS": "200", "NO_COLOR": "1", **environ},
    )


def done(directory: Path, *arguments: str, **more: Any) -> str:
    """Run the command line, require success, and return its standard output."""
    ended = cli(directory, *arguments, **more)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def as_json(directory: Path, *arguments: str) -> Any:
    return json.loads(done(directory, *arguments, "--json"))


def node(op: str, name: str, target: str = "", **fields: Any) -> NodeSpec:
    plain: dict[str, Any] = {
        "args": ["t"], "kwargs": ["d"], "type": "", "value": None, "source": -1, "static": "", "meta": ["d"],
    }  # fmt: skip
    return NodeSpec(op=op, name=name, target=target or name, **{**plain, **fields})


def tensor(*shape: Any, dtype: str = "float32", **fields: Any) -> list[Any]:
    stride: list[Any] = []
    for size in reversed(shape):
        stride.insert(0, stride[0] * size if stride and isinstance(size, int) else 1 if not stride else size)
    plain: dict[str, Any] = {
        "device": "cpu", "device_index": None, "shape": list(shape), "stride": stride, "offset": 0,
        "requires_grad": False, "leaf": True, "parameter": False, "view": False, "inference": False, "storage": -1,
        "storage_bytes": 24, "item": None,
    }  # fmt: skip
    return tensor_value(TensorSpec(dtype=dtype, **{**plain, **fields}))


def graph_of(width: int = 4) -> bytes:
    """Return the graph `relu(x @ w)` with a symbolic batch, as dynamo would produce it."""
    batch = ["x", 0, "int"]
    nodes = [
        node("placeholder", "s0", type="SymInt"),
        node("placeholder", "l_x_", type="Tensor", source=0),
        node("placeholder", "l_w_", type="Parameter", source=1),
        node("call_function", "y", "torch.matmul", args=["t", ["n", 1], ["n", 2]]),
        node("call_method", "z", "relu", args=["t", ["n", 3]]),
        node("output", "output", args=["t", ["t", ["n", 4]]]),
    ]
    plain: dict[str, Any] = {"attributes": [], "scalars": ["d"], "tensors": [], "training": True}
    return encode_graph(
        GraphSpec(
            torch="2.13.0",
            modules=[ModuleSpec(nodes=nodes, children=[], bodies=[], **plain)],
            inputs=[batch, tensor(batch, width), tensor(width, 2, requires_grad=True, parameter=True)],
            params=[["l_w_", 1]],
            symbols=[SymbolSpec(name="s77", hint=8, source=0, lower=1, upper=2, positive=True, replacement=-1)],
            guards=[],
            sources=[
                ["LocalSource", ["local_name", "x", "is_input", True]],
                ["LocalSource", ["local_name", "w", "is_input", True]],
            ],
            expressions=[["Symbol", "s77"], ["Integer", "2"], ["int_oo"]],
            dynamic_shapes=True,
            state={"grad_enabled": True},
            inductor={"max_autotune": True},
            functorch={},
        )
    )


def publish(
    daemon: DaemonProcess, key: str, *blobs: bytes, program: str = "", fields: Mapping[str, str] = FIELDS,
    graph: bytes = b"",
) -> str:  # fmt: skip
    """Publish an artifact as a trainer would; return its digest."""
    environment = environment_id(fields)
    daemon.handshake(fields)
    manifest = manifest_of(key, *blobs, environment=environment, graph=graph)
    more = {"graph": pb.Graph(data=graph)} if graph else {}
    daemon.publish(key, manifest, *blobs, environment_id=environment, program=program, **more)
    return manifest_digest(manifest)
