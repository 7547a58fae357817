"""No name or text in a graph can bring code into a source, or hide something that a graph module has."""

from __future__ import annotations

import dataclasses

import pytest

from compile_wire.graph.spec import tensor_value
from tests.worker.hostile_samples import CODE, calling, nodes, refuse
from tests.worker.worker_samples import BODY, OUT, TENSOR, X, Y, graph, module, node

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
    """The rule is needed because torch writes arguments into Python, C++ and Triton sources, not always quoted."""
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
