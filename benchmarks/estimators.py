"""``python -m benchmarks sklearn``: our MLPs beside scikit-learn's with the same parameters.

Every measurement is made in a process of its own, ours and theirs by turns. Before a time counts, the two networks must
have the same loss curve, to rounding.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, StratifiedKFold

from pybackprop.bench.timing import machine

from .tables import quiet, tables

EPOCHS = {"tol": 0.0, "n_iter_no_change": np.inf, "random_state": 0}
FITS: dict[str, dict[str, Any]] = {
    "digits, 50 epochs": {"max_iter": 50},
    "digits in float32, 50 epochs": {"max_iter": 50},
    "20 000 x 784 -> 128 -> 10, 3 epochs": {"max_iter": 3, "hidden_layer_sizes": (128,)},
    "20 000 x 784 -> 128 -> 10 in float32, 3 epochs": {"max_iter": 3, "hidden_layer_sizes": (128,)},
    "iris, 200 epochs": {"max_iter": 200},
}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a case of `FITS`."""
    if name.startswith("iris"):
        return sklearn.datasets.load_iris(return_X_y=True)
    if name.startswith("digits"):
        X, y = load_digits(return_X_y=True)
        X = X / 16
    else:
        rng = np.random.default_rng(0)
        X, y = rng.random((20_000, 784)), rng.integers(0, 10, 20_000)
    return X.astype(np.float32) if "float32" in name else X, y


def module(who: str) -> Any:
    """Where the MLPs come from."""
    if who == "ours":
        import pybackprop.sklearn as found
    else:
        import sklearn.neural_network as found
    return found


def fit_once(who: str, name: str) -> dict[str, Any]:
    """Seconds of a fit, after one that warms up, and its loss curve."""
    X, y = data(name)
    options = {**EPOCHS, **FITS[name]}
    with quiet():
        module(who).MLPClassifier(**{**options, "max_iter": 1}).fit(X, y)
        begin = time.perf_counter()
        model = module(who).MLPClassifier(**options).fit(X, y)
        return {"seconds": time.perf_counter() - begin, "losses": [float(loss) for loss in model.loss_curve_]}


def predict_many(who: str, _: str) -> dict[str, Any]:
    """Microseconds of single-row predictions on digits."""
    X, y = data("digits")
    with quiet():
        model = module(who).MLPClassifier(max_iter=5, random_state=0).fit(X, y)
    taken = []
    for i in range(3500):
        row = X[i % len(X)][None]
        begin = time.perf_counter()
        model.predict(row)
        taken.append(1e6 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(taken[500:], (50, 99))
    return {"p50": float(p50), "p99": float(p99)}


def elsewhere(job: str, who: str, name: str) -> dict[str, Any]:
    """What a fresh process measures."""
    code = f"import json; from benchmarks import estimators; print(json.dumps(estimators.{job}({who!r}, {name!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def scores(folds: int = 5) -> list[dict[str, Any]]:
    """Cross-validated scores of both with the same parameters, on tables of numbers, standardised."""
    rows = []
    for table in tables():
        if any(dtype.kind == "O" for dtype in table.X.dtypes):
            continue
        X = ((table.X - table.X.mean()) / table.X.std().replace(0, 1)).to_numpy()
        kind, what = (StratifiedKFold, "MLPClassifier") if table.classification else (KFold, "MLPRegressor")
        y = table.y if table.classification else (table.y - table.y.mean()) / table.y.std()
        splits = list(kind(folds, shuffle=True, random_state=0).split(X, y))
        row: dict[str, Any] = {"table": table.name}
        for who in ("ours", "theirs"):
            with quiet():
                found = [
                    getattr(module(who), what)(random_state=i).fit(X[a], y[a]).score(X[b], y[b])
                    for i, (a, b) in enumerate(splits)
                ]
            row[who] = float(np.mean(found))
            row[f"{who}_error"] = float(np.std(found, ddof=1) / np.sqrt(folds))
        rows.append(row)
        print(f"  {table.name:<24}{row['ours']:.4f}, scikit-learn {row['theirs']:.4f} +- {row['theirs_error']:.4f}")
    return rows


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sklearn", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the results")
    options = parser.parse_args(arguments)
    here = machine()
    print(f"{here['cpu']}, {here['cpus']} CPUs, load {here['load']}; scikit-learn {sklearn.__version__}", flush=True)
    fits, wrong = [], 0
    for name in FITS:
        taken: dict[str, list[float]] = {"ours": [], "theirs": []}
        curves = {}
        for _ in range(options.rounds):
            for who, seconds in taken.items():
                found = elsewhere("fit_once", who, name)
                seconds.append(found["seconds"])
                curves[who] = found["losses"]
        agree = np.allclose(curves["ours"], curves["theirs"], rtol=1e-3 if "float32" in name else 1e-9)
        wrong += not agree
        medians = {who: float(np.median(seconds)) for who, seconds in taken.items()}
        fits.append({"fit": name, "agree": bool(agree), **taken})
        spread = [np.subtract(*np.percentile(taken[who], (75, 25))) / medians[who] for who in taken]
        print(
            f"  fit {name:<48}{1e3 * medians['ours']:8.1f} ms +- {spread[0]:4.0%}, scikit-learn "
            f"{1e3 * medians['theirs']:8.1f} ms +- {spread[1]:4.0%}: {medians['theirs'] / medians['ours']:.2f}x"
            f"{'' if agree else '  LOSSES DIFFER'}",
            flush=True,
        )
    predictions: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for who, found in predictions.items():
            found.append(elsewhere("predict_many", who, ""))
    for quantile in ("p50", "p99"):
        ours, theirs = (float(np.median([p[quantile] for p in predictions[who]])) for who in ("ours", "theirs"))
        print(f"  predict one row, {quantile}: {ours:.1f} us, scikit-learn {theirs:.1f} us: {theirs / ours:.1f}x")
    print("accuracy or R2 by cross-validation, defaults of both, standardised")
    results = {"machine": here, "fits": fits, "predictions": predictions, "scores": scores()}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
    return int(wrong > 0)
