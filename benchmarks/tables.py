"""Data sets of tables, and the models that are compared on them."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from pybackprop.sklearn import TabularClassifier, TabularRegressor


class Table(NamedTuple):
    """A data set: numbers and, as text, categories; y holds class numbers or, for a regression, floats."""

    name: str
    X: pd.DataFrame
    y: np.ndarray

    @property
    def classification(self) -> bool:
        """Whether y holds classes."""
        return self.y.dtype.kind == "i"


def categories(rows: int = 6000, seed: int = 0) -> Table:
    """20 columns of 10 to 400 categories each, drawn by Zipf's law, a tenth of the cells missing; and 4 numbers.

    Each category has an effect of its own; the class is drawn from the logistic function of their sum, a product of two
    columns' effects, and a wave of one number.
    """
    rng = np.random.default_rng(seed)
    columns, score = {}, np.zeros(rows)
    effects = []
    for i, count in enumerate(np.geomspace(10, 400, 20).astype(int)):
        shares = 1 / np.arange(1, count + 1)
        codes = rng.choice(count, rows, p=shares / shares.sum())
        effects.append(rng.normal(size=count)[codes])
        score += effects[-1]
        values = np.array([f"c{code}" for code in codes], dtype=object)
        values[rng.random(rows) < 0.1] = None
        columns[f"category {i}"] = values
    numbers = rng.normal(size=(rows, 4))
    score += 2 * effects[3] * effects[7] + 2 * np.sin(3 * numbers[:, 0]) + numbers[:, 1]
    for i, column in enumerate(numbers.T):
        columns[f"number {i}"] = np.where(rng.random(rows) < 0.1, np.nan, column)
    y = rng.random(rows) < 1 / (1 + np.exp(-(score - score.mean()) / 1.5))
    return Table("20 categorical columns", pd.DataFrame(columns), y.astype(np.int64))


def tables() -> list[Table]:
    """What scikit-learn ships, what it generates, and `categories`."""
    found = []
    for name in ("iris", "wine", "breast_cancer", "digits", "diabetes"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True, as_frame=True)
        found.append(Table(name.replace("_", " "), X, y.to_numpy(float if name == "diabetes" else np.int64)))
    made: dict[str, Any] = {
        "make_classification": datasets.make_classification(1500, 20, n_informative=8, n_classes=3, random_state=0),
        "make_moons": datasets.make_moons(800, noise=0.25, random_state=0),
        "make_friedman1": datasets.make_friedman1(1000, noise=1.0, random_state=0),
        "make_friedman3": datasets.make_friedman3(1000, noise=0.1, random_state=0),
        "make_regression": datasets.make_regression(800, 20, n_informative=8, noise=20.0, random_state=0),
    }
    for name, (X, y) in made.items():
        frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
        found.append(Table(name, frame, y.astype(np.int64) if "classi" in name or "moons" in name else y))
    return [*found, categories()]


def models(table: Table) -> dict[str, Callable[[int], Any]]:
    """By name, what makes a model from a seed: all with their defaults, each fed as its documentation advises."""
    text = make_column_selector(dtype_include=object)
    numbers = make_column_selector(dtype_exclude=object)
    encoded = make_column_transformer(
        (OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist"), text),
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
    )
    ordinal = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=250), text),
        remainder="passthrough",
    )
    is_text = [dtype.kind == "O" for dtype in table.X.dtypes]
    places = list(range(sum(is_text)))  # the encoder puts them first
    kinds = (
        (TabularClassifier, MLPClassifier, HistGradientBoostingClassifier)
        if table.classification
        else (TabularRegressor, MLPRegressor, HistGradientBoostingRegressor)
    )
    found = {
        "pybackprop": lambda seed: kinds[0](random_state=seed),
        "MLP": lambda seed: make_pipeline(encoded, kinds[1](random_state=seed)),
        "HistGradientBoosting": lambda seed: make_pipeline(
            ordinal, kinds[2](random_state=seed, categorical_features=places or None)
        ),
    }
    try:
        import lightgbm
    except ImportError:
        return found
    kind = lightgbm.LGBMClassifier if table.classification else lightgbm.LGBMRegressor
    found["LightGBM"] = lambda seed: make_pipeline(ordinal, kind(random_state=seed, verbose=-1))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings about convergence at default settings are not what is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
