"""The shared parts of the worker's tests: graphs captured from dynamo, graphs made by hand, and a worker process."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.symbolic_convert import TensorifyState

from compile_client.graphs.capture import capture
from compile_client.graphs.user_code.ranks import ranks_of
from compile_torch.dtensors import inputs_for_key
from compile_torch.key.key_parts import full_key, gathered_parts
from compile_torch.key.state import read_state
from compile_torch.messages import replace_messages
from compile_torch.patches import Patches
from compile_torch.settings import daemon_settings
from compile_torch.versions import torch_version
from compile_wire.digest import Digest
from compile_wire.facts import Facts
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec, TensorSpec, encode_graph, tensor_value
from compiler_daemon.worker import confinement, kept_headers
from compiler_daemon.worker.known_facts import write_known
from compiler_daemon.worker.protocol import read_frame, write_frame

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's import causes warnings of its own
    import torch._inductor.compile_fx
    from torch._functorch._aot_autograd import autograd_cache


class _KeyKnown(BaseException):
    """Raised to leave torch's compile once the key is computed. It is no `Exception`, because torch catches those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A graph captured from dynamo: its spec, torch's own key, and its code."""

    spec: bytes
    key: str
    code: str


def captured(
    function: Callable[..., Any], *args: Any, dynamic: bool | None = False, constants: Sequence[str] = ()
) -> Captured:
    """Capture the only graph of `function` as a trainer would, with the key that it has there.

    `constants` are the symbols that torch found it must turn into constants when it traced a second time.
    """
    (only,) = all_captured(function, *args, dynamic=dynamic, constants=constants)
    return only


def all_captured(
    function: Callable[..., Any], *args: Any, dynamic: bool | None = False, constants: Sequence[str] = ()
) -> list[Captured]:
    """Capture all graphs that dynamo makes of `function`, as `captured` does for a single one."""
    version = torch_version()
    assert version is not None
    found: list[Captured] = []

    def backend(gm: torch.fx.GraphModule, inputs: Any) -> Any:
        ranks = ranks_of(gm, inputs, "")

        def keying(original: Any) -> Any:
            def autograd_cache_key(module: Any, example_inputs: Any, config: Any, *rest: Any, **named: Any) -> Any:
                torchs, _ = original(module, inputs_for_key(example_inputs), config, *rest, **named)
                key = full_key(torchs, gathered_parts(version, example_inputs, ranks=ranks))
                spec = capture(gm, inputs, dynamic_shapes=config.dynamic_shapes, ranks=ranks)
                found.append(Captured(spec=spec, key=key, code=""))
                raise _KeyKnown

            return autograd_cache_key

        patches = Patches()
        patches.replace(autograd_cache, "autograd_cache_key", keying)
        replace_messages(gm)
        try:
            with daemon_settings():
                torch._inductor.compile_fx.compile_fx(gm, inputs)
        except _KeyKnown:
            found[-1] = dataclasses.replace(found[-1], code=gm.code)
        finally:
            patches.undo()
        return gm.forward

    torch._dynamo.reset()
    for name in constants:
        TensorifyState.specialize(name)
    torch.compile(function, backend=backend, dynamic=dynamic)(*args)
    TensorifyState.clear()
    return found


TENSOR = TensorSpec(
    dtype="float32",
    device="cpu",
    device_index=None,
    shape=[2, 3],
    stride=[3, 1],
    offset=0,
    requires_grad=False,
    leaf=True,
    parameter=False,
    view=False,
    inference=False,
    storage=0,
    storage_bytes=24,
    item=None,
)

_PLAIN: dict[str, Any] = {"kwargs": ["d"], "type": "", "value": None, "source": -1, "static": "", "meta": ["d"]}


def node(op: str, name: str, target: str, *args: Any, **fields: Any) -> NodeSpec:
    return NodeSpec(op=op, name=name, target=target, **{**_PLAIN, "args": ["t", *args], **fields})


X = node("placeholder", "l_x_", "L_x_", source=0)
Y = node("call_function", "y", "torch.relu", ["n", 0])
OUT = node("output", "output", "output", ["t", ["n", 1]])


def module(nodes: list[NodeSpec], **fields: Any) -> ModuleSpec:
    plain: dict[str, Any] = {"attributes": [], "scalars": ["d"], "tensors": [], "training": True}
    return ModuleSpec(nodes=nodes, **{**plain, "children": [], "bodies": [], **fields})


BODY = module([node("placeholder", "a", "a"), node("output", "output", "output", ["t", ["n", 0]])])


def graph(**fields: Any) -> GraphSpec:
    """Return a graph made by hand with a single `torch.relu`; the arguments replace parts of it."""
    plain: dict[str, Any] = {
        "torch": str(torch.__version__),
        "modules": [module([X, Y, OUT])],
        "inputs": [tensor_value(TENSOR)],
        "params": [],
        "symbols": [],
        "guards": [],
        "sources": [["LocalSource", ["local_name", "x", "is_input", True]]],
        "expressions": [],
        "dynamic_shapes": False,
        "state": read_state(),
        "inductor": {},
        "functorch": {
            "bundled_autograd_cache": True,
            "force_non_lazy_backward_lowering": True,
            "autograd_cache_allow_custom_autograd_functions": True,
        },
    }
    return GraphSpec(**{**plain, **fields})


def checked(spec: GraphSpec) -> GraphSpec:
    """Return the spec as it arrives at the worker: it may be hostile, but has the right form."""
    return decode_graph(encode_graph(spec))


class Worker:
    """A worker process of its own, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        *,
        known: tuple[Digest, Facts] | None = None,
        confined: bool = True,
    ) -> None:
        """`temporary` has torch's probes of the instruction sets and its header; `known` is what a daemon knows."""
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "TRITON"))}
        shutil.copytree(temporary / "probes", folder / "cache")
        if known:
            write_known(folder / "cache", *known)
        (folder / "tmp").mkdir()
        order = confinement.Order(scratch=folder, readable=(temporary / "headers",))
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "compiler_daemon.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env={
                    **kept,
                    "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"),
                    "TMPDIR": str(folder / "tmp"),
                    kept_headers.VARIABLE: str(temporary / "headers"),
                    **({confinement.VARIABLE: order.encode()} if confined else {}),
                },
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._to, self._from = self._process.stdin, self._process.stdout
        hello = read_frame(self._from)
        assert hello is not None, (folder / "log").read_text()
        self.hello: dict[str, Any] = hello

    def compile(self, key: str, spec: bytes) -> dict[str, Any]:
        """Have the graph compiled; return the worker's last answer."""
        write_frame(self._to, {"type": "job", "id": 1, "key": key, "graph": spec})
        while (frame := read_frame(self._from)) is not None:
            if frame["type"] in {"done", "refused"}:
                return frame
        raise AssertionError(f"the worker died: {(self.folder / 'log').read_text()[-2000:]}")

    def compile_whatever_its_key(self, spec: bytes) -> dict[str, Any]:
        """Compile the graph under the key that the worker expects, as a client would that knows it."""
        answer = self.compile("?", spec)
        if answer.get("reason") == "KEY_MISMATCH":
            answer = self.compile(answer["message"].split(" has the key ")[1].split(",")[0], spec)
        return answer

    def end(self) -> None:
        self._to.close()
        self._process.wait(30)
        self._from.close()


def strangers(folder: Path) -> Iterator[str]:
    """Yield the names of files in the worker's folder other than its log and caches."""
    return (entry.name for entry in folder.iterdir() if entry.name not in {"log", "cache", "tmp"})
