"""The fuzz's results as files: the JSON document, and a page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benches.harness.markdown import table


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `fuzz.json` and `fuzz.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fuzz.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "fuzz.md").write_text(page(document))


def page(document: Mapping[str, Any]) -> str:
    """Return the page."""
    methods = document["methods"]
    rows = [
        [
            name,
            str(tally["over_the_socket"]),
            str(tally["inside"]),
            str(tally["failures"]),
            ", ".join(f"{status} {count}" for status, count in tally["statuses"].items()),
            f"{tally['growth_mib']:+.1f}",
            f"{tally['growth_inside_mib']:+.1f}",
            f"{tally['steady_growth_mib']:+.1f}",
            f"{tally['growth_files']:+d}",
            f"{tally['slowest_s']:.1f}",
        ]
        for name, tally in methods.items()
    ]
    header = (
        "method", "over the socket", "inside", "failures", "answers", "MiB more", "MiB more, inside",
        "of it in the second half", "files more", "slowest, s",
    )  # fmt: skip
    fewer = [name for name, tally in methods.items() if tally["cases"] < document["cases_a_method"]]
    short = f"Fewer than asked for, for want of time: {', '.join(fewer)}.\n" if fewer else ""
    complaints = document["complaints"]
    verdict = (
        "Nothing failed." if not complaints else "**Failed:**\n\n" + "".join(f"    {text}\n" for text in complaints)
    )
    shared = f"; the machine was shared: {document['shared_machine']}" if document["shared_machine"] else ""
    rss, files, store = document["rss_mib"], document["open_files"], document["store"]
    return f"""# Fuzz of every RPC

{document["cases"]} calls, {document["cases_a_method"]} asked for of each method. {short}{verdict}

    {document["command"]}

{document["machine"]}{shared}

Requests are valid ones with something broken: fields of the wrong size or kind, digests that lie, manifests and graphs
broken inside, bytes that are no message, streams cut short or out of order, calls without a token, calls that are hung
up. `over the socket` went to a real daemon in a process of its own, many at a time, with a healthy caller in between
who must be served; `inside` went to the same handlers behind the same interceptors in one process. Answers are right
where a caller's mistake explains them: CANCELLED and DEADLINE_EXCEEDED are only so where the fuzz hung up. Each case
follows from seed, method and number (`--case` shows one). The readers of what travels inside the messages are fuzzed
by `tools/fuzz_wire.py`, and led by coverage by `tools/fuzz_coverage.py` (fuzz-wire.json, fuzz-coverage.json).

{table(header, rows)}
The daemon's process over all of it: {rss["before"]} MiB before, {rss["after"]} MiB after; {files["before"]} and
{files["after"]} open files; {document["daemon_cpu_s"]} s of processor time. Afterwards it was shut down by its own RPC,
and its store read by itself: {store["artifacts"]} artifacts, {store["unreadable"]} unreadable, {store["out_of_place"]}
out of place, {store["quarantined"]} in quarantine, {store["temporary_files"]} temporary files.
"""
