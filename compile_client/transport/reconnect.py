"""A process's one way to the daemon: connected on first use, guarded by the breaker, dropped after a failure.

Raises only `ClientError`. Safe to call from any thread; two threads share one connection, and the second to arrive
waits for the first's handshake within its own deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from compile_client.config import ClientConfig
from compile_client.errors import ClientError, ForkedError, InternalError, LateError, OverdueError, RetryPolicy
from compile_client.transport.circuit_breaker import CircuitBreaker
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline


class ReconnectingChannel:
    """Opens the connection to the daemon when it is needed, and gives it up after failures."""

    def __init__(
        self,
        config: ClientConfig,
        environment: Callable[[], Mapping[str, str]],
        program: str,
        breaker: CircuitBreaker,
        *,
        usable: bool = True,
    ) -> None:
        """`usable` is False in a child that was forked in the middle of a call: there gRPC may wait for ever."""
        self._config = config
        self._environment = environment
        self._program = program
        self._breaker = breaker
        self._usable = usable
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._count_lock = threading.Lock()
        self._calls = 0

    @property
    def connection(self) -> Connection | None:
        """The connection that is open now, if any; asking does not open one."""
        return self._connection

    @property
    def busy(self) -> bool:
        """Whether a call, or the opening of a connection, is under way in any thread."""
        return self._calls > 0

    @contextmanager
    def exchange(self, deadline: Deadline) -> Iterator[Connection]:
        """Lend a live connection for one question; a failure inside is remembered for the next one, and raised."""
        with self._under_way():
            connection = self._connected(deadline)
            try:
                with connection.in_use():
                    yield connection
            except ClientError as error:
                self.failed(error, connection)
                raise
            except Exception as error:
                failure = InternalError.of(error)
                self.failed(failure, connection)
                raise failure from error
            self._breaker.succeeded()

    @contextmanager
    def exchange_if_connected(self) -> Iterator[Connection | None]:
        """Lend the connection that is open now, or None.

        For what the training does not need: the breaker is asked, but told nothing.
        """
        connection = self._connection
        if connection is None:
            yield None
            return
        with self._under_way(), connection.in_use():
            yield connection

    def ensure_connected(self, deadline: Deadline) -> None:
        """Return when a daemon is connected.

        Says nothing to the breaker where it succeeds: a daemon that greets and then answers nothing has failed.
        """
        with self._under_way():
            self._connected(deadline)

    def failed(self, error: ClientError, connection: Connection | None = None) -> None:
        """Tell the breaker of a failure, and give up the connection where it may be to blame."""
        self._breaker.failed(error)
        # A late answer says nothing against the channel, and other threads may be in the middle of a compile on it.
        if error.retry is RetryPolicy.NEXT_GRAPH or isinstance(error, LateError):
            return
        with self._lock:
            doomed = self._connection
            if doomed is None or (connection is not None and doomed is not connection):
                return
            self._connection = None
        doomed.retire()

    def close(self) -> None:
        """Give up the connection; a later call opens another."""
        with self._lock:
            doomed, self._connection = self._connection, None
        if doomed is not None:
            doomed.retire()

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        if not self._usable:
            raise ForkedError("this process was forked while another thread talked to the daemon")
        self._breaker.check()
        with self._count_lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._count_lock:
                self._calls -= 1

    def _connected(self, deadline: Deadline) -> Connection:
        connection = self._connection
        if connection is not None:
            return connection
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise OverdueError("another thread has been connecting for as long as this graph may wait")
        try:
            self._breaker.check()  # the thread that was waited for may have failed
            if self._connection is None:
                self._connection = Connection.open(self._config, self._environment, self._program, deadline)
        except ClientError as error:
            self._breaker.failed(error)
            raise
        except Exception as error:
            failure = InternalError.of(error)
            self._breaker.failed(failure)
            raise failure from error
        else:
            return self._connection
        finally:
            self._lock.release()
