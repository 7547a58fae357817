"""A KernelSpec as text for people, in the form in which `graph_text` gives a graph."""

from __future__ import annotations

from compile_wire.kernel.spec import KernelSpec
from compiler_daemon.insight.graph_text import InputText, SymbolText

_MAX_OPTION = 240


class KernelText:
    """One kernel as text: what Triton's frontend made of it, and its options."""

    def __init__(self, spec: KernelSpec) -> None:
        self._spec = spec

    def code(self) -> str:
        """Return the kernel before any pass."""
        spec = self._spec
        lines = (spec.source or spec.ttir).splitlines()
        head = f"// {spec.name}, for {spec.backend} {spec.arch}"
        return "\n".join(
            "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)
            for line in (head, *lines)
        )

    def inputs(self) -> list[InputText]:
        """Return nothing: a kernel's arguments stand in its code."""
        return []

    def symbols(self) -> list[SymbolText]:
        """Return nothing: a kernel has no symbolic sizes."""
        return []

    def settings(self) -> dict[str, str]:
        """Return Triton's options."""
        return {name: repr(value)[:_MAX_OPTION] for name, value in self._spec.options.items()}
