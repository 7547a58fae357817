"""The program owns the logger `compile_client`, too: its handlers and level are obeyed, and nothing is said twice."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging, sys
{before}
from compile_client.log import Notices, say, set_up_logging
set_up_logging({level})
say("one line", event="graph", key="k", seconds=1.5)
Notices().once("kind", "a trouble", event="trouble", reason="absent")
"""


def said(before: str = "", level: str = "None") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before, level=level)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def test_without_handlers_lines_go_to_standard_error_as_they_are() -> None:
    assert said() == "compile daemon: one line\ncompile daemon: a trouble\n"


def test_a_handler_on_the_logger_itself_gets_the_records_and_nothing_is_written_besides() -> None:
    handler = "h = logging.StreamHandler(); h.setFormatter(logging.Formatter('mine %(message)s'))\n"

    out = said(handler + "logging.getLogger('compile_client').addHandler(h)")

    assert out == "mine compile daemon: one line\nmine compile daemon: a trouble\n"


def test_a_program_with_logging_set_up_hears_each_line_once() -> None:
    out = said("logging.basicConfig(format='root %(message)s', level=logging.INFO)")

    assert out == "root compile daemon: one line\nroot compile daemon: a trouble\n"


def test_a_level_of_the_program_stays() -> None:
    assert said("logging.getLogger('compile_client').setLevel(logging.WARNING)") == "compile daemon: a trouble\n"


def test_a_level_that_is_asked_for_wins() -> None:
    before = "logging.getLogger('compile_client').setLevel(logging.DEBUG)"

    assert said(before, "logging.ERROR") == ""


def test_records_carry_what_they_speak_of() -> None:
    handler = (
        "class H(logging.Handler):\n"
        "    def emit(self, r):\n"
        "        print(sorted((k, v) for k, v in vars(r).items() if k.startswith('daemon_')), file=sys.stderr)\n"
        "logging.getLogger('compile_client').addHandler(H())"
    )

    first, second = said(handler).splitlines()

    assert first == "[('daemon_event', 'graph'), ('daemon_key', 'k'), ('daemon_seconds', 1.5)]"
    assert second == "[('daemon_event', 'trouble'), ('daemon_reason', 'absent')]"
