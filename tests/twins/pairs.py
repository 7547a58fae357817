"""Which pairs are played: every thing at every position that it fits, or a draw of those."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Sequence

from tests.twins.thing import Pair, Thing
from tests.twins.things import THINGS


def all_pairs(things: Sequence[Thing] = THINGS) -> list[Pair]:
    """Return every thing at every position and with the sizes that it fits; numbers are never used twice."""
    places = [(thing, position, times) for thing in things for position in thing.fits for times in thing.times]
    return [Pair(thing, position, times, number + 1) for number, (thing, position, times) in enumerate(places)]


def drawn(pairs: Sequence[Pair], *, seed: int, each: int) -> list[Pair]:
    """Draw so many pairs of each thing, in an order of chance; another seed draws others."""
    chance = random.Random(seed)
    chosen: list[Pair] = []
    for name in dict.fromkeys(pair.thing.name for pair in pairs):
        own = [pair for pair in pairs if pair.thing.name == name]
        chosen += chance.sample(own, min(each, len(own)))
    chance.shuffle(chosen)
    return chosen


def named(pairs: Sequence[Pair], patterns: Sequence[str]) -> list[Pair]:
    """Return the pairs of which the name, the thing or the kind is like one of the patterns (`*` stands for anything)."""
    return [
        pair
        for pair in pairs
        if any(
            fnmatch.fnmatchcase(text, pattern) or (text == pair.name and pattern in text)
            for pattern in patterns
            for text in (pair.name, pair.thing.name, pair.thing.kind)
        )
    ]
