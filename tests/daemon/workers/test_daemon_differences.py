"""A trainer that is refused is told which of the two to change."""

from __future__ import annotations

import pytest

from compiler_daemon.workers.differences import other_environment

HERE = {"compiler": "g++ 12", "torch": "2.13.0", "torch_key": "a", "cpu_capability": "AVX512"}


@pytest.mark.parametrize(
    ("worker", "trainer", "words"),
    [
        ({}, {"compiler": ""}, "this process finds no C++ compiler, and the worker does. Put it on the trainer's PATH"),
        ({"compiler": ""}, {}, "the worker finds no C++ compiler, and this process does. Start the daemon with it"),
        ({}, {"compiler": "g++ 13"}, "they find two C++ compilers"),
        ({"torch": "2.14.1", "torch_key": "b"}, {}, "its torch was changed since one of them has started"),
        ({}, {"cpu_capability": "AVX2"}, "they differ in cpu_capability, which a variable of the trainer's shell"),
    ],
)
def test_what_differs_is_said_with_what_to_do(worker: dict[str, str], trainer: dict[str, str], words: str) -> None:
    said = other_environment(HERE | worker, HERE | trainer)

    assert said.startswith("the daemon's worker runs in another environment than this process: ")
    assert words in said
