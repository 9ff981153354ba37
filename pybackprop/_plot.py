"""Learning curves as pictures. Needs matplotlib, which is imported when a picture is asked for."""

import os
from collections.abc import Mapping, Sequence

__all__ = ["learning_curve"]


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
        losses: name to one value per epoch, drawn on a logarithmic scale; of two curves that coincide, the later is
            drawn dashed over the earlier.
        title: above the picture.
        accuracies: name to one value from 0 to 1 per epoch.
        mark: an epoch, from 1, to mark with a line: the one whose weights were kept.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install matplotlib.") from None
    panels = [("loss", losses)] + ([("accuracy", accuracies)] if accuracies else [])
    figure = Figure(figsize=(6.0 * len(panels), 4.0), layout="constrained")  # no pyplot: no global state, no window
    for axes, (label, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for i, (name, values) in enumerate(curves.items()):
            axes.plot(range(1, len(values) + 1), values, label=name, linestyle=("-", "--")[i % 2], linewidth=2)
        if label == "loss" and all(value > 0 for values in curves.values() for value in values):
            axes.set_yscale("log")
        if mark is not None:
            axes.axvline(mark, color="grey", linestyle=":", label=f"best epoch: {mark}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
