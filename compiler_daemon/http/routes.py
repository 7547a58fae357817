"""Which address shows what. Everything but the style sheet, the script and the icon needs the right to read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from compiler_daemon import metrics
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.http import charts, graph_page, overview, time_series
from compiler_daemon.http.login import Access
from compiler_daemon.http.server import Request, Response
from compiler_daemon.insight.runs import RunLog
from compiler_daemon.insight.status import DaemonStatus
from compiler_daemon.store import Store
from compiler_daemon.text import numbers

_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_GRAPHS = "/graphs/"
_DEFAULT_SPAN = "day"


class Routes:
    """Answers requests for the pages of one daemon."""

    def __init__(
        self,
        *,
        daemon_status: DaemonStatus,
        single_flight: SingleFlight,
        store: Store,
        runs: RunLog,
        access: Access,
        counters: metrics.Counters,
        version: str,
    ) -> None:
        self._daemon_status = daemon_status
        self._single_flight = single_flight
        self._store = store
        self._runs = runs
        self._access = access
        self._counters = counters
        self._version = version
        self._templates = _templates()
        folder = resources.files("compiler_daemon.http") / "static"
        self._static = {
            f"/static/{name}": Response(
                kind=kind, body=(folder / name).read_bytes(), headers={"Cache-Control": "no-cache"}
            )
            for name, kind in _STATIC.items()
        }
        self._routes: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._overview,
            "/status.json": self._status,
            "/metrics": self._metrics,
        }

    async def answer(self, request: Request) -> Response:
        """Return the answer to a request."""
        if request.path in self._static:
            return self._static[request.path]
        if request.path == "/login":
            return self._login(request)
        if not self._access.may_read(request.headers):
            self._counters.add(metrics.UNAUTHENTICATED)
            return self._stranger()
        if route := self._routes.get(request.path):
            return await route(request)
        if request.path.startswith(_GRAPHS):
            return await self._graph(request.path.removeprefix(_GRAPHS))
        return self.plain(404, "There is nothing at this address.")

    def plain(self, status: int, text: str) -> Response:
        """Return a page that says one thing."""
        title = {404: "Not found", 405: "Read only", 500: "That went wrong", 503: "Busy"}.get(status, "Not possible")
        headers = {"Allow": "GET, HEAD"} if status == 405 else {}
        return self._page(
            "plain.html", status=status, headers=headers, title=title, text=text, command="", onward="/", at_once=False
        )

    def _login(self, request: Request) -> Response:
        cookie = self._access.login(request.parameters.get("code", ""))
        if cookie is None:
            self._counters.add(metrics.UNAUTHENTICATED)
            return self._stranger("This address was good once, for a minute. Ask for another one:")
        # A page that leads on, and no redirect: a cookie with SameSite=Strict does not come along on a redirect of a
        # visit that began elsewhere.
        return self._page(
            "plain.html",
            headers={"Set-Cookie": cookie},
            title="Welcome",
            text="You may read for twelve hours from your last look.",
            command="",
            onward="/",
            at_once=True,
        )

    def _stranger(
        self, text: str = "This page is for the user who runs the daemon. Ask it for an address:"
    ) -> Response:
        return self._page(
            "plain.html",
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
            title="Who is there?",
            text=text,
            command="compiler-daemon page",
            onward="",
            at_once=False,
        )

    async def _overview(self, request: Request) -> Response:
        span = time_series.SPANS.get(request.parameters.get("span", ""), time_series.SPANS[_DEFAULT_SPAN])
        view = await overview.look(self._daemon_status, self._single_flight, self._store, self._runs, span)
        return self._page(
            "overview.html",
            view=view,
            version=self._version,
            spans=time_series.SPANS,
            rate_chart=charts.rate_chart(view.columns, span),
            saved_chart=charts.saved_chart(view.columns, span),
        )

    async def _graph(self, digest: str) -> Response:
        view = await asyncio.to_thread(graph_page.look, self._store, digest)
        if view is None:
            return self.plain(404, "No such graph is stored, or not any more.")
        return self._page("graph.html", view=view)

    async def _status(self, request: Request) -> Response:
        span = time_series.SPANS.get(request.parameters.get("span", ""), time_series.SPANS[_DEFAULT_SPAN])
        view = await overview.look(self._daemon_status, self._single_flight, self._store, self._runs, span)
        body = json.dumps(asdict(view), default=str).encode()
        return Response(kind="application/json", body=body)

    async def _metrics(self, _request: Request) -> Response:
        # Here, and not above: who has no Prometheus does not pay for its library.
        from compiler_daemon.http.prometheus import CONTENT_TYPE, expose

        return Response(kind=CONTENT_TYPE, body=expose(await self._daemon_status.snapshot(), version=self._version))

    def _page(
        self, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
    ) -> Response:
        text = self._templates.get_template(template).render(**values)
        return Response(status=status, body=text.encode(), headers=headers or {})


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("compiler_daemon.http"),
        # Programs' names and keys come from clients: everything is escaped, whatever a file is called.
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ago=numbers.ago,
        count=numbers.count,
        moment=numbers.moment,
        percent=numbers.percent,
        seconds=numbers.seconds,
        short=_short,
        size=numbers.size,
        stretch=numbers.stretch,
    )
    return environment


def _short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:15]}\u2026"
