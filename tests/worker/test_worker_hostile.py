"""What a client might send to have the worker run its code, read its files or keep it busy. None of it gets through.

Each graph differs from one that is compiled in the one hostile thing. They are rebuilt here, which must refuse them,
and where a process is promised they go to a real worker, in whose folder nothing may appear.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import pytest
import torch
from worker_samples import BODY, OUT, TENSOR, Worker, X, Y, checked, graph, module, node, strangers

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import GraphSpec, NodeSpec, SymbolSpec, encode_graph, tensor_value
from compiler_daemon.worker.rebuild import rebuild
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from compiler_daemon.worker.shapes import Shapes

CODE = "__import__('os').system('touch stranger')"
SOON_S = 10.0
"""Far more than any refusal takes, far less than what is refused would take."""


def refuse(spec: GraphSpec) -> str:
    start = time.monotonic()
    with pytest.raises(MalformedError) as caught:
        rebuild(checked(spec))
    assert time.monotonic() - start < SOON_S
    return str(caught.value)


def nodes(*made: NodeSpec, **fields: Any) -> GraphSpec:
    return graph(modules=[module(list(made), **fields), BODY])


def calling(name: str, *args: Any, **fields: Any) -> GraphSpec:
    return nodes(X, node("call_function", "y", name, *(args or (["n", 0],)), **fields), OUT)


def test_the_graph_without_anything_hostile_is_rebuilt() -> None:
    rebuild(checked(graph()))
    rebuild(checked(nodes(X, Y, OUT, children=["body"], bodies=[1])))


FUNCTIONS = """
os.system posix.system os.popen os.execv os:system builtins.eval builtins.exec builtins.__import__ builtins.open
builtins.getattr builtins.setattr builtins.compile builtins.globals builtins.type builtins.print builtins.input
builtins.map builtins.__dict__ eval exec open __import__ setattr hasattr delattr vars
builtins.getattr(os,'system') operator.attrgetter operator.methodcaller operator.itemgetter operator.call
operator.__call__ _operator.call operator.length_hint importlib.import_module importlib.reload subprocess.run
subprocess.Popen shutil.rmtree pickle.loads marshal.loads ctypes.CDLL socket.socket sys.exit
torch.load torch.save torch.hub.load torch.hub.load_state_dict_from_url torch.from_file torch.compile torch.export
torch.ops.load_library torch.ops.aten.add torch.ops torch.classes torch.classes.load_library torch.classes.a.b
torch.jit.load torch.jit.script torch.jit.trace torch.package.PackageImporter torch.multiprocessing.spawn
torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline torch.utils.data.DataLoader
torch.utils._pytree.tree_map torch.distributed.init_process_group torch.serialization.load torch.os.system torch.sys
torch.__import__ torch.__class__ torch.__dict__ torch.__getattr__ torch.nn.Module torch.Tensor torch.Tensor.apply_
torch.nn.functional.__builtins__ torch.nn.functional.torch.load torch.nn.functional.importlib torch.functional.torch
torch.nn.functional.boolean_dispatch torch.functional.overload torch._from_blob torch._C._jit_pass_inline
torch._C._load_for_lite_interpreter torch._C._dlpack_exchange_api torch.fx.GraphModule torch.fx.Interpreter
torch._inductor.codecache.PyCodeCache.load torch._inductor.compile_fx.compile_fx torch._dynamo.optimize
torch.autograd.function.once_differentiable torch.autograd.Function.apply torch.library.custom_op torch.set_vital
math.__loader__ math.__spec__ math.prod math.__doc__
op:os.system op:aten op:aten. op:.add op:aten.add.Tensor.__class__ op:aten.__class__ op:aten.__init__ op:aten.load
op:aten.save op:aten.from_file op:aten.from_file.default op:aten.manual_seed op:aten._from_blob op:aten._dir
op:aten.add.__class__ op:aten.add.op op:aten.add._schemas op:aten.no_such op:prim.PythonOp op:prim.rpc_sync
op:prim.rpc_async op:mine.op op:load_library.x op:_C.x op:user.op.default op:torch_library.load op:aten..add
op:aten.add/../load op:../aten.add op:aten.add\0 op:aten::add op:profiler._record_function_enter_new op:c10d.send
op:symm_mem.x op:streams.x op:debugprims.save_tensor op:debugprims.load_tensor op:rngprims.x op:rngprims
hop:os hop:__class__ hop: hop:triton_kernel_wrapper_mutation hop:print hop:call_torchbind hop:run_const_graph
hop:inline_asm_elementwise hop:aoti_call_delegate hop:executorch_call_delegate hop:with_effects hop:flat_apply
hop:_dir hop:hints_wrap hop:strict_mode : op: . .. ../.. / ~ a/b torch/load torch.load\0 \0
""".replace("\\0", "\0").split()


@pytest.mark.parametrize("name", [*FUNCTIONS, "", " ", "torch.relu ", "torch.relu\n", "TORCH.relu", "a" * 1024, CODE])
def test_only_listed_functions_are_named(name: str) -> None:
    refuse(calling(name))
    refuse(calling("torch.relu", ["n", 0], ["f", name]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", "inplace", ["l", ["f", name]]]))
    refuse(graph(inputs=[["f", name]]))


METHODS = """
__class__ __reduce__ __reduce_ex__ __getattribute__ __init__ __new__ __dict__ __setattr__ __torch_function__
__torch_dispatch__ __subclasshook__ __init_subclass__ __setstate__ __deepcopy__ __array__ __dlpack__ __call__
__del__ __import__ _make_subclass _make_wrapper_subclass as_subclass.x apply_ map_ map2_ numpy numpy.tofile tofile
register_hook register_post_accumulate_grad_hook retain_grad backward data_ptr untyped_storage storage
share_memory_ tolist module_load set_data no_such_method shape grad relu() relu.__class__ relu;x ../relu a/b
""".split()


@pytest.mark.parametrize("name", [*METHODS, "", "relu\n", "\0", "relu(); " + CODE], ids=ascii)
def test_only_tensor_methods_without_side_effects_are_called(name: str) -> None:
    refuse(nodes(X, node("call_method", "y", name, ["n", 0]), OUT))


def test_a_method_is_called_of_a_node() -> None:
    for args in ([], ["text"], [["f", "torch.relu"]], [["l", ["n", 0]]], [["dt", "float32"]]):
        refuse(nodes(X, node("call_method", "y", "relu", *args), OUT))


@pytest.mark.parametrize(
    "name",
    ["__class__", "__dict__", "__init__", "grad_fn", "_base", "register_hook", "data.x", "", "shape\n", "f_globals"],
)
def test_only_listed_attributes_are_read(name: str) -> None:
    refuse(calling("getattr", ["n", 0], name))


def test_an_attribute_is_read_of_a_node_by_a_literal() -> None:
    for args in (
        [["n", 0]],
        [["n", 0], "shape", 1],
        [["f", "torch.relu"], "shape"],
        ["text", "shape"],
        [["n", 0], ["n", 0]],
        [["n", 0], ["l", "shape"]],
    ):
        refuse(calling("getattr", *args))
    refuse(calling("getattr", ["n", 0], "shape", kwargs=["d", "default", 1]))


NAMES = [
    f"x = {CODE}",
    CODE,
    f"x\n    {CODE}",
    f"x\r{CODE}",
    f"x; {CODE}",
    f"x: {CODE}",
    f"x={CODE}",
    f"x, y={CODE}",
    "x\n",
    "x\u2028",
    "x y",
    "x'",
    'x"',
    "x#",
    "x\\",
    "x\0",
    "*x",
    "**x",
    "x.y",
    "x[0]",
    "(x)",
    "1x",
    "",
    "class",
    "None",
    "import",
    "lambda",
    "\uff45val",
    "\u00e9",
    "../x",
    "x/y",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_can_bring_code_into_the_graphs_source(name: str) -> None:
    refuse(nodes(dataclasses.replace(X, name=name), Y, OUT))
    refuse(nodes(dataclasses.replace(X, target=name), Y, OUT))
    refuse(nodes(X, dataclasses.replace(Y, name=name), OUT))
    refuse(nodes(X, Y, dataclasses.replace(OUT, name=name)))
    refuse(nodes(X, Y, dataclasses.replace(OUT, target=name)))
    refuse(nodes(X, node("get_attr", "y", name), OUT))
    refuse(nodes(X, node("get_attr", "y", name), OUT, children=[name], bodies=[1]))
    refuse(nodes(X, node("get_attr", "y", name), OUT, tensors=[["buffer", name, tensor_value(TENSOR)]]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", name, 1]))
    refuse(nodes(X, node("call_method", "y", "sum", ["n", 0], kwargs=["d", name, 0]), OUT))


TEXTS = [
    CODE,
    f"1; {CODE}",
    f"'+{CODE}+'",
    f'"+{CODE}+"',
    f"\n{CODE}",
    f"\r{CODE}",
    f"\u2028{CODE}",
    '1.0; system("touch stranger");',
    '\n#include "/etc/passwd"\n',
    "1 /* ",
    "a\\",
    "a'",
    'a"',
    "a\0",
    "{x}",
    "${x}",
    "/etc/passwd",
    "a#b",
    "a(b)",
    "a=b",
    "`touch stranger`",
    "%s",
    "a" * 1000,
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_no_text_can_bring_code_into_a_source(text: str) -> None:
    """torch writes arguments into Python, C++ and Triton sources, and not all of them quoted."""
    refuse(calling("torch.relu", ["n", 0], text))
    refuse(calling("torch.relu", ["n", 0], ["l", ["t", text]]))
    refuse(calling("torch.relu", ["n", 0], ["d", text, 1]))
    refuse(calling("torch.relu", ["n", 0], ["d", "key", text]))
    refuse(calling("torch.relu", ["n", 0], ["s", text, None, None]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", "mode", text]))
    refuse(calling("torch.relu", ["n", 0], meta=["d", "custom", ["d", text, 1]]))
    refuse(calling("torch.relu", ["n", 0], meta=["d", "custom", ["d", "note", text]]))
    refuse(nodes(X, Y, OUT, scalars=["d", "__name__", text]))
    refuse(nodes(dataclasses.replace(X, static=text), Y, OUT))
    refuse(graph(inputs=[text]))
    refuse(graph(inputs=[["l", text]]))
    refuse(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, item=text))]))


@pytest.mark.parametrize(
    "key",
    "stack_trace nn_module_stack val example_value tensor_dict tensor_meta desc is_wrapped recompute original_aten "
    "from_node source_fn_stack eager_input_vals partitioner dynamo_compile_id unbacked_bindings __class__".split(),
)
def test_metadata_that_is_not_carried_is_refused(key: str) -> None:
    assert "metadata" in refuse(calling("torch.relu", ["n", 0], meta=["d", key, "text"]))


def test_metadata_is_a_map_of_names() -> None:
    for meta in ("text", None, ["l", "custom"], ["d", 1, 2], ["d", ["t", "custom"], 1], ["d", ["l"], 1]):
        refuse(calling("torch.relu", ["n", 0], meta=meta))


@pytest.mark.parametrize(
    "name",
    "forward __class__ __dict__ __call__ __reduce__ __reduce_ex__ __getattr__ __setstate__ __deepcopy__ _modules "
    "_parameters _buffers _graph graph _code code meta recompile _tracer_cls _tracer_extras _lineno_map "
    "_prologue_start _replace_hooks _forward_hooks _forward_pre_hooks _compiled_call_impl _call_impl _wrapped_call "
    "training _codegen "
    "named_parameters parameters state_dict to_folder print_readable shape_env _param_name_to_source _backend_id "
    "x".split(),
)
def test_no_attribute_of_a_graph_module_is_replaced(name: str) -> None:
    for value in ("text", True, ["f", "torch.relu"], ["d"], ["l", ["f", "torch.relu"]]):
        refuse(nodes(X, Y, OUT, scalars=["d", name, value]))
        refuse(
            graph(
                modules=[
                    module([X, Y, OUT], children=["body"], bodies=[1]),
                    dataclasses.replace(BODY, scalars=["d", name, value]),
                ]
            )
        )


def test_the_attributes_of_a_graph_module_are_plain() -> None:
    for value in (None, 1, ["f", "torch.relu"], ["l"], tensor_value(TENSOR)):
        refuse(nodes(X, Y, OUT, scalars=["d", "__name__", value]))
    for scalars in ("text", None, ["l"], ["d", 1, 2], ["d", ["t"], 1]):
        refuse(nodes(X, Y, OUT, scalars=scalars))


@pytest.mark.parametrize(
    "name",
    "forward meta graph code recompile training _modules __class__ __dict__ _graph named_modules add_submodule type to "
    "cuda apply register_buffer state_dict _forward_hooks call_super_init".split(),
)
def test_no_part_of_a_graph_hides_what_a_graph_module_has(name: str) -> None:
    refuse(nodes(X, Y, OUT, children=[name], bodies=[1]))
    refuse(nodes(X, Y, OUT, tensors=[["parameter", name, tensor_value(TENSOR)]]))
    refuse(nodes(X, node("get_attr", "y", name), OUT))


def test_modules_are_not_called() -> None:
    assert "calls a module" in refuse(
        nodes(X, node("call_module", "y", "body", ["n", 0]), OUT, children=["body"], bodies=[1])
    )


def test_a_node_that_does_not_fit_is_malformed() -> None:
    refuse(nodes(X, dataclasses.replace(Y, args=["l", ["n", 0]]), OUT))
    refuse(nodes(X, dataclasses.replace(Y, args="text"), OUT))
    refuse(nodes(X, dataclasses.replace(Y, kwargs=["l"]), OUT))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", 1, 2]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", ["t", "a"], 2]))
    refuse(calling("torch.relu", ["n", 0], ["d", ["l"], 1]))
    refuse(calling("torch.relu", ["n", 0], ["d", ["n", 0], ["?", "why"]]))
    refuse(calling("torch.relu", ["n", 0], ["S", 0]))
    refuse(calling("torch.relu", ["n", 0], ["E", "TensorProperty", "SIZE"]))
    refuse(calling("torch.relu", ["n", 0], type=CODE))
    refuse(calling("torch.relu", ["n", 0], type="__class__"))
    refuse(nodes(dataclasses.replace(X, args=["t", CODE]), Y, OUT))
    refuse(nodes(dataclasses.replace(X, args=["t", 1]), Y, OUT))
    refuse(nodes(X, Y))
    refuse(nodes(OUT, X))
    refuse(nodes())
    refuse(nodes(X, X, OUT))
    refuse(graph(inputs=[]))
    refuse(graph(inputs=[tensor_value(TENSOR)] * 2))


@pytest.mark.parametrize(
    "name", ["__class__", "nn", "os", "load", "Tensor", "float32.x", "float32\n", "", "onnx", "torch.float32"]
)
def test_only_dtypes_are_dtypes(name: str) -> None:
    refuse(calling("torch.relu", ["n", 0], ["dt", name]))
    refuse(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, dtype=name))]))
    refuse(graph(state={**graph().state, "x": 1}, inputs=[["dt", name]]))


@pytest.mark.parametrize("name", [CODE, "cpu:0", "cpu\n", "", "privateuseone", "__class__", "cuda;", "../cpu"])
def test_only_devices_are_devices(name: str) -> None:
    refuse(calling("torch.relu", ["n", 0], ["dv", name, None]))
    refuse(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, device=name))]))


def test_only_layouts_and_formats_are_named() -> None:
    for tag in ("ly", "mf"):
        for name in ("__class__", CODE, "", "sparse_coo", "strided\n"):
            refuse(calling("torch.relu", ["n", 0], [tag, name]))


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [2**62, 2**62]},
        {"shape": [2**63 - 1], "stride": [2**63 - 1]},
        {"offset": 2**62},
        {"storage_bytes": 2**63 - 1, "shape": [2**61], "stride": [1]},
        {"requires_grad": True, "dtype": "int64"},
        {"dtype": "quint4x2"},
        {"dtype": "bits8"},
        {"device": "cuda"},
        {"device": "mps"},
        {"shape": [0] * 64, "stride": [0] * 64},
    ],
)
def test_a_tensor_that_cannot_be_costs_nothing(fields: dict[str, Any]) -> None:
    """Refused or accepted as metadata, but at once: nothing is allocated."""
    start = time.monotonic()
    with contextlib.suppress(MalformedError):
        rebuild(checked(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, **fields))])))
    assert time.monotonic() - start < SOON_S


# Symbolic shapes: expressions, symbols and sources.


def name_of_symbol(source: list[Any]) -> str:
    """The name that torch gives to the symbol of the source."""
    for name in (f"s{number}" for number in range(100)):
        try:
            Shapes(graph(sources=[source], symbols=[symbol(name)]))
        except MalformedError as error:
            if "makes a symbol called" in str(error):
                return str(error).rsplit(" ", 1)[1]
        else:
            return name
    raise AssertionError("torch makes no symbol of the source")


def symbol(name: str, **fields: Any) -> SymbolSpec:
    plain: dict[str, Any] = {"hint": 5, "source": 0, "lower": None, "upper": None, "positive": None, "replacement": -1}
    return SymbolSpec(name=name, **{**plain, **fields})


SOURCE = ["LocalSource", ["local_name", "n"]]
OTHER_SOURCE = ["LocalSource", ["local_name", "m"]]
S = name_of_symbol(SOURCE)
M = name_of_symbol(OTHER_SOURCE)


def shaped(rows: list[Any], *, size: int | None = None, **fields: Any) -> GraphSpec:
    """A graph whose input has a size of the expression in the last of the rows (or the given one)."""
    row = len(rows) - 1 if size is None else size
    sized = dataclasses.replace(TENSOR, shape=[["x", row, "int"]], stride=[1], storage_bytes=["x", row, "int"])
    plain: dict[str, Any] = {"symbols": [symbol(S)], "sources": [SOURCE], "inputs": [tensor_value(sized)]}
    return graph(expressions=rows, dynamic_shapes=True, **{**plain, **fields})


def test_the_shapes_without_anything_hostile_are_rebuilt() -> None:
    rows = [["Symbol", S], ["Integer", "2"], ["Mul", 0, 1], ["Pow", 0, 1], ["FloorDiv", 3, 1], ["Add", 2, 4]]

    rebuilt = rebuild(checked(shaped(rows)))

    assert rebuilt.inputs[0].shape[0].node.hint == 22


@pytest.mark.parametrize(
    "text", [CODE, "os", "__import__", "s0; import os", "", "S.One", "lambda: 0", "9**9**9", "s0 + 1"]
)
def test_no_text_is_read_as_mathematics(text: str) -> None:
    for row in (
        ["Symbol", text],
        [text],
        [text, 0],
        ["Integer", text],
        ["Rational", text, "1"],
        ["Rational", "1", text],
        ["Float", text],
        ["Add", text],
        ["Add", 0, text],
        ["Pow", 0, text],
    ):
        refuse(shaped([["Symbol", S], row]))
    refuse(shaped([["Symbol", S]], symbols=[symbol(S), symbol(text)]))


@pytest.mark.parametrize(
    "head",
    "Lambda Function Symbol Dummy sympify parse_expr S Basic Expr Integral Sum Product Limit Derivative lambdify "
    "__class__ functions sympy torch_functions OpaqueUnaryFn_ eval BitwiseFn_bitwise_and factorial Mod.eval".split(),
)
def test_only_listed_heads_are_made(head: str) -> None:
    refuse(shaped([["Symbol", S], [head, 0]]))


@pytest.mark.parametrize(
    "row",
    [
        ["Integer"],
        ["Integer", "1", "2"],
        ["Integer", 5],
        ["Integer", "--5"],
        ["Integer", "5_0"],
        ["Integer", "\u0665"],
        ["Integer", "9" * 65],
        ["Integer", "9" * 1_000_000],
        ["Integer", "0x10"],
        ["Rational", "1"],
        ["Rational", "1", "0"],
        ["Rational", "9" * 1_000_000, "1"],
        ["Float", "nan"],
        ["Float", "inf"],
        ["Float", "0x1p5000"],
        ["Float", "0x" + "f" * 1_000_000],
        ["Symbol"],
        ["Symbol", "s12345"],
        ["Symbol", S, S],
        ["Symbol", 5],
        ["Symbol", 1.5],
        ["Not", 0],
        ["FloorDiv", 0],
        ["ExprCondPair", 0, 0],
        ["Piecewise", 0],
        ["true"],
        ["oo"],
        ["-int_oo"],
    ],
)
def test_an_expression_that_is_no_size_is_malformed(row: list[Any]) -> None:
    refuse(shaped([["Symbol", S], row]))


def powers(head: str, base: list[Any], times: int) -> list[Any]:
    rows: list[Any] = [base, ["Integer", "9"]]
    for _ in range(times):
        rows.append([head, len(rows) - 1 if len(rows) > 2 else 0, 1])
    return rows


def doubled(head: str, times: int) -> list[Any]:
    rows: list[Any] = [["Symbol", S], ["Integer", "3"], ["Mod", 0, 1]]
    for _ in range(times):
        rows += [["FloorDiv", len(rows) - 1, 1], [head, len(rows), len(rows) - 1]]
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(powers("Pow", ["Integer", "9"], 50), id="tower"),
        pytest.param(powers("Pow", ["Symbol", S], 50), id="tower of a symbol"),
        pytest.param(powers("PowByNatural", ["Symbol", S], 50), id="natural tower"),
        pytest.param([["Integer", "9"], ["Integer", "9" * 60], ["Pow", 0, 1]], id="large exponent"),
        pytest.param([["Integer", "2"], ["Integer", "-" + "9" * 60], ["Pow", 0, 1]], id="large negative exponent"),
        pytest.param([["Integer", "9"], ["Pow", 0, 0], ["Pow", 0, 1], ["Pow", 0, 2]], id="tower upwards"),
        pytest.param([["Symbol", S], ["Integer", "2"], ["Pow", 1, 0]], id="symbol as exponent"),
        pytest.param([["Integer", "1"], ["Integer", "9" * 30], ["LShift", 0, 1]], id="long shift"),
        pytest.param([["Symbol", S], ["Integer", "1"], ["LShift", 1, 0]], id="shift by a symbol"),
        pytest.param([["Integer", "1"], ["Integer", "9" * 30], ["RShift", 0, 1]], id="long right shift"),
        pytest.param([["Integer", "9"], ["Rational", "9" * 60, "7"], ["Pow", 0, 1]], id="large root"),
        pytest.param([["Float", "0x1.8p1"], ["Float", "0x1p900"], ["FloatPow", 0, 1]], id="large float exponent"),
        pytest.param([["Symbol", S], ["Mul", *[0] * 4000]], id="long product"),
        pytest.param([["Integer", "9" * 60]] + [["Mul", row, row] for row in range(60)], id="squares"),
        pytest.param(doubled("Add", 60), id="shared sums"),
        pytest.param(doubled("Max", 60), id="shared maxima"),
        pytest.param(doubled("Mod", 60), id="shared remainders"),
        pytest.param([["Symbol", S], ["Piecewise", *[0] * 4000]], id="long choice"),
        pytest.param([["Symbol", S], ["Max", *[0] * 4000]], id="long maximum"),
        pytest.param([["Symbol", S], *([["Add", *range(row)] for row in range(1, 200)])], id="sums of all before"),
    ],
)
def test_a_few_bytes_do_not_make_an_expression_without_end(rows: list[Any]) -> None:
    refuse(shaped(rows))
    refuse(graph(expressions=rows, symbols=[symbol(S)], sources=[SOURCE]))


def test_many_arguments_are_either_refused_or_done_with_soon() -> None:
    for head in ("Max", "Min", "Add", "And", "Piecewise"):
        rows: list[Any] = [["Symbol", S], *(["Integer", str(number)] for number in range(900))]
        rows += [["FloorDiv", 0, row] for row in range(2, 600)]
        start = time.monotonic()
        with contextlib.suppress(MalformedError):
            rebuild(checked(shaped([*rows, [head, *range(901, 1100)]])))
        assert time.monotonic() - start < SOON_S


def test_a_deep_expression_is_refused_or_done_with_soon() -> None:
    rows: list[Any] = [["Symbol", S], ["Integer", "7"]]
    for number in range(400):
        rows.append([("Mod", "FloorDiv")[number % 2], len(rows) - 1 if number else 0, 1])
    start = time.monotonic()
    with contextlib.suppress(MalformedError):
        rebuild(checked(shaped(rows)))
    assert time.monotonic() - start < SOON_S


def test_symbols_do_not_stand_for_each_other_in_a_circle() -> None:
    rows: list[Any] = [["Symbol", S], ["Symbol", M], ["Add", 0, 1]]
    for here, there in ((0, 0), (1, 0), (2, 0), (1, 2), (2, 2)):
        symbols = [symbol(S, replacement=here), symbol(M, source=1, replacement=there)]

        assert "circle" in refuse(shaped(rows, symbols=symbols, sources=[SOURCE, OTHER_SOURCE]))


def test_a_symbol_that_stands_for_another_is_rebuilt() -> None:
    symbols = [symbol(S, replacement=1), symbol(M, source=1)]

    rebuilt = rebuild(checked(shaped([["Symbol", S], ["Symbol", M]], symbols=symbols, sources=[SOURCE, OTHER_SOURCE])))

    assert rebuilt.inputs[0].shape[0].node.hint == 5


def test_a_chain_of_symbols_does_not_unfold_without_end() -> None:
    by_name = {
        name_of_symbol(source): source for source in (["LocalSource", ["local_name", f"a{i}"]] for i in range(24))
    }
    names, sources = list(by_name), list(by_name.values())
    assert len(names) > 16
    rows: list[Any] = []
    symbols = []
    for number, name in enumerate(names):
        rows += [
            ["Symbol", name],
            ["Mod", len(rows), len(rows)],
            ["FloorDiv", len(rows), len(rows) + 1],
            ["Add", len(rows), len(rows) + 1, len(rows) + 2],
        ]
        symbols.append(symbol(name, source=number, replacement=len(rows) - 5 if number else -1))

    refuse(shaped(rows, symbols=symbols, sources=sources))


@pytest.mark.parametrize(("lower", "upper"), [(1, None), (None, 0), (1, 0), (1, 1), (2, None), (None, 3), (3, 3)])
def test_a_symbol_out_of_its_own_range_is_malformed(lower: int | None, upper: int | None) -> None:
    rows = [["Integer", "4"], ["Integer", "6"], ["true"], ["Symbol", S]]

    refuse(shaped(rows, symbols=[symbol(S, lower=lower, upper=upper)]))


@pytest.mark.parametrize(
    "fields",
    [
        {"hint": float("nan")},
        {"hint": float("inf")},
        {"hint": 2**64 - 1},
        {"hint": -5, "positive": True},
        {"source": -1},
    ],
)
def test_a_symbol_that_cannot_be_is_malformed(fields: dict[str, Any]) -> None:
    refuse(shaped([["Symbol", S]], symbols=[symbol(S, **fields)]))


def test_symbols_are_bounded() -> None:
    assert "more than 4096" in refuse(graph(symbols=[symbol(S)] * 5000, sources=[SOURCE]))


@pytest.mark.parametrize(
    "source",
    [
        ["ConstantSource", ["source_name", CODE]],
        ["ImportSource", ["module_name", "os').system('touch stranger') or __import__('os"]],
        ["EphemeralSource", ["desc", f">{CODE}"]],
        ["GlobalSource", ["global_name", f"x'] or {CODE} or G['x"]],
        ["LocalSource", ["local_name", f"x'] or {CODE} or L['x"]],
        ["SyntheticLocalSource", ["local_name", CODE]],
        ["RandomValueSource", ["random_call_index", CODE]],
        ["LocalSource", ["local_name", "x", "dynamism", CODE]],
        ["LocalSource", ["no_such_field", "x"]],
        ["LocalSource", ["__class__", "x"]],
        ["LocalSource", ["_name", CODE]],
        ["LocalSource", []],
        ["LocalSource", ["local_name", ["E", "TensorProperty", CODE]]],
        ["LocalSource", ["local_name", ["E", CODE, "SIZE"]]],
        ["LocalSource", ["local_name", ["f", "torch.relu"]]],
        ["LocalSource", ["local_name", ["l", "x"]]],
        ["LocalSource", ["local_name", ["T", list(tensor_value(TENSOR)[1])]]],
        [CODE, []],
        ["__class__", []],
        ["Source", []],
        ["functools", []],
        ["os.system", ["command", "touch stranger"]],
        ["is_constant_source", []],
        ["GuardBuilder", []],
    ],
)
def test_a_source_is_one_of_torchs_and_its_text_is_no_code(source: list[Any]) -> None:
    refuse(shaped([["Symbol", S]], sources=[SOURCE, source]))


@pytest.mark.parametrize(
    "source",
    [
        ["AttrSource", ["base", ["S", 0], "member", CODE]],
        ["GenericAttrSource", ["base", ["S", 0], "member", f"x') or {CODE}"]],
        ["GradSource", ["base", ["S", 0], "member", f"grad or {CODE}"]],
        ["TensorPropertySource", ["base", ["S", 0], "prop", ["E", "TensorProperty", "SIZE"], "idx", f"0] or {CODE}"]],
        ["IndexedSource", ["base", ["S", 0], "idx", f"0) or {CODE}"]],
        ["DefaultsSource", ["base", ["S", 0], "idx_key", f"'] or {CODE}", "is_kw", True]],
        ["ConstDictKeySource", ["base", ["S", 0], "index", ["t", ["S", 0]], "no", CODE]],
        ["AttrSource", ["base", CODE, "member", "x"]],
    ],
)
def test_what_a_source_is_reached_by_is_no_code(source: list[Any]) -> None:
    refuse(shaped([["Symbol", S]], sources=[SOURCE, source]))


def test_a_key_of_a_dict_may_be_any_text_for_torch_quotes_it() -> None:
    key = f"'] or {CODE} or ['"
    sources = [SOURCE, ["DictGetItemSource", ["base", ["S", 0], "index", key]]]

    rebuilt = rebuild(checked(shaped([["Symbol", S]], sources=sources, params=[["x", 1]])))

    assert repr(key) in rebuilt.gm._param_name_to_source["x"].name


def test_a_source_is_not_written_out_without_end() -> None:
    twice = [["DictGetItemSource", ["base", ["S", row], "index", ["S", row]]] for row in range(60)]
    deep: list[Any] = [SOURCE, *(["AttrSource", ["base", ["S", row], "member", "a"]] for row in range(5000))]

    for sources in ([SOURCE, *twice], deep):
        refuse(shaped([["Symbol", S]], sources=sources, params=[["x", len(sources) - 1]]))


# Settings.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpp.cxx", "evil"),
        ("cpp.cxx", ["t", "evil", "g++"]),
        ("cuda.cuda_cxx", "evil"),
        ("cuda.cutlass_dir", "evil"),
        ("rocm.ck_dir", "evil"),
        ("trace.enabled", True),
        ("trace.upload_tar", "evil"),
        ("trace.debug_dir", "evil"),
        ("debug", True),
        ("worker_log_path", "evil"),
        ("global_cache_dir", "evil"),
        ("aot_inductor.output_path", "evil"),
        ("aot_inductor.package", True),
        ("aot_inductor.custom_op_libs", ["l", "evil"]),
        ("custom_partitioner_fn", "evil"),
        ("post_grad_custom_pre_pass", "evil"),
        ("post_grad_custom_post_pass", ["f", "torch.relu"]),
        ("joint_custom_pre_pass", "evil"),
        ("_pre_fusion_custom_pass", "evil"),
        ("_post_fusion_custom_pass", "evil"),
        ("inductor_choices_class", "evil"),
        ("autoheuristic_log_path", "evil"),
        ("profile_bandwidth_output", "evil"),
        ("fx_graph_remote_cache", True),
        ("autotune_remote_cache", True),
        ("_save_config_ignore", ["l"]),
        ("rocm.rocm_home", "evil"),
        ("xpu.oneapi_root", "evil"),
        ("aot_inductor.aoti_shim_library", "evil"),
        ("save_args", True),
        ("enabled_metric_tables", "kernel"),
        ("sleep_sec_TESTING_ONLY", 1_000_000.0),
        ("triton.proton_profiling", True),
        ("external_matmul", ["l", "evil"]),
        ("lookup_table.table", ["d", "a", 1]),
        ("test_configs.autotune_choice_name_regex", "evil"),
        ("cpp.threads", "evil"),
        ("max_autotune_gemm_backends", 1),
        ("max_autotune", "evil"),
        ("max_autotune", ["l"]),
        ("pre_grad_fusion_options", ["l"]),
        ("unsafe_marked_cacheable_functions", ["d", "os.system", "1"]),
        ("unsafe_marked_cacheable_functions", ["l", 1]),
        ("unsafe_marked_cacheable_functions", 5),
        ("unsafe_marked_cacheable_functions", None),
        ("no_such_setting", 1),
        ("__class__", 1),
        ("", 1),
        ("cpp", 1),
        ("max_autotune", ["f", "torch.relu"]),
        ("max_autotune", ["T", list(tensor_value(TENSOR)[1])]),
        ("max_autotune_gemm_backends", "ATEN; touch stranger"),
        ("max_autotune_gemm_backends", "../ATEN"),
        ("max_autotune_gemm_backends", "$(touch stranger)"),
        ("max_autotune_gemm_backends", "ATEN\n"),
        ("max_autotune_gemm_backends", "-fplugin=evil"),
        ("max_autotune_gemm_backends", "a" * 300),
    ],
)
def test_no_setting_names_a_program_a_place_or_a_function(name: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        inductor_patch({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_budget_pareto_dir", "evil"),
        ("visualize_memory_budget_pareto", True),
        ("fake_tensor_propagate_real_tensors", True),
        ("fake_tensor_crossref", True),
        ("generate_fake_kernels_from_real_mismatches", True),
        ("debug_partitioner", True),
        ("joint_custom_pass", "evil"),
        ("enable_remote_autograd_cache", True),
        ("_test_disable_functionalization", False),
        ("activation_memory_budget_solver", ["f", "torch.relu"]),
        ("no_such_setting", 1),
    ],
)
def test_no_setting_of_functorch_does_either(name: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        functorch_patch({name: value})


def test_numbers_flags_and_words_may_be_chosen() -> None:
    chosen = {
        "max_autotune": True,
        "cpp.simdlen": 256,
        "cpp.min_chunk_size": 4096,
        "max_autotune_gemm_backends": "ATEN,CPP",
        "cpp.enable_floating_point_contract_flag": "fast",
    }

    assert inductor_patch(dict(chosen)) == chosen
    assert functorch_patch({"activation_memory_budget": 0.5}) == {"activation_memory_budget": 0.5}


# The same in a real worker.


def hostile() -> dict[str, GraphSpec]:
    """Attacks of each kind. The keyword of a body is one that runs in a worker which takes names at their word."""
    guarded = {"symbols": [symbol(S), symbol(M, source=1, hint=7)], "expressions": [["Symbol", S], ["Symbol", M]]}
    with_stack = f'File "x\r{CODE}", line 1, in x\n  code'
    return {
        "function": calling("os.system", "touch stranger"),
        "builtin": calling("builtins.eval", CODE),
        "library": calling("torch.ops.load_library", "stranger"),
        "load": calling("torch.load", "stranger"),
        "method": nodes(X, node("call_method", "y", "apply_", ["n", 0], ["f", "torch.relu"]), OUT),
        "keyword": calling("torch.relu", ["n", 0], kwargs=["d", f"a={CODE}, b", 1]),
        "keyword of a body": graph(
            modules=[
                module(
                    [
                        X,
                        node("get_attr", "body", "body"),
                        node("call_function", "y", "hop:wrap", ["n", 1], ["n", 0]),
                        node("output", "output", "output", ["n", 2]),
                    ],
                    children=["body"],
                    bodies=[1],
                ),
                module(
                    [
                        node("placeholder", "a", "a"),
                        node("call_function", "b", "torch.relu", ["n", 0], kwargs=["d", f"inplace={CODE}, b", 1]),
                        node("output", "output", "output", ["t", ["n", 1]]),
                    ]
                ),
            ]
        ),
        "placeholder": nodes(dataclasses.replace(X, target=f"x={CODE}"), Y, OUT),
        "name": nodes(X, dataclasses.replace(Y, name=f"y={CODE}"), OUT),
        "stack trace": calling("torch.relu", ["n", 0], meta=["d", "stack_trace", with_stack]),
        "body": nodes(X, Y, OUT, children=[f"body\n    {CODE}"], bodies=[1]),
        "module's code": nodes(X, Y, OUT, scalars=["d", "_code", CODE]),
        "source": graph(sources=[SOURCE, ["ConstantSource", ["source_name", CODE]]], **guarded),
        "compiler": graph(inductor={"cpp.cxx": ["t", "./stranger"]}),
        "symbol": shaped([["Symbol", CODE]]),
        "tower": shaped(powers("Pow", ["Integer", "9"], 50)),
        "circle": shaped([["Symbol", S]], symbols=[symbol(S, replacement=0)]),
        "shared sums": shaped(doubled("Add", 60)),
        "state": graph(state={**graph().state, "default_dtype": "__class__"}),
        "more state": graph(state={**graph().state, "matmul_precision": ["l", ["d"]]}),
        "threads": graph(state={**graph().state, "threads": 2**40}),
        "version": graph(torch=CODE),
    }


HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_worker_refuses_it_and_runs_nothing(name: str, worker: Worker) -> None:
    start = time.monotonic()

    answer = worker.compile_whatever_its_key(encode_graph(HOSTILE[name]))

    assert answer["type"] == "refused"
    assert answer["reason"] in {"UNSUPPORTED", "COMPILE_ERROR"}
    assert list(strangers(worker.folder)) == []
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("op:aten.histogram.bin_ct", [["n", 0]]),
        ("torch.histogram", [["n", 0], 3]),
        ("op:aten._sample_dirichlet.default", [["n", 0]]),
        ("op:aten.binomial.default", [["n", 0], ["n", 0]]),
        ("torch.binomial", [["n", 0], ["n", 0]]),
    ],
)
def test_an_operator_that_would_run_for_real_is_refused_with_its_name(
    name: str, args: list[Any], worker: Worker
) -> None:
    answer = worker.compile_whatever_its_key(encode_graph(calling(name, *args)))

    assert answer["reason"] == "UNSUPPORTED"
    assert name.replace("torch.", "aten.").removeprefix("op:").removesuffix(".default") in answer["message"]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"garbage" * 1000, b"\x91" * 100_000], ids=range(5))
def test_a_worker_refuses_what_is_no_graph_and_lives(data: bytes, worker: Worker) -> None:
    assert worker.compile("key", data)["reason"] == "UNSUPPORTED"
    assert worker.compile("key", encode_graph(graph()))["reason"] == "KEY_MISMATCH"


def test_torch_reads_text_that_would_be_refused_as_code() -> None:
    """Why the rules are there: fx puts the names of keywords into source that it executes, as they are."""
    built = torch.fx.Graph()
    x = built.placeholder("x")
    built.output(built.call_function(torch.relu, (x,), {"a=print(), b": 1}))

    assert "a=print(), b = 1" in built.python_code("self").src
