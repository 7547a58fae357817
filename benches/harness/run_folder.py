"""Run folders: `OUT/BENCH/NNN/`, numbered by themselves, never overwritten.

A folder holds `config.json` (everything that the numbers depend on), `stats.jsonl` (one line a record, appended as it
happens), and what the bench adds: CSV, PNG, Markdown, checkpoints.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diffusion.errors import CheckpointMismatchError, RunFolderError


def plain(value: Any) -> Any:
    """Return dataclasses, enums, tuples and paths as what JSON can say. Dataclasses carry their kind."""
    if is_dataclass(value) and not isinstance(value, type):
        fields = {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class RunFolder:
    """One run's folder and its open log."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path = path
        self._log = (path / "stats.jsonl").open("a", encoding="utf-8")
        self._board: Any = _summary_writer()(str(path / "tensorboard")) if tensorboard else None

    @classmethod
    def create(cls, root: Path, bench: str, config: Any, *, tensorboard: bool = False) -> Self:
        """Make the next numbered folder under root / bench and write its config.json.

        Raises `RunFolderError` where no folder can be made. Two processes never share a folder.
        """
        if tensorboard:
            _summary_writer()  # refuses before a folder exists
        parent = root / bench
        try:
            parent.mkdir(parents=True, exist_ok=True)
            number = max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=-1) + 1
            while True:
                path = parent / f"{number:03d}"
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
            (path / "config.json").write_text(json.dumps(plain(config), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"cannot write a run folder under {parent}: {error.strerror}") from error
        return cls(path, tensorboard=tensorboard)

    @classmethod
    def reopen(cls, path: Path, config: Any, *, tensorboard: bool = False) -> Self:
        """Open an earlier run to continue it; raise if it is none, or was made with another configuration."""
        try:
            before = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} is not a run folder: it has no readable config.json") from error
        now = plain(config)
        names = {*before, *now} if isinstance(before, dict) else set(now)
        different = tuple(sorted(n for n in names if not isinstance(before, dict) or before.get(n) != now.get(n)))
        if different:
            raise CheckpointMismatchError(str(path), different)
        if not os.access(path, os.W_OK):
            raise RunFolderError(f"{path} cannot be written")
        return cls(path, tensorboard=tensorboard)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to stats.jsonl, and its numbers to TensorBoard where asked for."""
        self._log.write(json.dumps(plain(record)) + "\n")
        self._log.flush()
        if self._board is not None and "step" in record:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, record["step"])

    def records(self) -> list[dict[str, Any]]:
        """Return what stats.jsonl holds so far; a line cut short by a crash is left out."""
        records = []
        for line in (self.path / "stats.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records

    def write_csv(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write records of equal fields as CSV and return its path."""
        rows = list(rows)
        path = self.path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file and return its path."""
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunFolderError("--tensorboard needs the tensorboard package, which is not installed") from error
    return SummaryWriter


def latest(records: list[dict[str, Any]], kind: str, *names: str) -> list[dict[str, Any]]:
    """Return the records of a kind in order of appearance, the last of each identity: resumed runs repeat some."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        if record.get("kind") == kind:
            found[tuple(record[name] for name in names)] = record
    return list(found.values())
