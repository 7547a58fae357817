"""Figures of the benches: one function a figure, matplotlib without a display, imported only when drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def figure(path: Path, *, rows: int, columns: int, size: tuple[float, float]) -> Iterator[list[list[Axes]]]:
    """Give a grid of axes and write them to `path` as PNG; `size` is inches per axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(rows, columns, squeeze=False)
    yield [list(row) for row in axes]
    drawing.savefig(path, dpi=110)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each place; fewer at the start."""
    total, out = 0.0, []
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out
