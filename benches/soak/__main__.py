"""Soak: many clients, a store at its quota, and a daemon that is killed every minute.

    python -m benches.soak [--minutes 30] [--clients 16] [--kill-every 60] [--out docs/trust]

Each client process looks up, publishes, reads and now and then asks for a compile, with the client's own code; it knows
every byte that it must be served. One or two of them start real trainers with torch. A supervisor ends the daemon with
SIGKILL every minute, starts it again, and watches it from outside: memory, open files, bytes on the disk, counters.

Fails (exit code 1) on a wrong byte, an exception or a hang in a client, a trainer that failed, a store over its limit,
a file in quarantine, memory that grows, a counter that falls, anything left behind. That a client goes without while
the daemon is away is no failure. Talk goes to stderr; the last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, left_over_workers
from benches.harness.machine import machine_line
from benches.harness.markdown import command
from benches.harness.output import folder, last_line, say
from benches.harness.processes import run_bench, run_with_parent
from benches.harness.synthetic import Catalogue
from benches.soak.audit import audit
from benches.soak.clients import ClientPlan, run_client
from benches.soak.report import complaints, page, summary
from benches.soak.watch import Watch

_GONE_S = 60.0
"""For what a killed daemon leaves running to notice."""
_SAY_EVERY_S = 30.0


def main(argv: list[str] | None = None) -> int:
    """Run the soak; return the exit code."""
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as text:
        document = run(Path(text), options)
    document["complaints"] = complaints(document)
    for complaint in document["complaints"]:
        say(f"FAILED: {complaint}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "soak.json").write_text(json.dumps(document, indent=1) + "\n")
        (options.out / "soak.md").write_text(page(document))
    last_line(document)
    return 1 if document["complaints"] else 0


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it in a folder; return what was seen."""
    catalogue = Catalogue(name=f"soak-{options.seed}", keys=options.keys, big_every=97)
    store_bytes = int(options.store_mib * 2**20)
    daemon = ServedDaemon(folder, "--store-gib", str(options.store_mib / 1024), "--workers", "1")
    daemon.start()
    context = multiprocessing.get_context("spawn")
    beats = context.Array("d", options.clients, lock=False)
    stop, results = context.Event(), context.Queue()
    clients = [
        context.Process(
            target=run_with_parent,
            args=(
                os.getpid(),
                run_client,
                ClientPlan(
                    number=number,
                    seed=options.seed,
                    directory=daemon.directory,
                    catalogue=catalogue,
                    rounds_per_s=options.rounds,
                    graph_timeout_s=options.graph_timeout,
                    trainer_every_s=options.trainer_every if number < options.trainers else 0.0,
                ),
                beats,
                stop,
                results,
            ),
        )
        for number in range(options.clients)
    ]
    watch = Watch(daemon, store_bytes=store_bytes)
    hangs: list[str] = []
    try:
        for client in clients:
            client.start()
        _supervise(daemon, watch, beats, clients, options, hangs)
        stop.set()
        documents = _collect(clients, results, options, hangs)
        watch.look()
        watch.end_generation(killed=False)
        code = daemon.stop()
    finally:
        stop.set()
        for client in clients:
            if client.is_alive():
                client.kill()
        if not daemon.has_ended():
            daemon.stop()
    left = _left_over(daemon)
    return summary(
        watch,
        documents,
        audit(daemon, catalogue, store_bytes),
        hangs=hangs,
        exit_code=code,
        left_over_processes=left,
        settings={
            "minutes": options.minutes,
            "clients": options.clients,
            "of_which_trainers": options.trainers,
            "kill_every_s": options.kill_every,
            "store_mib": options.store_mib,
            "keys": options.keys,
            "catalogue_mib": round(sum(catalogue.size(number) for number in range(options.keys)) / 2**20),
            "seed": options.seed,
        },
        log=daemon.log_lines(" ERROR ", " CRITICAL ", "Traceback", "UNKNOWN", "INTERNAL"),
        made_by={"command": command(), "machine": machine_line(), "shared_machine": options.shared},
    )


def _supervise(
    daemon: ServedDaemon,
    watch: Watch,
    beats: Any,
    clients: list[SpawnProcess],
    options: argparse.Namespace,
    hangs: list[str],
) -> None:
    begin = time.monotonic()
    end = begin + options.minutes * 60
    next_kill, next_word = begin + options.kill_every, begin + _SAY_EVERY_S
    while (now := time.monotonic()) < end:
        watch.look()
        for number, due in enumerate(list(beats)):
            if due and now > due:
                hangs.append(f"client {number} hangs")
                beats[number] = 0.0
        for number, client in enumerate(clients):
            if client.exitcode not in (None, 0):
                raise RuntimeError(f"client {number} ended with exit code {client.exitcode}")
        if now >= next_kill:
            next_kill += options.kill_every
            watch.end_generation(killed=True)
            watch.restarted(daemon.start())
        if now >= next_word:
            next_word += _SAY_EVERY_S
            say(f"{(now - begin) / 60:5.1f} min  {watch.line()}")
        time.sleep(1.0)


def _collect(
    clients: list[SpawnProcess], results: Any, options: argparse.Namespace, hangs: list[str]
) -> list[dict[str, Any]]:
    """Wait for the clients to end by themselves; each must, within what its last round may take."""
    limit = time.monotonic() + options.graph_timeout + (330 if options.trainers else 30)
    documents: list[dict[str, Any]] = []
    while len(documents) < len(clients) and time.monotonic() < limit:
        if not results.empty():
            documents.append(results.get())
        else:
            time.sleep(0.05)
    for client in clients:
        client.join(10)
    if len(documents) < len(clients):
        hangs.append(f"{len(clients) - len(documents)} clients did not end")
    return sorted(documents, key=lambda document: int(document["number"]))


def _left_over(daemon: ServedDaemon) -> int:
    limit = time.monotonic() + _GONE_S
    while (left := left_over_workers(daemon.directory)) and time.monotonic() < limit:
        time.sleep(0.2)
    return len(left)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16, help="processes (default 16)")
    parser.add_argument(
        "--trainers", type=int, default=2, help="how many of the clients start real trainers (default 2)"
    )
    parser.add_argument("--trainer-every", type=float, default=45.0, help="seconds from trainer to trainer")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds from SIGKILL to SIGKILL")
    parser.add_argument("--store-mib", type=float, default=128.0, help="the store's hard limit")
    parser.add_argument("--keys", type=int, default=2500, help="how many different artifacts there are")
    parser.add_argument("--rounds", type=float, default=0.8, help="rounds a second and client, without the wait")
    parser.add_argument("--graph-timeout", type=float, default=60.0, help="deadline of one graph, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shared", default="", help="what else ran on the machine, for the report")
    parser.add_argument("--out", type=folder, help="folder for soak.json and soak.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_bench(main)
