"""The shared objects of a graph: seen as torch writes their sources, put in place before torch looks for them.

torch (2.11 to 2.15) writes a kernel's C++ source under a name that hashes source and command line, and builds only if
no object lies beside it. So the one seam is the function that writes sources: it tells which object a graph is about to
load, and an object that is put in its place is simply there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from compile_torch.objects import object_name, object_path

_SOURCE = "main.cpp"
"""Extension under which torch writes the sources that become objects which a graph loads."""


class SharedObjects:
    """Records which shared objects a graph loads, by the sources that torch writes.

    Safe to use from several threads; a record belongs to the thread that made it.
    """

    def __init__(self, place: Callable[[str, str], bool] | None = None) -> None:
        """`place(name, path)` puts the object called `name` at `path` if it has it, and returns whether it did."""
        self._place = place
        self._local = threading.local()

    def writing(self, original: Callable[..., tuple[str, str]]) -> Callable[..., tuple[str, str]]:
        """Wrap `torch._inductor.codecache.write`."""

        @functools.wraps(original)
        def write(content: str | bytes, extension: str, extra: str = "", *args: Any, **kwargs: Any) -> tuple[str, str]:
            key, path = original(content, extension, extra, *args, **kwargs)
            self._local.present = False
            if extension == _SOURCE:
                with contextlib.suppress(Exception):  # without it torch builds the object, as always
                    self._written(content, extra, path)
            return key, path

        return write

    def precompiling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `torch._inductor.codecache._precompile_header`, which only a build needs: no object, no header."""

        @functools.wraps(original)
        def precompile_header(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._local, "present", False):
                return None
            return original(*args, **kwargs)

        return precompile_header

    @contextlib.contextmanager
    def recorded(self) -> Iterator[dict[str, str]]:
        """Collect the objects that this thread's graphs load meanwhile: our name to torch's path."""
        before = getattr(self._local, "record", None)
        record: dict[str, str] = {}
        self._local.record = record
        try:
            yield record
        finally:
            self._local.record = before
            if before is not None:
                before.update(record)

    def _written(self, content: str | bytes, command: str, path: str) -> None:
        name, target = object_name(content, command), object_path(path)
        record = getattr(self._local, "record", None)
        if record is not None:
            record[name] = target
        self._local.present = os.path.exists(target) or (self._place is not None and self._place(name, target))
