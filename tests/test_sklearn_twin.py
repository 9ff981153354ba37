"""From the same random_state our MLPs are scikit-learn's, to rounding; and they pass its own tests."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy.sparse import csr_matrix
from sklearn import neural_network as theirs
from sklearn.datasets import load_diabetes, load_digits, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning

from pybackprop import sklearn as ours

X_digits, y_digits = load_digits(return_X_y=True)
X_digits = X_digits[:600] / 16
y_digits = y_digits[:600]
X_diabetes, y_diabetes = load_diabetes(return_X_y=True)
y_diabetes = (y_diabetes - y_diabetes.mean()) / y_diabetes.std()
X_multi, y_multi = make_multilabel_classification(200, 12, n_classes=4, random_state=0)

CLASSIFIERS = {
    "default": {},
    "sgd": dict(solver="sgd", learning_rate_init=0.05),
    "plain sgd": dict(solver="sgd", momentum=0, learning_rate_init=0.1, batch_size=50),
    "invscaling": dict(solver="sgd", learning_rate="invscaling", learning_rate_init=0.2, power_t=0.3),
    "invscaling without Nesterov": dict(
        solver="sgd", learning_rate="invscaling", momentum=0.5, nesterovs_momentum=False, learning_rate_init=0.2
    ),
    "adaptive": dict(solver="sgd", learning_rate="adaptive", learning_rate_init=0.1, tol=1e-2, max_iter=80),
    "early stopping": dict(early_stopping=True, max_iter=40, learning_rate_init=0.01, n_iter_no_change=3),
    "lbfgs": dict(solver="lbfgs", max_iter=8),
    "tanh": dict(activation="tanh", hidden_layer_sizes=(20, 10)),
    "logistic": dict(activation="logistic", hidden_layer_sizes=30),
    "identity": dict(activation="identity"),
    "no hidden layer": dict(hidden_layer_sizes=()),
    "no order": dict(shuffle=False, batch_size=37),
    "strong L2": dict(alpha=3.0),
    "other moments": dict(beta_1=0.5, beta_2=0.9, epsilon=1e-3),
}


def fit(estimator, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*data, **options)


def assert_twins(mine, other, X, rtol=1e-9):
    assert mine.n_iter_ == other.n_iter_ and mine.t_ == other.t_
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(mine, name) == getattr(other, name)
    np.testing.assert_allclose(mine.loss_, other.loss_, rtol=rtol)
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
        value = getattr(other, name, None)
        if value is None:
            assert getattr(mine, name, None) is None
        else:
            np.testing.assert_allclose(getattr(mine, name), value, rtol=rtol)
    for a, b in zip(mine.coefs_ + mine.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    if hasattr(other, "predict_proba"):
        np.testing.assert_allclose(mine.predict_proba(X), other.predict_proba(X), rtol=10 * rtol, atol=rtol)
        np.testing.assert_array_equal(mine.classes_, other.classes_)
        assert mine.predict(X).dtype == other.predict(X).dtype
        np.testing.assert_array_equal(mine.predict(X), other.predict(X))
    else:
        np.testing.assert_allclose(mine.predict(X), other.predict(X), rtol=10 * rtol, atol=10 * rtol)


@pytest.mark.parametrize("target", ["several classes", "two classes", "names"])
@pytest.mark.parametrize("options", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifiers(options, target):
    y = {"several classes": y_digits, "two classes": y_digits % 2, "names": np.array(list("zyxwvutsrq"))[y_digits]}[
        target
    ]
    options = {**dict(max_iter=6, random_state=3), **options}
    pair = [fit(m.MLPClassifier(**options), X_digits, y) for m in (ours, theirs)]
    assert_twins(*pair, X_digits, 1e-6 if options.get("solver") == "lbfgs" else 1e-9)


REGRESSORS = {
    "default": {},
    "sgd": dict(solver="sgd", learning_rate_init=0.01),
    "poisson": dict(loss="poisson"),
    "lbfgs": dict(solver="lbfgs", max_iter=6),
    "early stopping": dict(early_stopping=True, max_iter=30),
    "tanh": dict(activation="tanh"),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(
    ("name", "columns"), [(name, k) for name in REGRESSORS for k in (1, 2) if (name, k) != ("lbfgs", 2)]
)
def test_regressors(name, columns, weighted):
    options = REGRESSORS[name]
    options = {**dict(max_iter=6, random_state=1), **options}
    y = np.abs(y_diabetes) if options.get("loss") == "poisson" else y_diabetes
    y = y if columns == 1 else np.stack([y, y[::-1]], 1)
    weight = {"sample_weight": np.random.default_rng(0).random(len(y))} if weighted else {}
    pair = [fit(m.MLPRegressor(**options), X_diabetes, y, **weight) for m in (ours, theirs)]
    assert_twins(*pair, X_diabetes, 1e-6 if options.get("solver") == "lbfgs" else 1e-9)


def test_lbfgs_of_several_outputs_minimises_what_its_gradient_is_of():
    """scikit-learn gives L-BFGS the mean over outputs as the value, and the gradient of their sum."""
    y = np.stack([y_diabetes, y_diabetes[::-1], y_diabetes**2], 1)
    options = dict(solver="lbfgs", max_iter=40, random_state=0, alpha=0.5)
    mine, other = (fit(m.MLPRegressor(**options), X_diabetes, y) for m in (ours, theirs))

    def minimised(model):
        squares = sum((coef**2).sum() for coef in model.coefs_)
        return 0.5 * ((model.predict(X_diabetes) - y) ** 2).sum(1).mean() + 0.25 * squares / len(y)

    assert minimised(mine) < minimised(other)
    shown = 0.5 * ((mine.predict(X_diabetes) - y) ** 2).mean()
    penalty = 0.25 * sum((coef**2).sum() for coef in mine.coefs_) / len(y)
    assert mine.loss_ == pytest.approx(shown + penalty, rel=1e-9)  # as scikit-learn shows it


@pytest.mark.parametrize("options", [{}, dict(early_stopping=True), dict(solver="lbfgs")], ids=str)
def test_several_labels(options):
    options = {**dict(max_iter=10, random_state=0), **options}
    pair = [fit(m.MLPClassifier(**options), X_multi, y_multi) for m in (ours, theirs)]
    assert_twins(*pair, X_multi, 1e-6 if "solver" in options else 1e-9)


def test_weights_of_rows_in_classification():
    weight = np.random.default_rng(0).random(len(y_digits))
    pair = [
        fit(m.MLPClassifier(max_iter=5, random_state=0), X_digits, y_digits, sample_weight=weight)
        for m in (ours, theirs)
    ]
    assert_twins(*pair, X_digits)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_sparse_rows(solver):
    options = dict(max_iter=5, random_state=0, solver=solver)
    sparse = csr_matrix(X_digits)
    pair = [fit(m.MLPClassifier(**options), sparse, y_digits) for m in (ours, theirs)]
    assert_twins(*pair, sparse, 1e-6 if solver == "lbfgs" else 1e-9)
    dense = fit(ours.MLPClassifier(**options), X_digits, y_digits)
    np.testing.assert_allclose(dense.coefs_[0], pair[0].coefs_[0], rtol=1e-9)
    np.testing.assert_array_equal(pair[0].predict(sparse.tocsc()), pair[0].predict(X_digits))


def test_single_precision():
    options = dict(max_iter=5, random_state=0)
    X = X_digits.astype(np.float32)
    pair = [fit(m.MLPClassifier(**options), X, y_digits) for m in (ours, theirs)]
    assert_twins(*pair, X, 1e-3)
    assert pair[0].predict_proba(X).dtype == np.float32


@pytest.mark.parametrize("options", [{}, dict(solver="sgd"), dict(solver="sgd", learning_rate="invscaling")], ids=str)
def test_partial_fit(options):
    pair = [m.MLPClassifier(random_state=0, **options) for m in (ours, theirs)]
    for estimator in pair:
        for first in range(0, 600, 150):
            rows = slice(first, first + 150)
            estimator.partial_fit(X_digits[rows], y_digits[rows], classes=np.arange(10))
    assert_twins(*pair, X_digits)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_start(early_stopping):
    options = dict(max_iter=4, random_state=0, warm_start=True, early_stopping=early_stopping)
    pair = [fit(fit(m.MLPClassifier(**options), X_digits, y_digits), X_digits, y_digits) for m in (ours, theirs)]
    assert_twins(*pair, X_digits)
    assert len(pair[0].loss_curve_) == 8


def test_arrays_put_in_place_of_others_are_used():
    pair = [fit(m.MLPClassifier(max_iter=2, random_state=0), X_digits, y_digits) for m in (ours, theirs)]
    for estimator in pair:
        estimator.coefs_[0] = estimator.coefs_[0] * 0.5
        estimator.intercepts_[1] = np.linspace(0, 1, 10)
    assert_twins(*pair, X_digits)
    for estimator in pair:
        estimator.partial_fit(X_digits, y_digits)
    assert_twins(*pair, X_digits)
    with pytest.raises(ValueError, match="read-only"):
        pair[0].coefs_[0][0, 0] = 1


_OWN_TESTS = """
import sys
import pytest
import sklearn.neural_network as theirs
import pybackprop.sklearn as ours

theirs.MLPClassifier, theirs.MLPRegressor = ours.MLPClassifier, ours.MLPRegressor
options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", sys.argv[1], "--tb=short"]
# It calls scikit-learn's private _loss_grad_lbfgs, which MLPs of ours do not have.
sys.exit(pytest.main([*options, "--deselect", "::test_gradient", "--pyargs", "sklearn.neural_network.tests.test_mlp"]))
"""


def test_scikit_learns_own_tests(tmp_path):
    pytest.importorskip("sklearn.neural_network.tests.test_mlp", reason="this scikit-learn came without its tests")
    run = subprocess.run(
        [sys.executable, "-c", _OWN_TESTS, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "1 deselected" in run.stdout and " failed" not in run.stdout
