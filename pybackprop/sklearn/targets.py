"""Targets and weights as all estimators take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight


def column(y: Any) -> Any:
    """y (n, 1) as (n,), with scikit-learn's warning; anything else as it is."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def row_weights(class_weight: Any, y: Any, sample_weight: Any) -> Any:
    """The weight of each row: that of its class times its own; None if there are neither."""
    if class_weight is None:
        return sample_weight
    weight = compute_sample_weight(class_weight, y)
    return weight if sample_weight is None else weight * np.asarray(sample_weight)
