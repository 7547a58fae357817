"""What the corpus says of a graph without compiling it, of graphs that torch itself gives up once."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._dynamo.symbolic_convert import TensorifyState

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's import causes warnings of its own
    from benches.corpus.traced import Looking


def smooth(x: torch.Tensor, beta: float) -> torch.Tensor:
    return torch.nn.functional.smooth_l1_loss(x, torch.zeros_like(x), beta=beta, reduction="none")


@pytest.mark.timeout(120)
def test_a_graph_that_torch_gives_up_is_looked_at_once_more_with_its_numbers_as_constants() -> None:
    looking = Looking(None)
    torch._dynamo.reset()
    try:
        torch.compile(smooth, backend=looking, dynamic=True)(torch.ones(6, 5), 0.25)
    finally:
        TensorifyState.clear()

    assert [row["outcome"] for row in looking.rows] == ["traced_again", "taken"]
