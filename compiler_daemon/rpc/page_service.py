"""PageService: where the web page is, and a way in for a browser."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from compile_wire.v1 import page_pb2 as pb
from compile_wire.v1 import page_pb2_grpc as pb_grpc
from compiler_daemon.errors import NoPageError
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.service import Service


class PageServicer(pb_grpc.PageServiceServicer):
    """Answers the calls that open the page. Both need the token, as every call does."""

    def __init__(self) -> None:
        self._url = ""
        self._make_code: Callable[[], str] | None = None

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["PageService"].full_name,
            add=partial(pb_grpc.add_PageServiceServicer_to_server, self),
        )

    def serve(self, url: str, make_code: Callable[[], str]) -> None:
        """Say that the page is at `url`, and how a code for one login is made."""
        self._url = url
        self._make_code = make_code

    async def OpenPage(self, request: pb.OpenPageRequest, context: Context) -> pb.OpenPageResponse:
        """See the protocol."""
        if self._make_code is None:
            raise NoPageError
        return pb.OpenPageResponse(url=f"{self._url}login?code={self._make_code()}")

    async def FindPage(self, request: pb.FindPageRequest, context: Context) -> pb.FindPageResponse:
        """See the protocol."""
        return pb.FindPageResponse(url=self._url)
