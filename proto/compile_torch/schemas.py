"""The dispatcher's operators that a graph may name, chosen by their schemas.

TorchScript's registry knows more operators than the dispatcher: functions on text, lists and numbers, which run as
plain Python calls while a graph is traced (`aten::chr`, `aten::join`, `aten::add.str`, ...). With these a graph makes
any text that it likes. So the dispatcher is asked, and of what it has only operators on tensors pass: a tensor goes in
or comes out, no text comes out, and what text goes in is a mode, not a file's name.

torch is imported inside the functions, because both ends share this table and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

_PLAIN = frozenset({"int", "bool", "float", "number", "Device", "Generator"})
_MODES = frozenset(
    "UPLO activation algorithm approximate attr binary_attr driver equation indexing interpolation mode norm ord p "
    "pad_mode padding padding_side reduce rounding_mode side unary_algorithm unary_attr".split()
)
"""Arguments of type `str` that choose one of a few ways to compute."""

_MESSAGE = "assert_msg"
"""The argument that is a message for people; see `compile_torch.messages`."""

_WITHOUT_TENSORS = frozenset(
    {
        "aten::_assert_scalar",
        "aten::_functional_assert_scalar",
        "aten::sym_constrain_range",
        "aten::sym_constrain_range_for_size",
    }
)
"""What dynamo says of sizes. Nothing comes out of these but an error."""


def is_tensor_operator(name: str, overload: str) -> bool:
    """Return whether the dispatcher has this operator (`aten::add`, `Tensor`), and it is one on tensors."""
    import torch

    try:
        torch._C._dispatch_find_schema_or_throw(name, overload)
    except RuntimeError:
        return False
    return _is_on_tensors(torch._C._get_schema(name, overload))


def is_tensor_packet(name: str) -> bool:
    """Return whether each overload that a call by the bare name (`aten::relu`) could choose is one on tensors.

    Such a call looks through TorchScript's registry, so it may choose an overload that the dispatcher does not have.
    One such passes: that takes just what an operator of the dispatcher of this name takes (`aten::numpy_T`).
    """
    schemas = _schemas(name)
    known = [schema for schema in schemas if is_tensor_operator(name, schema.overload_name)]
    taken = [_types(schema) for schema in known]
    others = [schema for schema in schemas if not is_tensor_operator(name, schema.overload_name)]
    return bool(known) and all(_types(schema) in taken and _is_on_tensors(schema) for schema in others)


def has_tensor_overload(name: str) -> bool:
    """Return whether any overload is one on tensors. A call through torch's own Python function chooses among those."""
    return any(is_tensor_operator(name, schema.overload_name) for schema in _schemas(name))


def _schemas(name: str) -> list[Any]:
    import torch

    return list(torch._C._jit_get_schemas_for_operator(name))


def _types(schema: Any) -> list[str]:
    return [str(argument.type) for argument in schema.arguments]


def _is_on_tensors(schema: Any) -> bool:
    taken = [(argument.name, _element(str(argument.type))) for argument in schema.arguments]
    given = [_element(str(result.type)) for result in schema.returns]
    if not all(kind == "Tensor" or kind in _PLAIN for kind in given):
        return False
    for name, kind in taken:
        if kind == "str" and name not in _MODES and name != _MESSAGE:
            return False
        if kind not in {"Tensor", "str"} and kind not in _PLAIN:
            return False
    return "Tensor" in {*given, *(kind for _, kind in taken)} or schema.name in _WITHOUT_TENSORS


def _element(kind: str) -> str:
    """Return the type inside of a list or an optional value: of `Optional[List[int]]`, `int`."""
    for around in ("Optional", "List"):
        if kind.startswith(f"{around}[") and kind.endswith("]"):
            return _element(kind[len(around) + 1 : -1])
    return kind
