"""What a call may do, decided in one place: by the call, by who makes it, and by what kind of environment it names.

Which calls a role may make at all is said in `rpc.auth`, before the request is looked at. Here is what depends on the
request. Nothing that a caller writes into it widens what the call may do: `CompileGraph` compiles graphs, whose keys
the worker proves, and `CompileKernel` compiles kernels, whose keys nobody can prove, and so takes the right to publish.
What is published is filed under environments that the same caller has named in a handshake of its own.
"""

from __future__ import annotations

from collections import OrderedDict

from compile_wire.digest import Digest
from compile_wire.limits import MAX_GRAPH_BYTES
from compiler_daemon.access.register import Caller
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.errors import EnvironmentUnknownError, PermissionDeniedError, PublishForbiddenError
from compiler_daemon.jobs import WorkerKind, check_worker_kind, worker_kind

_MAX_PER_CALLER = 256
"""A caller's environments: one or two for each kind of machine and virtual environment that it trains in."""


class Rights:
    """Decides which calls a caller may make, for which environment.

    Handshakes are remembered until the daemon ends; a client that is asked makes another.
    """

    def __init__(self, environments: Environments, *, allow_publish: bool) -> None:
        self._environments = environments
        self._allow_publish = allow_publish
        self._introduced: dict[Caller, OrderedDict[Digest, None]] = {}

    def introduce(self, caller: Caller, environment: Digest) -> None:
        """Remember that the caller has named the environment in a handshake."""
        named = self._introduced.setdefault(caller, OrderedDict())
        named[environment] = None
        named.move_to_end(environment)
        while len(named) > _MAX_PER_CALLER:
            named.popitem(last=False)

    def may_publish(self, caller: Caller) -> bool:
        """Return whether artifacts are taken from the caller."""
        return self._allow_publish and caller.may_publish

    def compile(self, caller: Caller, kind: WorkerKind, environment: Digest) -> None:
        """Raise a `DaemonError` unless the caller may have such a job done for the environment."""
        check_worker_kind(kind, environment, self._environments.fields(environment))
        if kind == "kernels":
            self.publish(caller, environment)

    def publish(self, caller: Caller, environment: Digest) -> None:
        """Raise a `DaemonError` unless the caller may file artifacts under the environment."""
        self._check_publisher(caller)
        self._environments.fields(environment)
        if environment not in self._introduced.get(caller, ()):
            raise EnvironmentUnknownError(environment)

    def write_blob(self, caller: Caller, size: int) -> None:
        """Raise a `DaemonError` unless the caller may hand in so much. A graph to be compiled comes from all."""
        if size > MAX_GRAPH_BYTES:
            self._check_publisher(caller)

    def replay(self, caller: Caller, environment: Digest) -> WorkerKind:
        """Return which workers replay what is kept for the environment; raise a `DaemonError` but for an operator."""
        if caller.role != "operator":
            raise PermissionDeniedError(
                f"{caller.name} has the keys of a {caller.role}, and replaying takes an operator's"
            )
        try:
            return worker_kind(self._environments.fields(environment))
        except EnvironmentUnknownError:
            return "graphs"  # of another machine, perhaps: the worker's own torch says which key it has

    def _check_publisher(self, caller: Caller) -> None:
        if not self._allow_publish:
            raise PublishForbiddenError
        if not caller.may_publish:
            raise PermissionDeniedError(
                f"{caller.name} has the keys of a {caller.role}, which hand in graphs and publish nothing: "
                "`compiler-daemon keys client` makes others"
            )
