"""How daemon and worker talk: frames of msgpack over the worker's stdin and stdout.

A frame is a 4-byte big-endian length and that many bytes of msgpack, always a map with `type`:

daemon -> worker
  job       id, key, graph (bytes of a GraphSpec, or of a KernelSpec for a worker of kernels); and `replay`, true for a
            kept graph: it may be another torch's, and with an empty key only its key is asked for; and `niceness`,
            added to the worker's own while it does the job
  warm      id: say when everything is made that a first job would wait for

worker -> daemon
  hello     protocol, environment (map of text to text), facts (bytes), unconfined (why it is not confined; empty where
            it is): once, when the worker is ready for jobs
  progress  id, phase: "rebuilding", "compiling", "packing"
  blob      id, sha256, data: one blob of the artifact being handed over; each at most MAX_BLOB_BYTES
  warm      id: it is made
  keyed     id, key: what the graph is called here; nothing was compiled
  done      id, manifest (bytes), facts (bytes): the artifact is complete; its blobs came before
  refused   id, reason (name of a Refused.Reason without its prefix), message, fields (list of text)

The last three end a job, and may say `spent`: true. Then the job has left something behind in the worker, or the worker
has taken the part of a rank for it; the worker takes no other and ends.

The worker ends, with code 0, when its stdin does.

A worker that has sent anything else, or has closed its stdout, is lost. Its stderr is a log for people.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_BLOB_BYTES
from compile_wire.packing import pack, unpack

WORKER_PROTOCOL = 1
MAX_FRAME_BYTES = MAX_BLOB_BYTES + 64 * 1024
"""One blob and the few fields around it."""

_MAX_LISTS = 64
"""Of a frame: its own map, and a list or a map in it."""

LAST = frozenset({"keyed", "done", "refused"})
"""Frames that end a job."""

HEADER = struct.Struct(">I")


def encode_frame(message: dict[str, Any]) -> bytes:
    """Return the frame of `message`."""
    body = pack(message)
    if len(body) > MAX_FRAME_BYTES:
        raise MalformedError(f"a frame of {len(body)} bytes is more than {MAX_FRAME_BYTES}")
    return HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> dict[str, Any]:
    """Return the message in a frame's body; raise `MalformedError` where it is none."""
    message = unpack(body, max_bytes=MAX_FRAME_BYTES, what="worker frame", max_lists=_MAX_LISTS)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MalformedError("a worker frame is a map with a type")
    return message


def body_length(header: bytes) -> int:
    """Return the length that a frame's header announces; raise `MalformedError` where it is too long."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise MalformedError(f"a frame announces {length} bytes, more than {MAX_FRAME_BYTES}")
    return int(length)


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one message (blocking); None at the end of the stream."""
    header = stream.read(HEADER.size)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise MalformedError("the stream ended inside a frame's header")
    length = body_length(header)
    body = stream.read(length)
    if len(body) < length:
        raise MalformedError("the stream ended inside a frame")
    return decode_body(body)


def write_frame(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message and flush."""
    stream.write(encode_frame(message))
    stream.flush()
