"""Changes to a message on its way: garbage, silence, another key, a forged signature."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.faults.cell import GARBAGE, Play
from tests.faults.instants import at, at_install, at_transfer, blobs_apart
from tests.faults.scene import Scene


def answer(method: str, change: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """Change the answer to the first call of a method; `change` gets each message of a `CompileGraph` answer."""

    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> Iterator[bytes]:
            if number:
                yield data
                return
            scene.struck.set()
            yield from change(scene, data)

        scene.proxy.on_answer[method] = rule

    return play


def second_answer(change: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """Change the answer to the second graph's lookup, which follows the install of the first graph."""

    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> Iterator[bytes]:
            if scene.struck.is_set():
                yield from change(scene, data)
            else:
                yield data

        scene.proxy.on_answer["LookupArtifact"] = rule
        at_install(nothing, scene)

    return play


def request(method: str, change: Callable[[Scene, bytes], bytes]) -> Play:
    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> bytes:
            if number:
                return data
            scene.struck.set()
            return change(scene, data)

        scene.proxy.on_request[method] = rule

    return play


def nothing(_: Scene) -> None:
    pass


def garbage(_: Scene, __: bytes) -> Iterator[bytes]:
    yield GARBAGE


def never(scene: Scene, data: bytes) -> Iterator[bytes]:
    scene.proxy.hold()
    yield data


def event_at(step: str, instead: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """Replace what follows the event that marks a step of the compile."""

    def play(scene: Scene) -> None:
        at(step, nothing)(scene)
        rule = scene.proxy.on_answer["CompileGraph"]

        def changed(number: int, data: bytes) -> Iterator[bytes]:
            before = scene.struck.is_set()
            yield from rule(number, data)
            if scene.struck.is_set() and not before:
                yield from instead(scene, data)

        scene.proxy.on_answer["CompileGraph"] = changed

    return play


def _flip(data: bytes, where: int = -1) -> bytes:
    changed = bytearray(data)
    changed[where] ^= 1
    return bytes(changed)


def other_environment(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.HandshakeResponse.FromString(data)
    answer.environment_id = answer.environment_id[::-1]
    yield answer.SerializeToString()


def facts_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.HandshakeResponse.FromString(data)
    assert answer.facts_signature, "the daemon knows no facts that could be signed"
    answer.facts_signature = _flip(answer.facts_signature)
    yield answer.SerializeToString()


def entries_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.LookupArtifactResponse.FromString(data)
    for entry in answer.entries:
        entry.signature = _flip(entry.signature)
    yield answer.SerializeToString()


def manifests_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.LookupArtifactResponse.FromString(data)
    for entry in answer.entries:
        del entry.blobs[:]
        entry.manifest = _flip(entry.manifest, len(entry.manifest) // 2)
    yield answer.SerializeToString()


def forged_artifact(scene: Scene, data: bytes) -> Iterator[bytes]:
    """Answer with an artifact for the right key, signed by somebody who does not have the secret."""
    event = pb.CompileGraphResponse(artifact=pb.ArtifactEntry(manifest=b"\x80", signature=os.urandom(32)))
    yield event.SerializeToString()


def _compiled_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    event = pb.CompileGraphResponse.FromString(data)
    if event.WhichOneof("event") == "artifact":
        event.artifact.signature = _flip(event.artifact.signature)
        data = event.SerializeToString()
    yield data


def _garbled_blob(_: Scene, data: bytes) -> Iterator[bytes]:
    piece = pb.ReadBlobResponse.FromString(data).data
    yield pb.ReadBlobResponse(data=os.urandom(len(piece))).SerializeToString()


def other_lookup(scene: Scene, data: bytes) -> bytes:
    request = pb.LookupArtifactRequest.FromString(data)
    request.key = pb.LookupArtifactRequest.FromString(scene.kit.requests["LookupArtifact"][1]).key
    return request.SerializeToString()


def _other_key(_: Scene, data: bytes) -> bytes:
    request = pb.CompileGraphRequest.FromString(data)
    request.key = re.sub(r"[0-9a-z]$", lambda found: "a" if found[0] != "a" else "b", request.key)
    return request.SerializeToString()


def _other_graph(scene: Scene, data: bytes) -> bytes:
    request = pb.CompileGraphRequest.FromString(data)
    request.graph.CopyFrom(pb.CompileGraphRequest.FromString(scene.kit.requests["CompileGraph"][1]).graph)
    return request.SerializeToString()


def _other_blob(scene: Scene, data: bytes) -> bytes:
    request = pb.ReadBlobRequest.FromString(data)
    blobs = (scene.kit.stored / "store" / "blobs").rglob("*")
    request.sha256 = next(
        name for blob in blobs if len(name := re.sub(r"\W", "", blob.name)) == 64 and name != request.sha256
    )
    return request.SerializeToString()


def published_under_another_key(_: Scene, data: bytes) -> bytes:
    request = pb.PublishArtifactRequest.FromString(data)
    request.key += "x"
    return request.SerializeToString()


def _both(first: Play, second: Play) -> Play:
    def play(scene: Scene) -> None:
        first(scene)
        second(scene)

    return play


def queued_with_other_key(scene: Scene) -> None:
    at("compile queued", nothing)(scene)
    scene.proxy.on_request["CompileGraph"] = lambda number, data: data if number else _other_key(scene, data)


def running_with_other_graph(scene: Scene) -> None:
    request("CompileGraph", _other_graph)(scene)


def running_forged(scene: Scene) -> None:
    at("compile running", nothing)(scene)
    rule = scene.proxy.on_answer["CompileGraph"]

    def changed(number: int, data: bytes) -> Iterator[bytes]:
        for message in rule(number, data):
            yield from _compiled_forged(scene, message)

    scene.proxy.on_answer["CompileGraph"] = changed


def transfer_of_another_blob(scene: Scene) -> None:
    blobs_apart(scene)
    request("ReadBlob", _other_blob)(scene)


def transfer_of_garbage(scene: Scene) -> None:
    blobs_apart(scene)
    answer("ReadBlob", _garbled_blob)(scene)


def transfer_without_end(scene: Scene) -> None:
    at_transfer(lambda scene: scene.proxy.hold(), scene)


def wrong_token(scene: Scene) -> None:
    def rule(metadata: list[tuple[str, str]]) -> list[tuple[str, str]]:
        scene.struck.set()
        return [(name, "Bearer " + "0" * 64) for name, _ in metadata]

    scene.proxy.on_metadata["PublishArtifact"] = rule
