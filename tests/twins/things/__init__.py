"""All things in which twins differ, by kind."""

from __future__ import annotations

from tests.twins.thing import Thing
from tests.twins.things.first import FIRST

THINGS: tuple[Thing, ...] = (*FIRST,)
