"""A graph that another version of torch has captured, made ready for this one.

Operators, sources and values are looked up here by the same names; what this torch does not have is refused there. What
is done here is about settings: those that this torch no longer has are left out, and global switches that the other
torch did not know are as they are here. So the key is the one of a trainer that runs this torch, with the settings that
both know, if its dynamo makes the same graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config

from compile_torch.key.state import read_state
from compile_wire.graph.spec import GraphSpec, Value


def translated(spec: GraphSpec) -> GraphSpec:
    """Return the graph as this torch can take it; the same where this torch has captured it."""
    if spec.torch == str(torch.__version__):
        return spec
    state = read_state()
    return dataclasses.replace(
        spec,
        torch=str(torch.__version__),
        state={**state, **{name: value for name, value in spec.state.items() if name in state}},
        inductor=_known(spec.inductor, inductor_config),
        functorch=_known(spec.functorch, functorch_config),
    )


def _known(settings: Mapping[str, Value], config: Any) -> dict[str, Value]:
    here = config.save_config_portable(ignore_private_configs=False)
    return {name: value for name, value in settings.items() if name in here}
