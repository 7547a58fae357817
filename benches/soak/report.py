"""The soak's document: what is in it, what in it would be a failure, and its page."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benches.harness.markdown import table
from benches.soak.watch import Watch

MAX_GROWTH_MIB = 12.0
"""Between the ends of the first lives and those of the last. The allocator's arenas alone vary by half of that."""
MAX_CLIENT_GROWTH_MIB = 12.0
"""From the second quarter of a client's process to its last, median over the processes. By the second quarter it has
had artifacts of every size in hand, and the allocator keeps the room."""
_FEW = 5


def summary(
    watch: Watch,
    clients: Sequence[Mapping[str, Any]],
    audit: Mapping[str, Any],
    *,
    hangs: Sequence[str],
    exit_code: int,
    left_over_processes: int,
    settings: Mapping[str, Any],
    log: Sequence[str],
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the document."""
    counts: Counter[str] = Counter()
    for client in clients:
        counts.update(client["counts"])
    seen = watch.as_dict()
    ends = [life.rss_end_mib for life in watch.generations if life.seconds >= _FEW]
    synthetic = [client for client in clients if client["kind"] == "synthetic"]
    return {
        **made_by,
        "settings": settings,
        "kills": sum(life.killed for life in watch.generations),
        "client_failures": [failure for client in clients for failure in client["failures"]],
        "clients_failed": sum(client["failed"] > 0 for client in clients),
        "clients_ended": len(clients),
        "hangs": list(hangs),
        "counts": dict(sorted(counts.items())),
        "slowest_round_s": max((client.get("slowest_round_s", 0.0) for client in synthetic), default=0.0),
        "client_rss_mib": {str(client["number"]): client["rss_mib"] for client in synthetic},
        "client_growth_mib": _median([_growth(client["rss_mib"]) for client in synthetic]),
        "memory": {
            "end_of_first_lives_mib": _median(ends[:_FEW]),
            "end_of_last_lives_mib": _median(ends[-_FEW:]),
            "growth_mib": round(_median(ends[-_FEW:]) - _median(ends[:_FEW]), 1),
            "most_mib": max((life.rss_max_mib for life in watch.generations), default=0.0),
        },
        "files_max": max((life.files_max for life in watch.generations), default=0),
        "ready_s": {
            "median": _median([life.ready_s for life in watch.generations[1:]]),
            "most": max((life.ready_s for life in watch.generations[1:]), default=0.0),
        },
        **seen,
        "audit": dict(audit),
        "exit_code": exit_code,
        "left_over_processes": left_over_processes,
        "log": list(log)[:50],
    }


def complaints(document: Mapping[str, Any]) -> list[str]:
    """Return what is a failure."""
    audit = document["audit"]
    limit = round(audit["max_bytes"] / 2**20, 2)
    found = [*document["client_failures"], *document["hangs"], *document["counters_fallen"], *document["orphans"]]
    found += [f"the store had {size} bytes on the disk, more than its limit" for size in document["over_limit"]]
    found += [f"after the end: {text}" for text in audit["wrong"]]
    found += [f"the daemon's log: {line}" for line in document["log"]]
    checks = {
        "the daemon ended by itself": document["ended_by_itself"],
        "files are in quarantine": audit["quarantine_files"] + audit["quarantined"],
        "entries could not be used": document["counters"].get("entries_unusable", 0),
        "temporary files were left": audit["temporary_files"],
        "processes were left": document["left_over_processes"],
        "artifacts were lost": audit["out_of_place"]["lost_artifacts"] + audit["out_of_place"]["lost_blobs"],
        "clients found a bad digest": document["counts"].get("fallbacks.bad_digest", 0),
        "clients found a bad signature": document["counts"].get("fallbacks.bad_signature", 0),
        "clients found a malformed answer": document["counts"].get("fallbacks.malformed", 0),
        "clients found a fault of the daemon or their own": document["counts"].get("fallbacks.internal", 0)
        + document["counts"].get("unpublished.internal", 0),
        "requests were invalid": document["counts"].get("unpublished.invalid", 0),
    }
    found += [f"{text}: {count}" for text, count in checks.items() if count]
    if document["exit_code"] != 0:
        found.append(f"the daemon's last exit code is {document['exit_code']}")
    if document["clients_ended"] != document["settings"]["clients"]:
        found.append("not every client handed in its results")
    if not document["counts"].get("hits"):
        found.append("nothing was ever served: the soak shows nothing")
    if len(document["generations"]) > 2 * _FEW and document["memory"]["growth_mib"] > MAX_GROWTH_MIB:
        found.append(f"the daemon's memory grew by {document['memory']['growth_mib']} MiB")
    if len(document["generations"]) > 2 * _FEW and document["client_growth_mib"] > MAX_CLIENT_GROWTH_MIB:
        found.append(f"the clients' memory grew by {document['client_growth_mib']} MiB")
    if document["most_on_disk_mib"] > limit and not document["over_limit"]:
        found.append(f"{document['most_on_disk_mib']} MiB were on the disk, and the limit is {limit}")
    return found


def page(document: Mapping[str, Any]) -> str:
    """Return the page for people."""
    settings, counts, audit, memory = (document[name] for name in ("settings", "counts", "audit", "memory"))
    failures = document["complaints"]
    verdict = "Nothing failed." if not failures else "**Failed:** " + "; ".join(failures[:10])
    rows = [
        ["daemon killed (SIGKILL) and started again", f"{document['kills']} times"],
        ["wrong bytes, exceptions, hangs in clients", str(len(document["client_failures"]) + len(document["hangs"]))],
        ["lookups that brought an artifact", f"{counts.get('hits', 0)}"],
        ["bytes of them, each compared", f"{counts.get('bytes_checked', 0) / 2**30:.2f} GiB"],
        ["lookups that brought none", f"{counts.get('misses', 0)}"],
        ["rounds without an answer (the daemon was away)", f"{counts.get('without_answer', 0)}"],
        ["slowest round of a client", f"{document['slowest_round_s']:.1f} s"],
        ["artifacts published", f"{counts.get('published', 0)}"],
        ["trainers with torch, each compared with eager", f"{counts.get('trainers', 0)}"],
        ["their graphs: served, compiled by the daemon, compiled there",
         f"{counts.get('trainer_hits', 0)}, {counts.get('trainer_compiled_by_daemon', 0)}, "
         f"{counts.get('trainer_compiled_here', 0)}"],
        ["most bytes in the store, on the disk", f"{document['most_on_disk_mib']:.1f} MiB"],
        ["the store's hard limit", f"{settings['store_mib']:g} MiB"],
        ["all different artifacts together", f"{settings['catalogue_mib']} MiB"],
        ["files in quarantine", str(audit["quarantine_files"])],
        ["temporary files, processes left over", f"{audit['temporary_files']}, {document['left_over_processes']}"],
        ["artifacts (blobs) read and compared at the end", f"{audit['artifacts_read']} ({audit['blobs_read']})"],
        ["memory at the end of the first five lives, median", f"{memory['end_of_first_lives_mib']:.1f} MiB"],
        ["memory at the end of the last five lives, median", f"{memory['end_of_last_lives_mib']:.1f} MiB"],
        ["most memory at any moment", f"{memory['most_mib']:.1f} MiB"],
        ["most open files", str(document["files_max"])],
        ["a client's memory, second quarter to last, median", f"{document['client_growth_mib']:+.1f} MiB"],
        ["from start to `ready` after a kill: median, most",
         f"{document['ready_s']['median']:.2f} s, {document['ready_s']['most']:.2f} s"],
        ["counters that fell within a life, or lost what was saved", str(len(document["counters_fallen"]))],
        ["most of the counts' last seconds that a kill cost", f"{document['most_lost_s']:.1f} s"],
    ]  # fmt: skip
    reasons = [[name, str(count)] for name, count in counts.items() if name.startswith(("fallbacks.", "unpublished."))]
    lives = [
        [
            str(number),
            f"{life['seconds']:.0f}",
            f"{life['ready_s']:.2f}",
            f"{life['rss_early_mib']:.1f}",
            f"{life['rss_end_mib']:.1f}",
            str(life["files_max"]),
            f"{life['store_mib']:.1f}",
            str(life["artifacts"]),
            f"{life['cpu_s']:.1f}",
        ]
        for number, life in enumerate(document["generations"], start=1)
    ]
    shared = f"\nThe machine was shared: {document['shared_machine']}\n" if document["shared_machine"] else ""
    header = ("life", "s", "ready s", "MiB early", "MiB at its end", "files", "store MiB", "artifacts", "CPU s")
    return f"""# Soak

{settings["clients"]} client processes for {settings["minutes"]:g} minutes against one daemon whose store is at its \
quota, and a SIGKILL every {settings["kill_every_s"]:g} s. {verdict}

    {document["command"]}

{document["machine"]}
{shared}
{table(("", "seen"), rows)}
What clients counted as reasons to go without the daemon. None of it reaches a trainer; `absent`, `unavailable` and
`breaker` are the kills.

{table(("reason", "times"), reasons)}
## Each life of the daemon

{table(header, lives)}"""


def _growth(sizes: Sequence[float]) -> float:
    quarter = len(sizes) // 4
    return _median(sizes[-quarter:]) - _median(sizes[quarter : 2 * quarter]) if quarter else 0.0


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2) if values else 0.0
