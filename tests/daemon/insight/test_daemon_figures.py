"""Every view of the same figure says the same: `ls`, `stats`, `status`, the page and the metrics after a mixed day."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, publish
from tests.daemon.page_samples import PageVisitor

Start = Callable[..., DaemonProcess]


def a_mixed_day(daemon: DaemonProcess) -> None:
    daemon.handshake()
    publish(daemon, "alpha", b"entry a", program="sweep")
    publish(daemon, "alpha", b"entry a with other guards", program="sweep")  # a lookup finds both, and is one hit
    publish(daemon, "beta", b"entry b", program="sweep")
    for key in ("alpha", "alpha", "beta", "absent"):
        daemon.lookup(key)
    daemon.compiled("gamma", b"ok")
    daemon.compiled("gamma", b"ok")  # stored by then: what `warm` asks for is no lookup, and no hit
    daemon.lookup("gamma")


def test_all_views_agree_after_a_mixed_day(start_daemon: Start) -> None:
    daemon = start_daemon(daemon={"page_port": 0})
    a_mixed_day(daemon)
    page = PageVisitor(daemon)

    listed, stats = as_json(daemon.directory, "ls"), as_json(daemon.directory, "stats")
    status = as_json(daemon.directory, "status")
    metrics = dict(re.findall(r"^(\S+) ([0-9.e+-]+)$", page.ask("/metrics").text, re.MULTILINE))
    shown = json.loads(page.ask("/status.json").text)

    hits = [
        sum(row["hits"] for row in listed["artifacts"]),
        stats["hits"],
        status["counters"]["lookup_hits"],
        int(float(metrics['compile_daemon_lookups_total{result="hit"}'])),
    ]
    assert hits == [4] * 4
    assert stats["misses"] == status["counters"]["lookup_misses"] == 1
    saved = [listed["seconds_saved"], stats["seconds_saved"], float(metrics["compile_daemon_saved_seconds_total"])]
    assert saved[1] == saved[2] == int(saved[0]) > 0  # counters have whole seconds; what is left over follows
    sizes = [listed["bytes"], stats["store_bytes"], int(float(metrics["compile_daemon_store_bytes"]))]
    artifacts = [listed["count"], stats["artifacts"], status["artifacts"]]
    assert artifacts == [4] * 3
    assert sizes[1:] == [status["store_bytes"]] * 2
    assert shown["status"]["counters"]["lookup_hits"] == 4
    said = cli(daemon.directory, "stats").stdout
    assert re.search(r"hits\s+4 \(80% of 5\)", said)
