"""Nodes that share a tier: real daemons with fake workers, each with a directory and a signer of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.access.directory import prepare_directory
from compiler_daemon.tier.signer_files import SignerFiles
from compiler_daemon.tier.signers import Listed, Signer, SigningKey
from tests.daemon.daemon_process import DaemonProcess

LEASE_S, BEAT_S = 3.0, 0.5


class Node(DaemonProcess):
    """A daemon that shares a tier."""

    def __init__(self, directory: Path, *places: str, signer: str = "", **settings: Any) -> None:
        tier = {"places": places, "lease_s": LEASE_S, "beat_s": BEAT_S, **settings.pop("tier", {})}
        super().__init__(directory, tier=tier, **settings)
        prepare_directory(directory)
        self.files = SignerFiles(directory)
        self.files.prepare()
        self.key = SigningKey.make(signer or f"{directory.name}-1")
        self.files.write_own(self.key)

    @property
    def signer(self) -> Signer:
        return self.key.signer

    def believe(self, *signers: Signer, distrusted: Sequence[Signer] = ()) -> None:
        """Replace the list of signers that this node trusts or distrusts."""
        known = [(signer, signer in distrusted) for signer in (*signers, *distrusted)]
        self.files.write_listed(tuple(Listed(signer=s, since=1.0, distrusted=bad) for s, bad in known))

    def counted(self, name: str) -> int:
        return int(self.status().counters.get(name, 0))

    def asked(self, key: str, spec: bytes = b"ok") -> Asked:
        """Ask for a compile in a thread of its own."""
        return Asked(self, key, spec)


class Asked:
    """A compile that a thread waits for, with the phases that the daemon reports meanwhile."""

    def __init__(self, node: Node, key: str, spec: bytes) -> None:
        self.phases: list[str] = []
        self._last: Any = None
        self._error: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._run, args=(node, key, spec))
        self._thread.start()

    def answer(self, limit_s: float = 60.0) -> pb.ArtifactEntry | pb.Refused:
        self._thread.join(limit_s)
        assert not self._thread.is_alive(), f"no answer within {limit_s} s; heard {self.phases}"
        if self._error is not None:
            raise self._error
        found: pb.ArtifactEntry | pb.Refused = (
            self._last.artifact if self._last.HasField("artifact") else self._last.refused
        )
        return found

    def _run(self, node: Node, key: str, spec: bytes) -> None:
        try:
            for event in node.compile(key, spec, timeout=90.0):
                self._last = event
                if event.HasField("running"):
                    self.phases.append(event.running.phase)
        except grpc.RpcError as error:  # its daemon has gone
            self._error = error


def started(nodes: Sequence[Node], *, strangers: bool = False) -> Iterator[list[Node]]:
    """Start the nodes and end those that still run; they trust each other unless they are `strangers`."""
    try:
        for node in nodes:
            if not strangers:
                node.believe(*(other.signer for other in nodes if other is not node))
            node.start()
            node.handshake()
        yield list(nodes)
    finally:
        for node in nodes:
            if hasattr(node, "process") and node.process.poll() is None:
                node.__exit__()
            elif hasattr(node, "process"):
                node.channel.close()
                node.close()


Fleet = Callable[..., list[Node]]
