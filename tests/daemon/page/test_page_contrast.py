"""Whether the page's text and marks can be told from what is behind them, in the light and in the dark."""

from __future__ import annotations

import os
import re
import sys
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


# Each text of a page as Chromium shows it


MEASURED = """() => {
  const parts = (colour) => (colour.match(/[0-9.]+/g) || []).map(Number);
  const lin = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const lum = ([r, g, b]) => 0.2126 * lin(r / 255) + 0.7152 * lin(g / 255) + 0.0722 * lin(b / 255);
  const over = (top, back) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + back[i] * (1 - a));
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parts(getComputedStyle(e).backgroundColor));
    return layers.reduce((back, layer) => layer.length ? over(layer, back) : back, [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.getClientRects().length) continue;  // scripts and what is folded have none
    const drawn = element instanceof SVGElement ? style.fill : style.color;
    const back = behind(element), front = over(parts(drawn), back);
    const [high, low] = [lum(front), lum(back)].sort((one, other) => other - one);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ text: text.slice(0, 40), ratio: (high + 0.05) / (low + 0.05), needed: large ? 3 : 4.5 });
  }
  return found;
}"""
AXE = Path(os.environ.get("AXE_CORE") or Path(sys.prefix, "axe", "node_modules", "axe-core", "axe.min.js"))
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
PLACES = ("overview", "graph", "nothing")


def opened(visit: Callable[..., Visit], place: str, scheme: str) -> Visit:
    here = visit(color_scheme=scheme)
    if place == "graph":
        here.page.locator("a", has_text="browser-0").first.click()
        here.page.wait_for_url("**/graphs/*")
    elif place == "nothing":
        here.page.goto(here.visitor.url + "nothing")
    else:
        here.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    return here


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_each_text_of_a_page_has_the_contrast_that_wcag_asks_for(
    visit: Callable[..., Visit], place: str, scheme: str
) -> None:
    found = opened(visit, place, scheme).page.evaluate(MEASURED)

    assert len(found) > {"overview": 60, "graph": 20, "nothing": 2}[place]
    assert [one for one in found if one["ratio"] < one["needed"]] == []


@pytest.mark.skipif(not AXE.exists(), reason=f"axe-core is not there ({AXE}): `make .venv` gets it where npm can")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing_to_mend_and_has_looked_at_the_colours(
    visit: Callable[..., Visit], place: str, scheme: str
) -> None:
    here = opened(visit, place, scheme)
    here.page.evaluate(AXE.read_text())

    found = here.page.evaluate("(tags) => axe.run(document, { runOnly: { type: 'tag', values: tags } })", RULES)

    said = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found["violations"]]
    assert said == []
    [looked_at] = [one for one in found["passes"] if one["id"] == "color-contrast"]
    assert len(looked_at["nodes"]) > {"overview": 30, "graph": 10, "nothing": 1}[place]
    unsure = [node for one in found["incomplete"] if one["id"] == "color-contrast" for node in one["nodes"]]
    # It does not look behind text in a picture; the measurement above does.
    assert [node["html"] for node in unsure if not node["html"].startswith("<text ")] == []
