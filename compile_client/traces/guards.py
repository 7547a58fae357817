"""Guards as they are recorded, and torch's own guards built from them on a live frame.

Nothing here decides a call: `built` has torch's `CheckFunctionManager` and `GuardBuilder` make the guards that a trace
would have made, and torch's tree of guards decides from then on. Which value a guard compares with is taken from the
live frame, too; that it is the recorded one is seen by comparing the trees, line by line (`tree`).
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo import convert_frame
from torch._dynamo import guards as torch_guards
from torch._dynamo.output_graph import OutputGraphCommon, OutputGraphGuardsState
from torch._guards import Guard, GuardsSet
from torch.fx.experimental.symbolic_shapes import _ShapeGuardsHelper
from torch.utils._ordered_set import OrderedSet

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.values import Reader, Table, is_plain

if TYPE_CHECKING:
    import types

    from compile_client.traces.names import Names

IDENTITY = frozenset(
    "ID_MATCH FUNCTION_MATCH CLASS_MATCH MODULE_MATCH CLOSURE_MATCH BUILTIN_MATCH TYPE_MATCH CONSTANT_MATCH".split()
)
"""Guards that may compare with what an object, or its type, is, and not with what it says."""
_CONSTANTS = frozenset("EQUALS_MATCH CONSTANT_MATCH".split())
_HOOKS = "EMPTY_NN_MODULE_HOOKS_DICT"
_OTHERS = frozenset(
    "BOOL_MATCH NONE_MATCH NOT_NONE_MATCH SEQUENCE_LENGTH TUPLE_ITERATOR_LEN RANGE_ITERATOR_MATCH DUPLICATE_INPUT "
    "MAPPING_KEYS_CHECK DICT_KEYS_MATCH GRAD_MODE DETERMINISTIC_ALGORITHMS GLOBAL_STATE TORCH_FUNCTION_STATE "
    "DEFAULT_DEVICE SHAPE_ENV TENSOR_MATCH HASATTR DICT_CONTAINS DICT_NOT_CONTAINS SET_CONTAINS SET_NOT_CONTAINS "
    "NOT_PRESENT_IN_GENERIC_DICT DISPATCH_KEY_SET_MATCH DUAL_LEVEL FUNCTORCH_STACK_MATCH "
    "AUTOGRAD_SAVED_TENSORS_HOOKS".split()
)
_KNOWN = IDENTITY | _CONSTANTS | _OTHERS | {_HOOKS}
_WORDS = {
    "FSDP_TRAINING_STATE": ("fsdp", "FSDP's hooks are part of it"),
    "DICT_VERSION": ("identity", "a guard is on the version of a dict, which no other process has"),
    "WEAKREF_ALIVE": ("identity", "a guard is on an object that must stay alive"),
    "NN_MODULE": ("identity", "a module is guarded by its identity"),
}
_BUILTIN_TYPES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    tuple,
    list,
    dict,
    set,
    frozenset,
    range,
    slice,
    type,
)


@dataclass(slots=True)
class Recorded:
    """The guards of one compile, as data."""

    rows: list[Any]
    """Of sources; see `values`."""
    guards: list[Any]
    """[source, kind, arguments by name], in the order in which torch makes them."""
    ordered: list[int]
    """Sources of dicts whose order of keys is guarded."""
    sizes: list[Any]
    """[source, sizes, strides] of graph inputs."""


def recorded(graph: Any, names: dict[str, str]) -> Recorded:
    """Return the guards of dynamo's output graph; raise `NotSkippedError` for any that cannot be told elsewhere."""
    if graph.aotautograd_guards:
        raise NotSkippedError("aliasing", "inputs share memory, and torch guards how")
    if graph.functorch_layers:
        raise NotSkippedError("functorch", "a transform of torch.func is around it")
    table = Table(names)
    made = []
    for guard in sorted(graph.guards, key=Guard.sort_key):
        kind = guard.create_fn_name()
        if kind not in _KNOWN or guard.is_fsdp_module():
            raise NotSkippedError(*_WORDS.get(kind, ("guard", f"guards of kind {kind} are not carried")))
        made.append([table.source(guard.originating_source), kind, _arguments(guard, kind, table)])
    sizes = []
    for source, said in graph.input_source_to_sizes_strides.items():
        measures = [_numbers(said[name], source.name) for name in ("size", "stride")]
        sizes.append([table.source(source), *measures])
    ordered = sorted(table.source(source) for source in graph.guard_on_key_order)
    return Recorded(rows=table.rows, guards=made, ordered=ordered, sizes=sizes)


def _arguments(guard: Any, kind: str, table: Table) -> list[Any]:
    create = guard.create_fn
    if not isinstance(create, functools.partial):
        return []
    if create.args:
        raise NotSkippedError("guard", f"a {kind} has arguments that are not carried")
    given = {} if kind in ("TENSOR_MATCH", "NOT_NONE_MATCH") else create.keywords
    return [[name, table.value(value, guard.name)] for name, value in given.items()]


def _numbers(sizes: Any, where: str) -> list[int]:
    if not all(type(size) is int for size in sizes):
        raise NotSkippedError("dynamic", f"{where} has a size that is not fixed")
    return list(sizes)


class Frame:
    """The frame that is called: its code and its scopes, and what `source` means there."""

    def __init__(self, code: types.CodeType, local: dict[str, Any], scope: dict[str, Any]) -> None:
        self.code = code
        self.local = local
        self.scope = scope
        self._globals = {"L": local, "G": scope, "__builtins__": dict(vars(__import__("builtins")))}
        self._cache: dict[Any, Any] = {}

    def value(self, source: Any) -> Any:
        """Return what a source is, here and now; raise `NotSkippedError` where it is not there."""
        try:
            return source.get_value(self._globals, torch_guards._get_closure_vars(), self._cache)
        except Exception as error:
            raise NotSkippedError("guard", f"{source.name} is not there ({type(error).__name__})") from error


def live_guards(recorded: Recorded, reader: Reader) -> list[Any]:
    """Return torch's own guard objects for the recorded ones."""
    made = []
    for number, kind, arguments in recorded.guards:
        create = getattr(torch_guards.GuardBuilder, kind)
        if arguments:
            create = functools.partial(create, **{name: reader.value(value) for name, value in arguments})
        made.append(Guard(reader.source(number), create))
    return made


def built(recorded: Recorded, reader: Reader, frame: Frame, cache_entries: Any, fail: Any, builtins: str) -> Any:
    """Have torch build the guards on a live frame; raise `NotSkippedError` where one does not hold there."""
    state = OutputGraphGuardsState(
        local_scope=frame.local,
        global_scope=frame.scope,
        torch_function_mode_stack=[],
        guard_on_key_order={reader.source(number) for number in recorded.ordered},
        input_source_to_sizes_strides={
            reader.source(number): {"size": tuple(size), "stride": tuple(stride)}
            for number, size, stride in recorded.sizes
        },
        dual_level=torch.autograd.forward_ad._current_level,
        functorch_layers=[],
        current_device=torch.utils._device.CURRENT_DEVICE,
        global_state_guard=convert_frame.initial_global_state or torch._C._dynamo.guards.GlobalStateGuard(),
        _guards=GuardsSet(OrderedSet(live_guards(recorded, reader))),
        _aotautograd_guards=[],
        name_of_builtins_dict_key_in_fglobals=builtins or None,
    )
    none = _ShapeGuardsHelper([])
    static = torch_guards.ShapeCodeParts(
        python_code_parts=none, verbose_code_parts=none, cpp_code_parts=None, python_fallback=True, shape_env_sources=[]
    )
    try:
        return torch_guards.CheckFunctionManager(
            frame.code, OutputGraphCommon(state), cache_entries, fail, shape_code_parts=static
        ).guard_manager
    except AssertionError as error:
        why = str(error).partition("Guard fail reason:")[2].strip() or str(error)
        raise NotSkippedError("guard", f"a guard does not hold here: {' '.join(why.split())[:300]}") from error


def identities(
    recorded: Recorded, reader: Reader, frame: Frame, names: Names
) -> tuple[dict[int, str], list[list[str]]]:
    """Return the names of all that the guards know by identity: by `id`, and as [source, name] in their order."""
    found = {id(kind): names.of(kind, "") for kind in _BUILTIN_TYPES}
    said: list[list[str]] = []
    for number, kind, _ in recorded.guards:
        source = reader.source(number)
        if kind == _HOOKS and frame.value(source):
            raise NotSkippedError("hooks", f"{source.name} has hooks, which torch does not guard")
        if kind not in IDENTITY:
            _note_type(source, frame, names, found)
            continue
        value = frame.value(source)
        if kind == "TYPE_MATCH":
            found[id(type(value))] = names.of(type(value), f"type({source.name})")
            said.append([f"type({source.name})", found[id(type(value))]])
        elif kind == "CONSTANT_MATCH":
            _note_type(source, frame, names, found)
            if isinstance(value, (bool, type(None))):
                found[id(value)] = repr(value)
        else:
            found[id(value)] = names.of(value, source.name)
            said.append([source.name, found[id(value)]])
            if kind == "CLOSURE_MATCH" and hasattr(value, "__code__"):
                found[id(value.__code__)] = f"code of {found[id(value)]}"
    return found, said


def _note_type(source: Any, frame: Frame, names: Names, found: dict[int, str]) -> None:
    """Name the type of a value, which guards on what it says check as well; one without a name is found out later."""
    with contextlib.suppress(NotSkippedError):
        kind = type(frame.value(source))
        found.setdefault(id(kind), names.of(kind, source.name))


def tensors(recorded: Recorded, reader: Reader, frame: Frame) -> list[tuple[int, Any]]:
    """Return the tensors that are guarded, with the numbers of their sources."""
    return [
        (number, frame.value(reader.source(number))) for number, kind, _ in recorded.guards if kind == "TENSOR_MATCH"
    ]


def check_constants(recorded: Recorded, reader: Reader, frame: Frame) -> None:
    """Raise `NotSkippedError` where a guard compares with something that its text does not tell whole."""
    for number, kind, _ in recorded.guards:
        if kind in _CONSTANTS:
            source = reader.source(number)
            value = frame.value(source)
            if not is_plain(value) and not hasattr(value, "co_code"):
                raise NotSkippedError("value", f"{source.name} is compared with a {type(value).__name__}")
