"""Several networks of one table: which of them to keep, their mean, and how sure it may be."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .network import Network

__all__ = ["Trained", "best", "calibrate", "pooled"]


class Trained(NamedTuple):
    """A network, its history, and its outputs for rows that it was not trained on."""

    network: Network
    history: dict[str, list[float]]
    held_out: tuple[np.ndarray, np.ndarray]


def best(choices: Sequence[list[Trained]], y: np.ndarray, classes: bool) -> tuple[list[Trained], float]:
    """The networks with the least loss on rows held out, and the temperature of their logits."""
    found = []
    for choice in choices:
        held_out = [trained.held_out for trained in choice]
        if classes:
            found.append(calibrate(held_out, y))
        else:
            rows, predicted = pooled(held_out, lambda outputs: outputs[:, 0])
            found.append((float(((predicted - y[rows]) ** 2).mean()), 1.0))
    best = min(range(len(choices)), key=lambda i: found[i][0])
    return choices[best], found[best][1]


def calibrate(held_out: list[tuple[np.ndarray, np.ndarray]], y: np.ndarray) -> tuple[float, float]:
    """The least log-loss on held-out rows, and the temperature, from 1/8 to 8, by which logits are divided for it.

    Guo et al. 2017 (arXiv:1706.04599); where several networks have a row, by their mean probability. As in Platt 1999
    targets are not quite 0 and 1, so that a few rows without an error do not make the model sure of everything.

    Args:
        held_out: for each network the numbers of the rows that it was not trained on, and its logits (rows, classes).
        y: class numbers of all rows.
    """

    def log_loss(log_temperature: float) -> float:
        rows, p = pooled(held_out, lambda logits: _softmax(logits * np.exp(-log_temperature)))
        p = np.log(np.maximum(p, np.finfo(np.float32).tiny))
        right, (n, classes) = p[np.arange(len(rows)), y[rows]], p.shape
        doubt = 1 / (n / classes + 2)
        return float(-((1 - doubt) * right + doubt * (p.sum(axis=1) - right) / (classes - 1)).mean())

    # Golden-section search: the log-loss of one network is convex in 1 / temperature.
    low, high, ratio = -np.log(8), np.log(8), (np.sqrt(5) - 1) / 2
    for _ in range(24):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if log_loss(a) < log_loss(b) else (a, high)
    best = (low + high) / 2
    return log_loss(best), float(np.exp(best))


def pooled(
    held_out: list[tuple[np.ndarray, np.ndarray]], predict: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that some network was not trained on, and the mean prediction of those networks for each."""
    rows = np.unique(np.concatenate([numbers for numbers, _ in held_out]))
    total: np.ndarray | None = None
    times = np.zeros(len(rows))
    for numbers, outputs in held_out:
        predicted = predict(outputs)
        if total is None:
            total = np.zeros((len(rows), *predicted.shape[1:]))
        at = np.searchsorted(rows, numbers)
        total[at] += predicted
        times[at] += 1
    assert total is not None
    return rows, total / times.reshape(-1, *[1] * (total.ndim - 1))


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
