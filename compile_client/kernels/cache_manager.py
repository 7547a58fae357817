"""Triton's cache manager with the daemon behind it.

Files lie where Triton's own manager puts them, and are written by it: inductor's bundler and the static launcher read
them there. The daemon is asked only where the files are not there.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile_client.kernels.kernel_compile import Kernels

_TIMINGS = ".autotune.json"


def make_manager(kernels: Kernels) -> type[Any]:
    """Return the class. Made here because Triton, whose class it derives from, must not be imported by the client."""
    from triton.runtime.cache import FileCacheManager

    class DaemonCacheManager(FileCacheManager):
        """Is Triton's cache manager, with the daemon behind it. Raises nothing that `FileCacheManager` does not."""

        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            super().__init__(key, override=override, dump=dump)
            # Dumps and overrides are files that the user reads and writes.
            self._request = None if override or dump else kernels.requested(key)
            self._plain = not (override or dump)

        def get_group(self, filename: str) -> dict[str, str] | None:
            if self._plain and not self._is_whole(filename):
                return kernels.serve(self._request, self, filename) if self._request else None
            return super().get_group(filename)  # type: ignore[no-any-return] # Triton's types

        def put_group(self, filename: str, group: dict[str, str]) -> str:
            path: str = super().put_group(filename, group)
            if self._request:
                kernels.compiled(self._request, filename, group)
            return path

        def get_file(self, filename: str) -> str | None:
            path: str | None = super().get_file(filename)
            if path is None and self._plain and filename.endswith(_TIMINGS):
                return kernels.serve_timings(self, filename)
            return path

        def put(self, data: Any, filename: str, binary: bool = True) -> str:
            path: str = super().put(data, filename, binary=binary)
            if self._plain and filename.endswith(_TIMINGS):
                kernels.timed(self.key, filename, data)
            return path

        def place(self, name: str, data: bytes) -> str:
            """Write a file that came from the daemon."""
            path: str = super().put(data, name)
            return path

        def place_group(self, filename: str, group: dict[str, str]) -> dict[str, str] | None:
            """Write the list of a group's files, and return them as Triton reads them."""
            super().put_group(filename, group)
            return super().get_group(filename)  # type: ignore[no-any-return] # Triton's types

        def _is_whole(self, filename: str) -> bool:
            """Whether the group is there with all its files. Some versions of Triton serve half a group, or raise."""
            try:
                with open(self._make_path(f"__grp__{filename}")) as file:
                    paths = json.load(file)["child_paths"].values()
                return all(os.path.exists(path) for path in paths)
            except (OSError, ValueError, KeyError, AttributeError, TypeError):
                return False

    return DaemonCacheManager
