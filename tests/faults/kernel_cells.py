"""The faults that strike while a Triton kernel is being compiled.

Triton compiles a small kernel faster than a busy machine can do harm to the compile. Therefore the idle worker is
stopped before it gets the kernel and continues after the harm, so that the harm always falls into the compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import kernels_pb2
from tests.faults.cell import WORK_S, Cell, Play
from tests.faults.changed_messages import garbage, never, nothing
from tests.faults.scene import Scene

KERNEL_STEP = "kernel compile"
_METHOD = "CompileKernel"

_GONE = ("client:fallbacks.unavailable",)
_LATE = ("client:fallbacks.timeout",)
_FORGED = ("client:fallbacks.bad_signature",)


def _at_compile(
    strike: Callable[[Scene], None], instead: Callable[[Scene, bytes], Iterator[bytes]] | None = None
) -> Play:
    """Strike once the stopped worker has been given the kernel; then `instead`, if given, replaces what follows."""

    def play(scene: Scene) -> None:
        scene.await_idle_worker("KernelHandshake")
        scene.stop_workers()

        def rule(number: int, data: bytes) -> Iterator[bytes]:
            event = pb.CompileGraphResponse.FromString(data)
            if event.WhichOneof("event") != "running" or scene.struck.is_set():
                yield data
                return
            scene.struck.set()
            yield data
            strike(scene)
            scene.continue_workers()
            if instead is not None:
                yield from instead(scene, data)

        scene.proxy.on_answer[_METHOD] = rule

    return play


def _other_key(scene: Scene) -> None:
    """Ask the daemon to compile the kernel under another key, since no worker can tell that the key is wrong."""
    scene.await_idle_worker("KernelHandshake")

    def rule(number: int, data: bytes) -> bytes:
        request = kernels_pb2.CompileKernelRequest.FromString(data)
        request.key = request.key[::-1]
        scene.struck.set()
        return request.SerializeToString()

    scene.proxy.on_request[_METHOD] = rule


def _forged(scene: Scene) -> None:
    _at_compile(nothing)(scene)
    rule = scene.proxy.on_answer[_METHOD]

    def changed(number: int, data: bytes) -> Iterator[bytes]:
        for message in rule(number, data):
            event = pb.CompileGraphResponse.FromString(message)
            if event.WhichOneof("event") == "artifact":
                signature = bytearray(event.artifact.signature)
                signature[-1] ^= 1
                event.artifact.signature = bytes(signature)
            yield event.SerializeToString()

    scene.proxy.on_answer[_METHOD] = changed


def kernel_cells() -> Iterator[Cell]:
    """Yield a cell for each fault. In all but two the trainer compiles the kernel in the end."""
    rows: tuple[tuple[str, Play, tuple[str, ...], str, dict[str, object]], ...] = (
        ("kill -9", _at_compile(Scene.kill), _GONE, "the daemon is killed and stays away", {}),
        ("SIGSTOP", _at_compile(Scene.stop), _LATE, "the daemon is stopped until the trainer has ended", {}),
        ("connection cut", _at_compile(Scene.cut), _GONE, "all connections are cut; new ones are accepted", {}),
        (
            "garbage reply",
            _at_compile(nothing, garbage),
            ("client:fallbacks.internal",),
            "64 bytes that are no message follow the event",
            {},
        ),
        (
            "slow reply",
            _at_compile(nothing, never),
            _LATE,
            "nothing follows the event until the trainer has ended",
            {},
        ),
        (
            "disk full",
            _at_compile(Scene.fill_disk),
            ("client:fallbacks.full",),
            "the store's filesystem has no byte left: what is compiled cannot be kept",
            {"disk": "store"},
        ),
        (
            "worker killed",
            _at_compile(Scene.kill_worker),
            ("daemon:workers_lost",),
            "the worker is killed over the kernel; another compiles it",
            {},
        ),
        (
            "out of memory",
            _at_compile(Scene.exhaust_memory),
            ("client:fallbacks.internal", "client:fallbacks.unavailable", "client:fallbacks.timeout"),
            "from here on every allocation of the daemon above 4 KiB fails: it answers with an error, or dies",
            {"preload": True},
        ),
        (
            "wrong key",
            _other_key,
            _FORGED,
            "the kernel comes to the daemon under another key; what it compiles is well signed, but for that key",
            {},
        ),
        ("wrong signature", _forged, _FORGED, "a bit of the signature of what was compiled is flipped", {}),
        (
            "clock jump",
            _at_compile(Scene.jump),
            ("client:kernels_by_daemon",),
            "three days forward for the daemon and its workers, three back for the trainer: no trouble at all, so "
            "the counter is that of success, and none of trouble",
            {"preload": True},
        ),
    )
    for fault, play, counters, what, options in rows:
        yield Cell(
            fault=fault,
            step=KERNEL_STEP,
            play=play,
            counters=counters,
            what=what,
            timeout_s=WORK_S,
            options=options,
        )
