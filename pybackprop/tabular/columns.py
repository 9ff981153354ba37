"""From a table's columns to a network's inputs: reading, column kinds, missing values, scaling, categories.

:class:`Columns` learns from the training rows what :meth:`Columns.encode` then applies to any rows:

* numeric column: missing values become the median, and a 0/1 column says where they were (if training rows had any);
  then (x - mean) / deviation, kept within 10 of 0; and a column for each of its bins, between quantiles of the training
  rows: 0 below it, 1 above it, linear within (the piecewise linear encoding of Gorishniy et al. 2022,
  arXiv:2203.05556);
* categorical column of few values: one 0/1 column per value, all 0 for a value not seen in training;
* categorical column of many values: ids for an embedding, 0 for a value not seen in training.

A missing category is a category of its own.
"""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Columns", "numbers", "read_table", "texts"]

ONE_HOT_MAX = 16  # above it, an embedding is smaller than the columns that it replaces
MISSING = "<missing>"
# A text column most of whose cells are numbers is a numeric column with unreadable cells, not a categorical one.
_NUMERIC_SHARE = 0.7
_MOST_BINS = 16  # of a numeric column,
_BIN_ROWS = 20  # with at least so many training rows in each on average,
_BIN_COLUMNS = 512  # and about so many in all columns together
_FAR = 10.0  # deviations from the mean: what lies beyond is an accident, which a network should not extrapolate to
_IDENTIFIER_SHARE = 0.9  # a text column with this share of different values names the rows and teaches nothing


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError("Tables need pandas: pip install 'pybackprop[table]'.") from None
    return pandas


def read_table(path: str | os.PathLike[str]) -> "pd.DataFrame":
    """A CSV or Parquet file (by its ending) as a DataFrame.

    Raises:
        ValueError: the file is empty, has another ending, or cannot be parsed.
        OSError: it cannot be read.
    """
    pd = _pandas()
    path = os.fspath(path)
    ending = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if ending not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"{path}: a table ends in .csv, .tsv (either may be .gz) or .parquet.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is empty.")
    try:
        if ending == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header lose cells
                frame = pd.read_csv(path, sep="\t" if ending == ".tsv" else ",", low_memory=False, index_col=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty.") from None
    except ImportError:
        raise ImportError("Parquet tables need pyarrow: pip install 'pybackprop[table]'.") from None
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' and pyarrow's own errors are ValueErrors
        reason = str(error).strip().splitlines()[0].removeprefix("Error tokenizing data. C error: ").rstrip(".")
        raise ValueError(f"{path} cannot be read as a table: {reason}.") from None
    if not len(frame):
        raise ValueError(f"{path} has a header but no rows.")
    return frame


def _cell(source: str, series: "pd.Series", position: int) -> str:
    """Where a cell stands, as a person finds it: with the header as line 1 of a CSV file.

    Rows may have been dropped before; the index keeps the number that a row had when it was read.
    """
    row = int(series.index[position])
    if source.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return f"{source}, line {row + 2}, column {series.name!r}"
    return f"{source}, row {row}, column {series.name!r}"


def numbers(series: "pd.Series", source: str) -> np.ndarray:
    """The column as float64 with NaN for missing; a cell that is no finite number is a ValueError naming it."""
    pd = _pandas()
    if pd.api.types.is_datetime64_any_dtype(series):
        seconds = (series - pd.Timestamp(0, tz=series.dt.tz)) / pd.Timedelta(seconds=1)
        return seconds.to_numpy(np.float64)
    values = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.isinf(values) | (np.isnan(values) & series.notna().to_numpy())
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"{_cell(source, series, at)}: cannot read {str(series.iloc[at])!r} as a finite number.")
    return values


def texts(series: "pd.Series") -> np.ndarray:
    """The column as text, missing cells as ``<missing>``; 1.0 and 1 are the same category."""
    pd = _pandas()
    if pd.api.types.is_float_dtype(series):
        whole = series.dropna()
        if (whole == whole.round()).all():
            series = series.astype("Int64")
    return series.astype(object).where(series.notna(), MISSING).astype(str).to_numpy(dtype=object)


def is_categorical(series: "pd.Series") -> bool:
    """Whether a column holds names rather than quantities; text that is mostly numbers counts as quantities."""
    types = _pandas().api.types
    if types.is_bool_dtype(series):
        return True
    if types.is_numeric_dtype(series) or types.is_datetime64_any_dtype(series):
        return False
    return not _mostly_numbers(series)


def _mostly_numbers(series: "pd.Series") -> bool:
    pd = _pandas()
    present = series.dropna()
    if isinstance(series.dtype, pd.CategoricalDtype) or not len(present):
        return False
    if present.map(lambda value: isinstance(value, bool)).any():
        return False
    return bool(pd.to_numeric(present, errors="coerce").notna().mean() > _NUMERIC_SHARE)


class Columns:
    """What was learnt about the columns; ``config()`` is JSON and ``arrays()`` are tensors, together the whole.

    Attributes:
        numeric: names of the numeric columns.
        one_hot: name to list of values, columns of few values.
        embedded: name to list of values, columns of many values.
        edges: for each numeric column the borders of its bins, rising; none for a column without bins.
        notes: sentences about columns that were left out.
    """

    def __init__(self) -> None:
        self.numeric: list[str] = []
        self.one_hot: dict[str, list[str]] = {}
        self.embedded: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.median = self.mean = self.deviation = np.zeros(0)
        self.indicated = np.zeros(0, bool)
        self.edges: list[np.ndarray] = []

    @classmethod
    def learn(
        cls, frame: "pd.DataFrame", source: str, categorical: tuple[str, ...] = (), bins: int = _MOST_BINS
    ) -> "Columns":
        """Kinds, categories and statistics of the training rows; at most ``bins`` bins a numeric column."""
        self = cls()
        values = []
        for name in frame.columns:
            series = frame[name]
            if series.nunique(dropna=False) < 2:
                self.notes.append(f"column {name!r} was left out: it has one value only")
            elif name in categorical or is_categorical(series):
                self._learn_categories(name, texts(series), forced=name in categorical)
            else:
                self.numeric.append(name)
                values.append(numbers(series, source))
        if values:
            table = np.stack(values, axis=1)
            self.indicated = np.isnan(table).any(axis=0)
            self.median = np.nanmedian(table, axis=0)
            table = np.where(np.isnan(table), self.median, table)
            self.mean = table.mean(axis=0)
            deviation = table.std(axis=0)
            self.deviation = np.where(deviation > 0, deviation, 1.0)
            bins = min(bins, len(table) // _BIN_ROWS, max(2, _BIN_COLUMNS // len(self.numeric)))
            self.edges = [_edges(column, bins) for column in table.T]
        if not (self.numeric or self.one_hot or self.embedded):
            raise ValueError(f"{source} has no column from which the target could be learnt.")
        return self

    def _learn_categories(self, name: str, column: np.ndarray, forced: bool) -> None:
        values, counts = np.unique(column.astype(str), return_counts=True)
        if not forced and len(values) > max(ONE_HOT_MAX, _IDENTIFIER_SHARE * len(column)):
            self.notes.append(
                f"column {name!r} was left out: {len(values)} different values in {len(column)} training rows"
            )
        elif len(values) <= ONE_HOT_MAX:
            self.one_hot[name] = values.tolist()
        else:
            # A value seen once shares id 0 with those never seen, which is how that row of the embedding is trained.
            self.embedded[name] = values[counts > 1].tolist()

    @property
    def names(self) -> list[str]:
        """Every column that :meth:`encode` needs."""
        return [*self.numeric, *self.one_hot, *self.embedded]

    @property
    def plain_width(self) -> int:
        """Columns of the dense input without bins, which are its last columns."""
        return len(self.numeric) + int(self.indicated.sum()) + sum(map(len, self.one_hot.values()))

    @property
    def dense_width(self) -> int:
        """Columns of the dense input."""
        return self.plain_width + sum(max(len(edges) - 1, 0) for edges in self.edges)

    def encode(self, frame: "pd.DataFrame", source: str) -> tuple[np.ndarray, ...]:
        """Network inputs: float32 (n, dense_width) unless that is 0, then int64 ids (n,) per embedded column.

        Raises:
            ValueError: a column is missing, or a numeric cell is unreadable.
        """
        for name in self.names:
            if name not in frame.columns:
                raise ValueError(f"{source} has no column {name!r}, which the model was trained on.")
        dense, binned = [], []
        if self.numeric:
            table = np.stack([numbers(frame[name], source) for name in self.numeric], axis=1)
            missing = np.isnan(table)
            table = np.where(missing, self.median, table)
            dense += [np.clip((table - self.mean) / self.deviation, -_FAR, _FAR), missing[:, self.indicated]]
            binned = [_binned(column, edges) for column, edges in zip(table.T, self.edges, strict=True) if len(edges)]
        for name, values in self.one_hot.items():
            dense.append(texts(frame[name])[:, None] == np.array(values, dtype=object))
        inputs = [np.concatenate(dense + binned, axis=1, dtype=np.float32)] if dense else []
        for name, values in self.embedded.items():
            inputs.append(_pandas().Index(values, dtype=object).get_indexer(texts(frame[name])).astype(np.int64) + 1)
        return tuple(inputs)

    def config(self) -> dict[str, Any]:
        """The part that is names, for the file's metadata."""
        return {"numeric": self.numeric, "one_hot": self.one_hot, "embedded": self.embedded}

    def arrays(self) -> dict[str, np.ndarray]:
        """The part that is numbers, for the file's tensors."""
        return {
            "median": self.median,
            "mean": self.mean,
            "deviation": self.deviation,
            "indicated": self.indicated,
            "edges": np.concatenate([np.zeros(0), *self.edges]),
            "edge_counts": np.array([len(edges) for edges in self.edges], np.int64),
        }

    @classmethod
    def restore(cls, config: dict[str, Any], arrays: dict[str, np.ndarray], path: str) -> "Columns":
        """The inverse of :meth:`config` and :meth:`arrays`, checked."""
        self = cls()
        self.numeric, self.one_hot, self.embedded = config["numeric"], config["one_hot"], config["embedded"]
        for name, dtype in (("median", "f"), ("mean", "f"), ("deviation", "f"), ("indicated", "b")):
            array = arrays.get(name)
            if array is None or array.shape != (len(self.numeric),) or array.dtype.kind != dtype:
                raise ValueError(
                    f"{path}: the tensor 'columns.{name}' does not fit the file's {len(self.numeric)} columns."
                )
            setattr(self, name, array)
        edges, counts = arrays.get("edges"), arrays.get("edge_counts")
        if (
            edges is None
            or counts is None
            or counts.shape != (len(self.numeric),)
            or counts.dtype.kind != "i"
            or edges.dtype.kind != "f"
            or (counts < 0).any()
            or (counts == 1).any()
            or edges.shape != (sum(counts.tolist()),)
        ):
            raise ValueError(f"{path}: the tensors 'columns.edges' and 'columns.edge_counts' do not go together.")
        self.edges = np.split(edges, np.cumsum(counts)[:-1]) if len(counts) else []
        if not all((np.diff(borders) > 0).all() for borders in self.edges):
            raise ValueError(f"{path}: the tensor 'columns.edges' holds borders of bins that do not rise.")
        return self


def _edges(column: np.ndarray, bins: int) -> np.ndarray:
    """Borders between quantiles of a column's values; none if there would be fewer than two bins."""
    if bins < 2:
        return np.zeros(0)
    edges = np.unique(np.quantile(column, np.linspace(0, 1, bins + 1), method="nearest"))
    return edges if len(edges) > 2 else np.zeros(0)


def _binned(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n, bins): how far each value has come through each bin, from 0 to 1."""
    return np.clip((column[:, None] - edges[:-1]) / np.diff(edges), 0, 1)
