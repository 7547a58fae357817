"""All things in which twins differ, by kind."""

from __future__ import annotations

from tests.twins.thing import Thing
from tests.twins.things.ambient import AMBIENT
from tests.twins.things.behaviour import BEHAVIOUR
from tests.twins.things.burned import BURNED
from tests.twins.things.harmless import HARMLESS
from tests.twins.things.hooks import HOOKS
from tests.twins.things.opaque import OPAQUE
from tests.twins.things.operators import OPERATORS
from tests.twins.things.ranges import RANGES
from tests.twins.things.roles import ROLES
from tests.twins.things.settings import SETTINGS

THINGS: tuple[Thing, ...] = (
    *AMBIENT,
    *SETTINGS,
    *BURNED,
    *RANGES,
    *OPERATORS,
    *ROLES,
    *OPAQUE,
    *HOOKS,
    *BEHAVIOUR,
    *HARMLESS,
)
