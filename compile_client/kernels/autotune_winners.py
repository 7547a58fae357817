"""The winners among a kernel's candidates that inductor has timed: kept, and served to the next process.

inductor times a kernel's candidates when it is first launched, and a graph's artifact is made before that: it holds
all candidates compiled, and no winner. torch keeps the winner in a file beside the kernel's source. Where there is
none, the daemon is asked; what was found here is published. Kernels of one candidate never come here.

Guarantees: what is served has the form that inductor writes, and inductor reads it as it reads its own file; nothing
raises into torch. Processes in which torch compiles kernels take part, too: it is they who read the file.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportMissingImports=false

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from compile_client.kernels.kernel_compile import device_name, guarded
from compile_client.session.process import kernel_client
from compile_client.transport.messages import LocalCompile, Part
from compile_wire.kernel.about import about_winner
from compile_wire.kernel.environment import TUNING_PREFIX

_MAX_BYTES = 64 * 1024
_FORM = "json"


def wrap_read(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap `AutotuneCache._read`, which returns the winner as a dictionary, or None."""

    @functools.wraps(original)
    def read(cache: Any) -> Any:
        best = original(cache)
        if best is None:
            with guarded():
                best = _served(cache)
        return best

    return read


def wrap_save(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `AutotuneCache.save`."""

    @functools.wraps(original)
    def save(cache: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(cache, *args, **kwargs)
        with guarded():
            _publish(cache)
        return result

    return save


def _served(cache: Any) -> dict[str, Any] | None:
    if cache.local_cache is None:  # the user wants none to be kept
        return None
    files, path = cache.local_cache
    client = kernel_client()
    for artifact in client.begin_graph(_key(cache)).lookup():
        if artifact.manifest.kind != "timings":
            continue
        best = winner(artifact.blobs[artifact.manifest.blobs[0].sha256], cache.configs_hash)
        if best is not None:
            files.put(path, best)
            client.counters.count_tuning(hit=True)
            return dict(best)
    client.counters.count_tuning(hit=False)
    return None


def _publish(cache: Any) -> None:
    if cache.local_cache is None:
        return
    files, path = cache.local_cache
    client, best = kernel_client(), files.get(path)
    if not client.may_publish() or not isinstance(best, Mapping):
        return
    content = json.dumps(dict(best), sort_keys=True).encode()
    if winner(content, cache.configs_hash) is not None:
        about = about_winner(f"inductor's {os.path.basename(path)[:12]}", best)
        part = Part("timings", _FORM, content)
        client.publish_later(LocalCompile(key=_key(cache), guards=about, compile_s=0.0, parts=(part,)))


def winner(content: bytes, configs_hash: str) -> dict[str, Any] | None:
    """Return what the bytes say, where it is about these candidates."""
    try:
        best = json.loads(content) if len(content) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        return None
    return best if isinstance(best, dict) and best.get("configs_hash") == configs_hash else None


def _key(cache: Any) -> str:
    """Return the winners' key: torch names their file by a digest of the kernel's source, its device and torch."""
    import torch

    name = os.path.basename(cache.local_cache[1])
    text = f"inductor {torch.__version__} {name} {cache.configs_hash} {device_name()}"
    return f"{TUNING_PREFIX}{hashlib.sha256(text.encode()).hexdigest()}"
