"""Makes the man pages from what `--help` says: one for the command, one for each verb.

    python tools/man_pages.py            writes docs/man/*.1
    python tools/man_pages.py --check    exit code 1 where one is stale, and nothing is written

The wheel has them as `share/man/man1`, where `man` looks beside every `bin` of its path.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from compiler_daemon import __version__
from compiler_daemon.cli import cli
from compiler_daemon.cli.options import PROGRAM

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "man"

_EXIT_CODES = {
    "0": "Done; a list of nothing is done.",
    "1": "Failed. A name that nothing has is a failure.",
    "2": "Wrong use.",
    "130": "Interrupted.",
}
_FILES = {
    "~/.cache/compiler-daemon": "The daemon's directory; compiler-daemon dir prints its place.",
    "~/.config/compiler-daemon/config.toml": "Settings, below the variables; compiler-daemon config shows them.",
}
_ENVIRONMENT = {
    "TORCH_COMPILE_CLIENT": "In a trainer: 1 has the daemon asked for compiled graphs, auto also starts one.",
    "COMPILER_DAEMON_DIR": "The daemon's directory.",
    "COMPILER_DAEMON_ADDRESS": "The daemon's address: unix:PATH or HOST:PORT.",
    "COMPILER_DAEMON_CONFIG": "The file of settings.",
}


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    command: Any = typer.main.get_command(cli)
    context = command.context_class(command, info_name=PROGRAM, **command.context_settings)
    return {f"{context.command_path.replace(' ', '-')}.1": _page(context) for context in _contexts(context)}


def main(argv: list[str] | None = None) -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the man pages from what --help says.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where one is stale")
    options = parser.parse_args(argv)
    made = pages()
    there = {path.name: path.read_text() for path in FOLDER.glob("*.1")}
    if made == there:
        return 0
    if options.check:
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        sys.stderr.write(f"{', '.join(stale)} stale: run python tools/man_pages.py and commit.\n")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in there.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    return 0


def _contexts(context: Any) -> Iterator[Any]:
    """Yield a command and all below it, in the order in which help lists them."""
    yield context
    for child in _children(context):
        yield from _contexts(child)


def _children(context: Any) -> list[Any]:
    command = context.command
    if not hasattr(command, "list_commands"):
        return []
    found = [command.get_command(context, name) for name in command.list_commands(context)]
    return [one.context_class(one, info_name=one.name, parent=context) for one in found if not one.hidden]


def _page(context: Any) -> str:
    """Return one page in the language of man(7)."""
    command, name = context.command, context.command_path.replace(" ", "-")
    paragraphs, examples = _told(command)
    short = command.get_short_help_str(limit=200) if context.parent else paragraphs[0]
    lines = [
        f'.TH {_text(name.upper())} 1 "" "compiler\\-daemon {_text(__version__)}" "User Commands"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(short[0].lower() + short[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_joined(".PP", [_text(one) for one in paragraphs]),
    ]
    arguments, options = _parameters(context)
    lines += _items("ARGUMENTS", arguments) + _items("OPTIONS", options)
    if children := _children(context):
        listed = {child.info_name: child.command.get_short_help_str(limit=200) for child in children}
        lines += _items("COMMANDS", listed)
    if examples:
        lines += [".SH EXAMPLES", *_joined(".PP", [f".nf\n{_text(one)}\n.fi" for one in examples])]
    if not context.parent:
        lines += _items("ENVIRONMENT", _ENVIRONMENT) + _items("FILES", _FILES)
    lines += _items("EXIT STATUS", _EXIT_CODES)
    near = [context.parent] if context.parent else []
    near += children or (_children(context.parent) if context.parent and context.parent.parent else [])
    others = [one.command_path.replace(" ", "-") for one in near if one.command_path != context.command_path]
    if others:
        lines += [".SH SEE ALSO", ",\n".join(f".BR {_text(one)} (1)" for one in others)]
    return "\n".join(line for line in lines if line) + "\n"


def _told(command: Any) -> tuple[list[str], list[str]]:
    """Return what a command's help says, in paragraphs of one line each, and its examples."""
    told = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", command.help or "")]
    told += [command.epilog.strip()] if command.epilog else []
    examples = [part.removeprefix("Example: ") for part in told if part.startswith("Example: ")]
    return [part for part in told if part and not part.startswith("Example: ")], examples


def _parameters(context: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return arguments and options with what help says of each."""
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            found[parameter.param_type_name == "option"][record[0]] = record[1]
    return found


def _items(title: str, items: dict[str, str]) -> list[str]:
    if not items:
        return []
    return [f".SH {title}", *(f".TP\n.B {_text(name)}\n{_text(said) or '.'}" for name, said in items.items())]


def _joined(between: str, parts: list[str]) -> list[str]:
    return [line for part in parts for line in (between, part)][1:]


def _text(text: str) -> str:
    """Return text that means itself: no escapes, no requests, hyphens that can be copied."""
    plain = re.sub(r"[ \t]+", " ", text.replace("\\", "\\e").replace("-", "\\-")).strip()
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


if __name__ == "__main__":
    sys.exit(main())
