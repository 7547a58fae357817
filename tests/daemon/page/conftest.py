from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.daemon.daemon_process import manifest_of
from tests.daemon.page_browser import CHROMIUM, Visit
from tests.daemon.page_samples import PageVisitor


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [], timeout=120_000
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, page: PageVisitor) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def start(visitor: PageVisitor = page, **settings: Any) -> Visit:
        visits.append(Visit(browser, visitor, **settings))
        return visits[-1]

    yield start
    for one in visits:
        one.context.close()


@pytest.fixture(scope="module")
def used(shared_page: PageVisitor) -> None:
    """A daemon with artifacts and figures to show."""
    daemon = shared_page.daemon
    daemon.handshake()
    for number in range(3):
        key = f"browser-{number}"
        data = f"entry {number}".encode()
        daemon.publish(key, manifest_of(key, data), data, program=f"train_{number}.py")
        daemon.lookup(key)
    daemon.lookup("browser-miss")
    daemon.compiled("browser-compiled", b"ok")
    daemon.compiled("browser-refused", b"refuse UNSUPPORTED")
