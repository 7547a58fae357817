"""All things in which twins differ, by kind."""

from __future__ import annotations

from tests.twins.thing import Thing
from tests.twins.things.behaviour.gradients import GRADIENTS
from tests.twins.things.behaviour.hooks import HOOKS
from tests.twins.things.behaviour.memory import MEMORY
from tests.twins.things.code.declarations import DECLARATIONS
from tests.twins.things.code.formulas import FORMULAS
from tests.twins.things.code.formulas_reached import FORMULAS_REACHED
from tests.twins.things.code.opaque import OPAQUE
from tests.twins.things.code.passes import PASSES
from tests.twins.things.code.roles import ROLES
from tests.twins.things.code.subclasses import SUBCLASSES
from tests.twins.things.harmless import HARMLESS
from tests.twins.things.surroundings.ambient import AMBIENT
from tests.twins.things.surroundings.ranks import RANKS
from tests.twins.things.surroundings.settings import SETTINGS
from tests.twins.things.surroundings.switches import SWITCHES
from tests.twins.things.values.burned import BURNED
from tests.twins.things.values.ranges import RANGES

THINGS: tuple[Thing, ...] = (
    *AMBIENT,
    *SWITCHES,
    *SETTINGS,
    *BURNED,
    *RANGES,
    *FORMULAS,
    *FORMULAS_REACHED,
    *ROLES,
    *DECLARATIONS,
    *OPAQUE,
    *SUBCLASSES,
    *RANKS,
    *PASSES,
    *GRADIENTS,
    *HOOKS,
    *MEMORY,
    *HARMLESS,
)
