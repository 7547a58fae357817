from __future__ import annotations

from typing import Any

import pytest

from benches.corpus.registry import whole_corpus
from benches.corpus.summary import complaints, outcome, summary, traced_totals
from tools import corpus_page


def row(**changes: Any) -> dict[str, Any]:
    """Return a row in which all is well: four graphs, all compiled by the daemon, and found there again."""
    return {
        "name": "llama",
        "model": "llama",
        "package": "transformers 5",
        "traits": "",
        "graphs": 4,
        "by_daemon": 4,
        "local": 0,
        "here": 0,
        "traced_again": 0,
        "uncacheable": 0,
        "refused": {},
        "fallbacks": {},
        "reasons": [],
        "uncached": [],
        "compared": 8,
        "differing": {"cold": [], "warm": []},
        "warm_graphs": 4,
        "warm_hits": 4,
        "warm_builds": 0,
        "warm_here": 0,
        "warm_refused": {},
        "warm_fallbacks": {},
        "seconds": {"plain": 30.0, "cold": 40.0, "warm": 10.0},
    } | changes


def test_a_corpus_in_which_all_is_well_has_nothing_to_complain_of() -> None:
    found = summary([row(), row(name="llama-bf16")])

    assert complaints(found) == []
    assert (found["share"], found["entries"], found["models"], found["graphs"]) == (1.0, 2, 1, 8)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"differing": {"cold": [], "warm": ["train 16: loss"]}}, "numbers differ"),
        ({"by_daemon": 3, "here": 1, "refused": {"not_carried": 1}}, "compiled by the daemon"),
        ({"warm_hits": 3, "warm_here": 1}, "second start"),
        ({"warm_hits": 4, "warm_builds": 2}, "second start"),
        ({"failed": "cold: exit code 1"}, "failed"),
    ],
)
def test_what_is_not_as_it_should_be_is_said_with_the_name_of_its_entry(bad: dict[str, Any], word: str) -> None:
    (line,) = complaints(summary([row(name="well"), row(**bad)]))

    assert word in line
    assert "llama" in line or "%" in line


def test_a_graph_that_torch_caches_nowhere_counts_neither_for_the_daemon_nor_against_it() -> None:
    found = summary(
        [row(by_daemon=3, here=1, uncacheable=1, refused={"uncacheable": 1}, warm_hits=3, warm_here=1,
             warm_refused={"uncacheable": 1}, warm_builds=2)]
    )  # fmt: skip

    assert found["share"] == 1.0
    assert complaints(found) == []


def test_a_graph_that_torch_traced_again_is_no_graph() -> None:
    found = summary([row(graphs=6, traced_again=2, warm_graphs=6)])

    assert (found["graphs"], found["warm_graphs"], found["warm_hits"]) == (4, 4, 4)
    assert complaints(found) == []


def test_an_outcome_names_what_differs() -> None:
    said = outcome(row(differing={"cold": ["train 16: loss"], "warm": []}, refused={"not_carried": 1}))

    assert "NOT EQUAL: train 16: loss" in said
    assert "1 not_carried" in said


def test_the_page_has_each_refusal_with_its_node() -> None:
    rows = [
        row(by_daemon=3, here=1, refused={"not_carried": 1}, reasons=[{"reason": "not_carried", "why": "node a_b"}])
    ]
    machine = {"torch": "2.13.0", "python": "3.11", "cpu": "a", "cores": 2}
    graphs = [{"outcome": "taken", "why": ""}, {"outcome": "refused", "why": "node c_d"}]
    looked = {"name": "bert", "model": "bert", "package": "transformers", "traits": "", "graphs": graphs}

    text = corpus_page.page(
        [{"machine": machine, **traced_totals([looked]), "rows": [looked]}],
        [{"summary": summary(rows), "machine": machine, "rows": rows}],
    )

    assert "- llama, 1: not_carried: node a_b" in text
    assert "- bert, 1: node c_d" in text
    assert "75.0%" in text


def test_the_page_is_of_the_results_that_are_kept() -> None:
    assert corpus_page.is_up_to_date()


def test_the_corpus_has_thirty_models_and_two_sizes_of_each() -> None:
    corpus = whole_corpus()

    assert len({entry.model for entry in corpus.values()}) >= 30
    assert all(entry.sizes[0] != entry.sizes[1] and (entry.train or entry.infer) for entry in corpus.values())
    packages = {entry.package for entry in corpus.values()}
    assert packages >= {"transformers", "diffusers", "x-transformers", "timm", "k-diffusion"}
    assert "denoising-diffusion-pytorch" in packages
    assert len({entry.model for entry in corpus.values() if entry.package == "timm"}) >= 10
