"""The one way in which text of others comes into a terminal."""

from __future__ import annotations

from rich.text import Text

from compile_wire.plain import plain as shown


def plain(text: object, style: str = "") -> Text:
    """Return text that somebody else chose, so that it cannot change how the terminal shows anything.

    What cannot be shown has a mark in its place, and nothing is taken for rich's markup.
    """
    return Text(shown(str(text)), style=style)
