"""What a compile knows of a graph's symbolic numbers, beyond their names: today's values, ranges, and facts.

torch's key has the symbols, not what is known of them: it was made for one process, in which that is the same. A
compile reads all of it: values decide how loops are cut, ranges which index type is enough, facts which branches are
needed. So it is part of the daemon's key, and a program that declares another range gets another artifact.

Also here: torch leaves a guard on a symbolic *float* out of its cache entries (pytorch#194976, #197889), and a burned-
in float is then served to whoever comes with another. With `with_floats` torch's entries hold these guards, and torch
evaluates them in the live shape environment as it does those on sizes.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compile_torch.dtensors import is_dtensor
from compile_torch.key.state import numbers_made_constants
from compile_torch.patches import Patches
from compile_wire.graph.spec import Value

_UNBOUNDED = frozenset({"None", "-int_oo", "int_oo", "-oo", "oo"})


def known_of_symbols(args: Sequence[Any]) -> list[Value]:
    """Return what is known of the symbols in the (fake) inputs of torch's key: a row each, then the facts.

    A row has name, value, lower and upper bound and replacement, as text; last come the floats that torch is to make
    constants of. Empty where no number is symbolic.
    """
    import torch

    sizes: set[Any] = set()
    behind: set[Any] = set()
    env = None
    for value in args:
        for found, numbers in ((sizes, _numbers(value)), (behind, [_behind(value)])):
            for number in numbers:
                if isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) and hasattr(number.node, "expr"):
                    env = number.node.shape_env
                    # What a symbol has been replaced by, where it was: one that is known to be a number is none.
                    found.update(number.node.expr.free_symbols)
    if env is None:
        return []
    values = getattr(env, "backed_var_to_val", None) or env.var_to_val
    symbols = sizes | behind
    rows: list[Value] = []
    for symbol in sorted(symbols, key=str):
        # Of a float, or of what a tensor holds, a compile reads no value without a guard on it, which the entry has.
        value = _text(values.get(symbol)) if symbol.is_integer and symbol in sizes else ""
        bounds = env.var_to_range.get(symbol)
        lower, upper = _text(getattr(bounds, "lower", None)), _text(getattr(bounds, "upper", None))
        replaced = env.replacements.get(symbol)
        if symbol not in sizes and replaced is None and lower in _UNBOUNDED and upper in _UNBOUNDED:
            continue  # torch gives every tensor with one number such a symbol: a count that goes up is no other graph
        rows.append(["l", str(symbol), value, lower, upper, _text(replaced)])
    facts = {str(guard.expr) for guard in env.guards if guard.expr.free_symbols and guard.expr.free_symbols <= symbols}
    constants = {str(symbol) for symbol in symbols} & set(numbers_made_constants())
    return rows + sorted(facts) + [["l", "constant", name] for name in sorted(constants)]


def with_floats(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Wrap `AOTAutogradCache._filter_backed_symints`, whose answer says on which numbers an entry has guards."""

    def filter_backed(inputs: Sequence[Any]) -> list[Any]:
        import torch

        found = original(inputs)
        known = {id(number) for number in found}
        for value in inputs:
            number = _behind(value) if isinstance(value, torch.Tensor) else value
            if isinstance(number, torch.SymFloat) and number.node.has_hint() and id(number) not in known:
                found.append(number)
        return found

    return filter_backed


def hint_with_floats(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what gives a symbolic size's value of today, which guards are evaluated with: floats have one, too."""

    def hint(number: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        if isinstance(number, torch.SymFloat):
            return float(number.node.hint)
        return original(number, *args, **kwargs)

    return hint


def install_float_guards(patches: Patches) -> None:
    """Have torch's entries hold guards on symbolic floats, and evaluate them."""
    from torch._functorch._aot_autograd import autograd_cache

    patches.replace(autograd_cache.AOTAutogradCache, "_filter_backed_symints", with_floats)
    for name in ("guarding_hint_or_throw", "hint_int"):  # as it is called, and as it was before torch 2.13
        if name in vars(autograd_cache):
            patches.replace(autograd_cache, name, hint_with_floats)


def _numbers(value: Any) -> list[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        numbers = [*value.shape]
        if value.layout is torch.strided:
            numbers += [*value.stride(), value.storage_offset()]
        return [*numbers, *_numbers(value._local_tensor)] if is_dtensor(value) else numbers
    return [value]


def _behind(tensor: Any) -> Any:
    """Return the symbolic number that stands for what a tensor holds, where torch can compute with it."""
    import torch

    memo = getattr(tensor, "item_memo", None) if isinstance(tensor, torch._subclasses.fake_tensor.FakeTensor) else None
    return memo if isinstance(memo, (torch.SymInt, torch.SymFloat)) else None


def _text(value: Any) -> str:
    """Return a value as text, floats to the last bit: two that print alike may not be the same."""
    if isinstance(value, float) or getattr(value, "is_Float", False):
        return float(value).hex()
    return str(value)
