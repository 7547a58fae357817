"""Whether the page's text and marks can be told from what is behind them, in the light and in the dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.page_browser import Visit, in_a_browser

STYLE = Path(__file__).parents[3] / "compiler_daemon/http/static/style.css"

pytestmark = [*in_a_browser, pytest.mark.usefixtures("used")]


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{([^}]*)\}", STYLE.read_text())
    read = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text)) for text in (light, dark)]
    return {"light": read[0], "dark": read[1]}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(scheme: str) -> None:
    colours = palettes()[scheme]
    for back in ("ground", "panel"):
        for text in ("text", "quiet", "accent", "saved", "warn"):
            assert contrast(colours[text], colours[back]) >= 4.5, (scheme, text, back)
        assert contrast(colours["focus"], colours[back]) >= 3, (scheme, back)
    for mark in ("accent", "saved", "warn"):
        assert contrast(colours[mark], colours["panel"]) >= 3
    assert contrast(colours["accent"], colours["accent-soft"]) >= 3


def test_dark_is_dark_where_the_system_is_dark(visit: Callable[..., Visit]) -> None:
    for scheme in ("light", "dark"):
        here = visit(color_scheme=scheme)
        ground = here.page.evaluate("getComputedStyle(document.body).backgroundColor")
        wanted = palettes()[scheme]["ground"]
        assert [int(part) for part in re.findall(r"\d+", ground)] == [
            int(wanted[place : place + 2], 16) for place in (1, 3, 5)
        ]
