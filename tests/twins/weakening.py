"""Shows that the harness notices when a part of what keeps programs apart is missing.

The client and the workers read `COMPILE_DAEMON_TEST_WEAKEN`, which names one part from a closed list. Each thing says
which parts keep its twins apart; without one of them, at least one pair must differ.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from compile_torch.versions import torch_version
from tests.twins.pairs import all_pairs, drawn, named, programs
from tests.twins.playing import play_all
from tests.twins.stage import Stage
from tests.twins.thing import Pair

_OLDER = "older_torch"
"""The part with everything that only the keys of older versions of torch leave out."""
_TWO_FILES = "libraries"
"""The part that tells two versions of a package apart: one program's text cannot have both. It is held by
`tests/e2e/test_e2e_library_operators.py`.
"""
_MODULE = "compile_torch.key.key_parts"


def known_parts() -> tuple[str, ...]:
    """Return the parts that this torch's key needs and that can be left out; none if the product has no such switch."""
    if importlib.util.find_spec(_MODULE) is None:
        return ()
    version = torch_version()
    unneeded = {_TWO_FILES, _OLDER} if version and version.key_complete else {_TWO_FILES}
    return tuple(part for part in importlib.import_module(_MODULE).PARTS if part not in unneeded)


def pairs_of(part: str) -> list[Pair]:
    """Return the pairs that this part keeps apart."""
    return [pair for pair in all_pairs() if part in pair.thing.parts]


def weakened(
    part: str,
    folder: Path,
    *,
    seed: int,
    jobs: int,
    only: Sequence[str] = (),
    talk: Console | None = None,
    temporary: Path | None = None,
) -> str:
    """Return the first difference found without the part, among the pairs in `only`; without any, an empty text."""
    # Twins that show a difference when they are exchanged come first.
    pairs = pairs_of(part)
    pairs = drawn(named(pairs, only) if only else pairs, seed=seed, each=2)
    with Stage.prepared(folder, weaken=part, temporary=temporary) as stage:
        # More programs at a time would only delay the answer, because the first difference is enough.
        for result in play_all(
            stage,
            sorted(programs(pairs, seed=seed), key=lambda twins: twins.thing.silent),
            jobs=jobs,
            talk=talk,
            briefly=True,
        ):
            if result.differences:
                return f"{result.name}: {result.differences[0]}"
    return ""
