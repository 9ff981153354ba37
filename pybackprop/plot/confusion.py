"""The confusion matrix as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .axes import new_figure, write

_WITH_SHARES = 14  # up to so many classes a cell has room for its share under its count
_WITH_COUNTS = 40  # and up to so many for its count
_NAMED = 60  # and up to so many each has its name; of more, some
_LONGEST = 24  # characters of a name


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw which classes are taken for which: a row for each true class, a column for each predicted one.

    A cell shows how many samples it counts, and its colour and percentage are their share of the row, so that the
    diagonal is each class's recall. It stays readable up to about 30 classes.

    Args:
        y_true: (n,) labels: integers, booleans or strings.
        y_pred: (n,) labels, or (n, K) scores of the classes 0 … K-1, of which the largest wins (the first of equals).
        path: write the picture there; its ending says the format. Default None.
        names: of the classes 0 … K-1, for integer labels. Default None: the labels themselves, in order.
        title: default: accuracy and number of samples.

    Returns:
        The matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: lengths differ, no samples, or labels outside of the names or scores.
        TypeError: labels that are neither integers nor strings.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> figure = pb.plot.confusion_matrix([0, 1, 1, 2], [0, 1, 2, 2], names=["ant", "bee", "fly"])
        >>> figure.get_suptitle()
        'accuracy 75.0% of 4 samples'
    """
    true, predicted, classes = _labels(y_true, y_pred, names)
    k = len(classes)
    counts = np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
    if title is None:
        title = f"accuracy {np.trace(counts) / counts.sum():.1%} of {counts.sum():,} samples"
    figure = _draw(counts, [_short(str(name)) for name in classes], title)
    write(figure, path)
    return figure


def _labels(y_true: Any, y_pred: Any, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Both as positions among the classes, and the classes."""
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    true = true[:, 0] if true.ndim == 2 and true.shape[1] == 1 else true
    if true.ndim != 1 or len(true) == 0:
        raise ValueError(f"confusion_matrix: y_true must be labels of shape (n,), got shape {true.shape}")
    if predicted.ndim not in (1, 2) or len(predicted) != len(true):
        raise ValueError(
            f"confusion_matrix: y_pred must be labels ({len(true)},) or scores ({len(true)}, K), "
            f"got shape {predicted.shape}"
        )
    known = None if names is None else len(names)
    if predicted.ndim == 2:
        if predicted.shape[1] < 2:
            raise ValueError("confusion_matrix: scores need two columns or more; of one give labels, as in scores > 0")
        if known not in (None, predicted.shape[1]):
            raise ValueError(f"confusion_matrix: {known} names for scores of {predicted.shape[1]} classes")
        known = predicted.shape[1]
        predicted = predicted.argmax(axis=1)
    for what, labels in (("y_true", true), ("y_pred", predicted)):
        if labels.dtype.kind not in "biuUSO" or (
            labels.dtype.kind == "O" and not all(isinstance(x, str) for x in labels)
        ):
            raise TypeError(f"confusion_matrix: {what} must hold integers or strings, got dtype {labels.dtype}")
    if (true.dtype.kind in "biu") != (predicted.dtype.kind in "biu"):
        raise TypeError(f"confusion_matrix: labels are of dtype {true.dtype} in y_true, {predicted.dtype} in y_pred")
    if known is None:
        classes, at = np.unique(np.concatenate([true, predicted]), return_inverse=True)
        return at[: len(true)], at[len(true) :], classes.tolist()
    if true.dtype.kind not in "biu":
        raise TypeError("confusion_matrix: names and scores are for integer labels; strings name themselves")
    true, predicted = true.astype(np.int64), predicted.astype(np.int64)
    for what, labels in (("y_true", true), ("y_pred", predicted)):
        wrong = labels[(labels < 0) | (labels >= known)]
        if len(wrong):
            raise ValueError(f"confusion_matrix: {what} holds label {wrong[0]}, but the classes are 0 to {known - 1}")
    return true, predicted, list(range(known)) if names is None else list(names)


def _draw(counts: np.ndarray, names: list[str], title: str) -> Any:
    k = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    digits = len(f"{counts.max():,}")
    font = 10 if k <= 6 else 8.5 if k <= _WITH_SHARES else 7.5 if k <= 30 else 5.5
    cell = 0.9 if k <= 4 else 0.72 if k <= 6 else 0.58 if k <= _WITH_SHARES else 0.4 if k <= 30 else 0.3
    cell = max(cell, 0.0085 * font * digits + 0.1) if k <= _WITH_COUNTS else min(cell, 18 / k)  # inches
    written = 0.0095 * font * max(map(len, names))
    upright = written > cell
    figure = new_figure(max(k * cell + written + 1.7, 4.6), k * cell + (written if upright else 0.2) + 1.0)
    from matplotlib.colors import PowerNorm  # after new_figure, which says what to install

    axes = figure.subplots()
    # Errors are rare in a good model: a linear scale would leave them as white as nothing.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for i, j in np.argwhere(counts > 0) if k <= _WITH_COUNTS else ():
        text = f"{counts[i, j]:,}"
        if k <= _WITH_SHARES:
            text += f"\n{shares[i, j]:.0%}" if shares[i, j] >= 0.005 else "\n<1%"
        axes.text(
            j, i, text, ha="center", va="center", fontsize=font, color="white" if shares[i, j] > 0.35 else "#1f2d3d"
        )
    shown = range(0, k, -(-k // _NAMED))
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if upright else 0, fontsize=font + 0.5)
    axes.set_yticks(shown, [names[i] for i in shown], fontsize=font + 0.5)
    if k <= _NAMED:
        axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#e3e7ec", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("share of the true class", fontsize=8.5)
    bar.set_ticks([0, 0.1, 0.25, 0.5, 1], labels=["0%", "10%", "25%", "50%", "100%"], fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
