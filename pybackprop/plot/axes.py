"""What pictures share: figures, axes, curves over epochs. matplotlib is imported when a picture is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["COLOURS", "Curve", "curve_axes", "grid_of_axes", "learning_curve", "new_figure", "write"]

COLOURS = ("#3b6ea8", "#e07b39", "#3f9b62", "#b8476b", "#7a62b0", "#8a6d3b", "#4aa5b8", "#777777")
"""Told apart also by people who see colours differently, and in print: they differ in lightness."""

_PANEL = (5.4, 3.9)  # inches
_LOG_FROM = 10.0  # ratio of the largest to the smallest loss from which a linear axis hides the end of the run
_MARKED = 20  # so few epochs are shown as points too
_DPI = 150


class Curve(NamedTuple):
    """One line.

    Attributes:
        label: in the legend; None for none.
        epochs, values: from 1; NaN leaves a gap.
        colour, dashed: how it is drawn.
    """

    label: str | None
    epochs: Sequence[int]
    values: Sequence[float]
    colour: str
    dashed: bool = False


def new_figure(width: float, height: float) -> Any:
    """An empty Figure; without pyplot, so that there is no window and no global state.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "pybackprop[plot]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def write(figure: Any, path: str | os.PathLike[str] | None) -> None:
    """To a file whose ending says the format, if there is a path."""
    if path is not None:
        figure.savefig(path, dpi=_DPI)


def grid_of_axes(count: int) -> tuple[Any, list[Any]]:
    """A Figure with so many panels, at most three in a row."""
    columns = count if count <= 3 else 2 if count == 4 else 3
    rows = -(-count // columns)
    figure = new_figure(_PANEL[0] * columns, _PANEL[1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def curve_axes(axes: Any, label: str, curves: Sequence[Curve], best: tuple[int, str, Curve | None] | None) -> None:
    """Draw curves over epochs.

    A loss whose values lie far apart has a logarithmic axis.

    Args:
        axes: of matplotlib.
        label: of the vertical axis.
        curves: later ones are drawn over earlier ones.
        best: an epoch to mark with a line, its text in the legend, and the curve on which to set a point there.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    marker = "o" if max(len(curve.epochs) for curve in curves) <= _MARKED else None
    for curve in curves:
        axes.plot(
            curve.epochs,
            curve.values,
            "--" if curve.dashed else "-",
            color=curve.colour,
            label=curve.label,
            marker=marker,
            markersize=3.5,
            linewidth=1.8,
        )
    if best is not None:
        epoch, text, on = best
        axes.axvline(epoch, color="#555555", linestyle=":", linewidth=1.2, label=text if on is None else None)
        if on is not None:
            value = on.values[list(on.epochs).index(epoch)]
            axes.plot(
                [epoch], [value], "o", color=on.colour, markersize=8, markeredgecolor="white", label=text, zorder=5
            )
    values = [v for curve in curves for v in curve.values if math.isfinite(v)]
    if "loss" in label and values and min(values) > 0 and max(values) >= _LOG_FROM * min(values):
        axes.set_yscale("log")
        wide = max(values) > 1e3 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_title(label.replace("_", " "), loc="left", fontsize=11, fontweight="bold")
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if any(curve.label for curve in curves):
        axes.legend(fontsize=9, framealpha=0.85, edgecolor="none")


def learning_curve(
    path: str | os.PathLike[str],
    losses: Mapping[str, Sequence[float]],
    *,
    title: str,
    accuracies: Mapping[str, Sequence[float]] | None = None,
    mark: int | None = None,
) -> None:
    """Write curves over epochs, one line per name: losses, and beside them accuracies if there are any.

    Args:
        path: the picture; its ending says the format.
        losses: name to one value per epoch; of two curves that coincide, the later is drawn dashed over the earlier.
        title: above the picture.
        accuracies: name to one value from 0 to 1 per epoch.
        mark: an epoch, from 1, to mark with a line: the one whose weights were kept.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = [("loss", losses)] + ([("accuracy", accuracies)] if accuracies else [])
    figure, grid = grid_of_axes(len(panels))
    for axes, (label, lines) in zip(grid, panels, strict=True):
        curves = [
            Curve(name, range(1, len(values) + 1), values, COLOURS[i % len(COLOURS)], dashed=bool(i % 2))
            for i, (name, values) in enumerate(lines.items())
        ]
        curve_axes(axes, label, curves, None if mark is None else (mark, f"best epoch: {mark}", None))
    figure.suptitle(title)
    write(figure, path)
