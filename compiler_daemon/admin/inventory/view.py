"""What is kept, as tables and code for people. Names that others chose are shown as plain text, never as markup."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compile_wire.digest import Digest
from compile_wire.kernel.about import read_about
from compile_wire.manifest import Manifest
from compile_wire.trace import read_about_trace
from compiler_daemon.admin.plain import plain
from compiler_daemon.insight.graph_text import GraphText, InputText, SymbolText
from compiler_daemon.insight.inventory_values import Collected
from compiler_daemon.insight.kernel_text import KernelText
from compiler_daemon.store import ArtifactRow, StoredGraph
from compiler_daemon.text import numbers

_SHORT = 12
_KEY = 16
_COLUMNS = ("id", "kind", "key", "program", "origin", "size", "cost", "hits", "used", "made", "pin")
_OF_WIDE_TERMINALS = ("key", "origin", "made")
"""Left out where a terminal is narrower than `_WIDE`: what tells artifacts apart is read before what tells of them."""
_WIDE = 110


def short_ids(rows: Sequence[ArtifactRow]) -> dict[Digest, str]:
    """Return the beginnings of digests that tell all of these apart; at least twelve digits, as docker has them."""
    length = _SHORT
    while len({row.digest[:length] for row in rows}) < len({row.digest for row in rows}):
        length += 4
    return {row.digest: row.digest[:length] for row in rows}


def print_artifacts(rows: Sequence[ArtifactRow], ids: Mapping[Digest, str], kinds: Mapping[Digest, str]) -> None:
    """Print artifacts as a table, and their totals; `kinds` says what each is."""
    console = _console()
    table = Table(box=None, pad_edge=False)
    left_out = _OF_WIDE_TERMINALS if console.width < _WIDE else ()
    shown = [name for name in _COLUMNS if name not in left_out]
    for name in shown:
        right, folded = name in ("size", "cost", "hits", "used", "made"), name == "program"
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=not folded,
            overflow="fold" if folded else "ellipsis",
        )
    for row in rows:
        cells: tuple[str | Text, ...] = (
            ids[row.digest],
            kinds[row.digest],
            plain(row.key[:_KEY]),
            plain(row.program),
            row.origin,
            numbers.size(row.bytes),
            numbers.seconds(row.compile_s),
            str(row.hits),
            numbers.ago(row.used, time.time()) if row.hits else "never",
            numbers.ago(row.created, time.time()),
            "pinned" if row.pinned else "",
        )
        table.add_row(*(cell for name, cell in zip(_COLUMNS, cells, strict=True) if name in shown))
    if rows:
        console.print(table)
    console.print(totals_text(rows, kinds))


def totals_text(rows: Sequence[ArtifactRow], kinds: Mapping[Digest, str]) -> str:
    """Return the sums of a list in one line."""
    if not rows:
        return "no artifacts"
    size, cost = sum(row.bytes for row in rows), sum(row.compile_s for row in rows)
    saved = sum(row.compile_s * row.hits for row in rows)
    found = {
        word: {row.key for row in rows if kinds[row.digest] == word} for word in ("graph", "kernel", "tuning", "trace")
    }
    things = ", ".join(numbers.counted(len(keys), word) for word, keys in found.items() if keys) or "no graph"
    artifacts = f"{numbers.counted(len(rows), 'artifact')} of {things}, {numbers.size(size)}"
    return f"{artifacts}; {numbers.seconds(cost)} to compile, {numbers.seconds(saved)} saved"


def print_collected(done: Collected, kinds: Mapping[Digest, str]) -> None:
    """Print what a collection removed, or would remove; `kinds` says what each artifact is."""
    console, report = _console(), done.report
    if report.dry_run and done.artifacts:
        print_artifacts(done.artifacts, short_ids(done.artifacts), kinds)
        if report.artifacts > len(done.artifacts):
            console.print(f"... and {report.artifacts - len(done.artifacts)} more")
    verb = "would remove" if report.dry_run else "removed"
    console.print(
        f"{verb} {numbers.counted(report.artifacts, 'artifact')} ({report.expired} for their age) "
        f"and {numbers.counted(report.blobs, 'blob')} "
        f"({report.orphans} of no artifact): {numbers.size(report.bytes)}"
    )


def print_entry(
    artifacts: Sequence[tuple[ArtifactRow, Manifest]],
    requests: Sequence[StoredGraph],
    environments: Mapping[Digest, Mapping[str, str]],
) -> None:
    """Print what is kept of one key, but for its graph."""
    console = _console()
    for row, manifest in artifacts:
        facts = {
            "artifact": row.digest,
            "key": row.key,
            "program": row.program or "not named",
            "size": f"{numbers.size(row.bytes)} in {len(manifest.blobs)} blobs",
            "cost": f"{numbers.seconds(row.compile_s)} by a {row.origin}",
            "hits": f"{row.hits}" + (f", last {numbers.ago(row.used, time.time())}" if row.hits else ""),
            "made": numbers.ago(row.created, time.time()) + (", pinned" if row.pinned else ""),
            **_what_it_is(manifest),
        }
        console.print(_facts(facts))
        table = Table(box=None, pad_edge=False)
        table.add_column("blob")
        table.add_column("size", justify="right")
        table.add_column("is")
        for blob in manifest.blobs[:_MAX_BLOBS]:
            table.add_row(
                blob.sha256[:_SHORT],
                numbers.size(blob.size),
                plain(blob.name or ("dynamo's bytecode and guards" if blob.role == "trace" else "torch's entry")),
            )
        console.print(table)
        if len(manifest.blobs) > _MAX_BLOBS:
            console.print(f"... and {len(manifest.blobs) - _MAX_BLOBS} more")
        console.print()
    if not artifacts:
        for one in requests[:1]:
            console.print(
                _facts({"key": one.key, "program": one.program or "not named", "artifact": "none is stored any more"})
            )
            console.print()
    for environment in dict.fromkeys([row.environment for row, _ in artifacts] + [one.environment for one in requests]):
        fields = environments.get(environment)
        console.print(f"environment {environment[:_SHORT]}" + ("" if fields else ", which is forgotten"))
        console.print(
            _facts({name: value[:_MAX_FIELD] for name, value in sorted((fields or {}).items()) if value}, indent=2)
        )
        console.print()


def _what_it_is(manifest: Manifest) -> dict[str, str]:
    """Return a graph's guards; of a kernel its target, its options, and what a thread of it takes."""
    if manifest.kind == "graph":
        return {"guards": manifest.guards[:_MAX_GUARDS] or "none"}
    if manifest.kind == "trace":
        function, graphs = read_about_trace(manifest.guards)
        return {
            "is": "trace: what dynamo made of a function, not a graph",
            "function": function[:_MAX_FIELD],
            "graphs": ", ".join(graphs)[:_MAX_FIELD],
        }
    about = read_about(manifest.guards)
    stages = about.pop("stages", [])
    return {
        "is": "tuning" if manifest.kind == "timings" else manifest.kind,
        **{str(name).replace("_", " "): str(value)[:_MAX_FIELD] for name, value in about.items()},
        **({"stages": " ".join(map(str, stages))[:_MAX_FIELD]} if isinstance(stages, list) and stages else {}),
    }


def print_graph(graph: Digest, size: int, text: GraphText | KernelText) -> None:
    """Print a graph or a kernel: its code, inputs, symbols and settings."""
    console = _console()
    console.print(f"{'kernel' if isinstance(text, KernelText) else 'graph'} {graph[:_SHORT]}, {numbers.size(size)}")
    # As it is: neither wrapped nor coloured, so that it can be copied and piped.
    code = Text("\n").join(plain(line) for line in text.code().split("\n"))
    console.print(code, soft_wrap=True, highlight=False)
    if inputs := text.inputs():
        console.print()
        console.print(_inputs(inputs))
    if symbols := text.symbols():
        console.print()
        console.print(_symbols(symbols))
    if settings := text.settings():
        console.print("\noptions" if isinstance(text, KernelText) else "\nsettings that differ from the defaults")
        console.print(_facts(settings, indent=2))


_MAX_GUARDS = 400
_PIPE_WIDTH = 200
_MAX_BLOBS = 20
_MAX_FIELD = 160


def _console() -> Console:
    # In a pipe there is no edge to break lines at, and whoever reads there counts on whole ids.
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _facts(facts: Mapping[str, str], *, indent: int = 0) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, indent))
    for name, value in facts.items():
        table.add_row(plain(name), plain(value))
    return table


def _inputs(inputs: Sequence[InputText]) -> Table:
    table = Table("input", "is", "stride", "device", "", "from", box=None, pad_edge=False)
    for one in inputs:
        marks = [word for word, given in (("parameter", one.parameter), ("gradient", one.requires_grad)) if given]
        table.add_row(*map(plain, (one.name, one.kind, one.stride, one.device, ", ".join(marks), one.source)))
    return table


def _symbols(symbols: Sequence[SymbolText]) -> Table:
    table = Table("symbol", "was", "may be", "from", box=None, pad_edge=False)
    for one in symbols:
        table.add_row(*map(plain, (one.name, one.hint, one.range, one.source)))
    return table
