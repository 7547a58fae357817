"""The settings that a graph is compiled under when a daemon has a part in it, here or there.

None changes the code that torch generates. They make torch put forward and backward into one cache entry, compile the
backward at once instead of at the first `.backward()`, and cache what it can key but by default does not: custom
autograd functions (their bodies are part of the graph), autocast regions (cached by default from torch 2.15 on) and
regions of `sdpa_kernel` (their choice is part of the graph).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from compile_torch.versions import waits_for_backward

_FUNCTORCH = {
    "bundled_autograd_cache": True,
    "force_non_lazy_backward_lowering": True,
    "autograd_cache_allow_custom_autograd_functions": True,
}

_CACHEABLE = {
    "torch.amp.autocast_mode._enter_autocast": "1",
    "torch.amp.autocast_mode._exit_autocast": "1",
    "torch.nn.attention._backend_from_string": "1",
    "torch.nn.attention._sdpa_kernel": "1",
}


@contextlib.contextmanager
def daemon_settings() -> Iterator[None]:
    """Put the settings into force for one compile."""
    from torch._functorch import config as functorch_config
    from torch._inductor import config as inductor_config

    # Where nobody can say later that a graph is kept, no backward may reuse what was saved for it.
    functorch = _FUNCTORCH if waits_for_backward() else {**_FUNCTORCH, "donated_buffer": False}
    cacheable = {**_CACHEABLE, **inductor_config.unsafe_marked_cacheable_functions}
    with functorch_config.patch(functorch), inductor_config.patch(unsafe_marked_cacheable_functions=cacheable):
        yield


def recompile_limit() -> int:
    """Return how many graphs dynamo makes of one function before it runs it eagerly permanently."""
    from torch._dynamo import config

    return int(config.recompile_limit)
