"""What is known of an operator of the user's: its declaration, and the functions of its that run during a compile."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compile_client.graphs.user_code.library_code import is_librarys
from compile_client.graphs.user_code.reach import CannotTellError
from compile_client.graphs.user_code.reach_names import file_digest
from compile_client.graphs.user_code.registrations import is_torchs, kernels_of
from compile_client.graphs.user_code.vouching import version_of
from compile_torch.operators import NAMESPACES

_DEBUG = re.compile(r"^debug: registered at (.+?):\d+", re.MULTILINE)
_KERNEL = re.compile(r"^(\w+)(?:\[alias\])?: registered at (.+?):\d+ ::", re.MULTILINE)

_DEVICES = frozenset("CPU CUDA HIP XLA MPS IPU XPU HPU VE Lazy MTIA MAIA PrivateUse1 PrivateUse2 PrivateUse3".split())
"""Dispatch keys whose kernels run when the program does, not while it is compiled."""

_BODY = frozenset({"_init_fn", "_backend_fns"})
UNTOLD = frozenset({"_namespace", "_name", "_schema", "_tags", "_lib", "_opoverload", "_disabled_kernel"})
"""Attributes of torch's definitions that tell nothing of what an operator does, or that are told otherwise."""


def is_own(name: str) -> bool:
    """Whether "namespace::operator" is neither torch's nor unknown."""
    if name.partition("::")[0] in NAMESPACES:
        return False
    if not (dump := _dump(name)):
        return False
    found = _DEBUG.search(dump)
    return found is None or not _is_torch_file(found[1], name)


def operator_facts(name: str) -> Iterator[tuple[str, Any]]:
    """Yield (what it is, value) of everything by which an operator may change a graph that it stands in.

    Raises `CannotTellError` where something of it cannot be looked at and the user has not vouched for it.
    """
    import torch
    from torch._library.custom_ops import OPDEFS

    packet: Any = functools.reduce(getattr, name.split("::"), torch.ops)
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    yield f"{name} schemas", sorted(str(overload._schema) for overload in overloads)
    yield f"{name} tags", sorted(str(tag) for overload in overloads for tag in overload.tags)
    if version := version_of(name):
        yield f"{name} vouched for", version
        return
    definition = OPDEFS.get(name)
    traced = _runs_while_compiled(name, definition, overloads)
    if definition is not None:
        yield from _defined(name, definition, traced)
    yield from _faked(name)
    yield from _kernels(name, definition is not None, traced)
    for overload in overloads:
        for key, function in sorted(getattr(overload, "py_kernels", {}).items(), key=lambda item: str(item[0])):
            yield f"{name} py_impl {key}", function


def _runs_while_compiled(name: str, definition: Any, overloads: list[Any]) -> bool:
    """Whether torch runs an operator's own body when it compiles: to inline it, to fold constants, for its shapes."""
    import torch

    if any(torch.Tag.pointwise in overload.tags for overload in overloads):
        return True
    if torch._library.triton.get_triton_kernels_for_op(name):
        return True
    if definition is not None and definition._torch_dispatch_fns:
        return True
    return definition is None and not _has_fake(name)


def _has_fake(name: str) -> bool:
    import torch

    if torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None:
        return True
    return bool({"Meta", "CompositeImplicitAutograd", "CompositeExplicitAutograd"} & set(dispatcher_entries(name)))


def _defined(name: str, definition: Any, traced: bool) -> Iterator[tuple[str, Any]]:
    """Return what `torch.library.custom_op` and `triton_op` keep of an operator."""
    for attribute, value in sorted(vars(definition).items()):
        if attribute not in UNTOLD and (traced or attribute not in _BODY):
            yield f"{name} {attribute}", value


def _faked(name: str) -> Iterator[tuple[str, Any]]:
    import torch

    entry = torch._library.simple_registry.singleton.find(name)
    if entry.fake_impl.kernel is not None:
        yield f"{name} fake", getattr(entry.fake_impl.kernel, "func", None)
    rules = getattr(getattr(entry, "torch_dispatch_rules", None), "_data", None)
    if rules:
        yield f"{name} rules", {str(kind): getattr(kernel, "func", None) for kind, kernel in rules.items()}


def _kernels(name: str, defined: bool, traced: bool) -> Iterator[tuple[str, Any]]:
    """Return what was registered with the dispatcher, by key; of what came from C++, its library's file."""
    noted = kernels_of(name)
    for key, function in noted:
        # What torch registers for `custom_op` calls the functions that are kept there.
        if (traced or key not in _DEVICES) and not (defined and is_torchs(function)):
            yield f"{name} {key}", function
    left: dict[str, str] = {
        key: path
        for key, path in dispatcher_entries(name).items()
        if key not in {noted_key for noted_key, _ in noted} and (traced or key not in _DEVICES)
    }
    for key, path in sorted(left.items()):
        if defined and _is_torch_file(path, name):
            continue  # `custom_op` registers these, for the functions that it keeps
        if path.endswith(".py"):
            if not _is_torch_file(path, name):
                raise CannotTellError(
                    f"its kernel for {key} was registered before the client was on; "
                    f'vouch for it with compile_client.operator_version("{name}", "1")'
                )
            continue
        yield f"{name} {key}", _library_of(name)
    declared = _DEBUG.search(_dump(name))
    if declared is not None and not declared[1].endswith(".py"):
        yield f"{name} declared in C++", _library_of(name)


def dispatcher_entries(name: str) -> dict[str, str]:
    """Return where the kernels of "namespace::operator" were registered, by dispatch key: a path of Python or C++."""
    return {key: path for key, path in _KERNEL.findall(_dump(name)) if not path.startswith("aten/")}


def _dump(name: str) -> str:
    import torch

    dump = ""
    for full in _overload_names(name):
        with_overload = torch._C._dispatch_dump(full)
        dump += with_overload if "schema:" in with_overload else ""
    return dump


def is_declared(name: str) -> bool:
    """Whether there is any operator "namespace::operator"."""
    import torch

    return bool(torch._C._jit_get_schemas_for_operator(name))


def _overload_names(name: str) -> list[str]:
    import torch

    overloads = torch._C._jit_get_operation(name)[1] if is_declared(name) else []
    return [f"{name}.{overload}" if overload else name for overload in overloads or []] or [name]


@functools.cache
def _torch_roots() -> tuple[str, ...]:
    """Return where torch's files lie, and where they lay when torch was built."""
    import torch

    here = os.path.dirname(os.path.realpath(str(torch.__file__))) + os.sep
    found = _DEBUG.search(torch._C._dispatch_dump("aten::add.Tensor"))
    built = found[1] if found else ""
    head, sep, _ = built.rpartition("/build/")
    return (here, f"{head}/") if sep else (here,)


def is_torch_path(path: str) -> bool:
    """Whether a file is one of torch's, here or where torch was built."""
    return path.startswith(_torch_roots()) or os.path.realpath(path).startswith(_torch_roots())


def _is_torch_file(path: str, name: str) -> bool:
    """Whether something was registered by torch. `custom_op` registers in torch's file what is the user's."""
    from torch._library.custom_ops import OPDEFS

    if not is_torch_path(path):
        return False
    definition = OPDEFS.get(name)
    if definition is None:
        return all(is_librarys(function) for _, function in kernels_of(name))
    return is_librarys(definition._init_fn)  # that of a `triton_op` is torch's, and closes over the user's


def _library_of(name: str) -> str:
    """Return digests of the loaded libraries in which a C++ operator may lie; raise where none has its name."""
    import torch

    space, _, plain = name.partition("::")
    package = getattr(sys.modules.get(space), "__file__", None)
    paths = {str(path) for path in torch.ops.loaded_libraries}
    paths |= {str(path) for path in Path(package).parent.rglob("*.so")} if package else set()
    paths |= {
        path
        for module_name, module in list(sys.modules.items())
        if (path := getattr(module, "__file__", None) or "").endswith(".so") and "." not in module_name
    }
    digests = sorted(file_digest(path) for path in paths if _names(path, plain))
    if not digests:
        raise CannotTellError(
            f"it is written in C++, and the library that it comes from is not known; "
            f'vouch for it with compile_client.operator_version("{name}", "1")'
        )
    return " ".join(digests)


def _names(path: str, plain: str) -> bool:
    try:
        return plain.encode() in Path(path).read_bytes()
    except OSError:
        return False
