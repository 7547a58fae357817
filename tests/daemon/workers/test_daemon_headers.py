"""A worker that never gets a job builds torch's header once; the daemon keeps it and lends it to all workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from compiler_daemon.worker.kept_headers import is_kept, keep, lend
from tests.daemon.daemon_process import ENVIRONMENT, DaemonProcess, process_lives, wait_until


def made_in(temporary: Path, *names: str) -> Path:
    folder = temporary / "torchinductor_somebody" / "precompiled_headers"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_an_idle_daemon_has_the_header_made_once_and_by_a_worker_that_never_gets_a_job(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"headers_after_s": 0.2})
    daemon.handshake()
    daemon.compiled(key, b"ok")
    made = daemon.directory / "headers" / "made.h.gch"
    wait_until(made.exists, what="the header is kept")
    wait_until(lambda: is_kept(daemon.directory / "headers", ENVIRONMENT), what="it is known to be kept")
    maker = int(made.read_text())
    wait_until(lambda: not process_lives(maker), what="its maker has ended")

    assert maker not in daemon.jobs(key)
    assert made.stat().st_mode & 0o077 == 0
    made.unlink()
    daemon.kill()
    daemon.start()
    daemon.handshake()
    daemon.compiled(f"{key}-again", b"ok")
    daemon.compiled(f"{key}-a second later", b"ok 1.5")
    assert not made.exists()


def test_what_is_lent_is_found_where_torch_looks_and_is_not_the_workers_to_change(tmp_path: Path) -> None:
    made_in(tmp_path / "maker", "a.h", "a.h.gch", "a.lock")
    assert keep(tmp_path / "maker", tmp_path / "kept", "here") == 2

    folder = made_in(tmp_path / "worker", "b.h")
    lend(tmp_path / "kept", folder)

    assert sorted(path.name for path in folder.iterdir()) == ["a.h", "a.h.gch", "b.h"]
    assert os.readlink(folder / "a.h.gch") == str(tmp_path / "kept" / "a.h.gch")
    assert keep(tmp_path / "worker", tmp_path / "kept", "here") == 1  # what the worker only borrowed is not kept again


def test_nothing_kept_is_nothing_lent(tmp_path: Path) -> None:
    lend(tmp_path / "absent", tmp_path / "worker")

    assert list((tmp_path / "worker").iterdir()) == []
    assert not is_kept(tmp_path / "absent", "here")


def test_headers_of_a_few_environments_are_kept_and_the_oldest_go_with_their_sources(tmp_path: Path) -> None:
    for number in range(6):
        for path in (folder := made_in(tmp_path / str(number), f"{number}.h", f"{number}.h.gch")).iterdir():
            os.utime(path, (number, number))
        assert folder.exists()
        keep(tmp_path / str(number), tmp_path / "kept", str(number))

    left = {path.name for path in (tmp_path / "kept").iterdir() if path.suffix != ".kept"}
    assert left == {name for number in range(2, 6) for name in (f"{number}.h", f"{number}.h.gch")}
