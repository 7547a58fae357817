"""How the tests are shared out where several processes run them (`pytest -n 2 --dist loadgroup`, as `make test` does)."""

from __future__ import annotations

import pytest

_LONGEST_FIRST = ("faults", "e2e", "lab", "kernels", "worker")
"""Rooms whose tests compile: begun first, so that no process is left alone with them at the end, and so that what
measures a second or two runs beside its like."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a file's tests, and all that use the one daemon of the end-to-end tests, in one process."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        served = item.path.parent.name == "e2e" and "one_lab" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("served" if served else f"{item.path.parent.name}/{item.path.stem}"))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    room = item.path.parent.name
    return _LONGEST_FIRST.index(room) if room in _LONGEST_FIRST else len(_LONGEST_FIRST)
