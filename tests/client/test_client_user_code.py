"""The daemon's key covers the user's code that runs during a compile; some graphs with such code are not shared."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import compile_client
from compile_client.graphs.user_code import registrations
from compile_client.graphs.user_code.search import UserCode, user_code_of

HEAD = """
import contextvars, dataclasses, enum, functools, os, types
import numpy as np
import torch

S = {value}
"""

FORMULAS = {
    "global": "def formula(ctx, grad):\n    return grad * S\n",
    "dict": "TABLE = {'s': S}\ndef formula(ctx, grad):\n    return grad * TABLE['s']\n",
    "list in a list": "PARTS = [[S]]\ndef formula(ctx, grad):\n    return grad * PARTS[0][0]\n",
    "set": "SET = {S, 7.0}\ndef formula(ctx, grad):\n    return grad * min(SET)\n",
    "tuple of tuples": "T = ((S,), 1)\ndef formula(ctx, grad):\n    return grad * T[0][0]\n",
    "namespace": "NS = types.SimpleNamespace(s=S)\ndef formula(ctx, grad):\n    return grad * NS.s\n",
    "instance": (
        "class Box:\n    def __init__(self):\n        self.s = S\n"
        "BOX = Box()\ndef formula(ctx, grad):\n    return grad * BOX.s\n"
    ),
    "slots": (
        "class Box:\n    __slots__ = ('s',)\n    def __init__(self):\n        self.s = S\n"
        "BOX = Box()\ndef formula(ctx, grad):\n    return grad * BOX.s\n"
    ),
    "class attribute": "class Box:\n    s = S\ndef formula(ctx, grad):\n    return grad * Box.s\n",
    "class of a base": (
        "class Base:\n    s = S\nclass Box(Base):\n    pass\ndef formula(ctx, grad):\n    return grad * Box.s\n"
    ),
    "property": (
        "class Box:\n    @property\n    def s(self):\n        return S\n"
        "BOX = Box()\ndef formula(ctx, grad):\n    return grad * BOX.s\n"
    ),
    "dataclass": (
        "@dataclasses.dataclass(frozen=True)\nclass Box:\n    s: float\n"
        "BOX = Box(S)\ndef formula(ctx, grad):\n    return grad * BOX.s\n"
    ),
    "enum": "class E(enum.Enum):\n    A = S\ndef formula(ctx, grad):\n    return grad * E.A.value\n",
    "default argument": "def formula(ctx, grad, s=S):\n    return grad * s\n",
    "keyword default": "def formula(ctx, grad, *, s=S):\n    return grad * s\n",
    "partial": "def scaled(ctx, grad, s):\n    return grad * s\nformula = functools.partial(scaled, s=S)\n",
    "partial by position": "def scaled(s, ctx, grad):\n    return grad * s\nformula = functools.partial(scaled, S)\n",
    "closure": "def made(s):\n    def formula(ctx, grad):\n        return grad * s\n    return formula\nformula = made(S)\n",
    "lambda": "formula = lambda ctx, grad, s=S: grad * s\n",
    "nested function": "def formula(ctx, grad):\n    def inner():\n        return grad * S\n    return inner()\n",
    "bound method": (
        "class Box:\n    def __init__(self):\n        self.s = S\n"
        "    def formula(self, ctx, grad):\n        return grad * self.s\nformula = Box().formula\n"
    ),
    "callable object": (
        "class Box:\n    def __init__(self):\n        self.s = S\n"
        "    def __call__(self, ctx, grad):\n        return grad * self.s\nformula = Box()\n"
    ),
    "called function": "def twice():\n    return S\ndef formula(ctx, grad):\n    return grad * twice()\n",
    "decorated": (
        "def by(s):\n    def around(f):\n        @functools.wraps(f)\n        def inner(*a):\n"
        "            return f(*a) * s\n        return inner\n    return around\n"
        "@by(S)\ndef formula(ctx, grad):\n    return grad\n"
    ),
    "cached function": (
        "@functools.lru_cache\ndef scale():\n    return S\ndef formula(ctx, grad):\n    return grad * scale()\n"
    ),
    "function attribute": "def formula(ctx, grad):\n    return grad * formula.s\nformula.s = S\n",
    "module's attribute": (
        "import sys\nmod = types.ModuleType('apart'); mod.inner = types.ModuleType('inner'); mod.inner.s = S\n"
        "def formula(ctx, grad):\n    return grad * mod.inner.s\n"
    ),
    "environment": "os.environ['OWN_SCALE'] = str(S)\ndef formula(ctx, grad):\n    return grad * float(os.environ['OWN_SCALE'])\n",
    "environment, get": (
        "os.environ['OWN_SCALE'] = str(S)\ndef formula(ctx, grad):\n    return grad * float(os.environ.get('OWN_SCALE', '1'))\n"
    ),
    "environment, getenv": (
        "os.environ['OWN_SCALE'] = str(S)\nNAME = 'OWN_SCALE'\ndef formula(ctx, grad):\n    return grad * float(os.getenv(NAME))\n"
    ),
    "numpy array": "A = np.array([S])\ndef formula(ctx, grad):\n    return grad * float(A[0])\n",
    "numpy scalar": "A = np.float64(S)\ndef formula(ctx, grad):\n    return grad * A\n",
    "tensor": "T = torch.tensor([S])\ndef formula(ctx, grad):\n    return grad * T\n",
    "module of torch's with weights": (
        "L = torch.nn.Linear(1, 1)\nwith torch.no_grad():\n    L.weight.fill_(S); L.bias.fill_(0)\n"
        "def formula(ctx, grad):\n    return L(grad)\n"
    ),
    "context variable": "V = contextvars.ContextVar('v'); V.set(S)\ndef formula(ctx, grad):\n    return grad * V.get()\n",
    "code without a file": (
        "scope = {'torch': torch}\n"
        "exec('def formula(ctx, grad):\\n    return grad * torch.' + ('sin' if S == 2.0 else 'cos') + '(grad)', scope)\n"
        "formula = scope['formula']\n"
    ),
    "string": "KIND = 'sin' if S == 2.0 else 'cos'\ndef formula(ctx, grad):\n    return getattr(torch, KIND)(grad)\n",
    "regular expression": (
        "import re\nR = re.compile('a' * int(S))\ndef formula(ctx, grad):\n    return grad if R.match('aa') else -grad\n"
    ),
    "autograd function": (
        "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x * S\n"
        "    @staticmethod\n    def backward(ctx, g):\n        return g\n"
        "def formula(ctx, grad):\n    return F.apply(grad)\n"
    ),
    "named tuple": (
        "import collections\nP = collections.namedtuple('P', 's')(S)\ndef formula(ctx, grad):\n    return grad * P.s\n"
    ),
    "counter of itertools": (
        "import itertools\nC = itertools.count(int(S))\ndef formula(ctx, grad):\n    return grad * next(C)\n"
    ),
}

OPERATOR = """
if not hasattr(torch.ops.user_code, "op"):
    pass
op = torch.library.custom_op("user_code::op", lambda x: x.clone(), mutates_args=(), schema="(Tensor x) -> Tensor")
op.register_fake(lambda x: torch.empty_like(x))
op.register_autograd(formula)
"""

UNTOLD = {
    "the time": "import time\ndef formula(ctx, grad):\n    return grad * time.time()\n",
    "a random number": "import random\ndef formula(ctx, grad):\n    return grad * random.random()\n",
    "a file": "def formula(ctx, grad):\n    return grad * float(open('/dev/null').read() or 1)\n",
    "a file by its path": "import pathlib\ndef formula(ctx, grad):\n    return grad * len(pathlib.Path('x').read_text())\n",
    "eval": "def formula(ctx, grad):\n    return eval('grad * 2')\n",
    "globals": "def formula(ctx, grad):\n    return grad * globals()['S']\n",
    "a computed variable": "P = 'OWN_'\ndef formula(ctx, grad):\n    return grad * float(os.environ[P + 'SCALE'])\n",
    "all variables": "def formula(ctx, grad):\n    return grad * len(os.environ)\n",
    "the directory": "def formula(ctx, grad):\n    return grad * len(os.getcwd())\n",
    "a generator": "G = (i for i in range(3))\ndef formula(ctx, grad):\n    return grad * next(G)\n",
    "what was cached": (
        "@functools.lru_cache\ndef scale():\n    return S\nscale()\ndef formula(ctx, grad):\n    return grad * scale()\n"
    ),
    "a module handed around": (
        "mod = types.ModuleType('apart')\nBOX = [mod]\ndef formula(ctx, grad):\n    return grad * BOX[0].s\n"
    ),
    "a module by computed name": (
        "mod = types.ModuleType('apart'); mod.scale = S\nN = ['sca', 'le']\n"
        "def formula(ctx, grad):\n    return grad * getattr(mod, ''.join(N))\n"
    ),
    "a large tensor": "T = torch.zeros(1 << 19)\ndef formula(ctx, grad):\n    return grad * T.sum()\n",
    "a generator of torch's": "G = torch.Generator()\ndef formula(ctx, grad):\n    return torch.rand(1, generator=G)\n",
    "a lock": "import threading\nL = threading.Lock()\ndef formula(ctx, grad):\n    return grad * L.locked()\n",
}


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    registrations.watch()
    yield
    registrations.unwatch()
    registrations._kernels.clear()


def loaded(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, name: str = "user_code_module") -> Any:
    """Write `text` to a file in `folder` and import it as a module."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def graph_of(target: Any) -> torch.fx.GraphModule:
    graph = torch.fx.Graph()
    graph.output(graph.call_function(target, (graph.placeholder("x"),)))
    return torch.fx.GraphModule({}, graph)


def code_of(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: float = 2.0, after: str = "") -> UserCode:
    """Return the user code that is found in a graph with an operator whose formula `text` defines."""
    module = loaded(folder, HEAD.format(value=value) + text + OPERATOR + after, monkeypatch)
    assert module.op
    return user_code_of(graph_of(torch.ops.user_code.op.default), [torch.ones(2)])


# Python 3.12 and newer warn of itertools' state.
@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support:DeprecationWarning")
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_formula_is_known_with_every_value_that_it_leads_to(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_SCALE", "")
    here = code_of(tmp_path / "here", monkeypatch, FORMULAS[kind])
    # Another folder, other lines and a comment are nothing that a compile would notice.
    there = code_of(tmp_path / "there", monkeypatch, "# a comment\n\n\n" + FORMULAS[kind])
    other = code_of(tmp_path / "here", monkeypatch, FORMULAS[kind], value=3.0)

    assert not here.why_not_shared
    assert here.digest
    assert here == there
    assert here != other


@pytest.mark.parametrize("kind", UNTOLD)
def test_a_formula_that_leads_to_something_unreadable_is_not_shared_unless_its_user_vouches(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = code_of(tmp_path, monkeypatch, UNTOLD[kind])

    assert "user_code::op" in found.why_not_shared

    monkeypatch.setattr("compile_client.graphs.user_code.vouching._versions", {})
    compile_client.operator_version("user_code::op", "1")
    first = code_of(tmp_path, monkeypatch, UNTOLD[kind])
    compile_client.operator_version("user_code::op", "2")
    second = code_of(tmp_path, monkeypatch, UNTOLD[kind])

    assert not first.why_not_shared
    assert first.digest != second.digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("op.register_fake(lambda x: torch.empty_like(x))", "op.register_fake(lambda x: x.new_empty(x.shape))"),
        ("mutates_args=(), schema", "mutates_args=(), tags=(torch.Tag.needs_fixed_stride_order,), schema"),
        (
            "op.register_autograd(formula)",
            "op.register_autograd(formula, setup_context=lambda ctx, inputs, output: None)",
        ),
        (
            "op.register_autograd(formula)",
            "op.register_autograd(formula); op.register_vmap(lambda info, dims, x: (x, dims[0]))",
        ),
        ("op.register_autograd(formula)", "op.register_autograd(formula); op.register_autocast('cpu', torch.bfloat16)"),
    ],
)
def test_everything_that_an_operator_declares_is_in_the_key(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD.format(value=2.0) + FORMULAS["global"]
    assert OPERATOR.count(before) == 1
    found = []
    for operator in (OPERATOR, OPERATOR.replace(before, after)):
        loaded(tmp_path, text + operator, monkeypatch)
        found.append(user_code_of(graph_of(torch.ops.user_code.op.default), [torch.ones(2)]))

    assert not found[0].why_not_shared
    assert not found[1].why_not_shared
    assert found[0].digest != found[1].digest


def test_what_an_operator_says_it_writes_to_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for argument in ("Tensor out", "Tensor(a!) out"):
        text = (
            "import torch\nlibrary = torch.library.Library('user_code_w', 'FRAGMENT')\n"
            f"library.define('fill(Tensor x, {argument}) -> ()')\n"
            "library.impl('fill', lambda x, out: None, 'CPU')\nlibrary._register_fake('fill', lambda x, out: None)\n"
        )
        module = loaded(tmp_path, text, monkeypatch)
        found.append(user_code_of(graph_of(torch.ops.user_code_w.fill.default), [torch.ones(2)]))
        module.library._destroy()

    assert found[0].digest
    assert found[0] != found[1]


def test_the_body_of_an_operator_that_torch_does_not_look_into_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for body in ("x.clone()", "x + time.time()"):
        text = HEAD.format(value=2.0) + "import time\n" + FORMULAS["global"] + OPERATOR.replace("x.clone()", body)
        loaded(tmp_path, text, monkeypatch)
        found.append(user_code_of(graph_of(torch.ops.user_code.op.default), [torch.ones(2)]))

    assert found[0] == found[1]


LIBRARY = """
import torch

library = torch.library.Library("user_library", "FRAGMENT")
library.define("op(Tensor x) -> Tensor")
library.impl("op", lambda x: x * {value}, "{key}")
{more}
"""


@pytest.mark.parametrize(
    ("key", "more", "matters"),
    [
        ("CompositeImplicitAutograd", "", True),
        ("CompositeExplicitAutograd", "", True),
        ("Autograd", "library.impl('op', lambda x: x, 'CPU')", True),
        # Where there is no fake implementation, torch runs the kernel to learn the shapes.
        ("CPU", "", True),
        ("CPU", "library._register_fake('op', lambda x: torch.empty_like(x))", False),
    ],
)
def test_a_librarys_kernel_is_in_the_key_where_torch_runs_it_while_it_compiles(
    key: str, more: str, matters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for value in (2, 3):
        module = loaded(tmp_path, LIBRARY.format(value=value, key=key, more=more), monkeypatch)
        found.append(user_code_of(graph_of(torch.ops.user_library.op.default), [torch.ones(2)]))
        module.library._destroy()
        registrations._kernels.clear()

    assert found[0].digest
    assert (found[0] != found[1]) is matters


def test_a_kernel_that_was_registered_before_the_client_was_on_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrations.unwatch()
    module = loaded(tmp_path, LIBRARY.format(value=2, key="CompositeImplicitAutograd", more=""), monkeypatch)
    found = user_code_of(graph_of(torch.ops.user_library.op.default), [torch.ones(2)])
    module.library._destroy()

    assert "before the client was on" in found.why_not_shared
    assert "operator_version" in found.why_not_shared


def test_an_operator_that_a_formula_calls_is_followed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for value in (2.0, 3.0):
        loaded(
            tmp_path,
            HEAD.format(value=value)
            + 'inner = torch.library.custom_op("user_code::inner", lambda x: x, mutates_args=(), '
            'schema="(Tensor x) -> Tensor")\ninner.register_fake(lambda x: x * S)\n'
            + "def formula(ctx, grad):\n    return torch.ops.user_code.inner(grad)\n"
            + OPERATOR,
            monkeypatch,
        )
        found.append(user_code_of(graph_of(torch.ops.user_code.op.default), [torch.ones(2)]))

    assert found[0].digest != found[1].digest


def test_a_function_that_dynamo_does_not_look_into_is_found_at_any_depth() -> None:
    def body(factor: float) -> Any:
        def opaque(x: torch.Tensor) -> torch.Tensor:
            return x * factor

        graph = torch.fx.Graph()
        x = graph.placeholder("x")
        graph.output(graph.call_function(torch.ops.higher_order.wrap, (graph.create_node("get_attr", "body"), x)))
        return user_code_of(torch.fx.GraphModule({"body": graph_of(opaque)}, graph), [torch.ones(2)])

    assert body(3.0).digest
    assert body(3.0) == body(3.0)
    assert body(3.0) != body(7.0)


def test_the_class_of_a_tensor_is_in_the_key_with_its_methods() -> None:
    def with_class(factor: float) -> UserCode:
        class Scaled(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return factor

        return user_code_of(graph_of(torch.sin), [torch.ones(2).as_subclass(Scaled)])

    assert with_class(2.0).digest
    assert with_class(2.0) == with_class(2.0)
    assert with_class(2.0) != with_class(3.0)


@pytest.mark.filterwarnings("ignore:Warning only once")
def test_what_a_program_registers_for_torchs_own_operators_is_in_the_key_of_all_its_graphs() -> None:
    from torch._inductor.decomposition import decompositions

    plain = user_code_of(graph_of(torch.sin), [torch.ones(2)])
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("trapz.x", lambda *args: args[0], "CompositeImplicitAutograd")
        overridden = user_code_of(graph_of(torch.sin), [torch.ones(2)])
    finally:
        library._destroy()
        registrations._kernels.clear()
    decompositions[torch.ops.aten.trapz.x] = lambda *args: args[0]
    try:
        decomposed = user_code_of(graph_of(torch.sin), [torch.ones(2)])
    finally:
        del decompositions[torch.ops.aten.trapz.x]

    assert plain == UserCode()
    assert overridden.digest
    assert decomposed.digest


def test_the_body_of_a_triton_op_is_in_the_key_although_torch_wraps_it() -> None:
    def with_body(factor: float) -> UserCode:
        @torch.library.triton_op("user_code_triton::op", mutates_args=())
        def op(x: torch.Tensor) -> torch.Tensor:
            return x * factor

        return user_code_of(graph_of(torch.ops.user_code_triton.op.default), [torch.ones(2)])

    assert with_body(2.0).digest
    assert with_body(2.0) == with_body(2.0)
    assert with_body(2.0) != with_body(3.0)


def test_a_graph_of_torchs_operators_has_nothing_to_add() -> None:
    for target in (torch.ops.aten.sin.default, torch.ops._c10d_functional.wait_tensor, torch.sin, torch.relu):
        assert user_code_of(graph_of(target), [torch.ones(2)]) == UserCode()


def test_modes_of_the_users_around_a_compile_keep_the_graph_private() -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Mode():
        assert "Mode" in user_code_of(graph_of(torch.sin), []).why_not_shared


def test_what_is_active_around_a_compile_and_acts_on_it_keeps_the_graph_private() -> None:
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    said: list[str] = []

    def inside(x: torch.Tensor) -> torch.Tensor:
        said.append(user_code_of(graph_of(torch.sin), []).why_not_shared)
        return x.sin().sum()

    compiled_in = torch.fx.symbolic_trace(lambda x: x * 2)
    with Mode():
        inside(torch.ones(2))
    torch.func.grad(inside)(torch.ones(2))
    torch.func.vmap(inside)(torch.ones(2, 2))
    with torch.autograd.graph.saved_tensors_hooks(compiled_in, compiled_in):
        inside(torch.ones(2))

    assert ["dispatch mode" in said[0], "transform" in said[1], "transform" in said[2], "hooks" in said[3]] == [
        True
    ] * 4
    said.clear()
    with torch.device("cpu"), torch.no_grad(), torch.autograd.graph.save_on_cpu():
        inside(torch.ones(2))
    assert said == [""]


@pytest.mark.parametrize(("name", "version"), [("op", "1"), ("a::b.default", "1"), ("::b", "1"), ("a::b", "")])
def test_vouching_takes_an_operators_full_name_and_a_version(name: str, version: str) -> None:
    with pytest.raises(ValueError, match=r"operator|version"):
        compile_client.operator_version(name, version)
