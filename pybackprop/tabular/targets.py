"""The target column of a table: what task it sets, its classes, how rows are shared out, and how well it was learnt."""

import dataclasses
import os
from typing import TYPE_CHECKING

import numpy as np

from .columns import is_categorical, texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Report",
    "baseline",
    "classification_metrics",
    "find_task",
    "label_ids",
    "labels",
    "native",
    "regression_metrics",
    "split",
]

_MAX_INTEGER_CLASSES = 20
_MIN_ROWS = 10


@dataclasses.dataclass
class Report:
    """What a fit found; ``str(report)`` is the text that the command line prints.

    Attributes:
        task: ``"classification"`` or ``"regression"``.
        target: the column that was learnt.
        rows: number of rows by part: ``train``, ``validation``, ``test``.
        metrics: on the test part, or, if there is none, on rows that a network was not trained on; ``accuracy`` and
            ``log_loss``, or ``r2``, ``mae`` and ``rmse`` in the target's unit.
        baseline: the same metrics of always predicting the training part's class shares, or its mean.
        history: ``loss`` and ``val_loss`` per epoch.
        best_epoch: the epoch, from 1, whose weights were kept.
        notes: what was left out and why.
        members: networks whose mean is the prediction; ``history`` and ``best_epoch`` are those of the first.
    """

    task: str
    target: str
    rows: dict[str, int]
    metrics: dict[str, float]
    baseline: dict[str, float]
    history: dict[str, list[float]]
    best_epoch: int
    notes: list[str]
    members: int = 1

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {part}" for part, count in self.rows.items() if count)
        epochs = len(self.history["loss"])
        lines = [f"{self.task} of {self.target!r}: {parts} rows; best of {epochs} epochs: {self.best_epoch}"]
        if self.members > 1:
            lines[0] += f" (first of {self.members} networks)"
        guess = "the class shares" if self.task == "classification" else "the mean"
        judged = "on the test rows" if self.rows["test"] else "on held-out rows"
        lines.append(f"{judged:<18}{'model':>12}{'baseline':>12}  (baseline: {guess} of the training rows)")
        for name, value in self.metrics.items():
            lines.append(f"  {name.replace('_', ' '):<16}{value:>12.5g}{self.baseline[name]:>12.5g}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the learning curve as a picture (needs matplotlib)."""
        from ..plot.axes import learning_curve

        learning_curve(
            path,
            {"training rows": self.history["loss"], "validation rows": self.history["val_loss"]},
            title=f"{self.task} of {self.target}",
            mark=self.best_epoch,
        )


def find_task(target: "pd.Series") -> str:
    """``"classification"`` of text, booleans and few different whole numbers, else ``"regression"``."""
    if is_categorical(target):
        return "classification"
    values = target.unique()
    if len(values) > min(_MAX_INTEGER_CLASSES, len(target) // 5):
        return "regression"
    try:
        whole = all(float(value).is_integer() for value in values)
    except (TypeError, ValueError):  # dates, or text among the numbers, which is reported when they are read
        whole = False
    return "classification" if whole else "regression"


def split(
    rows: int, classes: np.ndarray | None, validation: float, test: float, seed: int, source: str
) -> list[np.ndarray]:
    """Shuffled row numbers of the training, validation and test parts; each class is shared out alike."""
    if rows < _MIN_ROWS:
        raise ValueError(f"{source} has {rows} rows with a target; at least {_MIN_ROWS} are needed.")
    order = np.random.default_rng(seed).permutation(rows)
    groups = [order] if classes is None else [order[classes[order] == label] for label in np.unique(classes)]
    shares: list[list[np.ndarray]] = [[], [], []]
    for group in groups:
        tested = round(test * len(group))
        trained = len(group) - tested - round(validation * len(group))
        for share, chosen in zip(shares, np.split(group, [trained, len(group) - tested]), strict=True):
            share.append(chosen)
    rank = np.argsort(order)
    parts = [part[np.argsort(rank[part])] for part in map(np.concatenate, shares)]  # classes mixed again
    for name, part, wanted in zip(("training", "validation", "test"), parts, (1, validation, test), strict=True):
        if wanted and not len(part):
            raise ValueError(f"{source} has too few rows, or too few of each class, to give the {name} part any.")
    return parts


def labels(target: "pd.Series", source: str) -> tuple[list[str], str, np.ndarray]:
    """Class names in order, what they were (``integer``, ``boolean`` or ``text``), and a class number per row."""
    names = np.unique(texts(target).astype(str)).tolist()
    if len(names) < 2:
        raise ValueError(f"{source}: the target column {target.name!r} has one class only, {names[0]!r}.")
    kind = "text"
    if all(name.removeprefix("-").isdecimal() for name in names):
        kind, names = "integer", sorted(names, key=int)
    elif set(names) == {"False", "True"}:
        kind = "boolean"
    return names, kind, label_ids(target, names, source)


def label_ids(target: "pd.Series", classes: list[str], source: str) -> np.ndarray:
    """The class number of each row; a class that is not among ``classes`` is a ValueError."""
    ids = {name: i for i, name in enumerate(classes)}
    found = texts(target)
    for name in found:
        if name not in ids:
            raise ValueError(f"{source}: the target column {target.name!r} has the class {name!r}, which is not known.")
    return np.array([ids[name] for name in found], dtype=np.int64)


def native(name: str, kind: str) -> int | bool | str:
    """A class name as the value that it was in the table."""
    if kind == "integer":
        return int(name)
    return name == "True" if kind == "boolean" else name


def classification_metrics(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean of -log(probability of the true class)."""
    picked = probabilities[np.arange(len(y)), y].astype(np.float64)
    return {
        "accuracy": float((probabilities.argmax(axis=1) == y).mean()),
        "log_loss": float(-np.log(np.maximum(picked, np.finfo(np.float32).tiny)).mean()),
    }


def regression_metrics(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """R2 is 1 - SSE / SST with the sum of squares around these rows' own mean, as scikit-learn has it."""
    error = predicted - y
    total = float(((y - y.mean()) ** 2).sum())
    return {
        "r2": 1 - float((error**2).sum()) / total if total > 0 else float("nan"),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
    }


def baseline(y_train: np.ndarray, y: np.ndarray, classes: int) -> dict[str, float]:
    """The metrics of predicting the training rows' class shares, or their mean, for every row."""
    if classes:
        shares = np.bincount(y_train, minlength=classes) / len(y_train)
        return classification_metrics(np.tile(shares, (len(y), 1)), y)
    return regression_metrics(np.full(len(y), y_train.mean()), y)
