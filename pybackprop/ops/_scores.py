"""What is counted and not differentiated."""

from __future__ import annotations

from typing import Any

from ._call import lift, node, op


@op("scores", "labels", integers=("labels",))
def top_k_correct(scores: Any, labels: Any, k: int = 1) -> Any:
    """1 where the label is among the ``k`` classes with the largest scores, else 0.

    Of equal scores the class with the smaller number comes first; NaN is never correct. No gradient.

    Args:
        scores: (N, C).
        labels: (N,) integers from 0 to C - 1.
        k: at least 1.

    Returns:
        (N,)

    >>> top_k_correct([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    array([1., 0.], dtype=float32)
    """
    return node("top_k_correct", scores, lift(labels, "top_k_correct", integer=True), k=int(k))


@op("scores", "target")
def binary_correct(scores: Any, target: Any, threshold: float = 0.0) -> Any:
    """1 where ``scores > threshold`` says what ``target`` (0 or 1) says, else 0. No gradient.

    Args:
        scores: (N,) or (N, 1); logits for the default threshold.
        target: (N,) or (N, 1).
        threshold: the border.

    Returns:
        (N,)

    >>> binary_correct([-1.0, 2.0], [0.0, 0.0])
    array([1., 0.], dtype=float32)
    """
    return node("binary_correct", scores, target, threshold=float(threshold))
