"""Chooses the pairs to play: every thing at every position that it fits, or a draw of those."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Collection, Sequence

from tests.twins.thing import Pair, Thing, Twins
from tests.twins.things import THINGS


def all_pairs(things: Sequence[Thing] = THINGS) -> list[Pair]:
    """Return every thing at every position and with the sizes that it fits; each pair has a number of its own."""
    places = [(thing, position, times) for thing in things for position in thing.fits for times in thing.times]
    return [Pair(thing, position, times, number + 1) for number, (thing, position, times) in enumerate(places)]


def drawn(pairs: Sequence[Pair], *, seed: int, each: int, played: Collection[str] = ()) -> list[Pair]:
    """Draw `each` pairs of each thing; another seed draws others.

    Pairs whose names are in `played` are drawn before all others, and all are returned if there are more than `each`.
    """
    chance = random.Random(seed)
    chosen: list[Pair] = []
    for own in _by_thing(pairs):
        before = [pair for pair in own if pair.name in played]
        others = [pair for pair in own if pair.name not in played]
        chosen += before + chance.sample(others, min(max(0, each - len(before)), len(others)))
    return chosen


def programs(pairs: Sequence[Pair], *, seed: int, at_most: int = 4) -> list[Twins]:
    """Put pairs of one thing together into programs of at most `at_most` pairs, in random order."""
    chance = random.Random(seed)
    made = [
        Twins(own[0].thing, tuple(own[begin : begin + at_most]))
        for own in _by_thing(pairs)
        for begin in range(0, len(own), at_most)
    ]
    chance.shuffle(made)
    return made


def _by_thing(pairs: Sequence[Pair]) -> list[list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.thing.name, []).append(pair)
    return list(found.values())


def named(pairs: Sequence[Pair], patterns: Sequence[str]) -> list[Pair]:
    """Return the pairs whose name, thing or kind matches one of the patterns (`*` stands for anything)."""
    return [
        pair
        for pair in pairs
        if any(
            fnmatch.fnmatchcase(text, pattern) or (text == pair.name and pattern in text)
            for pattern in patterns
            for text in (pair.name, pair.thing.name, pair.thing.kind)
        )
    ]
