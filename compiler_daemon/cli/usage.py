"""What a verb's arguments are called in its help: `KEY`, `[KEY]`, `[KEY...]`, without the names of Python's types."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

_NUMBER = re.compile(r"<(?:int|float)(?: range)?>")


class Verb(TyperCommand):
    """One verb, whose arguments have plain names whichever typer there is."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                argument: Any = parameter
                argument.metavar = _name(argument)
                argument.display_type_rich = lambda ctx: None
            else:
                option: Any = parameter
                option.get_help_record = _plain(option.get_help_record)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the verb in its usage line."""
        names = [
            f"{parameter.metavar}" if parameter.required else f"[{parameter.metavar}]"
            for parameter in self.get_params(ctx)
            if parameter.param_type_name == "argument"
        ]
        return ["[OPTIONS]", *names]


class Verbs(typer.Typer):
    """Verbs with usage lines of ours."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a verb."""
        return super().command(name, **{"cls": Verb, **settings})


def _plain(record: Callable[[Any], tuple[str, str] | None]) -> Callable[[Any], tuple[str, str] | None]:
    """Return what says of an option what `record` says, with a number called a number."""

    def plain(ctx: Any) -> tuple[str, str] | None:
        found = record(ctx)
        return found and (_NUMBER.sub("NUMBER", found[0]), found[1])

    return plain


def _name(argument: Any) -> str:
    """Return the bare name, with three dots where it may be given several times."""
    name = str(argument.metavar or argument.name.upper()).removesuffix("...").strip("[]").removesuffix("...")
    return f"{name}..." if argument.nargs != 1 else name
