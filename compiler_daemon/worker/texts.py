"""Which text may stand in a graph: before it is traced, and again before torch makes sources of what came out.

torch writes some arguments into the sources that it compiles and loads, and not all of them quoted. Text can also be
computed while a graph is traced, so what arrived is not the whole story: the graphs that AOTAutograd hands to inductor
are walked, and there only the words of a short list may stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from compile_torch.messages import MESSAGE_AT, MESSAGE_NAMES, SENTENCE, texts_in
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value

_ARGUMENT = re.compile(r"[A-Za-z0-9_ .,:>*+-]{0,200}")
"""Text that is an argument of dynamo's graph: a mode, a device, an einsum."""

_WORDS = frozenset(
    # ways to round, reduce, interpolate, pad, sort, and to choose an algorithm
    "none tanh floor trunc sum prod mean amax amin max min left right rand randn linear lower higher midpoint nearest "
    "constant reflect replicate circular valid same U L fro nuc gesvd gesvdj gesvda gels gelsy gelsd gelss "
    "reduced complete r ij xy relu silu forward backward ortho area bilinear bicubic trilinear nearest-exact "
    # devices and their parts
    "cpu cuda meta xpu mps "
    # how ranks' parts come together
    "avg product "
    # what a vmap says of random numbers
    "error different "
    # keywords of higher-order operators, and what flex attention and scan are told in them
    "score_mod mask_mod kernel_options return_lse return_aux BACKEND AUTO TRITON FLASH TRITON_DECODE PRESCALE_QK "
    "ROWS_GUARANTEED_SAFE BLOCKS_ARE_CONTIGUOUS WRITE_DQ OUTPUT_LOGSUMEXP OUTPUT_MAX FORCE_USE_FLEX_ATTENTION USE_TMA "
    "BLOCK_M BLOCK_N BLOCK_M1 BLOCK_N1 BLOCK_M2 BLOCK_N2 num_warps num_stages waves_per_eu kpack "
    "matrix_instr_nonkdim fwd_BLOCK_M fwd_BLOCK_N bwd_BLOCK_M1 bwd_BLOCK_N1 bwd_BLOCK_M2 bwd_BLOCK_N2 "
    "FLOAT32_PRECISION "
    "pointwise generic non_differentiable_idx args_tensor_mask use_reentrant preserve_rng_state determinism_check "
    "early_stop debug default is_matrix reverse combine_mode xs additional_inputs fw_subgraph bw_subgraph subgraph "
    # metadata of nodes
    "is_forward is_backward must_be_in_forward must_be_in_backward".split()
) | {
    "",
    SENTENCE,
    # What torch's own decomposition of one_hot says where an index fits no class.
    "one_hot: Class values must be non-negative.",
    "one_hot: Class values must be smaller than num_classes.",
}

_MADE_BY_TORCH = re.compile(
    r"(?:partitioned_|repeated_)?(?:fw_|bw_|joint_)?(?:sub)?graph(?:_?[0-9]{1,6})*|(?:torch\.)?linalg\.[a-z_]{1,24}"
)
"""What torch calls the body of a region that is compiled once, and the function that an error would come from."""

_METADATA: Mapping[str, type[Any]] = {"_region_activation_memory_budget": float, "fallback_to_eager": bool}
"""What a node's metadata `custom` may say; all else in it is a note of the user's, or chooses functions."""

_NUMBERED = "call_id"
"""A note by which torch pairs the forward and the backward of a region that is compiled once: a number of its own."""

_RUNNING_ANOTHER = frozenset({"run_and_save_rng_state", "run_with_rng_state", "graphsafe_run_with_rng_state"})
"""Operators that are given another one with its arguments: what a checkpoint draws is drawn again in its backward."""

_TAGS = frozenset({"is_forward", "is_backward", "must_be_in_forward", "must_be_in_backward"})


def check_text(value: Value) -> None:
    """Raise `MalformedError` where text in the value could be more than words."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and not _ARGUMENT.fullmatch(item):
            raise MalformedError(f"text of an argument holds what no argument needs: {item!r:.80}")
        if isinstance(item, list):
            waiting.extend(item)


def check_arguments(operator: str, args: Value, kwargs: Value) -> None:
    """Check what a function is called with, as `check_text` does; a message for people must be the known sentence."""
    at = MESSAGE_AT.get(operator)
    if at is not None:
        given = [args[1 + at]] if isinstance(args, list) and len(args) > 1 + at else []
        if isinstance(kwargs, list):
            given += [
                item
                for name, item in zip(kwargs[1::2], kwargs[2::2], strict=True)
                if isinstance(name, str) and name in MESSAGE_NAMES
            ]
        if any(item != SENTENCE for item in given):
            raise MalformedError(f"{operator} has a message of its own; none is carried")
    check_text(args)
    check_text(kwargs)


def check_metadata(name: str, meta: Mapping[Any, Any]) -> None:
    """Raise `MalformedError` where the metadata of the node `name` says what a compile does not need."""
    custom = meta.get("custom", {})
    if not isinstance(custom, dict):
        raise MalformedError(f"node {name} has metadata of a wrong form")
    for key, value in custom.items():
        if not isinstance(key, str) or type(value) is not _METADATA.get(key):
            raise MalformedError(f"node {name} is annotated with {key!r:.60}: notes of the user's are not carried")
    if type(meta.get("ac_graph_id", 0)) is not int:
        raise MalformedError(f"node {name} belongs to no numbered checkpoint")
    if meta.get("partitioner_tag", "is_forward") not in _TAGS:
        raise MalformedError(f"node {name} has a tag that is not known")


def check_traced(gm: torch.fx.GraphModule, groups: frozenset[str] = frozenset()) -> None:
    """Raise `MalformedError` where a graph that inductor is about to lower holds text that is not on the list.

    `groups` are the numbers of the groups of ranks that it may speak of.
    """
    for module in gm.modules():
        if not isinstance(module, torch.fx.GraphModule):
            raise MalformedError(f"the traced graph holds a {type(module).__name__}")
        for node in module.graph.nodes:
            notes = {
                name: value
                for name, value in node.meta.get("custom", {}).items()
                if name not in _METADATA and not (name == _NUMBERED and type(value) is int)
            }
            for text in texts_in((node.args, _keywords(node), notes, node.meta.get("partitioner_tag"))):
                if text not in _WORDS and text not in groups and not _MADE_BY_TORCH.fullmatch(text):
                    raise MalformedError(
                        f"the operator {node.target} is given the text {text!r:.60}, no word known here"
                    )


def _keywords(node: torch.fx.Node) -> Any:
    """Return what is given by name; the names, too, where they are not those of an operator's own arguments."""
    operator = _operator(node)
    if operator is None:
        return node.kwargs
    known = {argument.name for argument in operator._schema.arguments}
    return [value if name in known else (name, value) for name, value in node.kwargs.items()]


def _operator(node: torch.fx.Node) -> torch._ops.OpOverload | None:
    """Return whose arguments a node's are: also of the one that is run with a state of random numbers kept for it."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target
    if isinstance(node.target, torch._ops.HigherOrderOperator) and node.target.name() in _RUNNING_ANOTHER:
        return next((given for given in node.args if isinstance(given, torch._ops.OpOverload)), None)
    return None
