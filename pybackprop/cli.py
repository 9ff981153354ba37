"""The command line: ``pybackprop demo | train | predict | bench | info``.

What a person did wrong is answered with one sentence on the error stream and exit code 2; nothing is half written.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ._version import __version__

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Errors of usage in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (a benchmark disagreed), 2 (bad input) or 130 (interrupted)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, ImportError, FloatingPointError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("pybackprop: interrupted", file=sys.stderr)
        return 130


def _refuse(message: str) -> int:
    print(f"pybackprop: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pybackprop", description="Trains neural networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"pybackprop {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)

    demo = commands.add_parser("demo", help="train on handwritten digits, and compare with pure NumPy")
    demo.add_argument("--epochs", type=_positive, default=30, help="passes over the training digits (default 30)")
    demo.add_argument("--out", default="learning_curve.png", help="the picture (default learning_curve.png)")
    demo.set_defaults(command=_demo)

    train = commands.add_parser("train", help="train a model of one column of a table")
    train.add_argument("table", help="a .csv, .tsv or .parquet file")
    train.add_argument("--target", required=True, help="the column to predict")
    train.add_argument("--task", default="auto", choices=("auto", "classification", "regression"))
    train.add_argument(
        "--hidden", type=_widths, default=(128, 128), help="widths of the hidden layers (default 128,128)"
    )
    train.add_argument("--members", type=_positive, help="sets of networks to average (default: 3 to 1, by rows)")
    train.add_argument("--epochs", type=_positive, default=200, help="at most so many (default 200)")
    train.add_argument("--batch-size", type=_positive, help="rows per step (default: 32 to 256, by the table's length)")
    train.add_argument("--lr", type=_rate, default=2e-3, help="learning rate (default 0.002)")
    train.add_argument("--weight-decay", type=_rate, default=1e-2, help="of AdamW (default 0.01)")
    train.add_argument("--dropout", type=_rate, default=0.1, help="rate (default 0.1)")
    train.add_argument("--patience", type=_positive, default=20, help="epochs without progress to stop (default 20)")
    train.add_argument("--validation", type=_rate, default=0.15, help="share of rows to stop by (default 0.15)")
    train.add_argument("--test", type=_rate, default=0.15, help="share of rows for the report (default 0.15)")
    train.add_argument("--categorical", type=_names, default=(), help="columns to take as categorical, comma separated")
    train.add_argument("--ignore", type=_names, default=(), help="columns to leave out, comma separated")
    train.add_argument("--seed", type=int, default=0, help="of split, weights and order (default 0)")
    train.add_argument("--out", default="model.safetensors", help="the model (default model.safetensors)")
    train.add_argument("--curve", help="the learning curve's picture (default: --out with .png)")
    train.add_argument("--quiet", action="store_true", help="no progress")
    train.set_defaults(command=_train)

    predict = commands.add_parser("predict", help="apply a trained model to a table")
    predict.add_argument("model", help="a file that 'pybackprop train' wrote")
    predict.add_argument("table", help="a .csv, .tsv or .parquet file with the training table's columns")
    predict.add_argument("--out", help="predictions as CSV (default: <table>.predictions.csv in this folder)")
    predict.set_defaults(command=_predict)

    bench = commands.add_parser("bench", help="measure training steps beside NumPy and the installed rivals")
    from .bench import add_arguments

    add_arguments(bench)
    bench.set_defaults(command=_bench)

    info = commands.add_parser("info", help="version, instruction set, threads, OpenMP runtime")
    info.set_defaults(command=_info)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def _widths(text: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in text.split(",")) if text else ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_writable(path: str) -> None:
    """Refuse a place that cannot be written to before the work whose result goes there."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{path} cannot be written: there is no folder {folder}.")
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{path} cannot be written.")


def _check_distinct(read: dict[str, str], written: dict[str, str]) -> None:
    """Refuse to write one file of a command over another one of it."""
    seen = {os.path.realpath(path): what for what, path in read.items()}
    for what, path in written.items():
        if (other := seen.setdefault(os.path.realpath(path), what)) != what:
            raise ValueError(f"{path} is both {other} and {what}: give one of them another name.")


def _demo(options: argparse.Namespace) -> int:
    _check_writable(options.out)
    from .demo import run

    run(epochs=options.epochs, picture=options.out)
    return 0


def _train(options: argparse.Namespace) -> int:
    curve = options.curve or os.path.splitext(options.out)[0] + ".png"
    _check_distinct({"the table": options.table}, {"the model": options.out, "the learning curve": curve})
    _check_writable(options.out)
    _check_writable(curve)
    from .tabular import TabularModel

    names = "target task hidden members epochs batch_size lr weight_decay dropout patience validation test"
    names += " categorical ignore seed"
    model = TabularModel(**{name: getattr(options, name) for name in names.split()})
    report = model.fit(options.table, verbose=0 if options.quiet else 1)
    model.save(options.out)
    print(report)
    print(f"model: {options.out}")
    try:
        report.plot(curve)
    except ImportError as error:  # the model is trained and saved; only its picture has to wait
        print(f"note: no learning curve was drawn: {error}", file=sys.stderr)
    else:
        print(f"learning curve: {curve}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    stem = os.path.basename(options.table).removesuffix(".gz")
    out = options.out or os.path.splitext(stem)[0] + ".predictions.csv"
    _check_distinct({"the model": options.model, "the table": options.table}, {"the predictions": out})
    _check_writable(out)
    from .tabular import TabularModel

    model = TabularModel.load(options.model)
    predictions = model.predict(options.table)
    predictions.to_csv(out, index=False)
    print(f"{len(predictions)} predictions of {model.target!r}: {out}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    return bench.run(options, bench.QUICK)


def _info(options: argparse.Namespace) -> int:
    from .config import describe_config

    print(describe_config())
    return 0
