"""Text that somebody else chose, made such that it cannot change what is shown around it."""

from __future__ import annotations

_SHOWN_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def is_plain(text: str) -> bool:
    """Whether every character can be shown: no control characters, no line ends, nothing that turns writing around."""
    return text.isprintable()


def plain(text: str) -> str:
    """Return the text with a mark in place of each character that cannot be shown."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _SHOWN_INSTEAD for c in text)
