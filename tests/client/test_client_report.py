from __future__ import annotations

import json
import os
import threading
import tomllib
from pathlib import Path

import pytest

import compile_client
from compile_client.reporting.counters import Counters, ReportFile
from compile_client.reporting.summary import Summary


def read(path: Path) -> dict[str, object]:
    fields: dict[str, object] = json.loads(path.read_text())
    return fields


def eventful() -> Counters:
    report = Counters()
    report.count_graph()
    return report


def test_a_fresh_report_has_every_counter_at_zero() -> None:
    fields = Counters().as_dict()

    assert {name: value for name, value in fields.items() if name != "pid"} == {
        "graphs": 0,
        "hits_local": 0,
        "hits": 0,
        "compiled_by_daemon": 0,
        "compiled_here": 0,
        "deferred": 0,
        "traced_again": 0,
        "verified": 0,
        "mismatches": 0,
        "unsettled": 0,
        "published": 0,
        "cpp_builds": 0,
        "triton_compiles": 0,
        "kernels": 0,
        "kernel_hits": 0,
        "kernels_by_daemon": 0,
        "kernels_here": 0,
        "tunings": 0,
        "tuning_hits": 0,
        "refused": {},
        "kernels_refused": {},
        "fallbacks": {},
        "unpublished": {},
        "seconds_saved": 0.0,
        "seconds_waited": 0.0,
        "phases": dict.fromkeys(("connect", "key", "lookup", "transfer", "install", "load", "wait", "capture"), 0.0),
    }


def test_the_line_says_what_happened() -> None:
    report = Counters()
    for _ in range(3):
        report.count_graph()
        report.count_hit(saved_s=13.7)

    assert report.line() == "3 graphs: 3 from the daemon's store (saved 41 s)"


def test_the_line_leaves_out_what_did_not_happen_and_tells_of_what_was_interrupted() -> None:
    report = Counters()
    for _ in range(3):
        report.count_graph()
    report.count_daemon_compile()
    report.count_fallback("timeout")

    assert report.line() == "3 graphs: 1 compiled by the daemon, 2 interrupted (timeout 1)"
    assert report.line(ended=False) == "3 graphs: 1 compiled by the daemon, 2 under way (timeout 1)"


def test_the_summary_is_a_line_and_in_a_notebook_a_table_that_holds_no_markup_of_others() -> None:
    report = Counters()
    report.count_graph()
    report.count_hit(saved_s=13.7)
    report.count_refusal("<script>")

    summary = Summary(report.line(), report.as_dict())

    assert str(summary) == "1 graph: 1 from the daemon's store (saved 14 s) (<script> 1)"
    html = summary._repr_html_()
    assert '<td style="text-align:left">from the daemon&#x27;s store</td><td style="text-align:right">1</td>' in html
    assert "not taken: &lt;script&gt;" in html
    assert "compiled here" not in html


def test_line_and_table_have_the_same_words_for_everything_that_became_of_a_graph_or_a_kernel() -> None:
    report = Counters()
    for _ in range(8):
        report.count_graph()
    for count in (
        report.count_local_hit,
        report.count_daemon_compile,
        report.count_local_compile,
        report.count_deferred,
        report.count_traced_again,
        report.count_published,
    ):
        count()
    report.count_hit(saved_s=1.0)
    report.count_kernel("hits")
    report.count_kernel("by_daemon")
    report.count_kernel("here")

    line, rows = report.line(), dict(Summary(report.line(), report.as_dict()).rows())

    graphs, kernels = line.split("; ")
    told = [part.split(" ", 1)[1].split(" (")[0] for part in graphs.split(": ")[1].split(", ")]
    of_kernels = [part.split(" ", 1)[1].split(" (")[0] for part in kernels.split(": ")[1].split(", ")]
    assert len(told) == 8  # with the one that is interrupted
    assert {words for words in told if words != "interrupted"} <= set(rows)
    assert {f"kernels {words}" for words in of_kernels} <= set(rows)


def test_a_summary_of_nothing_says_so() -> None:
    assert str(compile_client.summary()) == "nothing was compiled yet"
    assert compile_client.summary()._repr_html_() == "<p>nothing was compiled yet</p>"


def test_the_client_has_the_packages_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert compile_client.__version__ == project["version"]


def test_the_line_says_why_something_was_compiled_here() -> None:
    report = Counters()
    for _ in range(4):
        report.count_graph()
    report.count_local_hit()
    report.count_daemon_compile()
    report.count_local_compile()
    report.count_local_compile()
    report.count_refusal("unsupported")
    report.count_fallback("timeout")
    report.count_published()

    assert report.line() == (
        "4 graphs: 1 from torch's own cache, 1 compiled by the daemon, "
        "2 compiled here (timeout 1, unsupported 1), 1 published"
    )


def test_there_is_no_line_where_nothing_happened() -> None:
    assert Counters().line() == ""


def test_no_count_is_lost_between_threads() -> None:
    report = Counters()

    def count() -> None:
        for _ in range(2000):
            report.count_graph()
            report.count_fallback("absent")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert report.graphs == 8000
    assert report.as_dict()["fallbacks"] == {"absent": 8000}


def test_a_process_writes_its_file_even_where_nothing_happened(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"

    ReportFile(path, {}).write(Counters())

    assert read(path)["graphs"] == 0
    assert os.listdir(path.parent) == ["report.json"]


def test_the_file_of_an_earlier_run_is_gone_when_a_process_starts(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    file = ReportFile(path, {})
    assert not path.exists()

    file.write(Counters())
    assert read(path)["graphs"] == 0


def test_two_processes_with_one_file_keep_both_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    first, second = ReportFile(path, {}), ReportFile(path, {})

    second.write(eventful())
    first.write(Counters())

    assert read(path)["graphs"] == 1
    assert read(tmp_path / f"report.json.{os.getpid()}")["graphs"] == 0


def test_a_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    env: dict[str, str] = {}
    parent = ReportFile(path, env)
    child_env = {name: value.replace(str(os.getpid()), "1") for name, value in env.items()}
    child = ReportFile(path, child_env)

    child.write(eventful())
    parent.write(Counters())

    assert read(path)["graphs"] == 0
    assert read(tmp_path / f"report.json.{os.getpid()}")["graphs"] == 1


def test_a_child_that_did_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    env: dict[str, str] = {}
    ReportFile(path, env)
    child = ReportFile(path, {name: value.replace(str(os.getpid()), "1") for name, value in env.items()})

    child.write(Counters())

    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_said_and_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    ReportFile(tmp_path / "file" / "report.json", {}).write(Counters())

    assert "report cannot be written" in caplog.text


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()

    ReportFile(pipe, {}).write(Counters())
    reader.join(10)

    assert json.loads(got[0])["graphs"] == 0
