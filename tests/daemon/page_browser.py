"""A browser that visits the page: Chromium, driven by Playwright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.page_samples import PageVisitor

CHROMIUM = "/usr/bin/chromium"

in_a_browser = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed"),
    pytest.mark.timeout(600),
]


class Visit:
    """A browser that may read the page, with all that it complained of and requested."""

    def __init__(self, browser: Any, visitor: PageVisitor, **settings: Any) -> None:
        self.visitor = visitor
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **settings})
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(visitor.login_url())
        self.page.wait_for_url(visitor.url)

    def focused(self) -> str:
        return str(
            self.page.evaluate(
                "(document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || '').trim()"
            )
        )
