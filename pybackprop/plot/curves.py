"""Learning curves of one run or several."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..training.history import History
from .axes import COLOURS, Curve, curve_axes, grid_of_axes, write

_Run = tuple[list[int], dict[str, list[float]]]  # epochs from 1, values


def learning_curves(
    runs: History | Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    metrics: str | Sequence[str] | None = None,
) -> Any:
    """Draw how loss and metrics went: a panel each, training and validation in it.

    Of one run, a dotted line and a point mark the epoch with the least validation loss. Several runs are laid over each
    other: a colour each, validation solid and training dashed. Losses that fall a long way have a logarithmic
    axis.

    Args:
        runs: a :class:`History`, or its dict ``history.history``; or for several runs a dict of them by name.
        path: write the picture there; its ending says the format (PNG, SVG, PDF). Default None.
        metrics: names of what to draw, in this order; ``"val_…"`` is drawn in the panel of its metric. Default None:
            the loss and all metrics.

    Returns:
        The matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no epoch to draw, or a metric that no run has.
        TypeError: ``runs`` holds something else.

    Example:
        >>> import pybackprop as pb
        >>> runs = {"lr 0.1": {"loss": [1.0, 0.5, 0.3]}, "lr 1": {"loss": [1.0, 0.9, 1.2]}}
        >>> figure = pb.plot.learning_curves(runs)
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['loss']
    """
    several = False
    if isinstance(runs, Mapping) and any(isinstance(run, (History, Mapping)) for run in runs.values()):
        several = True
        named = {str(name): _run(run) for name, run in runs.items()}
    else:
        named = {"": _run(runs)}
    named = {name: run for name, run in named.items() if run[0]}
    if not named:
        raise ValueError("the history is empty: nothing to plot")
    shown = _panels(named, metrics)
    figure, grid = grid_of_axes(len(shown))
    for axes, metric in zip(grid, shown, strict=True):
        if several:
            curve_axes(axes, metric, _compared(named, metric), None)
        else:
            _single(axes, metric, *named[""])
    if several and any(f"val_{metric}" in values for metric in shown for _, values in named.values()):
        figure.supxlabel("solid: validation, dashed: training", fontsize=9, color="#555555")
    write(figure, path)
    return figure


def _run(run: Any) -> _Run:
    if isinstance(run, History):
        return [epoch + 1 for epoch in run.epoch], run.history
    if not isinstance(run, Mapping) or not all(isinstance(values, Sequence) for values in run.values()):
        raise TypeError(
            f"learning_curves expects a History, its dict of lists, or a dict of those, got {type(run).__name__}"
        )
    values = {str(name): [float(value) for value in series] for name, series in run.items()}
    if len({len(series) for series in values.values()}) > 1:
        raise ValueError("the metrics of a run must have as many epochs as each other")
    return list(range(1, max(map(len, values.values()), default=0) + 1)), values


def _panels(runs: Mapping[str, _Run], metrics: str | Sequence[str] | None) -> list[str]:
    """Names of the panels: metrics without ``val_``, the loss first."""
    known = list(dict.fromkeys(name.removeprefix("val_") for _, values in runs.values() for name in values))
    known.sort(key=lambda name: name != "loss")
    if metrics is None:
        return known
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in wanted:
        if name.removeprefix("val_") not in known:
            raise ValueError(f"there is no metric {name!r} to plot; there are {', '.join(known)}")
    if not wanted:
        raise ValueError("metrics must name at least one, or be None for all")
    return list(dict.fromkeys(name.removeprefix("val_") for name in wanted))


def _single(axes: Any, metric: str, epochs: list[int], values: dict[str, list[float]]) -> None:
    parts = [("training", metric, COLOURS[0]), ("validation", f"val_{metric}", COLOURS[1])]
    curves = {name: Curve(label, epochs, values[name], colour) for label, name, colour in parts if name in values}
    best = None
    finite = [(loss, i) for i, loss in enumerate(values.get("val_loss", ())) if math.isfinite(loss)]
    if finite:
        at = min(finite)[1]
        on = curves.get(f"val_{metric}")
        what = f"best epoch ({epochs[at]})" if metric == "loss" else f"at epoch {epochs[at]}"
        best = (epochs[at], what if on is None else f"{what}: {on.values[at]:.4g}", on)
    curve_axes(axes, metric, list(curves.values()), best)


def _compared(runs: Mapping[str, _Run], metric: str) -> list[Curve]:
    """Training curves first, so that those of validation lie over them."""
    below, above = [], []
    for i, (name, (epochs, values)) in enumerate(runs.items()):
        colour = COLOURS[i % len(COLOURS)]
        validated = f"val_{metric}" in values
        if metric in values:
            below.append(Curve(None if validated else name, epochs, values[metric], colour, dashed=validated))
        if validated:
            above.append(Curve(name, epochs, values[f"val_{metric}"], colour))
    return below + above
