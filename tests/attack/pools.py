"""The material of attacks: texts, numbers, names of functions, and forms of values."""

from __future__ import annotations

import random
from typing import Any

from tests.attack.canary import CODE, MARK, QUOTED


def texts(file: str, port: int) -> list[str]:
    """Return texts that do something wherever they are taken for more than text."""
    connect = f"__import__('socket').create_connection(('127.0.0.1', {port}))"
    return [
        CODE, QUOTED, f"'''{CODE}\n'''", f'"""\n{CODE}\n"""', f"x\n{CODE}", f"x\r{CODE}", f"x; {CODE}", f"x={CODE}",
        f"{MARK}=({CODE}), y", f"1.0; system(\"touch {MARK}\");", f'#include "{file}"', f'.incbin "{file}"', file,
        f"file://{file}", f"../../..{file}", f"127.0.0.1:{port}", connect, f"'+{connect}+'", f"open('{file}').read()",
        f"os.system('touch {MARK}')", f"`touch {MARK}`", f"$(touch {MARK})", f"-fplugin={file}", f"-o {MARK}",
        "__class__", "__globals__", "__reduce__", "{0.__class__}", "%s%c", "a" * 1025, "\0", "\ud7ff", "", " ", MARK,
    ]  # fmt: skip


NUMBERS: list[Any] = [0, 1, -1, 2, 7, 39, 2**31, 2**62, 2**63 - 1, -(2**63), 0.5, 1e308, -0.0, True, False]

FUNCTIONS = (
    "builtins.eval builtins.exec builtins.open builtins.getattr builtins.__import__ os.system subprocess.run "
    "torch.load torch.save torch.from_file torch.compile torch.hub.load torch.ops.load_library torch.jit.load getattr "
    "operator.attrgetter operator.methodcaller operator.call operator.add operator.concat operator.mod operator.mul "
    "operator.getitem operator.setitem builtins.sum builtins.max builtins.float math.sqrt torch.relu torch.add "
    "torch._C._log_api_usage_once torch._C._log_api_usage_metadata torch.Size "
    "torch.cat torch.tensor torch.asarray torch.einsum torch._assert_async torch.from_numpy "
    "torch.frombuffer torch.bernoulli "
    "torch._enable_functionalization torch._C._set_grad_enabled torch._C._functorch._grad_increment_nesting "
    "torch._C._functorch._grad_decrement_nesting torch._functorch.predispatch._vmap_increment_nesting "
    "torch._functorch.predispatch._vmap_decrement_nesting torch.amp.autocast_mode._enter_autocast "
    "torch.amp.autocast_mode._exit_autocast torch._C._autograd._saved_tensors_hooks_disable "
    "torch._C._autograd._saved_tensors_hooks_enable torch._C._functorch.set_inplace_requires_grad_allowed "
    "torch.nn.attention._backend_from_string torch.nn.attention._sdpa_kernel "
    "hop:flex_attention hop:invoke_subgraph hop:cond hop:wrap hop:map_impl hop:scan hop:inline_asm_elementwise "
    "hop:triton_kernel_wrapper_mutation hop:run_const_graph op:prim.PythonOp op:profiler._record_function_enter_new"
).split()

METHODS = (
    "relu sum view add_ apply_ map_ numpy tofile data_ptr const_data_ptr new register_hook backward tolist type to "
    "set_ storage untyped_storage __class__ __reduce__ __getattribute__ split index item "
    "share_memory_ as_subclass format"
).split()

MAKING_TEXT = "chr join format percentFormat str replace hex oct bin upper lower strip center zfill expandtabs".split()
"""TorchScript's functions that return text; the dispatcher has none of them."""


def every_operator() -> list[str]:
    """Return all operators that TorchScript's registry knows, by the names that a graph would use."""
    import torch

    names = set()
    for schema in torch._C._jit_get_all_schemas():
        plain = "op:" + schema.name.replace("::", ".")
        names |= {plain, f"{plain}.{schema.overload_name or 'default'}"}
    return sorted(names)


_FITTING: dict[str, list[Any]] = {
    "Tensor": [["n", 0]],
    "List[Tensor]": [["l", ["n", 0], ["n", 0]]],
    "int": [0, 1, -1, 2, 3],
    "float": [0.5, 0.0, -1.0],
    "number": [2, 0.5],
    "bool": [True, False],
    "List[int]": [["l", 0], ["l", 1], ["l", 4, 4], ["l", -1]],
    "List[float]": [["l", 0.5]],
    "List[bool]": [["l", True]],
    "Device": [["dv", "cpu", None]],
}
"""Example values for each type that an operator may declare."""
_WORDS = ["none", "mean", "sum", "floor", "trunc", "linear", "bilinear", "ij", "xy", "constant", "reflect", MARK]


def allowed_operators() -> list[tuple[str, list[str]]]:
    """Return the operators that a graph may name and that take a tensor, each with the types of its first arguments."""
    import torch

    from compile_torch.operators import resolve
    from compile_wire.errors import MalformedError

    found = []
    for schema in torch._C._jit_get_all_schemas():
        name = f"op:{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
        types = [str(argument.type) for argument in schema.arguments if not argument.kwarg_only]
        plain = [
            kind.removeprefix("Optional[").removesuffix("]") if kind.startswith("Optional[") else kind for kind in types
        ]
        if "Tensor" not in types or any(kind not in {*_FITTING, "str"} for kind in plain):
            continue
        try:
            resolve(name)
        except MalformedError:
            continue
        found.append((name, types))
    return sorted(found)


def fitting(rng: random.Random, kind: str, hostile: list[str]) -> Any:
    """Return a value of the type `kind`. Where text is wanted it is hostile, or a word that operators know."""
    if kind.startswith("Optional["):
        inner = kind.removeprefix("Optional[").removesuffix("]")
        return None if rng.random() < 0.5 else fitting(rng, inner, hostile)
    return rng.choice([*hostile, *_WORDS] if kind == "str" else _FITTING[kind])


def value(rng: random.Random, hostile: list[str], depth: int = 0) -> Any:
    """Return a value of the form that a graph's values have, or nearly of it."""
    kind = rng.randrange(14 if depth < 3 else 6)
    if kind < 3:
        return rng.choice(hostile)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind == 5:
        return rng.choice([None, ["e"], ["n", 0], ["n", rng.randrange(6)], ["?", "x"], ["x", 0, "int"]])
    some = [value(rng, hostile, depth + 1) for _ in range(rng.randrange(1, 4))]
    if kind == 6:
        return ["f", rng.choice(FUNCTIONS)]
    if kind == 7:
        return ["d", *(item for each in some for item in (rng.choice(hostile), each))]
    if kind == 8:
        return [rng.choice(["dt", "ly", "mf", "i"]), rng.choice([*hostile, "float32", "9" * 50])]
    if kind == 9:
        return ["dv", rng.choice([*hostile, "cpu", "cuda"]), rng.choice([None, 0, -1])]
    if kind == 10:
        return ["s", *(value(rng, hostile, depth + 1) for _ in range(3))]
    if kind == 11:
        return [rng.choice(["S", "E", "T", "c", "zz", "M", "D"]), *some]
    if kind == 12 and rng.random() < 0.3:
        return ["P", rng.choice([*hostile, "S", "R", "sum"]), rng.choice([None, 0, -1, 63]), rng.choice([None, 1, 2])]
    return [rng.choice("ltz"), *some]
