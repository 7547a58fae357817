"""The client's settings, read from the environment once.

===============================  ======================================================================  ===============
variable                         meaning                                                                 default
===============================  ======================================================================  ===============
TORCH_COMPILE_CLIENT             `1` switches the client on; `auto` also starts a daemon where none is   off
COMPILER_DAEMON_DIR              the daemon's directory, or one that `keys client` made for its client   (1)
COMPILER_DAEMON_ADDRESS          `unix:PATH`, or `HOST:PORT`: loopback, or anywhere with keys for TLS    (2)
TORCH_COMPILE_CLIENT_TIMEOUT     seconds that one graph may wait for the daemon, all steps together      600
TORCH_COMPILE_CLIENT_HEDGE       seconds after which a compile that runs long is no longer waited for    120 (3)
TORCH_COMPILE_CLIENT_READONLY    `1`: use what the daemon has and makes, publish nothing                 publish
TORCH_COMPILE_CLIENT_ASYNC       `1`: run a graph eagerly until its artifact is there (5)                off
TORCH_COMPILE_CLIENT_VERIFY      share of hits, 0 to 1, that torch compiles here as well, to compare (6)  0
TORCH_COMPILE_CLIENT_WARM        `1`: compile-only, as `compiler-daemon warm` sets it (4)                off
TORCH_COMPILE_CLIENT_WARM_STEPS  with WARM: end after so many steps without a new graph; 0 never (8)     0
TORCH_COMPILE_CLIENT_REPORT      file that gets the counters at exit, as one JSON object; `-` is stdout  none
TORCH_COMPILE_CLIENT_EXPLAIN     `1`: log at exit why each graph that missed did                         off
TORCH_COMPILE_CLIENT_WITHOUT     parts of a fast start to do without, by commas (7)                      none
TORCH_COMPILE_CLIENT_SKIP_TRACE  `1`: take what another process traced; `verify`: trace and compare (9)  off
TORCH_COMPILE_CLIENT_LOG         `debug`, `info`, `warning`, `error` or `off`                            info
===============================  ======================================================================  ===============

(1) `$XDG_CACHE_HOME/compiler-daemon`, else `~/.cache/compiler-daemon`.
(2) The address that the running daemon, or `keys client`, wrote into the directory, else `daemon.sock` there.
(3) At least: a graph that is known to take long gets three times what it took before. `inf` waits up to the timeout.
(4) Every graph is sent to the daemon in the background and runs eagerly here, so that the next one is captured at once;
    graphs with symbolic sizes are waited for. The process ends when all graphs are answered, within the timeout above.
(5) What torch has locally, and graphs with symbolic sizes, are loaded and waited for as always.
(6) Of artifacts that the daemon sends. Where the generated code differs, the local one is used, the artifact is taken
    out of the daemon's store, and a sentence says so. A verified hit costs a local compile.
(7) `collector`: Python's collector is left alone from the start. `digests`: torch's and Triton's sources are read in
    every process. `imports`: with traces skipped, what inductor compiles with is imported at once. For measurements,
    and where one of them is suspected.
(8) A step is a run of the graph that has run most often since the last new one came. The program ends as by
    `sys.exit(0)`, so that whatever it does at its end it does.
(9) `verify:SHARE`, from 0 to 1, compares that share of what would be taken, and takes the rest. With torch
    2.13 to 2.15: see docs/limits.md.

Where `1` stands, `true`, `yes` and `on` mean the same; `false`, `no` and `off` are 0.

A value that cannot be read never raises: the default holds, and `complaints` has the sentence to be logged about it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SWITCH = "TORCH_COMPILE_CLIENT"

_GRAPH_TIMEOUT_S = 600.0
_HEDGE_S = 120.0

_AUTO = "auto"
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})
_PARTS = frozenset({"collector", "digests", "imports"})
"""What `TORCH_COMPILE_CLIENT_WITHOUT` may name."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """Configures the client; the defaults are those of an empty environment."""

    directory: Path
    address: str = ""
    """Empty: ask the directory, at each new connection, since a daemon may be restarted at another address."""
    starts_daemon: bool = False
    """Where no daemon of this machine answers, one is started."""
    graph_timeout_s: float = _GRAPH_TIMEOUT_S
    """All waits for one graph together. A large model compiles for minutes; torch would take them as well."""
    hedge_s: float = _HEDGE_S
    """A compile that has run for so long, and for `hedge_factor` times what its graph took before, is left to the
    daemon: torch compiles here meanwhile. Waiting in the queue does not count."""
    hedge_factor: float = 3.0
    read_only: bool = False
    asynchronous: bool = False
    warm: bool = False
    """Compile-only: graphs are handed to the daemon and run eagerly."""
    warm_steps: int = 0
    """Steps without a new graph after which a compile-only program ends; 0 never."""
    verify: float = 0.0
    """Share of hits that are compiled here as well, and compared."""
    report: Path | None = None
    skip_trace: bool = False
    """What another process traced is taken, where it fits."""
    verify_traces: float = 0.0
    """Share of what would be taken that is traced here as well, and compared."""
    explain: bool = False
    without: frozenset[str] = frozenset()
    """Parts of a fast start that are left out."""
    log_level: int | None = None
    """None: the level that the program gave the logger, else info."""
    complaints: tuple[str, ...] = ()

    start_s: float = 20.0
    """What the first graph waits for a daemon that starts; it takes about a second where nothing else runs."""
    connect_s: float = 0.2
    """A daemon of this machine accepts at once; whoever does not is not worth a wait."""
    remote_connect_s: float = 2.0
    """One of another machine may be a slow network away."""
    answer_s: float = 2.0
    """For an answer that needs no compile. A machine whose cores are busy with compiles answers late, not never."""
    silence_s: float = 10.0
    """A compile's stream has an event every few seconds; a longer silence means a stopped daemon."""
    min_transfer_bytes_per_s: float = 4 * 2**20
    """A blob gets `answer_s` plus its size over this. Slower than this, a local compile is the better choice."""
    explain_s: float = 8.0
    """For the daemon's explanation at exit, which is asked for: it searches for some seconds."""
    flush_s: float = 10.0
    """What the end of a process may wait for artifacts that are still to be published."""
    ahead_in_flight: int = 32
    """Graphs asked for in the background at a time; more make the trainer wait."""
    publish_queue_items: int = 64
    publish_queue_bytes: int = 256 * 2**20
    """Artifacts on their way to the daemon are held in the trainer's memory: beyond this they are dropped."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> ClientConfig:
        """Return the settings in `env`; never raises."""
        complaints: list[str] = []
        warm = _switch(env, "TORCH_COMPILE_CLIENT_WARM", complaints)
        skip_trace, verify_traces = _skip_trace(env, complaints)
        switch = read_switch(env.get(SWITCH, ""))
        if switch is None:  # read by the import hook, before this; a slip is told here
            complaints.append(f"{SWITCH} is 1, auto or 0, not {env[SWITCH].strip()[:40]!r}; it counts as 0")
        return cls(
            directory=_directory(env, complaints),
            address=env.get("COMPILER_DAEMON_ADDRESS", ""),
            starts_daemon=switch == _AUTO,
            graph_timeout_s=_seconds(env, "TORCH_COMPILE_CLIENT_TIMEOUT", _GRAPH_TIMEOUT_S, complaints),
            # Compile-only: nobody waits, and torch is not to compile here.
            hedge_s=math.inf
            if warm
            else _seconds(env, "TORCH_COMPILE_CLIENT_HEDGE", _HEDGE_S, complaints, endless=True),
            read_only=_switch(env, "TORCH_COMPILE_CLIENT_READONLY", complaints),
            warm=warm,
            warm_steps=_count(env, "TORCH_COMPILE_CLIENT_WARM_STEPS", complaints),
            asynchronous=_switch(env, "TORCH_COMPILE_CLIENT_ASYNC", complaints),
            explain=_switch(env, "TORCH_COMPILE_CLIENT_EXPLAIN", complaints),
            verify=_share(env, "TORCH_COMPILE_CLIENT_VERIFY", complaints),
            skip_trace=skip_trace,
            verify_traces=verify_traces,
            report=_report(env.get("TORCH_COMPILE_CLIENT_REPORT", "")),
            without=_parts(env, complaints),
            log_level=_level(env, complaints),
            complaints=tuple(complaints),
        )


def read_switch(text: str) -> Literal["on", "off", "auto"] | None:
    """Return what `TORCH_COMPILE_CLIENT` says; None where it says nothing that is known."""
    word = text.strip().lower()
    if word == _AUTO:
        return "auto"
    return "on" if word in _ON else "off" if word in _OFF else None


def _report(text: str) -> Path | None:
    if text == "-":
        return Path("/dev/stdout")
    return Path(text).absolute() if text else None


def _switch(env: Mapping[str, str], name: str, complaints: list[str]) -> bool:
    text = env.get(name, "").strip()
    switch = read_switch(text)
    if switch not in ("on", "off"):
        complaints.append(f"{name} is 1 or 0, not {text[:40]!r}; it counts as 0")
    return switch == "on"


def _seconds(
    env: Mapping[str, str], name: str, default: float, complaints: list[str], *, endless: bool = False
) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) or (endless and seconds == math.inf)) or seconds <= 0:
        complaints.append(f"{name} is a positive number of seconds, not {text[:40]!r}; {default:g} is used")
        return default
    return seconds


def _count(env: Mapping[str, str], name: str, complaints: list[str]) -> int:
    text = env.get(name, "").strip()
    if not text.isdecimal() and text:
        complaints.append(f"{name} is a whole number, not {text[:40]!r}; 0 is used")
    return int(text) if text.isdecimal() else 0


def _share(env: Mapping[str, str], name: str, complaints: list[str]) -> float:
    text = env.get(name, "").strip()
    if not text:
        return 0.0
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        complaints.append(f"{name} is a share from 0 to 1, not {text[:40]!r}; nothing is verified")
        return 0.0
    return share


def _skip_trace(env: Mapping[str, str], complaints: list[str]) -> tuple[bool, float]:
    name = "TORCH_COMPILE_CLIENT_SKIP_TRACE"
    word, colon, share = env.get(name, "").strip().lower().partition(":")
    if word == "verify":
        try:
            drawn = float(share) if colon else 1.0
        except ValueError:
            drawn = math.nan
        if 0 <= drawn <= 1:
            return True, drawn
    elif not colon and read_switch(word) in ("on", "off"):
        return read_switch(word) == "on", 0.0
    complaints.append(f"{name} is 1, 0, verify or verify:SHARE, not {env[name].strip()[:40]!r}; it counts as 0")
    return False, 0.0


def _parts(env: Mapping[str, str], complaints: list[str]) -> frozenset[str]:
    name = "TORCH_COMPILE_CLIENT_WITHOUT"
    given = {part for part in env.get(name, "").split(",") if part}
    if unknown := given - _PARTS:
        complaints.append(f"{name} names {', '.join(sorted(_PARTS))}, not {', '.join(sorted(unknown))[:40]!r}")
    return frozenset(given & _PARTS)


def _level(env: Mapping[str, str], complaints: list[str]) -> int | None:
    name = "TORCH_COMPILE_CLIENT_LOG"
    text = env.get(name, "").strip().lower()
    if not text:
        return None
    if text not in _LEVELS:
        complaints.append(f"{name} is one of {', '.join(_LEVELS)}, not {text[:40]!r}; info is used")
    return _LEVELS.get(text, logging.INFO)


def _directory(env: Mapping[str, str], complaints: list[str]) -> Path:
    given = env.get("COMPILER_DAEMON_DIR", "")
    if given:
        return Path(given).expanduser().absolute()
    cache = env.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):  # the XDG specification: a relative path is invalid and is ignored
        home = env.get("HOME") or os.path.expanduser("~")
        if not home.startswith("/"):
            complaints.append("this user has no home directory; set COMPILER_DAEMON_DIR")
            home = "/nonexistent"
        cache = f"{home}/.cache"
    return Path(cache) / "compiler-daemon"
