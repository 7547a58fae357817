from __future__ import annotations

import builtins
import functools
import importlib
import math
import operator
import os
import re
import subprocess
import types
from typing import Any

import pytest
import torch

from compile_torch import operators
from compile_torch.checked_calls import checked_calls
from compile_torch.operators import HIGHER_ORDER, NAMESPACES, check_method, name_of, resolve
from compile_wire.errors import MalformedError
from tests.worker import worker_samples  # noqa: F401 - imports of torch's that warn are done there


def registered() -> list[str]:
    """Return all operators of TorchScript's registry, by the names that a graph would use."""
    names = set()
    for schema in torch._C._jit_get_all_schemas():
        packet = "op:" + schema.name.replace("::", ".")
        names |= {packet, f"{packet}.{schema.overload_name or 'default'}"}
    return sorted(names)


def listed() -> list[str]:
    return sorted(name for name in operators._functions()[0] if operators._is_allowed(name))


def test_what_a_name_resolves_to_has_a_name_that_resolves_to_it() -> None:
    names = listed()
    assert len(names) > 1000

    for name in names:
        found = resolve(name)
        its_name = name_of(found)
        assert its_name is not None, name
        assert resolve(its_name) is found, name


def test_operators_of_the_dispatcher_have_the_names_that_resolve_to_them() -> None:
    resolved = 0
    for name in registered():
        try:
            found = resolve(name)
        except MalformedError:
            continue
        resolved += 1
        assert name.removeprefix("op:").split(".")[0] in NAMESPACES
        assert name_of(found) == name
    assert resolved > 2000


@functools.cache
def overloads() -> list[tuple[str, str]]:
    """Return every operator in TorchScript's registry, including the dispatcher's, as name and overload."""
    return sorted({(schema.name, schema.overload_name) for schema in torch._C._jit_get_all_schemas()})


@functools.cache
def dispatched() -> set[tuple[str, str]]:
    pairs = (name.partition(".") for name in torch._C._dispatch_get_all_op_names())
    return {(name, overload) for name, _, overload in pairs}


def resolves(name: str) -> bool:
    try:
        resolve(name)
    except MalformedError:
        return False
    return True


TRANSPOSED = {"aten::mH", "aten::mT", "aten::matrix_H", "aten::numpy_T"}
"""One tensor in, a view of it out: TorchScript has each once more, for the same tensor."""


def test_what_only_torchscript_knows_is_no_operator() -> None:
    """Functions on text, lists and numbers would run while a graph is traced, and could turn numbers into text."""
    scripts = [pair for pair in overloads() if pair not in dispatched()]
    assert {("aten::chr", ""), ("aten::join", ""), ("aten::add", "str")} <= set(scripts)

    for name, overload in scripts:
        plain = "op:" + name.replace("::", ".")
        assert not resolves(f"{plain}.{overload or 'default'}"), (name, overload)
        assert not resolves(plain) or name in TRANSPOSED, f"a call by the name {name} may choose {overload!r}"


def test_an_operator_by_its_bare_name_is_one_of_which_every_overload_may_be_named() -> None:
    for name in sorted({name for name, _ in overloads()}):
        plain = "op:" + name.replace("::", ".")
        if resolves(plain):
            mine = [overload for other, overload in overloads() if other == name]
            assert all(resolves(f"{plain}.{overload or 'default'}") for overload in mine) or name in TRANSPOSED, name
    assert resolves("op:aten.relu")


def test_an_overload_of_torchscripts_passes_where_it_takes_what_the_dispatchers_operator_takes() -> None:
    for name in sorted(TRANSPOSED):
        taken = [
            [str(item.type) for item in schema.arguments] for schema in torch._C._jit_get_schemas_for_operator(name)
        ]
        assert resolves("op:" + name.replace("::", "."))
        assert taken == [["Tensor"], ["Tensor"]]
    assert not resolves("op:aten.add")


def kinds(types: Any) -> set[str]:
    return set(re.findall(r"[\w.]+", " ".join(str(item.type) for item in types)))


def test_no_operator_gives_text_or_takes_a_file_memory_or_an_object() -> None:
    named = [pair for pair in overloads() if resolves(f"op:{pair[0].replace('::', '.')}.{pair[1] or 'default'}")]
    assert len(named) > 2000

    for name, overload in named:
        schema = torch._C._get_schema(name, overload)
        given, taken = kinds(schema.returns), kinds(schema.arguments)
        assert given <= {"Tensor", "Optional", "List", "int", "bool", "float", "number", "Device"}, name
        assert not taken & {"Any", "Storage", "Stream", "AnyClassType", "QScheme"}, name
        assert not any(kind.startswith("__torch__") for kind in taken | given), name
        texts = {argument.name for argument in schema.arguments if "str" in kinds([argument])}
        assert not texts & {"filename", "s", "api_name"}, name


@pytest.mark.parametrize(
    "name",
    "_disable_functionalization _enable_functionalization _cufft_set_plan_cache_max_size _nnpack_available from_numpy "
    "frombuffer from_file can_cast promote_types is_vulkan_available".split(),
)
def test_a_function_of_torchs_is_one_on_tensors(name: str) -> None:
    assert not resolves(f"torch.{name}")


@pytest.mark.parametrize("name", "new const_data_ptr as_subclass record_stream is_shared storage_type".split())
def test_a_method_gives_no_address_and_takes_none(name: str) -> None:
    with pytest.raises(MalformedError):
        check_method(name)


def test_higher_order_operators_have_the_names_that_resolve_to_them() -> None:
    known = [name for name in HIGHER_ORDER if getattr(torch.ops.higher_order, name, None) is not None]
    assert known

    for name in known:
        assert name_of(resolve(f"hop:{name}")) == f"hop:{name}"


@pytest.mark.parametrize(
    "home",
    "torch torch._C torch._C._nn torch._C._autograd torch.nn.functional torch.functional torch.hub torch.jit torch.fx "
    "torch.serialization torch.utils torch.autograd torch.library torch.ops torch.classes torch.overrides torch.cuda "
    "builtins operator math os sys importlib subprocess functools ctypes pickle shutil".split(),
)
def test_nothing_is_named_that_is_not_resolved(home: str) -> None:
    module = importlib.import_module(home)
    for attribute in sorted(vars(module)):
        value = vars(module)[attribute]
        its_name = name_of(value)
        if its_name is not None and its_name not in checked_calls():
            assert resolve(str(its_name)) is value


def _called(target: Any) -> str:
    """Return a name that is the same in every process; a repr may contain an address."""
    if isinstance(target, types.FunctionType):
        return f"{target.__module__}.{target.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(target))


@pytest.mark.parametrize(
    "target",
    [
        os.system,
        subprocess.run,
        builtins.eval,
        builtins.exec,
        builtins.open,
        builtins.__import__,
        builtins.setattr,
        builtins.print,
        importlib.import_module,
        operator.attrgetter,
        operator.methodcaller,
        operator.call if hasattr(operator, "call") else operator.attrgetter("x"),
        math.prod,
        torch.load,
        torch.save,
        torch.compile,
        torch.from_file,
        torch.hub.load,
        torch.jit.load,
        torch.ops.load_library,
        torch.nn.Module,
        torch.Tensor,
        torch.Tensor.apply_,
        type,
        object(),
        [],
        {},
        None,
        "torch.relu",
        lambda: None,
    ],
    ids=_called,
)
def test_what_could_run_code_has_no_name(target: Any) -> None:
    assert name_of(target) is None


def test_an_operator_of_a_users_own_has_no_name() -> None:
    with torch.library._scoped_library("compile_daemon_tests", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")

        assert name_of(torch.ops.compile_daemon_tests.twice.default) is None
        assert name_of(torch.ops.compile_daemon_tests.twice) is None
        with pytest.raises(MalformedError):
            resolve("op:compile_daemon_tests.twice.default")


def test_everything_listed_is_of_torch_operator_math_or_arithmetic() -> None:
    for name in listed():
        home = name.rpartition(".")[0]
        assert home in {"operator", "builtins", "math"} or home.split(".")[0] == "torch", name
        assert not name.rpartition(".")[2].startswith("__"), name


@pytest.mark.parametrize("name", sorted(checked_calls()))
def test_a_function_whose_arguments_are_checked_has_a_name_but_is_not_resolved(name: str) -> None:
    assert name_of(checked_calls()[name]) == name

    with pytest.raises(MalformedError):
        resolve(name)


def test_a_method_that_may_be_called_is_one_of_tensors() -> None:
    allowed = []
    for name in {*dir(torch.Tensor), *dir(torch.nn.Module), *dir(torch.fx.GraphModule), *dir(str), *dir(dict)}:
        try:
            check_method(name)
        except MalformedError:
            continue
        allowed.append(name)
        assert callable(getattr(torch.Tensor, name))
    assert {"view", "sum", "__add__"} <= set(allowed)
    assert not {"format", "apply", "register_module", "load_state_dict", "__class__", "__reduce__"} & set(allowed)
