"""A proxy that knows the protocol's calls and messages, and can do anything to each of them.

    trainer -> front (bytes; can be cut) -> middle (gRPC, raw messages; rules) -> daemon

A rule sees one message of one call when it passes. It may hold, change or split the message, or harm the daemon before
it lets the message continue.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

_LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_THREADS = 32

OnRequest = Callable[[int, bytes], bytes]
"""A rule gets the number of the call (of its method, from 0) and a message to the daemon, and returns what to send."""
OnAnswer = Callable[[int, bytes], Iterable[bytes]]
"""The same for a message from the daemon."""
OnMetadata = Callable[[list[tuple[str, str]]], list[tuple[str, str]]]


class Front:
    """A Unix socket whose connections are forwarded byte by byte until they are cut."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def cut(self) -> None:
        """Cut every connection that is open; new ones are accepted."""
        doomed, self._open = self._open, []
        for sock in doomed:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut every connection and accept no more, so that nobody listens at the path."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def join(self) -> None:
        """Wait for the threads, after `close`."""
        for thread in self._threads:
            thread.join(10)

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            ended = threading.Barrier(2)
            self._run(self._forward, client, server, ended)
            self._run(self._forward, server, client, ended)

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, ended: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(threading.BrokenBarrierError):
            ended.wait(10)
        source.close()


class Proxy:
    """Stands between trainers (at `address`) and the daemon. Set its rules before a trainer starts."""

    def __init__(self, folder: Path, daemon: str) -> None:
        folder.mkdir(mode=0o700)
        self.on_request: dict[str, OnRequest] = {}
        self.on_answer: dict[str, OnAnswer] = {}
        self.on_metadata: dict[str, OnMetadata] = {}
        self.requests: dict[str, list[bytes]] = {}
        """Every message that came for the daemon, by method."""
        self.ended = threading.Event()
        """Set at the end; a rule that holds a message waits for it."""
        self.broken: list[BaseException] = []
        """Exceptions that rules have raised; each is a mistake in the test."""
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(daemon, options=[*_LIMITS, ("grpc.use_local_subchannel_pool", 1)])
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=_LIMITS)
        self._server.add_generic_rpc_handlers((_Everything(self),))
        self._server.add_insecure_port(f"unix:{folder / 'middle'}")
        self._server.start()
        self.front = Front(folder / "front", folder / "middle")
        self.address = f"unix:{folder / 'front'}"

    def hold(self) -> None:
        """Hold the message until everything is over."""
        self.ended.wait(300)

    def close(self) -> None:
        """Release what is held, and stop."""
        self.ended.set()
        self.front.close()
        self._server.stop(0).wait(20)
        self._channel.close()
        self.front.join()

    def serve(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Handle one call."""
        name = method.rpartition("/")[2]
        with self._lock:
            number = self._calls[name]
            self._calls[name] += 1
        metadata = [(entry[0], entry[1]) for entry in context.invocation_metadata() if entry[0] == "authorization"]
        try:
            if rule := self.on_metadata.get(name):
                metadata = rule(metadata)
            # This thread takes the first message, and not one that gRPC would start: an exception in a rule must be
            # noticed.
            first = self._request(name, number, next(requests))
        except StopIteration:
            return
        except Exception as error:
            self.broken.append(error)
            raise
        rest = (self._request(name, number, data) for data in requests)
        call: Any = self._channel.stream_stream(method)(
            itertools.chain([first], rest), metadata=metadata, timeout=context.time_remaining()
        )
        context.add_callback(call.cancel)
        try:
            for data in call:
                yield from self._answers(name, number, data)
        except grpc.RpcError as error:
            context.abort(call.code(), call.details() or str(error))

    def _request(self, name: str, number: int, data: bytes) -> bytes:
        self.requests.setdefault(name, []).append(data)
        rule = self.on_request.get(name)
        return rule(number, data) if rule else data

    def _answers(self, name: str, number: int, data: bytes) -> Iterable[bytes]:
        rule = self.on_answer.get(name)
        if rule is None:
            yield data
            return
        try:
            yield from rule(number, data)
        except Exception as error:
            self.broken.append(error)
            raise


class _Everything(grpc.GenericRpcHandler):
    """Accepts any method as a stream of raw messages in both directions; on the wire one message looks the same."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: self._proxy.serve(method, requests, context)
        )
