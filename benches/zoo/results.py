"""What an entry of the zoo computes, eagerly or compiled, and whether two of these are the same."""

from __future__ import annotations

from typing import Any


def results_of(entry: Any, dynamic: bool | None, *, eager: bool = False) -> list[Any]:
    """Return the outputs and the gradients."""
    import torch
    from torch.utils._pytree import tree_leaves

    torch.manual_seed(0)
    function, arguments = entry.make()
    compiled = function if eager else torch.compile(function, dynamic=dynamic)
    flat = [leaf for leaf in tree_leaves(compiled(*arguments)) if isinstance(leaf, torch.Tensor)]
    if entry.train:
        floating = [leaf for leaf in flat if leaf.requires_grad]
        sum(leaf.float().sum() for leaf in floating).backward()  # type: ignore[union-attr] # at least one output
        flat += [
            leaf.grad for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor) and leaf.grad is not None
        ]
    return [leaf.detach().clone() for leaf in flat]


def close(expected: list[Any], found: list[Any]) -> bool:
    """Whether two runs have the same results, as closely as compiled and eager code have."""
    import torch

    return len(expected) == len(found) and all(
        torch.allclose(
            a.to(torch.complex128), b.to(torch.complex128), rtol=2e-2 if a.dtype == torch.bfloat16 else 1e-4, atol=1e-4
        )
        for a, b in zip(expected, found, strict=True)
    )
