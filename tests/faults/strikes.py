"""Harm to files, memory and workers that takes more than a signal."""

from __future__ import annotations

import os
from collections.abc import Callable

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.faults.cell import Play
from tests.faults.instants import at, at_install
from tests.faults.scene import Scene


def _objects(scene: Scene) -> dict[str, bytes]:
    """Return the objects of the first graph, by the names under which they are installed."""
    from compile_wire.manifest import decode_manifest

    entry = pb.LookupArtifactResponse.FromString(
        scene.ask("CompileService/LookupArtifact", scene.kit.requests["LookupArtifact"][0])
    ).entries[0]
    data = {blob.sha256: blob.data for blob in entry.blobs}
    return {blob.name: data[blob.sha256] for blob in decode_manifest(entry.manifest).blobs if blob.role == "object"}


def _installed_before(scene: Scene, change: Callable[[bytes, bytes], bytes]) -> None:
    """Put other files where the installer will put the objects; `change` gets an object and the next one."""
    folder = scene.caches / "inductor" / "compile_daemon"
    folder.mkdir(mode=0o700, parents=True)
    found = _objects(scene)
    names = sorted(found)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        (folder / name).write_bytes(change(found[name], found[other]))
        (folder / name).chmod(0o700)


def garbage_installed(scene: Scene) -> None:
    _installed_before(scene, lambda data, _: os.urandom(len(data)))
    scene.struck.set()


def swapped_installed(scene: Scene) -> None:
    _installed_before(scene, lambda data, other: other[: len(data)].ljust(len(data), b"\0"))
    scene.struck.set()


def install_disk_full(scene: Scene) -> None:
    from tests.faults.small_disk import SmallDisk

    disk = SmallDisk(scene.caches / "inductor" / "compile_daemon", mib=0.25)
    scene.on_close(disk.close)
    at_install(lambda _: disk.fill(), scene)


def no_memory_to_load(scene: Scene) -> None:
    scene.trainer_environment["FAULTS_MEMORY"] = "1"
    scene.struck.set()


def worker_over_its_memory(scene: Scene) -> None:
    """Strike before the job. The worker is measured twice a second from the start of its job, so no gate is needed."""
    scene.await_idle_worker()
    scene.struck.set()


def idle_worker_first(step: str) -> Play:
    def play(scene: Scene) -> None:
        scene.await_idle_worker()
        at(step, Scene.kill_worker)(scene)

    return play


def running_worker_killed(scene: Scene) -> None:
    at("compile running", Scene.kill_worker)(scene)
