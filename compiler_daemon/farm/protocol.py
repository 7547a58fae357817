"""How the daemon and its farm's process talk: the frames of `worker.protocol`, over the process's stdin and stdout.

daemon -> farm
  settings  address, ca, certificate, key (files), limits (a map: what a worker there may use, and whether it must be
            confined): once, first
  job       id, environment, key, graph, replay, ahead (text, bytes and flags of a `jobs.Job`)
  leave     id: nobody wants it any more

farm -> daemon
  farm      workers (how many there are), environments (digest to how many jobs its workers take at once), reason (why
            there are none of use; empty where there are)
  begun     id, host: a worker there has begun
  progress  id, phase, host: as a worker's; said again every second while the job runs
  blob, done, refused   as a worker's, with the job's id
  lost      id, reason: the graph has cost a worker of that node its life
  away      id, reason: the farm does not compile it; the daemon may

The process ends, with code 0, when its stdin does; with code 3 when the scheduler has gone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from compile_wire.errors import MalformedError
from compiler_daemon.worker.protocol import encode_frame, read_frame

SCHEDULER_GONE = 3
"""The exit code."""

BEAT_S = 1.0
"""How often a node says that it still compiles."""

ANSWER = frozenset({"blob", "done", "refused", "lost", "away"})
"""Frames that a node's answer is made of."""

_MAX_ANSWER_FRAMES = 8192


def encode_answer(frames: list[dict[str, Any]]) -> bytes:
    """Return a node's whole answer as bytes."""
    return b"".join(encode_frame(frame) for frame in frames)


def read_answer(data: bytes, job: int) -> Iterator[dict[str, Any]]:
    """Yield the frames of a node's answer; raise `MalformedError` where it says what it must not."""
    stream = io.BytesIO(data)
    for _ in range(_MAX_ANSWER_FRAMES):
        frame = read_frame(stream)
        if frame is None:
            return
        if frame["type"] not in ANSWER or frame.get("id") != job:
            raise MalformedError(f"a node of the farm sent a frame that is no answer to its job: {frame['type'][:40]}")
        yield frame
    raise MalformedError(f"a node of the farm sent more than {_MAX_ANSWER_FRAMES} frames")
