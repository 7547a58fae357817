"""`ls` and `show`: what is kept, as the daemon says, or the store where none runs. Looking counts nothing as used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compile_wire.digest import Digest
from compile_wire.plain import plain
from compiler_daemon.cli.completion import KeyArgument, complete_program
from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation

if TYPE_CHECKING:
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.store import ArtifactRow


class SortBy(StrEnum):
    """Names what a list is ordered by."""

    created = "created"
    used = "used"
    size = "size"
    hits = "hits"
    seconds = "seconds"


class OriginName(StrEnum):
    """Who compiled an artifact."""

    worker = "worker"
    trainer = "trainer"
    replay = "replay"


class KindName(StrEnum):
    """What an artifact is."""

    graph = "graph"
    kernel = "kernel"
    tuning = "tuning"
    trace = "trace"


_ORDER: dict[SortBy, Callable[[ArtifactRow], float]] = {
    SortBy.created: lambda row: row.created,
    SortBy.used: lambda row: row.used,
    SortBy.size: lambda row: row.bytes,
    SortBy.hits: lambda row: row.hits,
    SortBy.seconds: lambda row: row.compile_s,
}


@contextmanager
def inventory_of(directory: Path | None, address: str | None) -> Iterator[InventoryClient]:
    """Yield what answers for the directory that these options name: its daemon, or its store where none serves.

    Calls to a daemon go over one connection, which ends with the block.
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.admin.inventory.offline import StoredInventory, nobody_serves, opened_store

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    if nobody_serves(place):
        with opened_store(place) as store:
            yield StoredInventory(store)
        return
    with OperatorClient.of(place) as operator:
        yield InventoryClient(operator)


@cli.command(name="ls")
def list_artifacts(
    program: Annotated[
        str, typer.Option(metavar="NAME", help="Only of this program.", autocompletion=complete_program)
    ] = "",
    environment: Annotated[str, typer.Option(metavar="ID", help="Only of this environment.")] = "",
    origin: Annotated[OriginName | None, typer.Option(help="Only what workers, trainers or a replay compiled.")] = None,
    kind: Annotated[
        KindName | None, typer.Option(help="Only torch's graphs, Triton's kernels, or what its autotuner measured.")
    ] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Only what is pinned.")] = False,
    sort: Annotated[SortBy, typer.Option(help="The latest, largest, most used first.")] = SortBy.created,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """List the artifacts that are kept, newest first.

    Example: compiler-daemon ls --program benches.multires --sort size
    """
    with inventory_of(directory, address) as client:
        rows = client.artifacts(environment=environment, program=program, origin=origin or "", pinned_only=pinned)
        kinds = client.kinds(rows)
    rows = [row for row in rows if kind in (None, kinds[row.digest])]
    rows.sort(key=_ORDER[sort], reverse=True)
    from compiler_daemon.admin.inventory.view import print_artifacts, short_ids

    ids = short_ids(rows)
    if as_json:
        print_result(
            json.dumps(
                {
                    "artifacts": [{"id": ids[row.digest], "kind": kinds[row.digest], **asdict(row)} for row in rows],
                    "count": len(rows),
                    "bytes": sum(row.bytes for row in rows),
                    "seconds": sum(row.compile_s for row in rows),
                    "seconds_saved": sum(row.compile_s * row.hits for row in rows),
                }
            )
        )
    else:
        print_artifacts(rows, ids, kinds)


@cli.command()
def show(
    key: KeyArgument,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Show one graph or kernel: its artifacts, environment, readable code with shapes, inputs, and settings.

    Of a kernel: target, warps, registers, shared memory, spills, stages; of what an autotuner measured: the winner.

    KEY is a key of torch's or Triton's, an id of `ls`, or the digest of a graph; any beginning that means
    one thing will do.

    Example: compiler-daemon show 3fa9
    """
    from compile_wire.graph.decode import decode_graph
    from compile_wire.kernel.about import read_about
    from compile_wire.kernel.environment import is_kernel_environment, kind_of
    from compile_wire.kernel.spec import decode_kernel
    from compile_wire.manifest import decode_manifest
    from compiler_daemon.admin.inventory.view import print_entry, print_graph
    from compiler_daemon.errors import DaemonError
    from compiler_daemon.insight.graph_text import GraphText
    from compiler_daemon.insight.kernel_text import KernelText

    with inventory_of(directory, address) as client:
        described, requests = client.describe(key)
        artifacts = [(one.row, decode_manifest(one.manifest)) for one in described]
        environments = {environment: view.fields for environment, view in client.environments().items()}
        graphs: dict[Digest, tuple[int, GraphText | KernelText]] = {}
        for digest, environment in {one.graph: one.environment for one in requests}.items():
            try:
                data = b"".join(client.graph(digest))
                is_kernel = is_kernel_environment(environments.get(environment, {}))
                text = KernelText(decode_kernel(data)) if is_kernel else GraphText(decode_graph(data))
                graphs[digest] = (len(data), text)
            except (DaemonError, ValueError) as error:
                typer.echo(f"graph {digest[:12]} cannot be shown: {plain(str(error))}", err=True)
    if as_json:
        named = {row.environment for row, _ in artifacts} | {one.environment for one in requests}
        print_result(
            json.dumps(
                {
                    "artifacts": [
                        {
                            "kind": kind_of(row.key, environments.get(row.environment, {})),
                            **asdict(row),
                            "guards": manifest.guards,
                            "about": read_about(manifest.guards),
                            "blobs": [asdict(blob) for blob in manifest.blobs],
                        }
                        for row, manifest in artifacts
                    ],
                    "requests": [asdict(one) for one in requests],
                    "environments": {name: environments[name] for name in sorted(named & environments.keys())},
                    "graphs": {
                        digest: {
                            "bytes": size,
                            "code": text.code(),
                            "inputs": [asdict(one) for one in text.inputs()],
                            "symbols": [asdict(one) for one in text.symbols()],
                            "settings": text.settings(),
                        }
                        for digest, (size, text) in graphs.items()
                    },
                }
            )
        )
        return
    print_entry(artifacts, requests, environments)
    for digest, (size, text) in graphs.items():
        print_graph(digest, size, text)
    if not graphs:
        tuned = bool(artifacts) and all(manifest.kind == "timings" for _, manifest in artifacts)
        traced = bool(artifacts) and all(manifest.kind == "trace" for _, manifest in artifacts)
        print_result(
            "timings are of a kernel's source, which is not kept"
            if tuned
            else "its graphs are kept under keys of their own"
            if traced
            else "no graph is kept of it"
        )
