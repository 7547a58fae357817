"""The things that all cells share: results and times without a daemon, a daemon's directory, and recorded requests."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Daemon, Lab, Outcome, with_probes
from tests.faults.forked import ForkServer
from tests.faults.proxy import Proxy

TRAINER = str(Path(__file__).parent / "trainers" / "steps.py")
GRAPHS = {
    "one": ["first"],
    "two": ["first", "second"],
    "own": ["own"],
    "all": ["first", "second", "own"],
    "kernel": ["kernel"],
}
"""The forms of the trainer, with the graphs or the kernel of each."""

HAS_TRITON = importlib.util.find_spec("triton") is not None


@dataclass
class Kit:
    """The shared things of all cells; `prepare` makes them once."""

    folder: Path
    temporary: Path
    expected: dict[str, Any]
    """What torch computes without a daemon: losses and gradients of each graph to the last bit, or a kernel's files."""
    seconds: dict[str, float]
    """The time that each form of the trainer takes without a daemon, from its start to its end."""
    requests: dict[str, list[bytes]] = field(default_factory=dict)
    """The messages of a trainer with the graphs `first` and `second`, and the handshake of one with a kernel."""
    forks: ForkServer | None = None
    """Trainers are forks of this server, unless it is missing or they must start with a preloaded library."""

    @property
    def stored(self) -> Path:
        """The directory of a daemon that has the artifacts of `first` and `second`, and the environment's facts."""
        return self.folder / "stored"

    @classmethod
    def prepare(cls, folder: Path, *, with_seconds: bool, temporary: Path | None = None) -> Kit:
        """Run trainers without a daemon and with a new one; `with_seconds` measures each form of the trainer.

        `temporary` must have been through `with_probes`. Without it one is made in the folder, where `load` expects it.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "lab").mkdir()
        if temporary is None:
            (folder / "tmp").mkdir()
            temporary = with_probes(folder / "tmp")
        lab = Lab(folder / "lab", temporary, healthy=True)
        try:
            daemon = lab.daemon()
            proxy = Proxy(folder / "proxy", daemon.address)
            alone = lab.start(TRAINER, "all")
            served = lab.start(TRAINER, "two", daemon=daemon, COMPILER_DAEMON_ADDRESS=proxy.address)
            expected, first = _well(alone.wait()), _well(served.wait())
            kernel = _prepare_kernel(lab, daemon, proxy) if HAS_TRITON else None
            proxy.close()
            assert first.report["compiled_by_daemon"] == 2, (first.err, daemon.log())
            assert first.report["cpp_builds"] == 0, first.err
            kit = cls(folder, temporary, expected.result, dict.fromkeys(GRAPHS, expected.seconds), proxy.requests)
            if kernel is not None:
                kit.expected |= kernel.result
                kit.seconds["kernel"] = kernel.seconds
            if with_seconds:
                for form in ("one", "two", "own"):
                    kit.seconds[form] = _well(lab.start(TRAINER, form).wait()).seconds
        finally:
            lab.close()
        shutil.copytree(daemon.directory, kit.stored, ignore=_sockets_and_locks)
        return kit

    def save(self) -> None:
        """Write to the folder what is not a file yet."""
        requests = {name: [data.hex() for data in messages] for name, messages in self.requests.items()}
        known = {"expected": self.expected, "seconds": self.seconds, "requests": requests}
        (self.folder / "kit.json").write_text(json.dumps(known))

    @classmethod
    def load(cls, folder: Path) -> Kit:
        """Return what `save` has written; it is valid for the same machine, torch and daemon only."""
        known = json.loads((folder / "kit.json").read_text())
        requests = {name: [bytes.fromhex(text) for text in texts] for name, texts in known["requests"].items()}
        return cls(folder, folder / "tmp", known["expected"], known["seconds"], requests)

    def directory(self, target: Path, *, stored: bool) -> None:
        """Make `target` a daemon's directory with the same token and secret, and with the artifacts if `stored`."""
        target.mkdir(mode=0o700, exist_ok=True)
        for name in ("token", "secret"):
            shutil.copy2(self.stored / name, target / name)
        if stored:
            shutil.copytree(self.stored / "store", target / "store", dirs_exist_ok=True)
            (target / "store").chmod(0o700)


def _prepare_kernel(lab: Lab, daemon: Daemon, proxy: Proxy) -> Outcome:
    """Return the outcome of a trainer with a kernel and no daemon; record the handshake of one that has a daemon."""
    address = {"COMPILER_DAEMON_ADDRESS": proxy.address, "TORCH_COMPILE_CLIENT_READONLY": "1"}  # nothing is stored
    served = _well(lab.start(TRAINER, "kernel", daemon=daemon, healthy=False, **address).wait())
    assert served.report["kernels"] == 1, served.err
    proxy.requests["KernelHandshake"] = [proxy.requests["Handshake"].pop()]
    return _well(lab.start(TRAINER, "kernel").wait())


def same_directory(daemon: Daemon) -> Daemon:
    """Return another daemon on the directory of one that has ended."""
    return Daemon(daemon.directory, daemon.temporary, daemon.arguments, daemon.environment)


def _well(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


def _sockets_and_locks(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock") or name in {"scratch", "log", "daemon.json"}]
