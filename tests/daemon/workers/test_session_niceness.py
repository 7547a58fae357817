"""How nice a session is, as kernels say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler_daemon.workers.session_niceness import session_niceness


@pytest.mark.parametrize(
    ("text", "niceness"),
    [
        ("/autogroup-5611 nice 0\n", 0),
        ("/autogroup-31 nice -5\n", -5),
        ("", None),
        ("\n", None),
        ("/autogroup-31 nice\n", None),
    ],
)
def test_a_session_is_as_nice_as_its_file_says_and_has_no_niceness_where_the_file_is_empty(
    tmp_path: Path, text: str, niceness: int | None
) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "autogroup").write_text(text)
    assert session_niceness(12, tmp_path) == niceness


def test_a_kernel_that_does_not_group_by_session_says_no_niceness(tmp_path: Path) -> None:
    assert session_niceness(12, tmp_path) is None
