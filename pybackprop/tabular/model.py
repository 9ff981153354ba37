"""`TabularModel`: a table in, a trained, calibrated and reported model out, and its file."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import nn, ops, optim
from ..io import check_fit, load_file, save_file
from ..random import seeded
from ..training import EarlyStopping, Trainer
from .columns import Columns, numbers, read_table
from .ensemble import Trained, best, pooled
from .network import Network, network_for, shape_of
from .targets import (
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

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TabularModel"]

_KEY = "pybackprop.tabular"  # of the file's metadata
_ROWS = 4096  # predicted at a time
_FEW, _MANY = 5_000, 50_000  # rows up to which several splits pay


class TabularModel:
    """A network for one column of a table, with its preprocessing.

    Kinds of columns are found from the rows that are not tested on: numbers and dates are numeric (missing values:
    median and an indicator; standardised, and cut into bins between quantiles), everything else is categorical (one
    column per value up to 16 values, else an embedding; missing is a value of its own). Regression targets are
    standardised inside. Each network is residual where widths allow it, and trained by AdamW with early stopping on
    validation rows, whose best weights are kept. On each set of validation rows two are trained, with and without bins;
    what did best on rows held out is kept, one kind or both, and predictions are averaged. Probabilities are calibrated
    on those rows by one temperature (Guo et al. 2017, arXiv:1706.04599).

    Args:
        target: the column to predict.
        task: ``"classification"``, ``"regression"``, or ``"auto"``: classification of text, booleans and at most 20
            different whole numbers.
        hidden: widths of the hidden layers. Default (128, 128).
        members: sets of validation rows, each with networks of its own; None for 3 up to 5 000 rows, 2 up to 50 000,
            and 1 beyond.
        bins: most bins of a numeric column; 0 for none, and one network for each set of validation rows.
        epochs: at most so many passes over the training rows.
        batch_size: rows per step; None chooses 32 to 256 by the number of rows.
        lr: learning rate of AdamW. Default 2e-3.
        weight_decay: of AdamW, on matrices only.
        dropout: rate after each hidden layer.
        patience: epochs without a better validation loss before training stops.
        validation: share of the rows for early stopping.
        test: share of the rows for the report; they take no part in training. 0: the report is about validation rows.
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
        hidden: tuple[int, ...] = (128, 128),
        members: int | None = None,
        bins: int = 16,
        epochs: int = 200,
        batch_size: int | None = None,
        lr: float = 2e-3,
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
        if not (members is None or (isinstance(members, int) and members > 0)):
            raise ValueError(f"members is a whole number above 0, or None, not {members!r}.")
        if not (isinstance(bins, int) and bins >= 0):
            raise ValueError(f"bins is a whole number of at least 0, not {bins!r}.")
        if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
            raise ValueError(f"validation and test are shares whose sum is below 1, not {validation} and {test}.")
        self.target, self.task = target, task
        self.hidden, self.epochs, self.batch_size, self.lr = tuple(hidden), epochs, batch_size, lr
        self.weight_decay, self.dropout, self.patience = weight_decay, dropout, patience
        self.members, self.bins = members, bins
        self.validation, self.test = validation, test
        self.categorical, self.ignore, self.seed = tuple(categorical), tuple(ignore), seed
        self.classes: list[str] = []
        self.class_kind = "text"
        self._scale = np.array([0.0, 1.0])  # mean and deviation of a regression's target
        self._temperature = 1.0
        self._columns: Columns | None = None
        self._networks: list[Network] = []

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
        parts = split(len(frame), y if classes else None, self.validation, self.test, self.seed, source)
        known = np.concatenate(parts[:2])
        if not classes:
            scale = np.array([y[known].mean(), y[known].std()])
            if scale[1] == 0:
                raise ValueError(f"{source}: the target column {self.target!r} has one value only in training rows.")
            y = ((y - scale[0]) / scale[1]).astype(np.float32)
        columns = Columns.learn(frame.iloc[known][names], source, self.categorical, self.bins)
        inputs = columns.encode(frame, source)
        widths = dict.fromkeys([columns.plain_width, columns.dense_width])
        tried: list[Trained] = []
        for member in range(self.members or (3 if len(known) <= _FEW else 2 if len(known) <= _MANY else 1)):
            rows = parts[:2] if member == 0 else self._split_again(known, y, bool(classes), member, source)
            for width in widths:
                tried.append(self._train(columns, width, inputs, y, rows, len(classes), member, verbose))
        kinds = [[t for t in tried if t.network.dense == width] for width in widths]
        kept, temperature = best([*kinds, tried] if len(kinds) > 1 else kinds, y, bool(classes))
        networks = [t.network for t in kept]
        held_out = [t.held_out for t in kept]
        history = kept[0].history

        self.classes, self.class_kind, self._scale, self._temperature = classes, kind, scale, temperature
        self._columns, self._networks = columns, networks
        unscaled = y if classes else y * scale[1] + scale[0]
        if self.test:
            judged, predicted = parts[2], self._predictions([array[parts[2]] for array in inputs])
        else:
            judged, predicted = pooled(held_out, self._as_predictions)
        return Report(
            task=task,
            target=self.target,
            rows={"train": len(parts[0]), "validation": len(parts[1]), "test": len(parts[2])},
            metrics=self._metrics(predicted, unscaled[judged]),
            baseline=baseline(unscaled[known], unscaled[judged], len(classes)),
            history={name: list(history[name]) for name in ("loss", "val_loss")},
            best_epoch=int(np.argmin(history["val_loss"])) + 1,
            notes=notes + columns.notes,
            members=len(networks),
        )

    def _split_again(
        self, known: np.ndarray, y: np.ndarray, classes: bool, member: int, source: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Other validation rows out of those that are not tested on."""
        share = self.validation / (1 - self.test)
        train, validation, _ = split(len(known), y[known] if classes else None, share, 0.0, self.seed + member, source)
        return known[train], known[validation]

    def _train(
        self,
        columns: Columns,
        width: int,
        inputs: tuple[np.ndarray, ...],
        y: np.ndarray,
        rows: Sequence[np.ndarray],
        classes: int,
        member: int,
        verbose: int,
    ) -> "Trained":
        """One network on training and validation rows, which takes so many columns of the dense input."""
        train, validation = rows

        def part(rows):
            return tuple(array[rows] for array in inputs)

        with seeded(self.seed + member):
            network = network_for(columns, width, self.hidden, classes or 1, self.dropout)
        trainer = Trainer(
            network,
            loss=nn.CrossEntropyLoss() if classes else nn.MSELoss(),
            optimizer=optim.AdamW(
                lr=self.lr, weight_decay=self.weight_decay, groups={optim.VECTORS: dict(weight_decay=0)}
            ),
            seed=self.seed + member,
        )
        history = trainer.fit(
            part(train),
            y[train],
            epochs=self.epochs,
            batch_size=self.batch_size or min(256, max(32, 2 ** int(np.log2(len(train) / 32 + 1)))),
            validation_data=(part(validation), y[validation]),
            callbacks=[EarlyStopping(monitor="val_loss", patience=self.patience, restore_best_weights=True)],
            verbose=verbose,
        )
        return Trained(network, history.history, (validation, _outputs(network, part(validation))))

    def predict(self, table: "pd.DataFrame | str | os.PathLike[str]") -> "pd.DataFrame":
        """Predictions for the rows of a table, in its order and with its index.

        Returns:
            Column ``prediction``; for classification also ``probability_<class>`` for each class.

        Raises:
            ValueError: a column of the training table is missing, or a cell cannot be read.
            RuntimeError: the model has not been fitted.
        """
        import pandas as pd

        columns = self._fitted()
        frame, source = _frame(table)
        index = table.index if isinstance(table, pd.DataFrame) else frame.index
        predicted = self._predictions(columns.encode(frame, source))
        if not self.classes:
            return pd.DataFrame({"prediction": predicted}, index=index)
        probabilities = predicted
        named = [native(name, self.class_kind) for name in self.classes]
        result = pd.DataFrame({"prediction": [named[i] for i in probabilities.argmax(axis=1)]}, index=index)
        for i, name in enumerate(self.classes):
            result[f"probability_{name}"] = probabilities[:, i]
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network, preprocessing and column names to one safetensors file (no pickle, nothing executable)."""
        columns = self._fitted()
        tensors = {
            f"network.{i}.{name}": value
            for i, network in enumerate(self._networks)
            for name, value in network.state_dict().items()
        }
        tensors |= {f"columns.{name}": value for name, value in columns.arrays().items()}
        tensors["target"] = self._scale
        tensors["temperature"] = np.array([self._temperature])
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
        temperature = tensors.get("temperature", np.zeros(0))
        if temperature.shape != (1,) or temperature.dtype.kind != "f" or not temperature[0] > 0:
            raise ValueError(f"{path}: the tensor 'temperature' is not one number above 0.")
        self._temperature = float(temperature[0])
        for name in tensors:
            if name not in ("target", "temperature") and not name.startswith(("columns.", "network.")):
                raise ValueError(f"{path} has the tensor {name!r}, which a tabular model does not know.")
        found = {n.split(".")[1] for n in tensors if n.startswith("network.")}
        if found != {str(i) for i in range(len(found))} or not found:
            raise ValueError(f"{path}: its networks are not numbered from 0.")
        for i in range(len(found)):
            start = f"network.{i}."
            weights = {n.removeprefix(start): a for n, a in tensors.items() if n.startswith(start)}
            dense, self.hidden = shape_of(weights, columns, path)
            network = network_for(columns, dense, self.hidden, len(self.classes) or 1, 0.0)
            check_fit(network.state_dict(), weights, path)
            network.load_state_dict(weights)
            self._networks.append(network)
        return self

    def evaluate(self, table: "pd.DataFrame | str | os.PathLike[str]") -> dict[str, float]:
        """Metrics on the rows of a table that holds the target as well; rows without one are left out.

        Raises:
            ValueError: as :meth:`predict`, and if the target column is missing or has a class that is not known.
        """
        columns = self._fitted()
        frame, source = _frame(table)
        frame, _ = self._rows(frame, source)
        target = frame[self.target]
        y = label_ids(target, self.classes, source) if self.classes else numbers(target, source)
        return self._metrics(self._predictions(columns.encode(frame, source)), y)

    def _predictions(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (n, classes), or numbers (n,) in the target's unit: the mean over the networks."""
        return np.mean([self._as_predictions(_outputs(network, inputs)) for network in self._networks], axis=0)

    def _as_predictions(self, outputs: np.ndarray) -> np.ndarray:
        """One network's outputs as the predictions they mean."""
        if self.classes:
            return ops.softmax(outputs / np.float32(self._temperature), dim=1)
        return outputs[:, 0].astype(np.float64) * self._scale[1] + self._scale[0]

    def _fitted(self) -> Columns:
        if self._columns is None:
            raise RuntimeError("This TabularModel has not been fitted: call fit(table) or TabularModel.load(path).")
        return self._columns

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

    def _metrics(self, predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
        return classification_metrics(predicted, y) if self.classes else regression_metrics(predicted, y)


def _outputs(network: Network, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The network's outputs (n, out), some thousand rows at a time: memory does not grow with the table."""
    rows = range(0, len(inputs[0]), _ROWS)
    return np.concatenate([network(*(array[first : first + _ROWS] for array in inputs)) for first in rows])


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
