"""Named random streams: the same numbers for the same (seed, names), whatever was drawn before.

Every random number of a run comes from `stream(seed, "noise", step)` and its like, drawn on the CPU. A run can
therefore be resumed at any step, moved to another device, or replayed with one stream changed and the others equal
(paired noise), without saving generator states.
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, *path: str | int) -> torch.Generator:
    """Return a CPU generator that depends on nothing but its arguments.

    The path is hashed rather than added to the seed, so that neighbouring seeds and steps share no stream.
    """
    text = "/".join(map(str, (seed, *path))).encode()
    generator = torch.Generator(device="cpu")
    generator.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1)
    return generator
