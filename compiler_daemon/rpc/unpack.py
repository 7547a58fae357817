"""Messages to values, every bound checked on the way: after this, nothing in a request can be too long or malformed.

Nor can text change what is shown around it: names that only people read are cleaned, those that are looked up by are
refused where they hold what cannot be shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_BLOBS, MAX_HAVE, MAX_KEY_TEXT, MAX_NAME_TEXT
from compile_wire.plain import is_plain, plain
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.compiles.interpreter import check_interpreter
from compiler_daemon.jobs import GraphSource


def unpack_key(key: str) -> str:
    """Return torch's key for a graph; raise `MalformedError` where it is empty, too long or not printable."""
    if not 0 < len(key) <= MAX_KEY_TEXT:
        raise MalformedError(f"a key has from 1 to {MAX_KEY_TEXT} characters, not {len(key)}")
    return unpack_name(key, "a key")


def unpack_name(name: str, what: str) -> str:
    """Return a name that something is looked up by; raise `MalformedError` where it is not printable."""
    if not is_plain(name):
        raise MalformedError(f"{what} holds characters that cannot be shown")
    return name


def unpack_program(program: str) -> str:
    """Return the client's program in printable characters; raise `MalformedError` where its name is too long."""
    if len(program) > MAX_NAME_TEXT:
        raise MalformedError(f"a program's name has at most {MAX_NAME_TEXT} characters, not {len(program)}")
    return plain(program)


def unpack_have(have: Iterable[str]) -> frozenset[Digest]:
    """Return the manifests that the client has tried; raise `MalformedError` for too many, or for no digest."""
    texts = list(have)
    if len(texts) > MAX_HAVE:
        raise MalformedError(f"`have` names at most {MAX_HAVE} manifests, not {len(texts)}")
    return frozenset(parse_digest(text) for text in texts)


def unpack_graph(graph: pb.Graph) -> GraphSource:
    """Return where a graph's bytes are; raise `MalformedError` where the message gives none."""
    match graph.WhichOneof("content"):
        case "data":
            return GraphSource(data=graph.data)
        case "sha256":
            return GraphSource(sha256=parse_digest(graph.sha256))
        case _:
            raise MalformedError("a graph is given by its bytes or by its digest")


def unpack_blobs(blobs: Iterable[pb.Blob]) -> dict[Digest, bytes]:
    """Return blobs by their digest; raise `MalformedError` for too many, or for no digest."""
    listed = list(blobs)
    if len(listed) > MAX_BLOBS:
        raise MalformedError(f"an artifact has at most {MAX_BLOBS} blobs, not {len(listed)}")
    return {parse_digest(blob.sha256): blob.data for blob in listed}


def unpack_interpreter(interpreter: str, *, peer: str, default: str) -> str:
    """Return the interpreter of a client's worker: its own where it is on this host, else the daemon's."""
    if not interpreter or not peer.startswith("unix:"):
        return default
    return check_interpreter(interpreter)
