"""The parts that are attacked: reading graphs and kernels, the tracing that runs them, and finally a whole worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from compile_torch import operators
from compile_torch.key.state import apply_state, read_state
from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec
from compile_wire.kernel.spec import decode_kernel
from compile_wire.packing import pack
from compiler_daemon.worker.compiler import Compiler
from compiler_daemon.worker.leftovers import Leftovers, process_probes, torch_probes
from compiler_daemon.worker.ranks import as_rank, import_distributed
from compiler_daemon.worker.rebuild import Rebuilt, rebuild
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from compiler_daemon.worker.texts import check_traced
from tests.attack.canary import CODE, QUOTED

UNWATCHED = {
    "gradients": torch.is_grad_enabled,
    "default dtype": torch.get_default_dtype,
    "seed": torch.initial_seed,
    "random numbers": lambda: bytes(torch.get_rng_state().numpy().tobytes()),
    "quantized engine": lambda: torch.backends.quantized.engine,
    "flush to zero": lambda: float(torch.tensor(1e-40) + 0) == 0.0,
}
"""State that a graph could change, but that the worker's own comparison ignores or that each job sets anew."""


class Watched(torch.fx.Interpreter):
    """Runs a rebuilt graph on fake tensors, as tracing does, and inspects what each node returns."""

    def __init__(self, gm: torch.fx.GraphModule, seen: list[str]) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self._seen = seen

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node; note it if the graph has put together the forbidden text."""
        result = super().run_node(n)
        if isinstance(result, str) and QUOTED in result:
            self._seen.append(f"text: {n.target} made text that no literal may be")
        return result


class Reading:
    """Reads, rebuilds and runs graphs and kernels in this process, and traces some of them through AOTAutograd."""

    def __init__(self) -> None:
        import_distributed()
        self.start = read_state()
        self.compiler: Compiler | None = None
        self._chosen: set[str] = set()
        self.leftovers = Leftovers({**process_probes(), **torch_probes()})
        self.before = {name: probe() for name, probe in UNWATCHED.items()}

    def graph(self, message: Any, *, trace: bool) -> tuple[str, list[str]]:
        """Return how far the message got, and what it achieved."""
        seen: list[str] = []
        reached = "refused"
        try:
            spec = decode_graph(pack(message))
            self._settings(repr((spec.inductor, spec.functorch)), spec)
            with as_rank(spec) as meshes:
                rebuilt = rebuild(spec, meshes)
                reached = "rebuilt"
                with rebuilt.fake_mode, contextlib.suppress(Exception):
                    Watched(rebuilt.gm, seen).run(*rebuilt.inputs)
                    reached = "run"
                if trace and reached == "run":
                    reached = _traced(rebuilt, seen)
        except (MalformedError, ValueError, OverflowError, TypeError):  # packing such a message may fail, too
            pass
        return reached, [*seen, *self._left()]

    def _settings(self, text: str, spec: GraphSpec) -> None:
        """Apply the settings unless an earlier case had the same: torch takes long to describe its configuration."""
        if text not in self._chosen:
            inductor_patch(spec.inductor)
            functorch_patch(spec.functorch)
            self._chosen.add(text)

    def compile(self, message: Any, cache: Path) -> tuple[str, list[str]]:
        """Compile the graph as a worker does, under whatever key it has; inspect the files that are written."""
        if self.compiler is None:
            self.compiler = Compiler()
        graph = pack(message)
        *_, last = self.compiler.run(1, "?", graph)
        if last.get("reason") == "KEY_MISMATCH":
            *_, last = self.compiler.run(1, last["message"].split(" has the key ")[1].split(",")[0], graph)
        written = [path for path in cache.rglob("*") if path.suffix in {".py", ".cpp", ".h"} and path.is_file()]
        found = [
            f"source: {path.name} holds text of the attack"
            for path in written
            if any(each in path.read_text(errors="replace") for each in (CODE, QUOTED))
        ]
        return f"compiled, {last['type']}", found

    def kernel(self, message: Any) -> tuple[str, list[str]]:
        """Return how far a kernel's message got, up to the check of its parsed text, and what it achieved."""
        try:
            spec = decode_kernel(pack(message))
        except (MalformedError, ValueError, OverflowError, TypeError):
            return "refused", []
        from triton._C.libtriton import ir
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend

        from compiler_daemon.worker.kernels import _parsed, check_module

        try:
            target = GPUTarget(spec.backend, spec.arch, spec.warp_size)
            context = ir.context()
            ir.load_dialects(context)
            backend: Any = make_backend(target)
            backend.load_dialects(context)
            module = _parsed(spec.ttir, context)
            check_module(module, spec.backend)
        except (MalformedError, RuntimeError, ValueError):
            return "refused", []
        text = module.str_nodebug()
        bad = [
            f"kernel: {word} passes for {spec.backend}"
            for word in ("llvm.inline_asm", "module_asm", *(["inline_asm"] if spec.backend != "cuda" else []))
            if word in text
        ]
        return "parsed", bad

    def _left(self) -> list[str]:
        """Return the state that the case left behind unseen by the worker, and restore it.

        A real worker ends where it finds state that was left behind. Here the state is put back instead.
        """
        seen = self.leftovers.found()
        _restore()
        torch.set_grad_enabled(True)
        with contextlib.suppress(MalformedError, RuntimeError):
            apply_state(self.start)
        found = []
        for name, probe in UNWATCHED.items():
            if probe() != self.before[name] and not seen:
                found.append(f"state: {name} stays changed")
                self.before[name] = probe()
        return found


def _traced(rebuilt: Rebuilt, seen: list[str]) -> str:
    from torch._functorch.aot_autograd import aot_module_simplified

    passed: list[bool] = []

    def compiler(gm: torch.fx.GraphModule, _inputs: Any) -> Any:
        text = [str(node.args) + str(node.kwargs) for node in gm.graph.nodes]
        made = any(QUOTED in each for each in text)
        try:
            check_traced(gm)
        except MalformedError:
            return gm.forward
        passed.append(True)
        if made:
            seen.append("source: text that was put together would be lowered")
        return gm.forward

    with torch._guards.tracing(torch._guards.TracingContext(rebuilt.fake_mode)), contextlib.suppress(Exception):
        aot_module_simplified(rebuilt.gm, rebuilt.inputs, fw_compiler=compiler, bw_compiler=compiler)
    return "traced" if passed else "run"


def _restore() -> None:
    """Remove what a graph has left active in torch, so that the next case starts as the first one did."""
    while torch._C._functorch.maybe_current_level() is not None:
        torch._C._functorch.pop_dynamic_layer_stack()
    torch._C._functorch.set_inplace_requires_grad_allowed(False)
    torch._C._autograd._saved_tensors_hooks_enable()
    depth = torch.autocast_increment_nesting()
    for _ in range(abs(depth)):
        (torch.autocast_decrement_nesting if depth > 0 else torch.autocast_increment_nesting)()
    torch.clear_autocast_cache()


@contextlib.contextmanager
def old_operators() -> Iterator[None]:
    """Use the former table of operators for the block: a graph may name whatever TorchScript's registry knows."""

    def known(name: str, overload: str) -> bool:
        return any(schema.overload_name == overload for schema in torch._C._jit_get_schemas_for_operator(name))

    def packet(name: str) -> bool:
        return bool(torch._C._jit_get_schemas_for_operator(name))

    before = operators.is_tensor_operator, operators.is_tensor_packet
    operators.is_tensor_operator, operators.is_tensor_packet = known, packet
    try:
        yield
    finally:
        operators.is_tensor_operator, operators.is_tensor_packet = before
