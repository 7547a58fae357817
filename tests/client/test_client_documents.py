from __future__ import annotations

import re
from pathlib import Path

import pytest

from compile_client import config, errors
from compile_client.reporting.counters import Counters

SETTINGS = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_every_variable_that_the_client_reads_stands_in_the_one_table() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \| (?:client|both) \|", SETTINGS, re.MULTILINE))
    source = Path(str(config.__file__)).read_text()
    read = set(re.findall(r'"((?:TORCH_COMPILE_CLIENT|COMPILER_DAEMON)[A-Z_]*)"', source))

    assert read == documented
    assert read == set(re.findall(r"^((?:TORCH|COMPILER)[A-Z_]+) ", str(config.__doc__), re.MULTILINE))


@pytest.mark.parametrize("name", list(Counters().as_dict()))
def test_every_counter_of_the_report_is_explained(name: str) -> None:
    assert f"`{name}`" in SETTINGS


def test_every_kind_of_trouble_stands_in_the_drawn_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ClientError)]

    assert len(kinds) > 15
    for kind in kinds:
        assert re.search(rf"\b{kind.__name__}\b", str(errors.__doc__)), kind
