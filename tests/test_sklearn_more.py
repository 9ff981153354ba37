"""What our MLPs have beyond scikit-learn's."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

import pybackprop as pb
from pybackprop import optim
from pybackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, y = load_digits(return_X_y=True)
X, y, X_test, y_test = X[:900] / 16, y[:900], X[900:] / 16, y[900:]
X_two, y_two = load_breast_cancer(return_X_y=True)
X_two = (X_two - X_two.mean(0)) / X_two.std(0)
X_reg, y_reg = make_friedman1(600, noise=0.5, random_state=0)
y_reg = (y_reg - y_reg.mean()) / y_reg.std()


def classifier(**options):
    return MLPClassifier(**{**dict(max_iter=15, random_state=0), **options})


def regressor(**options):
    return MLPRegressor(**{**dict(max_iter=150, random_state=0, learning_rate_init=0.01), **options})


@pytest.mark.parametrize(
    "options",
    [
        dict(dropout=0.3),
        dict(normalization="batch"),
        dict(normalization="layer", hidden_layer_sizes=(40, 40)),
        dict(activation=["gelu", "silu"], hidden_layer_sizes=(40, 30)),
        *(dict(activation=name) for name in ("elu", "gelu", "leaky_relu", "mish", "relu6", "silu", "softplus")),
        dict(solver="adamw", weight_decay=0.1),
        dict(learning_rate="cosine", learning_rate_init=0.01),
        dict(learning_rate="one_cycle", learning_rate_init=0.01),
        dict(solver="sgd", learning_rate=optim.Warmup(optim.CosineLR(0.2), steps=20)),
        dict(clip_norm=0.5),
        dict(label_smoothing=0.1),
        dict(threads=1),
    ],
    ids=str,
)
def test_each_option_trains_and_matters(options):
    options = dict(max_iter=40, **options)
    plain, model = classifier(max_iter=40).fit(X, y), classifier(**options).fit(X, y)
    assert model.score(X_test, y_test) > 0.85
    same = "threads" in options or options.get("activation") == "relu6"  # nothing reaches 6 here
    assert np.array_equal(model.predict_proba(X_test), plain.predict_proba(X_test)) == same
    again = classifier(**options).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X_test), model.predict_proba(X_test))


def test_dropout_depends_on_the_random_state():
    curves = [classifier(dropout=0.5, random_state=seed).fit(X, y).loss_curve_ for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]
    assert curves[0][-1] > classifier().fit(X, y).loss_curve_[-1]


def test_class_weights_are_weights_of_rows():
    weights = {c: 1.0 + c for c in range(10)}
    by_class = classifier(class_weight=weights).fit(X, y)
    by_row = classifier().fit(X, y, sample_weight=1.0 + y)
    np.testing.assert_array_equal(by_class.coefs_[0], by_row.coefs_[0])
    rare = np.r_[np.flatnonzero(y_two == 1), np.flatnonzero(y_two == 0)[:20]]
    few = dict(max_iter=60, learning_rate_init=0.01)
    recall = [
        (classifier(class_weight=w, **few).fit(X_two[rare], y_two[rare]).predict(X_two)[y_two == 0] == 0).mean()
        for w in (None, "balanced")
    ]
    assert recall[1] > recall[0]
    with pytest.raises(ValueError, match="needs all rows at once"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=range(10))


def test_label_smoothing_of_two_classes():
    sharp, smooth = classifier(max_iter=100).fit(X_two, y_two), classifier(max_iter=100, label_smoothing=0.2)
    smooth.fit(X_two, y_two)
    assert smooth.predict_proba(X_two).max() < 0.99 < sharp.predict_proba(X_two).max()
    assert smooth.score(X_two, y_two) > 0.95


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
def test_losses_of_regression(loss):
    model = regressor(loss=loss).fit(X_reg, y_reg)
    assert model.score(X_reg, y_reg) > 0.85
    rough = y_reg.copy()
    rough[::10] += 30
    plain, robust = regressor().fit(X_reg, rough), regressor(loss=loss).fit(X_reg, rough)
    if loss != "squared_error":
        assert mean_absolute_error(y_reg, robust.predict(X_reg)) < 0.7 * mean_absolute_error(
            y_reg, plain.predict(X_reg)
        )


def test_the_loss_shown_is_the_loss():
    for loss, expected in (
        ("absolute_error", lambda p: mean_absolute_error(y_reg, p)),
        (
            "huber",
            lambda p: np.where(np.abs(p - y_reg) < 0.3, (p - y_reg) ** 2 / 2, 0.3 * (np.abs(p - y_reg) - 0.15)).mean(),
        ),
        ("quantile", lambda p: mean_pinball_loss(y_reg, p, alpha=0.2)),
    ):
        options = dict(
            loss=loss, delta=0.3, quantiles=0.2, alpha=0, max_iter=1, batch_size=600, learning_rate_init=1e-12
        )
        model = regressor(**options).fit(X_reg, y_reg)
        assert model.loss_ == pytest.approx(expected(model.predict(X_reg)), rel=1e-6)


def test_several_quantiles_at_once():
    quantiles = (0.1, 0.5, 0.9)
    model = regressor(loss="quantile", quantiles=quantiles, learning_rate="cosine", tol=0).fit(X_reg, y_reg)
    low, middle, high = model.predict(X_reg).T
    for q, p in zip(quantiles, (low, middle, high), strict=True):
        assert abs((y_reg <= p).mean() - q) < 0.06
    assert 0 < model.score(X_reg, y_reg) < 1
    with pytest.raises(ValueError, match="needs one column of y, got 2"):
        regressor(loss="quantile").fit(X_reg, np.stack([y_reg, y_reg], 1))
    stopped = regressor(loss="quantile", quantiles=quantiles, early_stopping=True).fit(X_reg, y_reg)
    assert len(stopped.validation_scores_) == stopped.n_iter_


def test_counts():
    counts = np.random.default_rng(0).poisson(np.exp(y_reg))
    model = regressor(loss="poisson").fit(X_reg, counts)
    assert (model.predict(X_reg) > 0).all() and abs(model.predict(X_reg).mean() - counts.mean()) < 0.3
    with pytest.raises(ValueError, match="needs y >= 0"):
        regressor(loss="poisson").fit(X_reg, y_reg)


def test_validation_data():
    model = classifier(dropout=0.2, alpha=1.0).fit(X, y, validation_data=(X_test, y_test))
    assert len(model.validation_loss_curve_) == model.n_iter_ == 15
    proba = np.clip(model.predict_proba(X_test), 1e-15, 1)
    expected = -np.log(proba[np.arange(len(y_test)), y_test]).mean()  # without dropout and without the L2 term
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-6)
    other = regressor(max_iter=5).fit(X_reg, y_reg, validation_data=(X_reg[::2], y_reg[::2], np.ones(300)))
    assert len(other.validation_loss_curve_) == 5
    for data, words in (
        ((X_test[:, :3], y_test), "expecting 64 features"),
        ((X_test, y_test + 5), "class 10, which y does not have"),
        ((X_test, y_test[:5]), "rows of X and 5 of y"),
        (X_test, r"must be \(X, y\)"),
    ):
        with pytest.raises(ValueError, match=words):
            classifier().fit(X, y, validation_data=data)
    two = np.stack([y_reg, y_reg], 1)
    other.fit(X_reg, two, validation_data=(X_reg, two))  # with other columns than before
    with pytest.raises(ValueError, match="1 columns of y, but y has 2"):
        other.fit(X_reg, two, validation_data=(X_reg, y_reg))
    with pytest.raises(ValueError, match="needs a stochastic solver"):
        classifier(solver="lbfgs").fit(X, y, validation_data=(X_test, y_test))


def test_best_weights_are_restored():
    noisy = np.where(np.random.default_rng(0).random(len(y)) < 0.4, 9 - y, y)
    options = dict(max_iter=60, learning_rate_init=0.02, hidden_layer_sizes=(300,))
    last = classifier(**options).fit(X, noisy, validation_data=(X_test, y_test))
    best = classifier(restore_best_weights=True, **options).fit(X, noisy, validation_data=(X_test, y_test))
    assert best.validation_loss_curve_ == last.validation_loss_curve_
    proba = np.clip(best.predict_proba(X_test), 1e-15, 1)
    shown = -np.log(proba[np.arange(len(y_test)), y_test]).mean()
    assert shown == pytest.approx(min(best.validation_loss_curve_), rel=1e-6)
    assert shown < last.validation_loss_curve_[-1]
    with pytest.raises(ValueError, match="restore_best_weights=True needs validation_data"):
        classifier(restore_best_weights=True).fit(X, y)


def test_early_stopping_by_validation_data_keeps_all_rows():
    model = classifier(early_stopping=True, max_iter=200, n_iter_no_change=3, learning_rate_init=0.01)
    model.fit(X, y, validation_data=(X_test, y_test))
    assert model.n_iter_ < 200 and model.t_ == model.n_iter_ * len(X)
    assert model.score(X_test, y_test) == pytest.approx(model.best_validation_score_)


def test_callbacks_and_time_limit():
    seen = []
    stop = pb.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=1e9)
    watch = pb.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # somebody else ended the run
        model = classifier(callbacks=[stop, watch]).fit(X, y)
        limited = classifier(max_iter=100_000, time_limit=0.2, n_iter_no_change=np.inf).fit(X, y)
    assert model.n_iter_ == 2 and seen == [0, 1]
    assert 0 < limited.n_iter_ < 100_000


def test_a_progress_bar(capsys):
    classifier(max_iter=2, progress=True).fit(X, y)
    assert "epoch 2/2" in "".join(capsys.readouterr())
    classifier(max_iter=2).fit(X, y)
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(activation="swish"), "'activation' parameter of MLPClassifier must be"),
        (dict(activation=["relu"], hidden_layer_sizes=(3, 3)), "one for each of the 2 hidden layers"),
        (dict(activation=["relu", "swish"], hidden_layer_sizes=(3, 3)), "one for each of the 2 hidden layers"),
        (dict(dropout=1.0), "'dropout' parameter of MLPClassifier must be"),
        (dict(normalization="group"), "'normalization' parameter of MLPClassifier must be"),
        (dict(class_weight="even"), "'class_weight' parameter of MLPClassifier must be"),
        (dict(hidden_layer_sizes=(3, 0)), "must be > 0"),
        (dict(solver="lbfgs", dropout=0.1), "no dropout"),
        (dict(solver="lbfgs", normalization="batch"), "no batch norm"),
        (dict(early_stopping=True, validation_fraction=0.001), "validation set is too small|test_size"),
    ],
    ids=str,
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        classifier(**options).fit(X, y)


def test_diverging_says_where():
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*epoch 0, batch 0.*X reaches 1e\+300"):
        regressor().fit(X_reg * 1e300, y_reg)


def test_a_schedule_needs_a_run():
    with pytest.raises(ValueError, match="does not know the length of the run"):
        classifier(learning_rate="cosine").partial_fit(X, y, classes=range(10))


def test_layer_norm_with_lbfgs():
    model = classifier(solver="lbfgs", normalization="layer", max_iter=30).fit(X, y)
    assert model.score(X_test, y_test) > 0.85
