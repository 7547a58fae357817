"""The page in Chromium, driven by Playwright, as a person, a keyboard and a screen reader meet it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from compile_wire.v1 import compiler_daemon_pb2 as daemon_pb
from tests.daemon.daemon_process import DaemonProcess, manifest_of, wait_until
from tests.daemon.page_browser import Visit, in_a_browser
from tests.daemon.page_samples import PageVisitor

pytestmark = [*in_a_browser, pytest.mark.usefixtures("used")]


def test_it_loads_without_a_complaint_and_asks_nobody_else(visit: Callable[..., Visit]) -> None:
    here = visit()

    assert here.page.title() == "Compile daemon"
    assert here.page.locator("section[aria-labelledby=h-slowest] tbody tr").count() >= 4
    assert here.page.locator("rect.hit").count() >= 1
    assert here.complaints == []
    assert {re.match(r"\w+://[^/]*/", url).group() for url in here.requests} == {here.visitor.url}  # type: ignore[union-attr]


def test_without_the_cookie_it_says_how_to_get_in(browser: Any, page: PageVisitor) -> None:
    context = browser.new_context()
    tab = context.new_page()
    answer = tab.goto(page.url)

    assert answer.status == 401
    assert "compiler-daemon page" in tab.inner_text("main")
    context.close()


def test_the_cookie_is_out_of_reach_of_scripts(visit: Callable[..., Visit]) -> None:
    here = visit()
    [cookie] = here.context.cookies()

    assert here.page.evaluate("document.cookie") == ""
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(visit: Callable[..., Visit]) -> None:
    here = visit()
    stops, outlines = [], []
    for _ in range(40):
        here.page.keyboard.press("Tab")
        stops.append(here.focused())
        outlines.append(here.page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
        if stops[-1].startswith("metrics"):
            break

    assert stops[0] == "Skip to content"
    assert stops[1] == "Pause updates"
    assert stops[2:6] == ["last hour", "last 24 hours", "last 30 days", "last 52 weeks"]
    assert "Both pictures as a table" in stops
    assert "browser-0" in stops
    assert stops[-1] == "metrics"
    assert "none" not in outlines


def test_the_skip_link_leads_to_the_content(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.page.keyboard.press("Tab")
    here.page.keyboard.press("Enter")

    assert here.page.evaluate("document.activeElement.id") == "main"
    here.page.keyboard.press("Tab")
    assert here.focused() == "last hour"


def test_a_graph_is_opened_and_left_with_the_keyboard(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.page.locator("a", has_text="browser-0").first.focus()
    here.page.keyboard.press("Enter")
    here.page.wait_for_url("**/graphs/*")

    assert "browser-0" in here.page.inner_text("h1")
    assert "torch's cache entry" in here.page.inner_text("main")
    assert "0.fake" in here.page.inner_text("section[aria-labelledby=h-environment]")
    here.page.keyboard.press("Tab")
    here.page.keyboard.press("Tab")
    here.page.keyboard.press("Enter")
    here.page.wait_for_url(here.visitor.url)
    assert here.complaints == []


def test_another_span_of_time_is_chosen_by_a_link(visit: Callable[..., Visit]) -> None:
    here = visit()
    for name in ("last hour", "last 30 days", "last 52 weeks"):
        here.page.get_by_role("link", name=name).click()
        here.page.wait_for_load_state()
        assert here.page.locator("[aria-current=page]").inner_text() == name
        assert here.page.locator("rect.hit").count() >= 1, name


def test_what_happens_appears_by_itself_and_focus_stays(visit: Callable[..., Visit]) -> None:
    here = visit()
    daemon = here.visitor.daemon
    link = here.page.locator("a", has_text="browser-1").first
    link.focus()
    place = link.get_attribute("id")

    daemon.publish("browser-new", manifest_of("browser-new", b"new"), b"new", program="just_started.py")

    here.page.get_by_role("link", name="browser-new").wait_for()
    assert here.page.evaluate("document.activeElement.id") == place
    assert here.complaints == []


@pytest.mark.parametrize("locale", ["en-US", "de-DE"])
def test_the_clock_has_twenty_four_hours_wherever_the_reader_is(visit: Callable[..., Visit], locale: str) -> None:
    here = visit(locale=locale, timezone_id="Pacific/Auckland")

    said = here.page.get_by_text("As of").inner_text()

    assert re.fullmatch(r"As of ([01]\d|2[0-3]):[0-5]\d:[0-5]\d", said), said


def test_updates_can_be_paused(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.page.get_by_role("button", name="Pause updates").click()
    here.page.wait_for_timeout(200)
    before = len(here.requests)
    here.page.wait_for_timeout(6000)

    assert len(here.requests) == before
    here.page.get_by_role("button", name="Resume updates").click()
    wait_until(lambda: here.page.wait_for_timeout(50) or len(here.requests) > before, what="it asks again")


def test_what_is_compiling_is_shown_with_its_phase(
    visit: Callable[..., Visit], start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon("busy", daemon={"page_port": 0, "drain_s": 0}, pool={"max_workers": 1})
    daemon.handshake()
    running = daemon.compile("under-way", b"hang", timeout=120.0, program="train.py")
    wait_until(lambda: next(running).HasField("running"), what="it runs")
    waiting = daemon.compile("waiting", b"ok", timeout=120.0)
    assert next(waiting) == daemon_pb.CompileGraphResponse(queued=daemon_pb.Queued(position=0))

    here = visit(PageVisitor(daemon))
    rows = here.page.locator("section[aria-labelledby=h-now] tbody tr").all_inner_texts()

    assert len(rows) == 2
    assert "under-way" in rows[0]
    assert "train.py" in rows[0]
    assert "queued, 0 before it" in rows[1]


def test_a_new_daemon_says_what_to_do_next(
    visit: Callable[..., Visit], start_daemon: Callable[..., DaemonProcess]
) -> None:
    here = visit(PageVisitor(start_daemon("new", daemon={"page_port": 0})))

    text = here.page.inner_text("main")

    assert "TORCH_COMPILE_CLIENT=1 python train.py" in text
    assert "compiler-daemon doctor" in text
    assert here.complaints == []


def test_without_scripts_it_is_all_there(visit: Callable[..., Visit]) -> None:
    here = visit(java_script_enabled=False)

    assert "browser-0" in here.page.inner_text("main")
    assert here.page.get_by_role("link", name="Show it as it is now").count() == 1


# Screen readers


STRUCTURE = """() => ({
  lang: document.documentElement.lang,
  headings: [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1])),
  mains: document.querySelectorAll('main').length,
  ids: [...document.querySelectorAll('[id]')].map((e) => e.id),
  unlabelled: [...document.querySelectorAll('section, nav, [role=region], svg[role=img], button, a, summary')]
    .filter((e) => {
      const by = (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean);
      if (by.some((id) => !document.getElementById(id))) return true;
      const named = by.map((id) => document.getElementById(id).textContent).join('');
      return !(named || e.getAttribute('aria-label') || e.textContent).trim();
    }).map((e) => e.outerHTML.slice(0, 80)),
  pictures: [...document.querySelectorAll('svg')]
    .filter((e) => e.getAttribute('role') !== 'img' && e.getAttribute('aria-hidden') !== 'true').length,
  tables: [...document.querySelectorAll('table')]
    .filter((t) => ![...t.querySelectorAll('thead th')].length
      || [...t.querySelectorAll('th')].some((th) => !th.getAttribute('scope'))).length,
  scrolls: [...document.querySelectorAll('.wide, pre')].filter((e) => e.tabIndex < 0).length,
  inline: document.querySelectorAll('[style], script:not([src]), [onclick]').length,
})"""


@pytest.mark.parametrize("target", ["", "graph", "nothing"])
def test_structure_names_and_tables_are_as_a_screen_reader_needs_them(visit: Callable[..., Visit], target: str) -> None:
    here = visit()
    if target == "graph":
        here.page.locator("a", has_text="browser-0").first.click()
        here.page.wait_for_url("**/graphs/*")
    elif target:
        here.page.goto(here.visitor.url + target)

    found = here.page.evaluate(STRUCTURE)

    assert found["lang"] == "en"
    assert found["mains"] == 1
    assert found["headings"][0] == 1
    assert found["headings"].count(1) == 1
    assert all(below - above <= 1 for above, below in zip(found["headings"], found["headings"][1:], strict=False))
    assert len(found["ids"]) == len(set(found["ids"]))
    assert found["unlabelled"] == []
    assert (found["pictures"], found["tables"], found["scrolls"], found["inline"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("width", [320, 480, 1920])
def test_nothing_is_cut_off_on_a_narrow_or_wide_screen(visit: Callable[..., Visit], width: int) -> None:
    here = visit(viewport={"width": width, "height": 700})

    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
