"""Takes the pictures of the web page that the documents show, from a real daemon that real trainers have used.

    python tools/screenshots.py                  # a quarter of an hour of trainers, then docs/images/page-*.png
    python tools/screenshots.py --dir DIR        # of a daemon that runs already

Needs Chromium (`--browser PATH`) and the package playwright. Trainers are those of the tests, each in a process of its
own with empty caches; the last one has graphs that are not stored, so that the picture shows them compiling.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benches.harness.processes import run_bench

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_TRAINERS = IMAGES.parents[1] / "tests" / "e2e" / "trainers"
_RUNS = ("perceptron.py 4", "perceptron.py 4 6", "guarded.py 8", "perceptron.py 4 6", "perceptron.py 8", "guarded.py 8")
_LAST = "perceptron.py 4 10 12 14 16 18"
_READY_S = 120.0
_BUSY_S = 300.0


def main() -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="directory of a daemon that runs already, with a page")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long trainers are run before (default 15)")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.dir is not None:
        shoot(options.dir, options.browser, options.out)
        return 0
    with tempfile.TemporaryDirectory(prefix="compiler-daemon-") as text, daemon(Path(text) / "daemon") as directory:
        shoot_empty(directory, options.browser, options.out)
        end = time.monotonic() + options.minutes * 60
        for number, run in enumerate(itertools.cycle(_RUNS)):
            if time.monotonic() > end:
                break
            sys.stderr.write(f"trainer {number + 1}: {run}\n")
            start_trainer(directory, Path(text) / f"run-{number}", run).wait()
        last = start_trainer(directory, Path(text) / "run-last", _LAST)
        try:
            wait_until_busy(directory)
            shoot(directory, options.browser, options.out)
        finally:
            last.terminate()
            last.wait()
    return 0


@contextmanager
def daemon(directory: Path) -> Iterator[Path]:
    """Serve, with a page on any port."""
    command = [sys.executable, "-m", "compiler_daemon", "serve", "--dir", str(directory), "--page-port", "0"]
    process = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield directory
    finally:
        process.terminate()
        process.wait()


def start_trainer(directory: Path, home: Path, run: str) -> subprocess.Popen[bytes]:
    """Start a trainer with empty caches."""
    for name in ("inductor", "triton", "tmp"):
        (home / name).mkdir(parents=True)
    environment = os.environ | {
        "TORCH_COMPILE_CLIENT": "1",
        "COMPILER_DAEMON_DIR": str(directory),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "TMPDIR": str(home / "tmp"),
    }
    script, *arguments = run.split()
    return subprocess.Popen(
        [sys.executable, str(_TRAINERS / script), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )


def login_url(directory: Path) -> str:
    """Return an address that lets a browser in."""
    command = [sys.executable, "-m", "compiler_daemon", "page", "--dir", str(directory)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def status(directory: Path) -> dict[str, Any]:
    """Return the page's figures."""
    url = login_url(directory).partition("login")[0]
    token = (directory / "token").read_text().strip()
    request = urllib.request.Request(f"{url}status.json", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_READY_S) as answer:  # noqa: S310  # an address of our own
        figures: dict[str, Any] = json.load(answer)
    return figures


def wait_until_busy(directory: Path) -> None:
    """Wait until something has been compiling for a moment."""
    end = time.monotonic() + _BUSY_S
    while time.monotonic() < end:
        if any(flight["elapsed_s"] > 3 for flight in status(directory)["flights"]):
            return
        time.sleep(0.5)


def shoot_empty(directory: Path, path: str, out: Path) -> None:
    """Take a picture of a daemon that nobody has asked for anything."""
    with chromium(path) as browser:
        _picture(browser, directory, out / "page-empty.png", dark=False, full=False)


def shoot(directory: Path, path: str, out: Path) -> None:
    """Take the pictures."""
    with chromium(path) as browser:
        _picture(browser, directory, out / "page-light.png", dark=False)
        _picture(browser, directory, out / "page-dark.png", dark=True)
        _picture(browser, directory, out / "page-graph.png", dark=False, graph=True)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield browser
        finally:
            browser.close()


def _picture(
    browser: Browser, directory: Path, file: Path, *, dark: bool, full: bool = True, graph: bool = False
) -> None:
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": 1200, "height": 760}, device_scale_factor=1
    )
    page = context.new_page()
    page.goto(login_url(directory))
    page.wait_for_url("**/")
    page.goto(page.url + "?span=hour")
    if graph:
        page.locator("section[aria-labelledby=h-slowest] a").first.click()
        page.wait_for_url("**/graphs/*")
    # The directory of the moment is of no interest to a reader.
    page.evaluate("document.querySelectorAll('footer').forEach((part) => part.remove())")
    page.screenshot(path=file, full_page=full)
    context.close()


if __name__ == "__main__":
    run_bench(main)
