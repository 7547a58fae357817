"""Each role makes each call for each kind of environment: nothing that callers write into requests widens their rights.

Each request is as valid as it can be, so that only the caller's rights can refuse it. Whatever the daemon answers,
afterwards the store may hold only what this role may have put there.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

import compile_wire.v1
from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.kernel.environment import KIND, KIND_FIELD
from compile_wire.limits import MAX_GRAPH_BYTES, PROTOCOL_VERSION
from compile_wire.manifest import decode_manifest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.access.register import OWNER, Caller
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.errors import DaemonError, EnvironmentUnknownError
from tests.daemon.daemon_process import FIELDS, manifest_of
from tests.daemon.tls_daemon import Remote, TlsDaemon, refusal

DENIED, FAILED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION
KERNEL_FIELDS = {"python": "cp311", "triton": "0.fake", KIND_FIELD: KIND}
KINDS = {"graphs": FIELDS, "kernels": KERNEL_FIELDS}
ROLES = ("reader", "trainer", "operator")
MAY_PUBLISH = ("trainer", "operator")


def methods() -> list[MethodDescriptor]:
    names = [name for _, name, _ in pkgutil.iter_modules(compile_wire.v1.__path__) if name.endswith("_pb2")]
    files = [importlib.import_module(f"compile_wire.v1.{name}").DESCRIPTOR for name in names]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


METHODS = {method.name: method for method in methods()}
QUIET = [name for name in METHODS if name not in {"Shutdown", "CompileGraph", "CompileKernel", "PublishArtifact"}]


@dataclass
class Daemons:
    """Daemons whose workers compile graphs or kernels, and which accept artifacts from trainers or do not."""

    folder: Path
    scope: contextlib.ExitStack

    def __post_init__(self) -> None:
        self._made: dict[tuple[str, bool], TlsDaemon] = {}
        self._clients: dict[tuple[str, bool, str], Remote] = {}

    def daemon(self, workers: str, publishing: bool) -> TlsDaemon:
        if (workers, publishing) not in self._made:
            name = f"{workers}-{publishing}"
            settings: dict[str, Any] = {"fields": KINDS[workers], "daemon": {"allow_publish": publishing}}
            self._made[workers, publishing] = self.scope.enter_context(TlsDaemon(self.folder / name, **settings))
        return self._made[workers, publishing]

    def client(self, role: str, workers: str, publishing: bool = True) -> Remote:
        """Return a client of this role that has introduced both kinds of environments."""
        if (workers, publishing, role) not in self._clients:
            made = self.scope.enter_context(self.daemon(workers, publishing).remote(f"the-{role}", role=role))
            for fields in KINDS.values():
                request = pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=fields)
                made.compile_service.Handshake(request, **made.options())
            self._clients[workers, publishing, role] = made
        return self._clients[workers, publishing, role]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with contextlib.ExitStack() as scope:
        yield Daemons(tmp_path_factory.mktemp("rights"), scope)


def call(client: Remote, name: str, kind: str, key: str) -> list[Any]:
    """Make the call with every field filled as well as it can be."""
    method = METHODS[name]
    make = message_factory.GetMessageClass(method.input_type)
    environment = environment_id(KINDS[kind])
    filled: dict[str, Any] = {
        "environment_id": environment,
        "key": key,
        "graph": pb.Graph(data=b"ok"),
        "kernel": pb.Graph(data=b"ok"),
        "manifest": manifest_of(key, b"published", environment=environment),
        "blobs": [pb.Blob(sha256=digest_of(b"published"), data=b"published")],
        "environment": KINDS[kind],
        "protocol_version": PROTOCOL_VERSION,
        "sha256": digest_of(b"published"),
        "size": len(b"published"),
        "data": b"published",
        "names": [key],
        "name": key,
        "run": "0" * 32,
    }
    request = make()
    for field in method.input_type.fields:
        value = filled.get(field.name)
        with contextlib.suppress(TypeError, ValueError):  # a field of the same name may have another type here
            request.MergeFrom(make(**{field.name: value}))
    kinds = ["stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)]
    stub = getattr(client.channel, "_".join(kinds))(
        f"/{method.containing_service.full_name}/{name}",
        request_serializer=make.SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    answer = stub(iter([request]) if method.client_streaming else request, **client.options())
    return list(answer) if method.server_streaming else [answer]


def origins(daemon: TlsDaemon, key: str) -> dict[str, list[str]]:
    """Return the origins of the artifacts under the key, by kind of environment."""
    daemon.handshake(FIELDS)
    daemon.handshake(KERNEL_FIELDS)
    found = {
        kind: [
            decode_manifest(entry.manifest).origin for entry in daemon.lookup(key, environment=environment_id(fields))
        ]
        for kind, fields in KINDS.items()
    }
    return {kind: made for kind, made in found.items() if made}


@pytest.mark.parametrize("publishing", [True, False], ids=["publishing", "no-publish"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_is_compiled_for_every_role_in_an_environment_of_graphs_and_in_no_other(
    daemons: Daemons, role: str, kind: str, publishing: bool, key: str
) -> None:
    client = daemons.client(role, kind, publishing)

    if kind == "graphs":
        *_, last = call(client, "CompileGraph", kind, key)
        assert last.HasField("artifact"), last
        assert origins(daemons.daemon(kind, publishing), key) == {"graphs": ["worker"]}
    else:
        code, said = refusal(lambda: call(client, "CompileGraph", kind, key))
        assert code is FAILED
        assert "not one of graphs" in said
        assert origins(daemons.daemon(kind, publishing), key) == {}


@pytest.mark.parametrize("publishing", [True, False], ids=["publishing", "no-publish"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_is_compiled_for_who_may_publish_in_an_environment_of_kernels_and_in_no_other(
    daemons: Daemons, role: str, kind: str, publishing: bool, key: str
) -> None:
    client = daemons.client(role, kind, publishing)

    if kind == "kernels" and role in MAY_PUBLISH and publishing:
        *_, last = call(client, "CompileKernel", kind, key)
        assert last.HasField("artifact"), last
        assert origins(daemons.daemon(kind, publishing), key) == {"kernels": ["worker"]}
    else:
        code, _ = refusal(lambda: call(client, "CompileKernel", kind, key))
        assert code is (DENIED if role not in MAY_PUBLISH or kind == "kernels" else FAILED)
        assert origins(daemons.daemon(kind, publishing), key) == {}


@pytest.mark.parametrize("publishing", [True, False], ids=["publishing", "no-publish"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_is_taken_from_who_may_publish_and_from_nobody_else(
    daemons: Daemons, role: str, kind: str, publishing: bool, key: str
) -> None:
    client = daemons.client(role, "graphs", publishing)

    if role in MAY_PUBLISH and publishing:
        assert call(client, "PublishArtifact", kind, key)[0].stored
        assert origins(daemons.daemon("graphs", publishing), key) == {kind: ["trainer"]}
    else:
        assert refusal(lambda: call(client, "PublishArtifact", kind, key))[0] is DENIED
        assert origins(daemons.daemon("graphs", publishing), key) == {}


@pytest.mark.parametrize("name", QUIET)
def test_no_other_call_leaves_an_artifact_behind(daemons: Daemons, name: str, key: str) -> None:
    allowed = {("ReplayGraph", "operator", "graphs"), *(("ImportArtifact", "operator", kind) for kind in KINDS)}
    for role in ROLES:
        for kind in KINDS:
            mine = f"{key}-{role}-{kind}"
            with contextlib.suppress(grpc.RpcError):
                call(daemons.client(role, "graphs"), name, kind, mine)
            if (name, role, kind) not in allowed:
                assert origins(daemons.daemon("graphs", True), mine) == {}, (role, kind)


def test_every_call_is_one_that_these_tests_know() -> None:
    """A new call must be looked at here before it is served: does it store anything that nobody has proven?"""
    trading = {"CompileGraph", "CompileKernel", "PublishArtifact", "ReplayGraph", "ImportArtifact"}
    assert trading <= set(METHODS)
    for name in set(METHODS) - trading:
        fields = {field.name for field in METHODS[name].input_type.fields}
        assert not fields & {"manifest", "blobs", "kernel"}, name


def test_an_artifact_is_filed_under_environments_that_the_same_client_has_named(daemons: Daemons, key: str) -> None:
    daemon = daemons.daemon("graphs", True)
    others = {"python": "cp311", "torch": "another trainer's"}
    daemon.handshake(others)
    manifest = manifest_of(key, b"entry", environment=environment_id(others))
    with daemon.remote("tessa") as tessa:
        tessa.handshake()

        code, said = refusal(lambda: tessa.publish(environment_id(others), key, manifest, b"entry"))
        tessa.compile_service.Handshake(
            pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=others), **tessa.options()
        )
        stored = tessa.publish(environment_id(others), key, manifest, b"entry")

    assert code is FAILED
    assert "handshake first" in said
    assert stored


def test_a_restarted_daemon_asks_for_another_handshake_before_it_takes_an_artifact(tmp_path: Path, key: str) -> None:
    with TlsDaemon(tmp_path / "d") as first:
        first.handshake()
        first.publish(key, manifest_of(key, b"entry"), b"entry")
    with TlsDaemon(tmp_path / "d") as second:
        again = manifest_of(key, b"other")

        assert second.lookup(key), "what is stored is served as before"
        assert refusal(lambda: second.publish(key, again, b"other"))[0] is FAILED
        second.handshake()
        assert second.publish(key, again, b"other")


# The place that decides, by itself


class _Known(Environments):
    """Knows environments without a store."""

    def __init__(self, *fields: dict[str, str]) -> None:
        self._known = {environment_id(each): each for each in fields}

    def fields(self, environment: Any) -> dict[str, str]:
        try:
            return self._known[environment]
        except KeyError:
            raise EnvironmentUnknownError(environment) from None


def test_handshakes_of_one_caller_are_no_other_callers() -> None:
    rights = Rights(_Known(FIELDS), allow_publish=True)
    anna, owner = Caller("owner", "trainer"), OWNER
    rights.introduce(owner, environment_id(FIELDS))

    rights.publish(owner, environment_id(FIELDS))
    with pytest.raises(EnvironmentUnknownError):
        rights.publish(anna, environment_id(FIELDS))


def test_the_environments_of_a_caller_are_bounded_and_the_last_named_stay() -> None:
    many = [{"python": str(number)} for number in range(300)]
    rights = Rights(_Known(*many), allow_publish=True)
    for fields in many:
        rights.introduce(OWNER, environment_id(fields))

    rights.publish(OWNER, environment_id(many[-1]))
    with pytest.raises(EnvironmentUnknownError):
        rights.publish(OWNER, environment_id(many[0]))


@pytest.mark.parametrize("role", ROLES)
def test_more_than_a_graph_is_handed_in_by_who_may_publish(role: Any) -> None:
    caller = Caller("x", role)
    for allowed in (True, False):
        rights = Rights(_Known(), allow_publish=allowed)
        rights.write_blob(caller, MAX_GRAPH_BYTES)
        if allowed and role in MAY_PUBLISH:
            rights.write_blob(caller, MAX_GRAPH_BYTES + 1)
        else:
            with pytest.raises(DaemonError):
                rights.write_blob(caller, MAX_GRAPH_BYTES + 1)
