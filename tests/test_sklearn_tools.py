"""Our estimators within scikit-learn's tools: searches, pipelines, clones, files, data frames."""

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module", autouse=True)
def no_workers_are_left():
    """joblib keeps its processes, and a thread that watches them, for the next call."""
    yield
    get_reusable_executor().shutdown(wait=True)


X, y = load_iris(return_X_y=True)
X_two, y_two = load_breast_cancer(return_X_y=True)
X_reg, y_reg = load_diabetes(return_X_y=True)


class Narrow(nn.Module):
    """A module that is made from the numbers of features and outputs."""

    def __init__(self, n_features, n_outputs, width=8, activation="tanh"):
        self.a, self.b = nn.Linear(n_features, width), nn.Linear(width, n_outputs)
        self.activation = nn.Tanh() if activation == "tanh" else nn.ReLU()

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


def make_net(n_features, n_outputs, width=8):
    return nn.Sequential(nn.Linear(n_features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, n_outputs))


ESTIMATORS = [
    MLPClassifier(max_iter=30, random_state=0),
    MLPClassifier(max_iter=30, random_state=0, normalization="batch", dropout=0.2),
    NetClassifier(Narrow, random_state=0),
    NetClassifier(make_net, random_state=0, optimizer__lr=0.01, optimizer="adamw", optimizer__weight_decay=0.1),
    NetClassifier(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), random_state=0),
]


def ids(estimator):
    return f"{type(estimator).__name__}-{ESTIMATORS.index(estimator)}"


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (MLPClassifier(max_iter=100, random_state=0), {"hidden_layer_sizes": [(2,), (20,)], "dropout": [0, 0.1]}),
        (NetClassifier(Narrow, random_state=0), {"module__width": [1, 16], "optimizer__lr": [1e-4, 1e-2]}),
    ],
    ids=["MLP", "Net"],
)
def test_a_search_over_a_pipeline(estimator, grid, n_jobs):
    pipeline = make_pipeline(StandardScaler(), estimator)
    name = type(estimator).__name__.lower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # workers warn of convergence in processes of their own
        search = GridSearchCV(pipeline, {f"{name}__{key}": v for key, v in grid.items()}, cv=3, n_jobs=n_jobs)
        search.fit(X, y)
    assert search.best_score_ > 0.8
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    if n_jobs == 2:
        alone = GridSearchCV(pipeline, search.param_grid, cv=3).fit(X, y)
        np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"])


def _threads_of_a_fit():
    model = MLPClassifier((64,), max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.random.default_rng(0).random((2000, 200)), np.arange(2000) % 5)
    return pb.get_num_threads(), model._optimizer._trainer._step.stepper.threads_used


def test_workers_share_the_cpus():
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(_threads_of_a_fit)() for _ in range(2))
    limit = max(1, joblib.cpu_count() // 2)
    assert all(allowed <= limit and used <= limit for allowed, used in results)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_cross_validation_and_clones(estimator):
    pipeline = make_pipeline(StandardScaler(), estimator)
    predicted = cross_val_predict(pipeline, X, y, cv=3)
    assert predicted.shape == y.shape and set(predicted) <= set(y)
    a, b = clone(estimator).fit(X, y), clone(clone(estimator)).fit(X, y)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    assert str(clone(estimator).get_params()) == str(estimator.get_params())
    with pytest.raises(NotFittedError):
        clone(a).predict(X)


@pytest.mark.parametrize("way", ["joblib", "pickle"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=ids)
def test_files(estimator, way, tmp_path):
    model = clone(estimator).fit(X, y)
    expected = model.predict_proba(X)
    if way == "joblib":
        joblib.dump(model, tmp_path / "model")
        loaded = joblib.load(tmp_path / "model")
    else:
        loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    np.testing.assert_array_equal(loaded.predict_proba(X[:1]), expected[:1])
    for m in (model, loaded):  # with the optimizer's moments
        m.partial_fit(X, y)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert not np.array_equal(model.predict_proba(X), expected)


def test_a_file_holds_the_weights_once():
    model = MLPClassifier((200, 200), solver="lbfgs", max_iter=2, random_state=0).fit(X_two, y_two)
    weights = sum(a.nbytes for a in (*model.coefs_, *model.intercepts_))
    assert len(pickle.dumps(model)) < 1.1 * weights + 20_000


@pytest.mark.parametrize("kind", [MLPClassifier, NetClassifier])
def test_data_frames_and_their_names(kind):
    pd = pytest.importorskip("pandas")
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(X, columns=names)
    pipeline = make_pipeline(StandardScaler(), kind(random_state=0)).set_output(transform="pandas")
    pipeline.fit(frame, pd.Series(y))
    model = pipeline[-1]
    assert list(model.feature_names_in_) == names and model.n_features_in_ == 4
    assert pipeline.predict(frame).shape == (150,)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_within_other_estimators():
    vote = VotingClassifier([("a", MLPClassifier(random_state=0)), ("b", NetClassifier(random_state=0))], voting="soft")
    assert vote.fit(X, y).predict(X).shape == y.shape
    regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MLPRegressor(max_iter=200, random_state=0)), transformer=StandardScaler()
    )
    assert cross_val_score(regressor, X_reg, y_reg, cv=3).mean() > 0.3


@pytest.mark.parametrize("estimator", ESTIMATORS[:4], ids=ids)
def test_single_rows_and_batches_agree(estimator):
    model = clone(estimator).fit(X, y)
    together = model.predict_proba(X)
    np.testing.assert_array_equal(np.concatenate([model.predict_proba(row[None]) for row in X]), together)
    for odd in (X.tolist(), X.astype(np.float32).astype(float), np.asfortranarray(X), X[::2]):
        assert model.predict(odd).shape == (len(odd),)
    for bad, words in (
        (X[:, :3], "expecting 4 features"),
        (X[0], "Expected 2D array"),
        (np.where(X > 7, np.nan, X), "contains NaN"),
        (np.where(X > 7, np.inf, X), "contains infinity"),
        (X[:0], "minimum of 1 is required"),
    ):
        with pytest.raises(ValueError, match=words):
            model.predict(bad)


# Modules as estimators.


def test_parameters_of_module_and_optimizer():
    net = NetClassifier(Narrow, module__width=3, optimizer="sgd", optimizer__lr=0.5)
    assert net.get_params()["module__width"] == 3
    net.set_params(module__width=7, optimizer__momentum=0.9, epochs=2)
    net.fit(X, y)
    assert net.module_.a.weight.shape == (7, 4)
    optimizer = net._trainer.optimizer
    assert isinstance(optimizer, optim.SGD) and (optimizer.lr, optimizer.momentum) == (0.5, 0.9)
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        net.set_params(nonsense=1)
    with pytest.raises(TypeError, match="no argument 'modul__width'"):
        NetClassifier(Narrow, modul__width=3).fit(X, y)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        NetClassifier(Narrow, module__depth=3).fit(X, y)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        NetClassifier(optimizer="adm").fit(X, y)
    with pytest.raises(TypeError, match="a Module is expected"):
        NetClassifier(lambda n_features: None).fit(X, y)
    with pytest.raises(ValueError, match="module__width cannot reach"):
        NetClassifier(nn.Linear(4, 3), module__width=3).fit(X, y)


def test_a_given_module_is_not_changed():
    module = nn.Linear(4, 3)
    before = module.weight.numpy()
    model = NetClassifier(module, random_state=0).fit(X, y)
    np.testing.assert_array_equal(module.weight.numpy(), before)
    assert not np.array_equal(model.module_.weight.numpy(), before)


def test_weights_of_a_net_come_from_its_seed_alone():
    pb.manual_seed(5)
    first = nn.Linear(2, 2).weight.numpy()
    pb.manual_seed(5)
    a = NetClassifier(random_state=1, epochs=1).fit(X, y)
    np.testing.assert_array_equal(nn.Linear(2, 2).weight.numpy(), first)  # the library's own generator stood still
    b = NetClassifier(random_state=1, epochs=1).fit(X, y)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    c = NetClassifier(random_state=2, epochs=1).fit(X, y)
    assert not np.array_equal(a.predict_proba(X), c.predict_proba(X))


def test_images_go_through_a_module():
    class Flat(nn.Module):
        def __init__(self, n_outputs):
            self.flat, self.out = nn.Flatten(), nn.Linear(64, n_outputs)

        def forward(self, x):
            return self.out(self.flat(x))

    images = np.random.default_rng(0).random((60, 8, 8))
    labels = np.where(images.mean((1, 2)) > 0.5, "light", "dark")
    model = NetClassifier(Flat, epochs=3, random_state=0).fit(images, labels)
    assert set(model.predict(images)) <= {"light", "dark"}


def test_net_regression_losses_and_columns():
    target = np.stack([y_reg, -y_reg], 1) / 100
    model = NetRegressor(loss=nn.HuberLoss(), epochs=30, optimizer__lr=0.01, random_state=0, clip_norm=1.0)
    assert model.fit(X_reg * 20, target).predict(X_reg * 20).shape == target.shape
    assert model.score(X_reg * 20, target) > 0.3
    assert NetRegressor(epochs=1).fit(X_reg, y_reg).predict(X_reg).shape == y_reg.shape


def test_net_validation_and_callbacks():
    stop = pb.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    model = NetClassifier(Narrow, optimizer__lr=0.05, epochs=500, validation_fraction=0.2, callbacks=[stop])
    model.set_params(random_state=0).fit(X, y)
    assert model.n_iter_ < 500 and {"val_loss", "val_accuracy"} <= set(model.history_.history)
    other = NetClassifier(epochs=2, random_state=0).fit(X, y, validation_data=(X[::2], y[::2]))
    assert len(other.history_.history["val_loss"]) == 2


def test_net_partial_fit_and_warm_start():
    model = NetClassifier(random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X[:50], y[:50])
    for _ in range(60):
        model.partial_fit(X[::3], y[::3], classes=[0, 1, 2])
    assert model.score(X, y) > 0.6
    with pytest.raises(ValueError, match="class 7, which is not among"):
        model.partial_fit(X, np.where(y == 1, 7, y))
    warm = NetClassifier(epochs=5, warm_start=True, random_state=0).fit(X, y)
    once = warm.score(X, y)
    for _ in range(10):
        warm.fit(X, y)
    assert warm.score(X, y) > once


def test_net_class_weights():
    rare = np.r_[np.arange(50), np.arange(50, 55)]
    plain = NetClassifier(epochs=30, random_state=0).fit(X[rare], y[rare])
    balanced = NetClassifier(epochs=30, random_state=0, class_weight="balanced").fit(X[rare], y[rare])
    assert balanced.predict_proba(X[50:100])[:, 1].mean() > plain.predict_proba(X[50:100])[:, 1].mean()
