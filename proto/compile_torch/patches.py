"""Replacing attributes of torch's, and putting them back."""

from __future__ import annotations

from typing import Any

_INHERITED = object()


class Patches:
    """Replaces attributes of torch's, and undoes that in reverse.

    What somebody else has replaced meanwhile is left alone.
    """

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, wrap: Any) -> None:
        """Set `owner.name` to `wrap(original)`; a static method stays one.

        What a class inherits is replaced in this class alone, as a static method: `original` is bound to the class.
        """
        held = vars(owner).get(name, _INHERITED)
        inherited = held is _INHERITED
        static = inherited or isinstance(held, staticmethod)
        new = wrap(getattr(owner, name) if inherited else held.__func__ if static else held)
        self._done.append((owner, name, held, staticmethod(new) if static else new))
        setattr(owner, name, self._done[-1][3])

    def undo(self) -> None:
        """Put everything back."""
        while self._done:
            owner, name, held, new = self._done.pop()
            if vars(owner).get(name) is not new:
                continue
            if held is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, held)
