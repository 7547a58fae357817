"""The instant of each step at which a fault strikes, found by what happens and never by the clock."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.faults.cell import Play
from tests.faults.scene import Scene


def at(step: str, strike: Play) -> Play:
    """Strike once, at the step's instant, and then let everything continue."""
    return {
        "handshake": partial(_at_request, "Handshake", strike),
        "lookup": partial(_at_request, "LookupArtifact", strike),
        "compile queued": partial(_at_queued, strike),
        "compile running": partial(_at_running, strike),
        "artifact transfer": partial(at_transfer, strike),
        "install": partial(at_install, strike),
        "publish": partial(_at_request, "PublishArtifact", strike),
    }[step]


def _at_request(method: str, strike: Play, scene: Scene) -> None:
    def rule(number: int, data: bytes) -> bytes:
        if number == 0 and not scene.struck.is_set():
            scene.struck.set()
            strike(scene)
        return data

    scene.proxy.on_request[method] = rule


def _at_queued(strike: Play, scene: Scene, *, then_open: bool = True) -> None:
    scene.occupy_worker()

    def rule(number: int, data: bytes) -> Iterator[bytes]:
        event = pb.CompileGraphResponse.FromString(data)
        if event.WhichOneof("event") == "queued" and not scene.struck.is_set():
            scene.struck.set()
            yield data
            strike(scene)
            if then_open:
                scene.gate.open()
            return
        yield data

    scene.proxy.on_answer["CompileGraph"] = rule


def _at_running(strike: Play, scene: Scene) -> None:
    scene.await_idle_worker()
    scene.gate.shut()

    def rule(number: int, data: bytes) -> Iterator[bytes]:
        if _is_compiling(data) and not scene.struck.is_set():
            scene.wait_for_compiler()
            scene.struck.set()
            yield data
            strike(scene)
            scene.gate.open()
            return
        yield data

    scene.proxy.on_answer["CompileGraph"] = rule


def _is_compiling(data: bytes) -> bool:
    event = pb.CompileGraphResponse.FromString(data)
    return event.WhichOneof("event") == "running" and event.running.phase == "compiling"


def at_transfer(strike: Play, scene: Scene) -> None:
    blobs_apart(scene)

    def rule(number: int, data: bytes) -> Iterator[bytes]:
        if scene.struck.is_set():
            yield data
            return
        scene.struck.set()
        piece = pb.ReadBlobResponse.FromString(data).data
        yield pb.ReadBlobResponse(data=piece[: len(piece) // 2]).SerializeToString()
        strike(scene)
        yield pb.ReadBlobResponse(data=piece[len(piece) // 2 :]).SerializeToString()

    scene.proxy.on_answer["ReadBlob"] = rule


def blobs_apart(scene: Scene) -> None:
    """Have the daemon answer lookups as for large artifacts: without the blobs, which the client then reads."""

    def rule(number: int, data: bytes) -> Iterator[bytes]:
        answer = pb.LookupArtifactResponse.FromString(data)
        for entry in answer.entries:
            del entry.blobs[:]
        yield answer.SerializeToString()

    scene.proxy.on_answer["LookupArtifact"] = rule


def at_install(strike: Play, scene: Scene) -> None:
    place = scene.folder / "install"
    place.mkdir()
    scene.trainer_environment["FAULTS_INSTALL"] = f"{place}:mkstemp"

    def watch() -> None:
        scene.wait_until((place / "at").exists, "the trainer came to its install")
        scene.struck.set()
        strike(scene)
        (place / "go").touch()

    scene.run_beside(watch)
