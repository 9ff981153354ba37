"""``python -m benchmarks tabular``: models of tables, with their defaults, by cross-validation."""

import argparse
import json
import time
from typing import Any

import numpy as np
import sklearn
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold

from pybackprop.bench.timing import machine

from .tables import models, quiet, tables


def measure(folds: int = 5, only: str = "") -> list[dict[str, Any]]:
    """A row for each data set and model: score, its standard error over the folds, log-loss, seconds to fit."""
    rows = []
    for table in tables():
        if only and not table.name.startswith(only):
            continue
        kind = StratifiedKFold if table.classification else KFold
        splits = list(kind(folds, shuffle=True, random_state=0).split(table.X, table.y))
        for name, make in models(table).items():
            scores, losses, seconds = [], [], []
            for seed, (train, test) in enumerate(splits):
                begin = time.perf_counter()
                with quiet():
                    model = make(seed).fit(table.X.iloc[train], table.y[train])
                seconds.append(time.perf_counter() - begin)
                scores.append(float(model.score(table.X.iloc[test], table.y[test])))
                if table.classification:
                    losses.append(float(log_loss(table.y[test], model.predict_proba(table.X.iloc[test]))))
            row = {
                "table": table.name,
                "rows": len(table.y),
                "measure": "accuracy" if table.classification else "R2",
                "model": name,
                "score": float(np.mean(scores)),
                "error": float(np.std(scores, ddof=1) / np.sqrt(folds)),
                "fit_seconds": float(np.median(seconds)),
            }
            if losses:
                row["log_loss"] = float(np.mean(losses))
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    loss = f"log-loss {row['log_loss']:.3f}" if "log_loss" in row else " " * 14
    return (
        f"  {row['table']:<24}{row['model']:<22}{row['measure']:<9}{row['score']:7.4f} +- {row['error']:.4f}  {loss}"
        f"  fit {row['fit_seconds']:6.2f} s"
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each data set: score, log-loss and seconds of each model."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    lines = [f"| table | rows | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for table in dict.fromkeys(row["table"] for row in rows):
        found = {row["model"]: row for row in rows if row["table"] == table}
        first = next(iter(found.values()))
        best = max(row["score"] for row in found.values())
        cells = []
        for name in names:
            row = found[name]
            score = f"{row['score']:.3f}"
            loss = f", {row['log_loss']:.3f}" if "log_loss" in row else ""
            cells.append(f"{f'**{score}**' if row['score'] == best else score}{loss}, {row['fit_seconds']:.2g} s")
        lines.append(f"| {table}, {first['measure']} | {first['rows']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tabular", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="data sets whose name begins so; default: all")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--table", metavar="FILE", help="print results as a Markdown table and stop")
    options = parser.parse_args(arguments)
    if options.table:
        with open(options.table) as file:
            print(markdown(json.load(file)["rows"]))
        return 0
    here = machine()
    print(
        f"{here['cpu']}, {here['cpus']} CPUs, load {here['load']}; scikit-learn {sklearn.__version__}; mean +- standard"
    )
    print(f"error over {options.folds} folds; all with default settings")
    rows = measure(options.folds, options.only)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": here, "rows": rows}, file, indent=1)
            file.write("\n")
    return 0
