"""Networks for tables: numeric and categorical columns with missing values in, a trained and reported model out.

    >>> import pandas as pd, numpy as np
    >>> from pybackprop.tabular import TabularModel
    >>> rng = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"size": rng.uniform(20, 200, 400), "city": rng.choice(["Bern", "Oslo"], 400)})
    >>> frame["price"] = 3 * frame["size"] + np.where(frame["city"] == "Oslo", 100, 0)
    >>> model = TabularModel("price", epochs=30)
    >>> report = model.fit(frame)
    >>> report.metrics["r2"] > 0.9
    True
    >>> model.predict(frame.head(2)).columns.tolist()
    ['prediction']

Needs pandas, and pyarrow for Parquet (extra ``table``).
"""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import nn, ops, optim
from ._table import Columns, numbers, read_table
from ._targets import (
    Report,
    baseline,
    classification_metrics,
    find_task,
    label_ids,
    labels,
    native,
    regression_metrics,
    split,
)
from .io import check_fit, load_file, save_file
from .random import generator, manual_seed
from .training import EarlyStopping, Trainer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Report", "TabularModel"]

_KEY = "pybackprop.tabular"  # of the file's metadata
_ROWS = 4096  # predicted at a time


class _Network(nn.Module):
    """Embeddings of the id inputs beside the dense input, then linear layers with ReLU and dropout between."""

    def __init__(self, dense: int, tables: list[tuple[int, int]], hidden: list[int], outputs: int, dropout: float):
        embeddings = [nn.Embedding(rows, width) for rows, width in tables]
        self.embeddings = nn.ModuleList(embeddings)
        for embedding in embeddings:
            weight = np.array(embedding.weight)
            weight[0] = 0  # values not seen in training: no row trains this one unless some value is rare
            embedding.weight.assign(weight)
        width = dense + sum(width for _, width in tables)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, *inputs):
        first_id = len(inputs) - len(self.embeddings)
        parts = [*inputs[:first_id]]
        parts += [embed(ids) for embed, ids in zip(self.embeddings, inputs[first_id:], strict=True)]
        return self.layers(parts[0] if len(parts) == 1 else ops.concat(parts, dim=1))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw starting weights from this seed; the caller's generator goes on afterwards as if nothing had been drawn."""
    state = generator().bit_generator.state
    manual_seed(seed)
    try:
        yield
    finally:
        generator().bit_generator.state = state


def _embedding_width(values: int) -> int:
    """fastai's rule (Howard and Gugger, 2020): min(600, 1.6 n^0.56), held to 50 here."""
    return min(50, round(1.6 * values**0.56))


class TabularModel:
    """A network for one column of a table, with its preprocessing.

    Kinds of columns are found from the training rows: numbers and dates are numeric (missing values: median and an
    indicator; standardised), everything else is categorical (one column per value up to 16 values, else an embedding;
    missing is a value of its own). Regression targets are standardised inside. Training is AdamW with early stopping on
    the validation part, whose best weights are kept.

    Args:
        target: the column to predict.
        task: ``"classification"``, ``"regression"``, or ``"auto"``: classification of text, booleans and at most 20
            different whole numbers.
        hidden: widths of the hidden layers.
        epochs: at most so many passes over the training rows.
        batch_size: rows per step; None chooses 32 to 256 by the number of rows.
        lr: learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        dropout: rate after each hidden layer.
        patience: epochs without a better validation loss before training stops.
        validation: share of the rows for early stopping.
        test: share of the rows for the report; they take no part in training.
        categorical: columns to take as categorical whatever they look like.
        ignore: columns to leave out.
        seed: of the split, the starting weights, the order of rows, and dropout.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        target: str,
        *,
        task: str = "auto",
        hidden: tuple[int, ...] = (64, 64),
        epochs: int = 200,
        batch_size: int | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        dropout: float = 0.1,
        patience: int = 20,
        validation: float = 0.15,
        test: float = 0.15,
        categorical: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        seed: int = 0,
    ):
        if task not in ("auto", "classification", "regression"):
            raise ValueError(f"task is 'auto', 'classification' or 'regression', not {task!r}.")
        if not all(isinstance(size, int) and size > 0 for size in hidden):
            raise ValueError(f"hidden holds widths of layers, whole numbers above 0, not {hidden!r}.")
        if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
            raise ValueError(f"validation and test are shares whose sum is below 1, not {validation} and {test}.")
        self.target, self.task = target, task
        self.hidden, self.epochs, self.batch_size, self.lr = tuple(hidden), epochs, batch_size, lr
        self.weight_decay, self.dropout, self.patience = weight_decay, dropout, patience
        self.validation, self.test = validation, test
        self.categorical, self.ignore, self.seed = tuple(categorical), tuple(ignore), seed
        self.classes: list[str] = []
        self.class_kind = "text"
        self._scale = np.array([0.0, 1.0])  # mean and deviation of a regression's target
        self._columns: Columns | None = None
        self._network: _Network | None = None

    def fit(self, table: "pd.DataFrame | str | os.PathLike[str]", *, verbose: int = 0) -> Report:
        """Train on a DataFrame, or a CSV or Parquet file; a second call starts anew.

        Raises:
            ValueError: no target column, a cell that cannot be read, no rows, a single class, or too few rows; the
                sentence names the place. The model is as it was.
        """
        frame, source = _frame(table)
        frame, notes = self._rows(frame, source)
        target = frame[self.target]
        task = self.task if self.task != "auto" else find_task(target)
        names = [n for n in frame.columns if n != self.target and n not in self.ignore]
        if task == "classification":
            classes, kind, y = labels(target, source)
            scale = self._scale
        else:
            y = numbers(target, source)
            classes, kind = [], "text"
        train, validation, test = split(
            len(frame), y if classes else None, self.validation, self.test, self.seed, source
        )
        if not classes:
            scale = np.array([y[train].mean(), y[train].std()])
            if scale[1] == 0:
                raise ValueError(f"{source}: the target column {self.target!r} has one value only in training rows.")
            y = ((y - scale[0]) / scale[1]).astype(np.float32)
        columns = Columns.learn(frame.iloc[train][names], source, self.categorical)
        inputs = columns.encode(frame, source)

        def part(rows):
            return tuple(array[rows] for array in inputs)

        with _seeded(self.seed):
            network = _network(columns, self.hidden, len(classes) or 1, self.dropout)
        trainer = Trainer(
            network,
            loss=nn.CrossEntropyLoss() if classes else nn.MSELoss(),
            optimizer=optim.AdamW(
                lr=self.lr, weight_decay=self.weight_decay, groups={optim.VECTORS: dict(weight_decay=0)}
            ),
            seed=self.seed,
        )
        history = trainer.fit(
            part(train),
            y[train],
            epochs=self.epochs,
            batch_size=self.batch_size or min(256, max(32, 2 ** int(np.log2(len(train) / 32 + 1)))),
            validation_data=(part(validation), y[validation]),
            callbacks=[EarlyStopping(monitor="val_loss", patience=self.patience, restore_best_weights=True)],
            verbose=verbose,
        ).history
        self.classes, self.class_kind, self._scale = classes, kind, scale
        self._columns, self._network = columns, network
        unscaled = y if classes else y * scale[1] + scale[0]
        return Report(
            task=task,
            target=self.target,
            rows={"train": len(train), "validation": len(validation), "test": len(test)},
            metrics=self._metrics(self._outputs(part(test)), unscaled[test]),
            baseline=baseline(unscaled[train], unscaled[test], len(classes)),
            history={name: list(history[name]) for name in ("loss", "val_loss")},
            best_epoch=int(np.argmin(history["val_loss"])) + 1,
            notes=notes + columns.notes,
        )

    def predict(self, table: "pd.DataFrame | str | os.PathLike[str]") -> "pd.DataFrame":
        """Predictions for the rows of a table, in its order and with its index.

        Returns:
            Column ``prediction``; for classification also ``probability_<class>`` for each class.

        Raises:
            ValueError: a column of the training table is missing, or a cell cannot be read.
            RuntimeError: the model has not been fitted.
        """
        import pandas as pd

        columns, _ = self._fitted()
        frame, source = _frame(table)
        index = table.index if isinstance(table, pd.DataFrame) else frame.index
        outputs = self._outputs(columns.encode(frame, source))
        if not self.classes:
            return pd.DataFrame({"prediction": outputs[:, 0] * self._scale[1] + self._scale[0]}, index=index)
        probabilities = ops.softmax(outputs, dim=1)
        named = [native(name, self.class_kind) for name in self.classes]
        result = pd.DataFrame({"prediction": [named[i] for i in probabilities.argmax(axis=1)]}, index=index)
        for i, name in enumerate(self.classes):
            result[f"probability_{name}"] = probabilities[:, i]
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network, preprocessing and column names to one safetensors file (no pickle, nothing executable)."""
        columns, network = self._fitted()
        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"columns.{name}": value for name, value in columns.arrays().items()}
        tensors["target"] = self._scale
        config = {
            "target": self.target,
            "task": "classification" if self.classes else "regression",
            "classes": self.classes,
            "class_kind": self.class_kind,
            "columns": columns.config(),
        }
        save_file(tensors, path, {_KEY: json.dumps(config)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TabularModel":
        """Read a model that :meth:`save` wrote.

        Raises:
            ValueError: the file is malformed or holds something else.
            OSError: it cannot be read.
        """
        path = os.fspath(path)
        tensors, metadata = load_file(path)
        config = _checked_config(metadata.get(_KEY), path)
        self = cls(config["target"], task=config["task"])
        self.classes, self.class_kind = config["classes"], config["class_kind"]
        arrays = {name.removeprefix("columns."): a for name, a in tensors.items() if name.startswith("columns.")}
        self._columns = columns = Columns.restore(config["columns"], arrays, path)
        self._scale = tensors.get("target", np.zeros(0))
        if self._scale.shape != (2,) or self._scale.dtype.kind != "f":
            raise ValueError(f"{path}: the tensor 'target' is not two numbers.")
        weights = {n.removeprefix("network."): a for n, a in tensors.items() if n.startswith("network.")}
        self.hidden = _hidden_widths(weights, _input_width(columns), path)
        self._network = _network(columns, self.hidden, len(self.classes) or 1, 0.0)
        check_fit(self._network.state_dict(), weights, path)
        self._network.load_state_dict(weights)
        return self

    def evaluate(self, table: "pd.DataFrame | str | os.PathLike[str]") -> dict[str, float]:
        """Metrics on the rows of a table that holds the target as well; rows without one are left out.

        Raises:
            ValueError: as :meth:`predict`, and if the target column is missing or has a class that is not known.
        """
        columns, _ = self._fitted()
        frame, source = _frame(table)
        frame, _ = self._rows(frame, source)
        target = frame[self.target]
        y = label_ids(target, self.classes, source) if self.classes else numbers(target, source)
        return self._metrics(self._outputs(columns.encode(frame, source)), y)

    def _outputs(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        """The network's outputs (n, out), some thousand rows at a time: memory does not grow with the table."""
        _, network = self._fitted()
        rows = range(0, len(inputs[0]), _ROWS)
        return np.concatenate([network(*(array[first : first + _ROWS] for array in inputs)) for first in rows])

    def _fitted(self) -> tuple[Columns, "_Network"]:
        if self._columns is None or self._network is None:
            raise RuntimeError("This TabularModel has not been fitted: call fit(table) or TabularModel.load(path).")
        return self._columns, self._network

    def _rows(self, frame: "pd.DataFrame", source: str) -> tuple["pd.DataFrame", list[str]]:
        """The rows that have a target."""
        if self.target not in frame.columns:
            near = ", ".join(map(repr, frame.columns[:20]))
            raise ValueError(f"{source} has no target column {self.target!r}; its columns are {near}.")
        for name in (*self.ignore, *self.categorical):
            if name not in frame.columns:
                raise ValueError(f"{source} has no column {name!r}, which is to be ignored or categorical.")
        present = frame[self.target].notna()
        dropped = int((~present).sum())
        if dropped == len(frame):
            raise ValueError(f"{source}: the target column {self.target!r} is empty in every row.")
        return frame[present], [f"{dropped} rows without a target were left out"] if dropped else []

    def _metrics(self, outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        if self.classes:
            return classification_metrics(ops.softmax(outputs, dim=1), y)
        return regression_metrics(outputs[:, 0].astype(np.float64) * self._scale[1] + self._scale[0], y)


def _frame(table: "pd.DataFrame | str | os.PathLike[str]") -> tuple["pd.DataFrame", str]:
    """The table with rows numbered from 0 and columns named by text, and what to call it in a message."""
    source = "the table"
    if isinstance(table, str | os.PathLike):
        table, source = read_table(table), os.fspath(table)
    if not hasattr(table, "columns") or not hasattr(table, "iloc"):
        raise TypeError(f"A table is a pandas DataFrame or the path of a file, not {type(table).__name__}.")
    if not len(table):
        raise ValueError(f"{source} has no rows.")
    frame = table.reset_index(drop=True).set_axis([str(name) for name in table.columns], axis=1)
    if not frame.columns.is_unique:
        raise ValueError(f"{source} has the column {frame.columns[frame.columns.duplicated()][0]!r} twice.")
    return frame, source


def _table_sizes(columns: Columns) -> list[tuple[int, int]]:
    """Rows and width of each embedding; row 0 is for values not seen in training."""
    return [(len(v) + 1, _embedding_width(len(v) + 1)) for v in columns.embedded.values()]


def _input_width(columns: Columns) -> int:
    return columns.dense_width + sum(width for _, width in _table_sizes(columns))


def _network(columns: Columns, hidden: tuple[int, ...], outputs: int, dropout: float) -> _Network:
    return _Network(columns.dense_width, _table_sizes(columns), list(hidden), outputs, dropout)


def _hidden_widths(weights: dict[str, np.ndarray], width: int, path: str) -> tuple[int, ...]:
    """Widths of the hidden layers, from the tensors: no number in a file can ask for more memory than the file has."""
    widths: list[int] = []
    while (name := f"layers.{3 * len(widths)}.weight") in weights:
        shape = weights[name].shape
        if len(shape) != 2 or shape[1] != width or shape[0] < 1:
            raise ValueError(
                f"{path}: tensor 'network.{name}' has the shape {shape}, which does not fit {width} inputs."
            )
        width = shape[0]
        widths.append(width)
    return tuple(widths[:-1])


def _checked_config(text: str | None, path: str) -> dict[str, Any]:
    """The configuration in a file's metadata, each field of the kind that :meth:`TabularModel.save` writes."""
    if text is None:
        raise ValueError(f"{path} holds no tabular model.")
    fault = ValueError(f"{path}: the description of the tabular model is damaged.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise fault from None

    def is_names(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    def is_tables(value: Any) -> bool:
        return isinstance(value, dict) and all(map(is_names, value.values()))

    shape = {
        "target": lambda value: isinstance(value, str),
        "task": lambda value: value in ("classification", "regression"),
        "classes": is_names,
        "class_kind": lambda value: value in ("integer", "boolean", "text"),
        "columns": lambda value: (
            isinstance(value, dict)
            and value.keys() == {"numeric", "one_hot", "embedded"}
            and is_names(value["numeric"])
            and is_tables(value["one_hot"])
            and is_tables(value["embedded"])
        ),
    }
    if not isinstance(config, dict) or config.keys() != shape.keys():
        raise fault
    if not all(check(config[name]) for name, check in shape.items()):
        raise fault
    if (config["task"] == "classification") != bool(config["classes"]):
        raise fault
    return config
