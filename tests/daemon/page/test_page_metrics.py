from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from compiler_daemon import metrics
from compiler_daemon.http.prometheus import expose, families
from compiler_daemon.insight.status import StatusView
from compiler_daemon.tier.breaker import BreakerView, State
from compiler_daemon.tier.tier import TierView
from tests.daemon.daemon_process import wait_until
from tests.daemon.page_samples import PageVisitor

ROOT = Path(__file__).parents[3]
NOTHING = StatusView(
    pid=1, uptime_s=1, address="", directory="", draining=False, workers=(), queued=0, artifacts=0, blobs=0,
    store_bytes=0, store_max_bytes=1, rss_bytes=0, counters={}, quarantined=(), sandbox="",
)  # fmt: skip
NAME = re.compile(r"\bcompile_daemon_[a-z_]+")


def scraped(page: PageVisitor) -> dict[str, float]:
    """Return the page's metrics, by name and labels."""
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(page.ask("/metrics").text)
        for sample in family.samples
    }


def series_names() -> set[str]:
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families()}


def test_prometheus_own_reader_reads_what_happened(page: PageVisitor, key: str) -> None:
    before = scraped(page)
    page.daemon.lookup(key)
    page.daemon.compiled(key, b"ok")
    page.daemon.lookup(key)
    page.daemon.compiled(f"{key}-refused", b"refuse UNSUPPORTED")

    after = scraped(page)

    def grown(name: str, **labels: str) -> float:
        series = f"{name}{json.dumps(labels)}"
        return after[series] - before.get(series, 0)

    assert grown("compile_daemon_lookups_total", result="hit") == 1
    assert grown("compile_daemon_lookups_total", result="miss") == 1
    assert grown("compile_daemon_compiles_total", outcome="done") == 1
    assert grown("compile_daemon_compiles_refused_total", reason="unsupported") == 1
    assert grown("compile_daemon_saved_seconds_total") > 0
    assert after["compile_daemon_store_bytes{}"] > 0


def test_metrics_agree_with_status_and_are_kept_in_one_place(page: PageVisitor) -> None:
    def agree() -> bool:
        counters = page.daemon.status().counters
        samples = scraped(page)
        return (
            samples['compile_daemon_lookups_total{"result": "hit"}'] == counters.get("lookup_hits", 0)
            and samples["compile_daemon_handshakes_total{}"] == counters["handshakes"]
        )

    assert wait_until(agree, what="both say the same")


def test_every_counter_of_the_daemon_is_exposed() -> None:
    names = {
        value
        for name, value in vars(metrics).items()
        if name.isupper() and isinstance(value, str) and not value.startswith("store_")
    }
    view = families_view({name: number for number, name in enumerate(sorted(names), start=1000)})
    values = {sample.value for family in view for sample in family.samples}
    sums = {metrics.LOOKUPS, metrics.COMPILES_REFUSED, metrics.TIER_REJECTED}

    missing = [name for number, name in enumerate(sorted(names), start=1000) if number not in values]

    assert set(missing) == sums


def tier_view(counters: dict[str, int], *, state: State = "closed") -> TierView:
    reads = BreakerView(state=state, failures=0, opened=3, retry_in_s=0.0, reason="", kind="")
    writes = BreakerView(state="closed", failures=0, opened=0, retry_in_s=0.0, reason="", kind="")
    return TierView(
        address="redis://lab:***@cache:6379/0", reads=reads, writes=writes, budget_s=0.3, waiting_bytes=7,
        counts={name: counters.get(name, 0) for name in metrics.OF_ONE_TIER},
        rejected={"unknown_signer": 5}, rejections=["signed by stranger-1"],
    )  # fmt: skip


def test_each_tier_has_series_of_its_own_with_reasons_as_labels() -> None:
    view = replace(NOTHING, tiers=[tier_view({metrics.TIER_HITS: 4}, state="open")])
    counters = {"tier_rejected": 5, "tier_rejected.unknown_signer": 5, metrics.TIER_HITS: 4, metrics.TIER_MERGED: 2}

    given = text_string_to_metric_families(expose(replace(view, counters=counters), version="1").decode())
    samples = {
        (sample.name.removeprefix("compile_daemon_"), *sorted(set(sample.labels.values()) - {view.tiers[0].address})):
        sample.value
        for family in given for sample in family.samples if "tier" in sample.name or "events" in sample.name
    }  # fmt: skip

    assert samples["tier_lookups_total", "hit"] == 4
    assert samples["tier_rejected_total", "unknown_signer"] == 5
    assert (samples["tier_paused", "reads"], samples["tier_paused", "writes"]) == (1, 0)
    assert (samples["tier_pauses_total", "reads"], samples["tier_waiting_bytes",]) == (3, 7)
    assert samples["tier_compiles_total", "merged"] == 2
    assert not any(name == "events_total" for name, *_ in samples), "what a tier's own series say is said once"


def families_view(counters: dict[str, int]) -> list[Any]:
    view = replace(NOTHING, counters=counters, tiers=[tier_view(counters)])
    return list(text_string_to_metric_families(expose(view, version="1").decode()))


def test_the_document_names_exactly_what_the_endpoint_gives(page: PageVisitor) -> None:
    documented = set(NAME.findall((ROOT / "docs/metrics.md").read_text()))
    given = {
        sample.name
        for family in text_string_to_metric_families(page.ask("/metrics").text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }

    assert documented == series_names()
    assert given <= documented
    ended = subprocess.run([sys.executable, ROOT / "tools/metrics_tables.py", "--check"], check=False)
    assert ended.returncode == 0


def expressions(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [text for name in ("expr", "query") if isinstance(text := value.get(name), str)]
        return own + [text for part in value.values() for text in expressions(part)]
    if isinstance(value, list):
        return [text for part in value for text in expressions(part)]
    return []


def test_every_expression_of_the_dashboard_names_metrics_and_labels_that_exist() -> None:
    dashboard = json.loads((ROOT / "docs/grafana/compile-daemon.json").read_text())
    labels = {label for family in families() for label in family._labelnames} | {"instance"}
    found = [text for text in expressions(dashboard) if text != "prometheus"]

    assert len(found) > 15
    for text in found:
        names = NAME.findall(text)
        assert names, text
        assert set(names) <= series_names(), text
        for group in re.findall(r"by \(([^)]*)\)", text):
            assert set(group.split(", ")) <= labels, text
        for label in re.findall(r"([a-z_]+)=~?\"", text):
            assert label in labels, text
        assert text.count("(") == text.count(")")


@pytest.mark.parametrize("field", ["title", "uid", "panels", "templating", "schemaVersion"])
def test_the_dashboard_is_of_the_form_that_grafana_imports(field: str) -> None:
    dashboard = json.loads((ROOT / "docs/grafana/compile-daemon.json").read_text())
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]

    assert dashboard[field]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len(set(places)) == len(places)
    assert all(x + width <= 24 for x, _, width, _ in places)
