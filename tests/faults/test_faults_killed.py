"""After kill -9 of a trainer at the worst moments, or of the daemon, nothing half-written is left that is ever used."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.e2e.conftest import Trainer, clean_environment
from tests.faults.kit import Kit
from tests.faults.scene import Scene

pytestmark = pytest.mark.timeout(600)


@contextlib.contextmanager
def a_scene(kit: Kit, folder: Path, **options: Any) -> Iterator[Scene]:
    settings = {"form": "one", "stored": True, "timeout_s": 60.0, "prewarm": False}
    scene = Scene(kit, folder, **(settings | options))
    try:
        yield scene
    finally:
        scene.close()


def killed_at_the_signal(scene: Scene) -> None:
    """Start the trainer, and kill it when `struck` is set."""
    trainer: Trainer = scene.start()
    scene.wait_until(scene.struck.is_set, "the trainer came to the moment")
    trainer.process.kill()
    trainer.process.communicate(timeout=60)
    assert trainer.process.returncode == -9


def after_the_kill(scene: Scene) -> dict[str, Any]:
    """Run the same trainer again on the same caches; return its report."""
    scene.trainer_environment.clear()
    outcome = scene.run()
    assert outcome.code == 0, outcome.err
    assert outcome.result == scene.numbers_expected()
    assert outcome.report["fallbacks"] == {}, outcome.err
    return outcome.report


def unfinished(scene: Scene) -> list[Path]:
    return [path for path in (scene.daemon.directory / "store" / "incoming").iterdir() if path.is_file()]


def test_a_trainer_killed_while_it_installs_leaves_no_file_that_another_would_load(
    kit: Kit, short_folder: Path
) -> None:
    with a_scene(kit, short_folder / "install") as scene:
        place = scene.folder / "install"
        place.mkdir()
        scene.trainer_environment["FAULTS_INSTALL"] = f"{place}:rename"
        scene.run_beside(lambda: _set_when(scene, (place / "at").exists))

        killed_at_the_signal(scene)
        installed = sorted(path.name for path in (scene.caches / "inductor" / "compile_daemon").iterdir())
        report = after_the_kill(scene)

        assert installed
        assert all(name.startswith(".installing-") for name in installed)
        assert report["hits"] == 1
        assert report["cpp_builds"] == report["compiled_here"] == 0


def test_a_trainer_killed_in_the_middle_of_a_transfer_leaves_nothing_behind(kit: Kit, short_folder: Path) -> None:
    with a_scene(kit, short_folder / "transfer") as scene:

        def without_blobs(_: int, data: bytes) -> Iterator[bytes]:
            answer = pb.LookupArtifactResponse.FromString(data)
            for entry in answer.entries:
                del entry.blobs[:]
            yield answer.SerializeToString()

        def half(_: int, data: bytes) -> Iterator[bytes]:
            if not scene.struck.is_set():
                yield pb.ReadBlobResponse(data=data[:100]).SerializeToString()
                scene.struck.set()
                scene.proxy.on_answer.clear()
                scene.proxy.hold()  # otherwise the stream would end, and the trainer would continue before it is killed
            yield data

        scene.proxy.on_answer |= {"LookupArtifact": without_blobs, "ReadBlob": half}

        killed_at_the_signal(scene)
        installed = scene.caches / "inductor" / "compile_daemon"
        left = list(installed.iterdir()) if installed.exists() else []
        report = after_the_kill(scene)

        assert left == []
        assert report["hits"] == 1
        assert scene.status().artifacts == 2


def test_a_trainer_killed_while_it_publishes_leaves_the_daemon_as_it_was(kit: Kit, short_folder: Path) -> None:
    with a_scene(kit, short_folder / "publish", form="own") as scene:
        before = scene.status()
        killed = threading.Event()

        def never(_: int, data: bytes) -> bytes:
            if not scene.struck.is_set():
                scene.struck.set()
                killed.wait(60)
                raise ConnectionError("the trainer has gone")
            return data

        scene.proxy.on_request["PublishArtifact"] = never

        killed_at_the_signal(scene)
        killed.set()
        scene.wait_until(lambda: scene.proxy.broken, "the proxy noticed")
        scene.proxy.broken.clear()
        after = scene.status()
        report = after_the_kill(scene)

        assert (after.artifacts, after.blobs, after.store_bytes) == (before.artifacts, before.blobs, before.store_bytes)
        assert unfinished(scene) == []
        assert report["published"] + report["hits_local"] == 1


def test_kill_nine_of_the_daemon_loses_no_artifact_and_no_statistics(kit: Kit, short_folder: Path) -> None:
    with a_scene(kit, short_folder / "daemon") as scene:
        scene.ask("CompileService/Handshake", kit.requests["Handshake"][0])
        for _ in range(3):
            scene.ask("CompileService/LookupArtifact", kit.requests["LookupArtifact"][0])
        counted = scene.counters()
        before = scene.status()
        scene.wait_until(lambda: kept(scene).get("lookups") == counted["lookups"], "the counts were kept")

        scene.daemon.kill()
        assert scene.daemon.process
        assert scene.daemon.process.stdout
        scene.daemon.process.stdout.close()
        scene.daemon.start()
        after = scene.status()
        answer = scene.ask("CompileService/LookupArtifact", kit.requests["LookupArtifact"][0])

        assert (after.artifacts, after.blobs, after.store_bytes) == (before.artifacts, before.blobs, before.store_bytes)
        assert {name: after.counters[name] for name in counted} == counted
        assert len(pb.LookupArtifactResponse.FromString(answer).entries) == 1


def kept(scene: Scene) -> dict[str, int]:
    """Return the counts in the store, as another process sees them."""
    code = (
        "import json, sqlite3, sys\n"
        "rows = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True).execute('SELECT name, value FROM counters')\n"
        "print(json.dumps(dict(rows.fetchall())))"
    )
    index = scene.daemon.directory / "store" / "index.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", code, str(index)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=True,
        timeout=60,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _set_when(scene: Scene, condition: Callable[[], bool]) -> None:
    scene.wait_until(condition, "the trainer came to its install")
    scene.struck.set()
