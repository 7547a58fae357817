"""Asks a running daemon for its page, for `page` and `status`."""

from __future__ import annotations

from compile_wire.v1 import page_pb2 as pb
from compile_wire.v1 import page_pb2_grpc as pb_grpc
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.errors import DaemonError


def open_page(client: OperatorClient) -> str:
    """Return an address that lets one browser in. Raises `DaemonError` where no page is served."""
    with client.calls() as (channel, metadata):
        stub = pb_grpc.PageServiceStub(channel)
        return stub.OpenPage(pb.OpenPageRequest(), timeout=client.call_s, metadata=metadata).url


def find_page(client: OperatorClient) -> str:
    """Return the page's address, without a way in; empty where none is served, or the daemon is older than the page."""
    try:
        with client.calls() as (channel, metadata):
            stub = pb_grpc.PageServiceStub(channel)
            return stub.FindPage(pb.FindPageRequest(), timeout=client.call_s, metadata=metadata).url
    except DaemonError:
        return ""
