"""What each fault means at each step; see `cell` for the steps, and `kernel_cells` for the last of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.faults.cell import FAULTS, GARBAGE, STEPS, WORK_S, Cell, Play
from tests.faults.kernel_cells import KERNEL_STEP, kernel_cells
from tests.faults.scene import Scene

_STEPS = tuple(step for step in STEPS if step != KERNEL_STEP)


# The instants.


def at(step: str, strike: Play) -> Play:
    """Strike once, at the step's instant, and let everything go on."""
    return {
        "handshake": partial(_at_request, "Handshake", strike),
        "lookup": partial(_at_request, "LookupArtifact", strike),
        "compile queued": partial(_at_queued, strike),
        "compile running": partial(_at_running, strike),
        "artifact transfer": partial(_at_transfer, strike),
        "install": partial(_at_install, strike),
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


def _at_transfer(strike: Play, scene: Scene) -> None:
    _blobs_apart(scene)

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


def _blobs_apart(scene: Scene) -> None:
    """Have lookups answered as those of large artifacts are: without the blobs, which the client then reads."""

    def rule(number: int, data: bytes) -> Iterator[bytes]:
        answer = pb.LookupArtifactResponse.FromString(data)
        for entry in answer.entries:
            del entry.blobs[:]
        yield answer.SerializeToString()

    scene.proxy.on_answer["LookupArtifact"] = rule


def _at_install(strike: Play, scene: Scene) -> None:
    place = scene.folder / "install"
    place.mkdir()
    scene.trainer_environment["FAULTS_INSTALL"] = f"{place}:mkstemp"

    def watch() -> None:
        scene.wait_until((place / "at").exists, "the trainer came to its install")
        scene.struck.set()
        strike(scene)
        (place / "go").touch()

    scene.run_beside(watch)


# Messages that are changed.


def _answer(method: str, change: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """Change the answer of the first call of a method; of `CompileGraph` each message is given to `change`."""

    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> Iterator[bytes]:
            if number:
                yield data
                return
            scene.struck.set()
            yield from change(scene, data)

        scene.proxy.on_answer[method] = rule

    return play


def _second_answer(change: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """At the install of the first graph it is settled that the lookup of the second is answered otherwise."""

    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> Iterator[bytes]:
            if scene.struck.is_set():
                yield from change(scene, data)
            else:
                yield data

        scene.proxy.on_answer["LookupArtifact"] = rule
        _at_install(_nothing, scene)

    return play


def _request(method: str, change: Callable[[Scene, bytes], bytes]) -> Play:
    def play(scene: Scene) -> None:
        def rule(number: int, data: bytes) -> bytes:
            if number:
                return data
            scene.struck.set()
            return change(scene, data)

        scene.proxy.on_request[method] = rule

    return play


def _nothing(_: Scene) -> None:
    pass


def _garbage(_: Scene, __: bytes) -> Iterator[bytes]:
    yield GARBAGE


def _never(scene: Scene, data: bytes) -> Iterator[bytes]:
    scene.proxy.hold()
    yield data


def _event_at(step: str, instead: Callable[[Scene, bytes], Iterator[bytes]]) -> Play:
    """Have something else follow the event at a step of the compile."""

    def play(scene: Scene) -> None:
        at(step, _nothing)(scene)
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


def _other_environment(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.HandshakeResponse.FromString(data)
    answer.environment_id = answer.environment_id[::-1]
    yield answer.SerializeToString()


def _facts_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.HandshakeResponse.FromString(data)
    assert answer.facts_signature, "the daemon knows no facts that could be signed"
    answer.facts_signature = _flip(answer.facts_signature)
    yield answer.SerializeToString()


def _entries_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.LookupArtifactResponse.FromString(data)
    for entry in answer.entries:
        entry.signature = _flip(entry.signature)
    yield answer.SerializeToString()


def _manifests_forged(_: Scene, data: bytes) -> Iterator[bytes]:
    answer = pb.LookupArtifactResponse.FromString(data)
    for entry in answer.entries:
        del entry.blobs[:]
        entry.manifest = _flip(entry.manifest, len(entry.manifest) // 2)
    yield answer.SerializeToString()


def _forged_artifact(scene: Scene, data: bytes) -> Iterator[bytes]:
    """An artifact for the asked key, signed by somebody who has not the secret."""
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


def _other_lookup(scene: Scene, data: bytes) -> bytes:
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


def _published_under_another_key(_: Scene, data: bytes) -> bytes:
    request = pb.PublishArtifactRequest.FromString(data)
    request.key += "x"
    return request.SerializeToString()


def _both(first: Play, second: Play) -> Play:
    def play(scene: Scene) -> None:
        first(scene)
        second(scene)

    return play


def _queued_with_other_key(scene: Scene) -> None:
    at("compile queued", _nothing)(scene)
    scene.proxy.on_request["CompileGraph"] = lambda number, data: data if number else _other_key(scene, data)


def _running_with_other_graph(scene: Scene) -> None:
    _request("CompileGraph", _other_graph)(scene)


def _running_forged(scene: Scene) -> None:
    at("compile running", _nothing)(scene)
    rule = scene.proxy.on_answer["CompileGraph"]

    def changed(number: int, data: bytes) -> Iterator[bytes]:
        for message in rule(number, data):
            yield from _compiled_forged(scene, message)

    scene.proxy.on_answer["CompileGraph"] = changed


def _transfer_of_another_blob(scene: Scene) -> None:
    _blobs_apart(scene)
    _request("ReadBlob", _other_blob)(scene)


def _transfer_of_garbage(scene: Scene) -> None:
    _blobs_apart(scene)
    _answer("ReadBlob", _garbled_blob)(scene)


def _transfer_without_end(scene: Scene) -> None:
    _at_transfer(lambda scene: scene.proxy.hold(), scene)


def _wrong_token(scene: Scene) -> None:
    def rule(metadata: list[tuple[str, str]]) -> list[tuple[str, str]]:
        scene.struck.set()
        return [(name, "Bearer " + "0" * 64) for name, _ in metadata]

    scene.proxy.on_metadata["PublishArtifact"] = rule


# What lies in the trainer's folders.


def _objects(scene: Scene) -> dict[str, bytes]:
    """The objects of the first graph, by the names under which they are installed."""
    from compile_wire.manifest import decode_manifest

    entry = pb.LookupArtifactResponse.FromString(
        scene.ask("CompileService/LookupArtifact", scene.kit.requests["LookupArtifact"][0])
    ).entries[0]
    data = {blob.sha256: blob.data for blob in entry.blobs}
    return {blob.name: data[blob.sha256] for blob in decode_manifest(entry.manifest).blobs if blob.role == "object"}


def _installed_before(scene: Scene, change: Callable[[bytes, bytes], bytes]) -> None:
    """Put other files where the installer will put the objects: `change` is given an object and the next one."""
    folder = scene.caches / "inductor" / "compile_daemon"
    folder.mkdir(mode=0o700, parents=True)
    found = _objects(scene)
    names = sorted(found)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        (folder / name).write_bytes(change(found[name], found[other]))
        (folder / name).chmod(0o700)


def _garbage_installed(scene: Scene) -> None:
    _installed_before(scene, lambda data, _: os.urandom(len(data)))
    scene.struck.set()


def _swapped_installed(scene: Scene) -> None:
    _installed_before(scene, lambda data, other: other[: len(data)].ljust(len(data), b"\0"))
    scene.struck.set()


def _install_disk_full(scene: Scene) -> None:
    from tests.faults.small_disk import SmallDisk

    disk = SmallDisk(scene.caches / "inductor" / "compile_daemon", mib=0.25)
    scene.on_close(disk.close)
    _at_install(lambda _: disk.fill(), scene)


def _no_memory_to_load(scene: Scene) -> None:
    scene.trainer_environment["FAULTS_MEMORY"] = "1"
    scene.struck.set()


def _worker_over_its_memory(scene: Scene) -> None:
    """The worker is measured from the beginning of its job, twice a second: no gate is needed."""
    scene.await_idle_worker()
    scene.struck.set()


def _idle_worker_first(step: str) -> Play:
    def play(scene: Scene) -> None:
        scene.await_idle_worker()
        at(step, Scene.kill_worker)(scene)

    return play


def _running_worker_killed(scene: Scene) -> None:
    at("compile running", Scene.kill_worker)(scene)


_GONE = ("client:fallbacks.unavailable",)
_LATE = ("client:fallbacks.timeout",)
_FORGED = ("client:fallbacks.bad_signature",)
_DIED = ("daemon:workers_died",)
_SERVED = {"handshake": "hits", "lookup": "hits", "artifact transfer": "hits", "install": "hits"}
_PUBLISH = {"client:fallbacks.": "client:unpublished."}


def _named(step: str, counters: tuple[str, ...]) -> tuple[str, ...]:
    """The counters of trouble, as they are called at this step."""
    if step == "publish":
        return tuple(name.replace("client:fallbacks.", "client:unpublished.") for name in counters)
    return counters


def _process_faults() -> Iterator[Cell]:
    """Harm to a process or a connection, which means the same at each step."""
    for step in _STEPS:
        second = "; the graph is served, and the second graph finds it" if step == "install" else ""
        yield Cell(
            fault="kill -9",
            step=step,
            play=at(step, Scene.kill),
            counters=_named(step, _GONE),
            what=f"the daemon is killed and stays away{second}",
        )
        yield Cell(
            fault="SIGSTOP",
            step=step,
            play=at(step, Scene.stop),
            counters=_named(step, _LATE),
            what=f"the daemon is stopped until the trainer has ended{second}",
        )
        yield Cell(
            fault="connection cut",
            step=step,
            play=at(step, Scene.cut_for_good if step == "install" else Scene.cut),
            counters=_named(step, _GONE),
            what="all connections are cut, and no other is accepted: a cut alone is mended by the next call; "
            "the graph is served, and the second graph finds it"
            if step == "install"
            else "all connections are cut; new ones are accepted",
        )


def _worker_faults() -> Iterator[Cell]:
    yield Cell(
        fault="worker killed",
        step="handshake",
        play=at("handshake", lambda scene: scene.run_beside(scene.kill_worker)),
        counters=("daemon:workers_failed",),
        what="the worker that is started for the client is killed before it says hello; the lookup is a hit",
        options={"prewarm": True},
    )
    for step in ("lookup", "artifact transfer", "install", "publish"):
        yield Cell(
            fault="worker killed",
            step=step,
            play=_idle_worker_first(step),
            counters=_DIED,
            what="the idle worker is killed; nobody waits for it, and it is counted and replaced when it is needed",
            options={"prewarm": True},
        )
    yield Cell(
        fault="worker killed",
        step="compile queued",
        play=at("compile queued", Scene.kill_worker),
        counters=("daemon:workers_lost",),
        what="the worker is killed over the graph before; both graphs are compiled by another",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="worker killed",
        step="compile running",
        play=_running_worker_killed,
        counters=("daemon:workers_lost",),
        what="the worker is killed in the middle of g++; another compiles the graph",
        timeout_s=WORK_S,
    )


def _message_faults() -> Iterator[Cell]:
    """Garbage, silence, wrong keys and wrong signatures: each step has messages of its own."""
    internal = ("client:fallbacks.internal",)
    methods = {"handshake": "Handshake", "lookup": "LookupArtifact", "publish": "PublishArtifact"}
    for step, method in methods.items():
        yield Cell(
            fault="garbage reply",
            step=step,
            play=_answer(method, _garbage),
            counters=_named(step, internal),
            what="64 bytes that are no message instead of the answer",
        )
        yield Cell(
            fault="slow reply",
            step=step,
            play=_answer(method, _never),
            counters=_named(step, _LATE),
            what="the answer is held until the trainer has ended",
        )
    for step in ("compile queued", "compile running"):
        yield Cell(
            fault="garbage reply",
            step=step,
            play=_event_at(step, _garbage),
            counters=internal,
            what="64 bytes that are no message follow the event",
        )
        yield Cell(
            fault="slow reply",
            step=step,
            play=_event_at(step, _never),
            counters=_LATE,
            what="nothing follows the event until the trainer has ended",
        )
    yield Cell(
        fault="garbage reply",
        step="artifact transfer",
        play=_transfer_of_garbage,
        counters=("client:fallbacks.bad_digest",),
        what="random bytes of the right length instead of the first blob",
    )
    yield Cell(
        fault="slow reply",
        step="artifact transfer",
        play=_transfer_without_end,
        counters=_LATE,
        what="the second half of the first blob is held until the trainer has ended",
    )
    yield Cell(
        fault="garbage reply",
        step="install",
        play=_garbage_installed,
        counters=("client:fallbacks.install",),
        what="random bytes of the right length lie where the objects are to be installed, as after a loss of power; "
        "they are replaced",
    )
    yield Cell(
        fault="slow reply",
        step="install",
        play=_second_answer(_never),
        counters=_LATE,
        what="from the install of the first graph on, lookups are not answered; the second graph finds it",
    )
    yield Cell(
        fault="wrong key",
        step="handshake",
        play=_answer("Handshake", _other_environment),
        counters=("client:fallbacks.environment",),
        what="the answer names another environment, which is part of every key",
    )
    yield Cell(
        fault="wrong key",
        step="lookup",
        play=_request("LookupArtifact", _other_lookup),
        counters=_FORGED,
        what="the daemon is asked for another key; its answer is well signed, but for that key",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong key",
        step="compile queued",
        play=_queued_with_other_key,
        counters=("client:refused.key_mismatch",),
        what="the key of the request is changed; the worker's own comes out different, and nothing is compiled",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong key",
        step="compile running",
        play=_running_with_other_graph,
        counters=("client:refused.key_mismatch",),
        what="another graph comes under the key; the worker computes that one's key, and nothing is compiled",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong key",
        step="artifact transfer",
        play=_transfer_of_another_blob,
        counters=("client:fallbacks.bad_digest",),
        what="another blob of the store is sent instead of the first",
    )
    yield Cell(
        fault="wrong key",
        step="install",
        play=_swapped_installed,
        counters=("client:fallbacks.install",),
        what="each object's place is taken by another kernel's object, cut or padded to the right length; "
        "they are replaced",
    )
    yield Cell(
        fault="wrong key",
        step="publish",
        play=_request("PublishArtifact", _published_under_another_key),
        counters=("client:unpublished.invalid",),
        what="the request names another key than its manifest",
    )
    yield Cell(
        fault="wrong signature",
        step="handshake",
        play=_answer("Handshake", _facts_forged),
        counters=_FORGED,
        what="a bit of the signature over the environment's facts is flipped",
    )
    yield Cell(
        fault="wrong signature",
        step="lookup",
        play=_answer("LookupArtifact", _entries_forged),
        counters=_FORGED,
        what="a bit of each artifact's signature is flipped",
    )
    yield Cell(
        fault="wrong signature",
        step="compile queued",
        play=_event_at("compile queued", _forged_artifact),
        counters=_FORGED,
        what="an artifact that the daemon did not sign is slipped in after the event",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong signature",
        step="compile running",
        play=_running_forged,
        counters=_FORGED,
        what="a bit of the signature of what was compiled is flipped",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong signature",
        step="artifact transfer",
        play=_answer("LookupArtifact", _manifests_forged),
        counters=_FORGED,
        what="a bit of the signed manifest is flipped; no blob is even asked for",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="wrong signature",
        step="install",
        play=_second_answer(_entries_forged),
        counters=_FORGED,
        what="from the install of the first graph on, signatures are wrong; the second graph finds it",
    )
    yield Cell(
        fault="wrong signature",
        step="publish",
        play=_wrong_token,
        counters=("client:unpublished.unauthenticated",),
        what="the request carries a wrong token: that is what a client signs with",
    )


def _disk_faults() -> Iterator[Cell]:
    for step in ("handshake", "lookup", "artifact transfer"):
        yield Cell(
            fault="disk full",
            step=step,
            play=at(step, Scene.fill_disk),
            counters=("daemon:store_unwritable",),
            what="the store's filesystem has no byte left; reading goes on, and the lookup is a hit",
            options={"disk": "store"},
        )
    yield Cell(
        fault="disk full",
        step="compile queued",
        play=at("compile queued", Scene.fill_disk),
        counters=("client:fallbacks.full",),
        what="the store's filesystem has no byte left: what is compiled cannot be kept",
        options={"disk": "store"},
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="disk full",
        step="compile running",
        play=at("compile running", Scene.fill_disk),
        counters=("client:refused.compile_error",),
        what="the filesystem of the workers' scratch folder has no byte left: g++ fails",
        options={"disk": "scratch"},
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="disk full",
        step="install",
        play=_install_disk_full,
        counters=("client:fallbacks.install",),
        what="the filesystem that the trainer installs on has no byte left; torch's own folder has",
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="disk full",
        step="publish",
        play=at("publish", Scene.fill_disk),
        counters=("client:unpublished.full",),
        what="the store's filesystem has no byte left",
        options={"disk": "store"},
    )


def _memory_faults() -> Iterator[Cell]:
    for step in ("handshake", "lookup", "compile queued", "artifact transfer", "publish"):
        yield Cell(
            fault="out of memory",
            step=step,
            play=at(step, Scene.exhaust_memory),
            counters=_named(
                step,
                ("client:fallbacks.internal", "client:fallbacks.unavailable", "client:fallbacks.timeout"),
            ),
            what="from here on every allocation of the daemon above 4 KiB fails: it answers with an error, or dies",
            options={"preload": True},
        )
    yield Cell(
        fault="out of memory",
        step="compile running",
        play=_worker_over_its_memory,
        counters=("client:refused.limit",),
        what="the worker's limit of memory is 64 MiB, less than torch needs: it is killed while it compiles",
        options={"arguments": ("--job-gib", "0.0625")},
        timeout_s=WORK_S,
    )
    yield Cell(
        fault="out of memory",
        step="install",
        play=_no_memory_to_load,
        counters=("client:fallbacks.install",),
        what="the trainer's address space has no room left while torch loads the first installed object",
        timeout_s=WORK_S,
    )


def _clock_faults() -> Iterator[Cell]:
    good = {"compile queued": "compiled_by_daemon", "compile running": "compiled_by_daemon", "publish": "published"}
    for step in _STEPS:
        served = good.get(step, "hits")
        yield Cell(
            fault="clock jump",
            step=step,
            play=at(step, Scene.jump),
            counters=(f"client:{served}",),
            what="three days forward for the daemon and its workers, three back for the trainer: no trouble at all, so "
            "the counter is that of success, and none of trouble",
            options={"preload": True},
            timeout_s=WORK_S,
        )


def _all() -> dict[tuple[str, str], Cell]:
    cells: dict[tuple[str, str], Cell] = {}
    makers = (
        _process_faults, _worker_faults, _message_faults, _disk_faults, _memory_faults, _clock_faults, kernel_cells,
    )  # fmt: skip
    for make in makers:
        for cell in make():
            assert (cell.fault, cell.step) not in cells, cell.name
            cells[cell.fault, cell.step] = cell
    return {(fault, step): cells[fault, step] for fault in FAULTS for step in STEPS}


CELLS = _all()
