"""The parts that torch's key is made of, for telling why two keys differ."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

_LINE = re.compile(r"\[([a-z0-9]+)\] ([^:]+): ")
_SETTINGS = frozenset({"inductor_config", "inductor_config_comms"})


def key_parts(compute: Callable[[], tuple[str, list[str]]]) -> dict[str, str]:
    """Return the parts of the key that `compute()` computes, by name: a digest each.

    torch tells the parts only where its logger is set to debug; it is, for the length of this call, and silent.
    """
    from torch._functorch._aot_autograd import autograd_cache

    logger = logging.getLogger(autograd_cache.__name__)
    before = (logger.level, logger.propagate, list(logger.handlers))
    logger.setLevel(logging.DEBUG)
    logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        _, lines = compute()
    finally:
        logger.setLevel(before[0])
        logger.propagate, logger.handlers = before[1:]
    grouped: dict[str, list[str]] = {}
    for line in lines:
        if match := _LINE.match(line):
            group, _, setting = match[2].partition("[")
            # Hundreds of settings, which the worker has from the graph itself: together they are one part.
            grouped.setdefault(group if group in _SETTINGS and setting else match[2], []).append(match[1])
    return {name: hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16] for name, digests in grouped.items()}


def encode_parts(parts: Mapping[str, str]) -> list[str]:
    """Return the parts as they travel in a refusal's fields."""
    return [f"{digest} {name}" for name, digest in parts.items()]


def differing_parts(ours: Mapping[str, str], fields: list[str] | tuple[str, ...]) -> list[str]:
    """Return the names of the parts in which ours and the travelled ones differ; a refusal may hold only some."""
    theirs: dict[str, Any] = {}
    for field in fields:
        digest, _, name = field.partition(" ")
        theirs[name] = digest
    return sorted(name for name in set(ours) & set(theirs) if ours[name] != theirs[name])
