"""Trainer: whole runs on small problems, what fit refuses, and what it promises about bits, limits and resuming."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training import CSVLogger, EarlyStopping, LambdaCallback


@pytest.fixture(autouse=True)
def ctrl_c():
    """Python's own handler, also where the suite was started with SIGINT ignored (a background job)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def classifier(inputs=4, classes=3, hidden=16, seed=0, dropout=0.0):
    pb.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def trainer(model=None, lr=0.02, **options):
    options = {"loss": nn.CrossEntropyLoss(), "optimizer": optim.Adam(lr=lr), "metrics": ["accuracy"], **options}
    return pb.Trainer(classifier() if model is None else model, **options)


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


@pytest.fixture
def data(rng):
    X = rng.normal(size=(101, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)


class TestLearns:
    def test_xor(self):
        X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
        t = trainer(classifier(2, 2), lr=0.05)
        t.fit(X, y, epochs=200, verbose=0)
        assert t.evaluate(X, y)["accuracy"] == 1.0
        assert t.predict(X).argmax(1).tolist() == [0, 1, 1, 0]

    def test_two_spirals(self, rng):
        angle = np.linspace(0.5, 3 * np.pi, 300)
        arm = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1) / 10
        X = np.concatenate([arm, -arm]) + rng.normal(scale=0.01, size=(600, 2))
        y = np.repeat([0, 1], 300)
        pb.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
        t = trainer(model, lr=0.01, threads=1)
        history = t.fit(X, y, epochs=150, batch_size=32, verbose=0)
        assert history.history["accuracy"][-1] > 0.97
        assert t.evaluate(X, y)["accuracy"] > 0.97

    def test_digits(self):
        datasets = pytest.importorskip("sklearn.datasets")
        X, y = datasets.load_digits(return_X_y=True)
        X /= 16
        pb.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        t = trainer(model, lr=3e-3)
        order = np.random.default_rng(0).permutation(len(X))
        X, y = X[order], y[order]
        history = t.fit(X[:1400], y[:1400], epochs=20, validation_data=(X[1400:], y[1400:]), verbose=0)
        assert history.history["val_accuracy"][-1] > 0.95

    def test_regression_and_r2(self, rng):
        X = rng.normal(size=(300, 5))
        y = 1000 + X @ np.arange(5.0)
        pb.manual_seed(0)
        t = pb.Trainer(
            nn.Linear(5, 1),
            loss=nn.MSELoss(),
            optimizer=optim.Adam(lr=5.0),
            metrics=["r2", "mae", "mse"],
            dtype="float64",
        )
        t.fit(X, y, epochs=150, verbose=0)
        scores = t.evaluate(X, y)
        assert scores["r2"] > 0.99 and scores["mse"] == pytest.approx(scores["loss"])
        metrics = pytest.importorskip("sklearn.metrics")
        assert scores["r2"] == pytest.approx(metrics.r2_score(y, t.predict(X)), abs=1e-9)
        assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(y, t.predict(X)))

    def test_binary_target_of_one_column(self, rng):
        X = rng.normal(size=(200, 3))
        y = (X.sum(1) > 0).astype(int)
        for target in (y, y.astype(bool), y.astype(float), y[:, None]):
            pb.manual_seed(0)
            t = pb.Trainer(
                nn.Linear(3, 1), loss=nn.BCEWithLogitsLoss(), optimizer=optim.Adam(lr=0.1), metrics=["accuracy"]
            )
            history = t.fit(X, target, epochs=20, verbose=0)
            assert history.history["accuracy"][-1] > 0.95


class TestData:
    @pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint8", "bool"])
    def test_inputs_of_any_dtype(self, dtype, rng):
        X, y = (rng.random((40, 4)) * 3).astype(dtype), np.arange(40) % 3
        t = trainer()
        t.fit(X, y, verbose=0)
        u = trainer()
        u.fit(X.astype(np.float32), y, verbose=0)
        assert bits(t.model) == bits(u.model)

    def test_ids_stay_integers(self, rng):
        pb.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
        ids, y = rng.integers(0, 10, (30, 3)), np.arange(30) % 2
        for kind in (np.int64, np.int32, np.uint8):
            t = trainer(model)
            t.fit(ids.astype(kind), y, verbose=0)
            assert t.predict(ids.astype(kind)).shape == (30, 2)
        before = bits(model)
        ids[7, 1] = 10
        with pytest.raises(ValueError, match=r"must be from 0 to 9, but X\[\(7, 1\)\] is 10"):
            t.fit(ids, y, verbose=0)
        assert bits(model) == before

    def test_several_inputs(self, rng):
        class Two(nn.Module):
            def __init__(self):
                self.a, self.b = nn.Linear(3, 2), nn.Linear(5, 2)

            def forward(self, wide, deep):
                return self.a(wide) + self.b(deep)

        a, b, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 5)), np.arange(20) % 2
        found = []
        for X in ((a, b), {"deep": b, "wide": a}):
            pb.manual_seed(0)
            t = trainer(Two())
            t.fit(X, y, epochs=2, verbose=0, validation_split=0.25)
            found.append(t.predict(X).tobytes())
        assert found[0] == found[1]

    def test_pandas(self, data):
        pandas = pytest.importorskip("pandas")
        X, y = data
        t, u = trainer(), trainer()
        t.fit(X, y, verbose=0)
        u.fit(pandas.DataFrame(X, columns=list("abcd")), pandas.Series(y), verbose=0)
        assert bits(t.model) == bits(u.model)
        mixed = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
        with pytest.raises(TypeError, match="X holds objects that are no numbers"):
            u.fit(mixed, [0, 1], verbose=0)

    def test_lists_and_memory_maps(self, data, tmp_path):
        X, y = data
        X.tofile(tmp_path / "x")
        mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=X.shape)
        found = []
        for given in (X, X.tolist(), mapped):
            t = trainer()
            t.fit(given, y.tolist(), epochs=2, verbose=0)
            found.append(bits(t.model))
        assert found[0] == found[1] == found[2]

    def test_reading_ahead_changes_no_bit(self, data, tmp_path, monkeypatch):
        from pybackprop.training import loop

        X, y = data
        X.tofile(tmp_path / "x")
        mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=X.shape)
        before = threading.enumerate()
        found = []
        for least in (0, 1 << 60):
            monkeypatch.setattr(loop, "PREFETCH_BYTES", least)
            t = trainer()
            t.fit(mapped, y, epochs=3, verbose=0)
            found.append(bits(t.model))
        assert found[0] == found[1]
        assert not [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]

    def test_iterables_of_batches(self, data):
        X, y = data

        class Loader:
            def __iter__(self):
                return ((X[i : i + 32], y[i : i + 32]) for i in range(0, 101, 32))

        t, u = trainer(), trainer()
        a = t.fit(Loader(), epochs=3, verbose=0, validation_data=(X, y))
        b = u.fit(X, y, epochs=3, shuffle=False, verbose=0, validation_data=(X, y))
        assert bits(t.model) == bits(u.model)
        assert a.history == b.history

    def test_bad_iterables(self, data):
        X, y = data
        t = trainer()
        with pytest.raises(ValueError, match="an iterator gives one pass"):
            t.fit(iter([(X, y)]), epochs=2, verbose=0)
        with pytest.raises(ValueError, match="y must be None"):
            t.fit(iter([(X, y)]), y, verbose=0)
        with pytest.raises(ValueError, match="the iterable gave no batch"):
            t.fit(iter([]), verbose=0)
        with pytest.raises(TypeError, match="batch 0 of the iterable must be"):
            t.fit(iter([X]), verbose=0)
        before = bits(t.model)
        with pytest.raises(ValueError, match="batch 0 of the iterable: X holds NaN in row 0"):
            t.fit(iter([(X * np.nan, y)]), verbose=0)
        assert bits(t.model) == before


class TestRefuses:
    def fit_error(self, t, words, *args, error=ValueError, **options):
        t.fit(*args[:2], verbose=0) if not t.epoch and len(args) > 2 else None
        before = bits(t.model)
        with pytest.raises(error, match=words) as caught:
            t.fit(*args[:2], **{"verbose": 0, **options})
        assert bits(t.model) == before
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda X, y: (X[:-1], y), "y has 101 rows, but X has 100"),
            (lambda X, y: (X[:0], y[:0]), "X has no rows"),
            (lambda X, y: (np.where(np.arange(4) == 2, np.nan, X), y), "X holds NaN in row 0, column 2"),
            (
                lambda X, y: (np.where(np.arange(101)[:, None] == 7, np.inf, X), y),
                "X holds infinity in row 7, column 0",
            ),
            (lambda X, y: (X[:, :3], y), r"Sequential\[0\].*weight expects 4 input columns"),
            (lambda X, y: (X, y + 1), r"must be from 0 to 2, but y\[\d+\] is 3"),
            (lambda X, y: (X, y - 1), r"must be from 0 to 2, but y\[\d+\] is -1"),
            (lambda X, y: (X, None), "fit needs y"),
            (lambda X, y: (3.0, y), "X is a single number"),
        ],
    )
    def test_bad_data(self, change, words, data):
        t = trainer()
        t.fit(*data, verbose=0)
        before, steps = bits(t.model), t._step.state_dict()["steps"]
        with pytest.raises(ValueError, match=words) as caught:
            t.fit(*change(*data), verbose=0)
        assert bits(t.model) == before and t._step.steps == steps and "\n" not in str(caught.value)

    def test_float_labels(self, data):
        X, y = data
        t = trainer()
        with pytest.raises(
            TypeError, match=r"y has dtype float64, but CrossEntropyLoss expects integer class labels.*astype"
        ):
            t.fit(X, y.astype(float), verbose=0)

    def test_words_as_data(self, data):
        with pytest.raises(TypeError, match=r"y has dtype <U1|y holds objects"):
            trainer().fit(data[0], np.array(["a"] * 101), verbose=0)

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            (dict(epochs=-1), ValueError, "epochs must be at least 0"),
            (dict(epochs=1.5), TypeError, "epochs must be an integer"),
            (dict(batch_size=0), ValueError, "batch_size must be at least 1"),
            (dict(validation_split=1.0), ValueError, "validation_split"),
            (dict(validation_split=0.001), ValueError, "no row to validate on"),
            (dict(validation_data=3), TypeError, "validation_data must be"),
            (dict(time_limit=-1), ValueError, "time_limit"),
            (dict(callbacks=[3]), TypeError, "callbacks must be instances"),
            (dict(sample_weight=[1.0]), ValueError, "sample_weight has 1 rows"),
            (dict(sample_weight=-np.ones(101)), ValueError, "sample_weight is negative in row 0"),
            (dict(sample_weight=np.zeros(101)), ValueError, "all weights are 0"),
            (dict(class_weight={9: 1.0}), ValueError, "class 9"),
            (dict(class_weight="fair"), ValueError, "'balanced'"),
            (dict(callbacks=[EarlyStopping()]), ValueError, "monitors 'val_loss'.*validation data"),
        ],
    )
    def test_bad_options(self, options, error, words, data):
        t = trainer()
        before = bits(t.model)
        with pytest.raises(error, match=words):
            t.fit(*data, **{"verbose": 0, **options})
        assert bits(t.model) == before

    def test_bad_validation_data(self, data):
        X, y = data
        for given, words in (
            ((X[:, :2], y), "validation data: .*4 input columns"),
            ((X, y + 1), "validation data: .*from 0 to 2"),
        ):
            with pytest.raises(ValueError, match=words):
                trainer().fit(X, y, validation_data=given, verbose=0)

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            (dict(metrics=["acuracy"]), ValueError, "unknown metric 'acuracy'"),
            (dict(metrics="accuracy"), TypeError, "metrics must be a list"),
            (dict(metrics=["mse", "mse"]), ValueError, "two metrics are called 'mse'"),
            (dict(loss=None), ValueError, "either loss= or objective="),
            (dict(loss=nn.MSELoss), TypeError, "make one"),
            (dict(optimizer="adam"), TypeError, "optimizer must be one of"),
            (dict(seed=-1), ValueError, "seed must be at least 0"),
            (dict(loss=None, objective=lambda m, x: m(x).mean()), ValueError, "metrics need loss="),
        ],
    )
    def test_bad_trainers(self, options, error, words):
        with pytest.raises(error, match=words):
            trainer(**options)


class TestBits:
    def test_two_runs_are_one(self, data):
        found = []
        for _ in range(2):
            t = trainer(classifier(dropout=0.3), seed=4)
            history = t.fit(*data, epochs=4, batch_size=16, verbose=0)
            found.append((bits(t.model), history.history))
        assert found[0] == found[1]
        t = trainer(classifier(dropout=0.3), seed=5)
        t.fit(*data, epochs=4, batch_size=16, verbose=0)
        assert bits(t.model) != found[0][0]

    def test_any_number_of_threads(self, data):
        found = []
        for threads in (1, 2, 3, 4):
            t = trainer(classifier(dropout=0.3), threads=threads)
            history = t.fit(*data, epochs=5, batch_size=10, verbose=0, validation_split=0.2)
            found.append((bits(t.model), history.history))
        assert all(f == found[0] for f in found)

    def test_batch_hooks_change_no_bit(self, data):
        found = []
        for callbacks in ([], [LambdaCallback(on_train_batch_end=lambda batch, logs: None)]):
            t = trainer(classifier(dropout=0.3), accumulate=3, lr=0.01)
            history = t.fit(*data, epochs=3, batch_size=8, callbacks=callbacks, verbose=0)
            found.append((bits(t.model), history.history, t._step.steps))
        assert found[0] == found[1]

    def test_steps_by_hand_are_fit(self, data):
        X, y = data
        t, u = trainer(classifier(dropout=0.3)), trainer(classifier(dropout=0.3))
        t.fit(X, y, batch_size=32, shuffle=False, verbose=0)
        for i in range(0, 101, 32):
            u.step(X[i : i + 32], y[i : i + 32])
        assert bits(t.model) == bits(u.model)

    def test_a_prediction_does_not_depend_on_its_company(self, rng):
        X = rng.normal(size=(1300, 4))
        model = classifier()
        t = trainer(model)
        all_at_once = t.predict(X)
        assert all_at_once.shape == (1300, 3)
        for rows in ([0], [5, 1200], list(range(100, 203)), list(range(1299, -1, -1))):
            assert t.predict(X[rows]).tobytes() == all_at_once[rows].tobytes()
        assert t.predict(X, batch_size=7).tobytes() == all_at_once.tobytes()
        assert model(X.astype(np.float32)).tobytes() == all_at_once.tobytes()

    def test_accumulation_is_one_big_batch(self, data):
        X, y = data[0][:96], data[1][:96]
        found = []
        for accumulate, batch_size in ((1, 32), (4, 8)):
            t = trainer(accumulate=accumulate, dtype="float64", lr=0.01)
            t.fit(X, y, epochs=3, batch_size=batch_size, verbose=0)
            assert t._step.steps == 9
            found.append(t.model.state_dict())
        for name in found[0]:
            np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-9, atol=1e-11)


class TestWeights:
    def test_epoch_loss_is_the_weighted_mean(self, data, rng):
        X, y = data
        w = rng.random(101)
        t = trainer(lr=0.0)
        history = t.fit(X, y, sample_weight=w, batch_size=7, verbose=0, validation_data=(X, y, w))
        logits = t.predict(X).astype(float)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(101), y]
        assert history.history["loss"][0] == pytest.approx((w * losses).sum() / w.sum(), rel=1e-5)
        assert history.history["val_loss"][0] == pytest.approx((w * losses).sum() / w.sum(), rel=1e-5)
        assert t.evaluate(X, y)["loss"] == pytest.approx(losses.mean(), rel=1e-5)

    def test_class_weights_are_sample_weights(self, data):
        X, y = data
        counts = np.bincount(y)
        balanced = 101 / (3 * counts[y])
        found = []
        for options in (
            dict(class_weight="balanced"),
            dict(class_weight={c: 101 / (3 * n) for c, n in enumerate(counts)}),
            dict(sample_weight=balanced),
        ):
            t = trainer()
            t.fit(X, y, epochs=2, verbose=0, **options)
            found.append(bits(t.model))
        assert found[0] == found[1] == found[2]

    def test_rows_of_weight_zero_do_not_count(self, data):
        X, y = data
        w = (np.arange(101) < 64).astype(float)
        t, u = trainer(), trainer()
        t.fit(X, y, sample_weight=w, batch_size=32, shuffle=False, verbose=0)
        u.fit(X[:64], y[:64], batch_size=32, shuffle=False, verbose=0)
        np.testing.assert_allclose(t.history.history["loss"], u.history.history["loss"], rtol=1e-5)
        for name, array in t.model.state_dict().items():
            np.testing.assert_allclose(array, u.model.state_dict()[name], rtol=1e-4, atol=1e-6)


class TestRuns:
    def test_history_and_epochs(self, data):
        t = trainer()
        history = t.fit(*data, epochs=3, batch_size=1000, validation_split=0.1, verbose=0)
        assert history is t.history and history.epoch == [0, 1, 2] and history.stopped is None
        assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert all(len(v) == 3 for v in history.history.values())
        assert history.params["batches"] == 1 and history.params["rows"] == 91
        again = t.fit(*data, epochs=2, verbose=0)
        assert again.epoch == [3, 4] and t.epoch == 5 and len(history.epoch) == 3
        assert t.fit(*data, epochs=0, verbose=0).epoch == []

    def test_validation_split_takes_the_last_rows(self, data):
        X, y = data
        t, u = trainer(), trainer()
        a = t.fit(X, y, epochs=2, validation_split=0.2, verbose=0)
        b = u.fit(X[:81], y[:81], epochs=2, validation_data=(X[81:], y[81:]), verbose=0)
        assert a.history == b.history and bits(t.model) == bits(u.model)

    def test_an_objective_with_extras(self, data):
        X, y = data

        def objective(model, x, y, w):
            error = model(x)[:, 0] - y
            return (w * error**2).mean(), {"mae": error.abs().mean()}

        t = pb.Trainer(classifier(), objective=objective, optimizer=optim.Adam(lr=0.01))
        history = t.fit(X, y.astype(float), sample_weight=np.ones(101), epochs=3, validation_split=0.2, verbose=0)
        assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
        assert history.history["loss"][-1] < history.history["loss"][0]

    def test_an_objective_without_target(self, rng):
        X = rng.normal(size=(50, 4))
        pb.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
        t = pb.Trainer(model, objective=lambda m, x: ((m(x) - x) ** 2).mean(), optimizer=optim.Adam(lr=0.05))
        history = t.fit(X, epochs=30, verbose=0)
        assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
        assert set(t.evaluate(X)) == {"loss"}

    def test_own_metrics(self, data):
        class Largest(pb.Metric):
            name = "largest"

            def sums(self, pred, target):
                return (pred.max(),)

            def finish(self, sums, rows):
                return float(sums.max())

        def margin(pred, target):
            return pred.max(1).mean()

        t = trainer(metrics=["accuracy", "top2", Largest(), margin])
        scores = t.evaluate(*data)
        logits = t.predict(data[0])
        assert scores["largest"] == pytest.approx(logits.max(), rel=1e-5)
        assert scores["margin"] == pytest.approx(logits.max(1).mean(), rel=1e-5)
        rank = (logits > logits[np.arange(101), data[1]][:, None]).sum(1)
        assert scores["top2"] == pytest.approx((rank < 2).mean()) and scores["accuracy"] == pytest.approx(
            (rank < 1).mean()
        )

    def test_time_limit(self, data):
        X, y = np.tile(data[0], (200, 1)), np.tile(data[1], 200)
        t = trainer()
        begin = time.monotonic()
        history = t.fit(X, y, epochs=10**6, batch_size=4, time_limit=0.4, verbose=0)
        assert time.monotonic() - begin < 3.0
        assert history.stopped == "time_limit" and history.history["loss"]

    def test_ctrl_c_keeps_the_weights(self, data):
        t = trainer()
        calls = []

        def interrupt(batch, logs):
            calls.append(batch)
            if len(calls) == 7:
                signal.raise_signal(signal.SIGINT)

        with pytest.warns(RuntimeWarning, match="interrupted"):
            history = t.fit(
                *data, epochs=50, batch_size=10, callbacks=[LambdaCallback(on_train_batch_end=interrupt)], verbose=0
            )
        assert history.stopped == "interrupted" and len(calls) == 7 and t._step.steps == 7
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_ctrl_c_from_outside(self, data):
        import _thread

        X, y = np.tile(data[0], (300, 1)), np.tile(data[1], 300)
        t = trainer()
        timer = threading.Timer(0.3, _thread.interrupt_main)
        timer.start()
        with pytest.warns(RuntimeWarning, match="interrupted"):
            history = t.fit(X, y, epochs=10**6, batch_size=8, verbose=0)
        timer.join()
        assert history.stopped == "interrupted" and len(history.epoch) >= 1
        t.evaluate(X, y)

    def test_a_keyboard_interrupt_in_a_callback(self, data):
        def stop(epoch, logs):
            raise KeyboardInterrupt

        with pytest.warns(RuntimeWarning, match="interrupted"):
            history = trainer().fit(*data, epochs=5, callbacks=[LambdaCallback(on_epoch_end=stop)], verbose=0)
        assert history.stopped == "interrupted" and history.epoch == [0]

    def test_an_error_in_a_callback_reaches_the_caller(self, data):
        def fail(epoch, logs):
            raise RuntimeError("mine")

        t = trainer()
        with pytest.raises(RuntimeError, match="mine"):
            t.fit(*data, epochs=5, callbacks=[LambdaCallback(on_epoch_end=fail)], verbose=0)
        assert t.fit(*data, epochs=1, verbose=0).stopped is None

    def test_changing_the_model_between_fits(self, data):
        t = trainer()
        t.fit(*data, verbose=0)
        t.model[0].freeze()
        before = t.model.state_dict()
        t.fit(*data, verbose=0)
        after = t.model.state_dict()
        assert (before["0.weight"] == after["0.weight"]).all() and (before["3.weight"] != after["3.weight"]).any()


class TestCheckpoints:
    def run(self, epochs, data, path=None, at=None, **options):
        def save(epoch, logs):
            if epoch == at:
                t.save_checkpoint(path)

        t = self.make()
        t.fit(*data, epochs=epochs, batch_size=16, callbacks=[LambdaCallback(on_epoch_end=save)], verbose=0, **options)
        return t

    def make(self, seed=2, accumulate=1):
        pb.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        optimizer = optim.AdamW(lr=optim.Warmup(optim.CosineLR(0.02), steps=5))
        return pb.Trainer(
            model,
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer,
            metrics=["accuracy"],
            seed=seed,
            accumulate=accumulate,
        )

    def test_resume_at_the_end_of_an_epoch_is_exact(self, data, tmp_path):
        path = tmp_path / "run.ckpt"
        whole = self.run(6, data, path, at=2, validation_split=0.1)
        assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]
        t = self.make(seed=77)
        t.load_checkpoint(path)
        assert t.epoch == 3 and t.history.epoch == [0, 1, 2]
        history = t.fit(*data, epochs=6, batch_size=16, validation_split=0.1, verbose=0)
        assert bits(t.model) == bits(whole.model)
        assert history.history == whole.history.history and history.epoch == list(range(6))
        assert t._step.state_dict()["steps"] == whole._step.state_dict()["steps"]

    @pytest.mark.parametrize("accumulate", [1, 2])
    @pytest.mark.parametrize("each_batch", [False, True])
    def test_resume_within_an_epoch_is_exact(self, data, tmp_path, each_batch, accumulate):
        whole = self.make(accumulate=accumulate)
        whole.fit(*data, epochs=4, batch_size=3, verbose=0)

        t = self.make(accumulate=accumulate)
        seen = []

        def interrupt(*_):
            seen.append(1)
            if len(seen) == (31 if each_batch else 2):
                signal.raise_signal(signal.SIGINT)

        hook = {"on_train_batch_end" if each_batch else "on_epoch_begin": interrupt}
        with pytest.warns(RuntimeWarning):
            t.fit(*data, epochs=4, batch_size=3, callbacks=[LambdaCallback(**hook)], verbose=0)
        t.save_checkpoint(tmp_path / "c")
        u = self.make(accumulate=accumulate)
        u.load_checkpoint(tmp_path / "c")
        history = u.fit(*data, epochs=4, batch_size=3, verbose=0)
        assert bits(u.model) == bits(whole.model)
        assert history.history == whole.history.history and history.epoch == whole.history.epoch

    def test_a_checkpoint_from_within_a_batch_hook(self, data, tmp_path):
        whole = self.make()
        whole.fit(*data, epochs=2, batch_size=16, verbose=0)

        def save(batch, logs):
            if batch == 3 and t.epoch == 1:
                t.save_checkpoint(tmp_path / "c")

        t = self.make()
        t.fit(*data, epochs=2, batch_size=16, callbacks=[LambdaCallback(on_train_batch_end=save)], verbose=0)
        u = self.make()
        u.load_checkpoint(tmp_path / "c")
        u.fit(*data, epochs=2, batch_size=16, verbose=0)
        assert bits(u.model) == bits(whole.model) and u.history.history == whole.history.history

    def test_a_finished_run_returns_at_once(self, data, tmp_path):
        t = self.run(3, data)
        t.save_checkpoint(tmp_path / "c")
        u = self.make()
        u.load_checkpoint(tmp_path / "c")
        history = u.fit(*data, epochs=3, batch_size=16, verbose=0)
        assert bits(u.model) == bits(t.model) and history.history == t.history.history
        assert u.fit(*data, epochs=1, batch_size=16, verbose=0).epoch == [3]

    def test_other_data_or_batch_size(self, data, tmp_path):
        X, y = data
        self.run(2, data, tmp_path / "c", at=0)
        for options, words in (
            (dict(X=X[:-1], y=y[:-1], batch_size=16), "rows or row shapes"),
            (dict(X=X, y=y, batch_size=17), "batch_size"),
        ):
            u = self.make()
            u.load_checkpoint(tmp_path / "c")
            before = bits(u.model)
            with pytest.raises(ValueError, match=words):
                u.fit(options["X"], options["y"], batch_size=options["batch_size"], epochs=2, verbose=0)
            assert bits(u.model) == before

    def test_a_last_batch_that_is_too_small(self, data):
        t = self.make()
        before = bits(t.model)
        with pytest.raises(ValueError, match=r"the last batch of an epoch has 1 of 101 rows: .*more than one value"):
            t.fit(*data, batch_size=10, verbose=0)
        assert bits(t.model) == before

    def test_files_that_do_not_fit(self, data, tmp_path):
        path = tmp_path / "c"
        self.run(1, data, path, at=0)
        other = trainer(classifier())
        before = bits(other.model)
        with pytest.raises(ValueError, match="model"):
            other.load_checkpoint(path)
        wrong = self.make()
        wrong = pb.Trainer(wrong.model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1))
        kept = bits(wrong.model)
        with pytest.raises(ValueError, match="'adamw'"):
            wrong.load_checkpoint(path)
        pb.save(other.model, tmp_path / "m")
        with pytest.raises(ValueError, match="no checkpoint"):
            other.load_checkpoint(tmp_path / "m")
        assert bits(other.model) == before and bits(wrong.model) == kept

    def test_plateau_schedules_resume(self, data, tmp_path):
        def make():
            pb.manual_seed(0)
            schedule = optim.ReduceLROnPlateau(0.5, factor=0.5, patience=0, threshold=0.5)
            return trainer(classifier(), optimizer=optim.SGD(lr=schedule))

        whole = make()
        whole.fit(*data, epochs=8, verbose=0)
        assert whole.optimizer.lr.current_lr < 0.5
        t = make()
        t.fit(
            *data,
            epochs=8,
            verbose=0,
            callbacks=[LambdaCallback(on_epoch_end=lambda e, logs: e == 3 and t.save_checkpoint(tmp_path / "c"))],
        )
        u = make()
        u.load_checkpoint(tmp_path / "c")
        u.fit(*data, epochs=8, verbose=0)
        assert bits(u.model) == bits(whole.model)

    def test_callbacks_resume(self, data, tmp_path):
        X, y = data

        def early():
            return EarlyStopping("loss", patience=3, min_delta=0.02, restore_best_weights=True)

        whole = trainer()
        a = whole.fit(X, y, epochs=60, verbose=0, callbacks=[early()])
        assert a.stopped == "callback" and len(a.epoch) < 60
        t = trainer()
        t.fit(
            X,
            y,
            epochs=60,
            verbose=0,
            callbacks=[
                early(),
                LambdaCallback(
                    on_epoch_end=lambda e, logs: e == len(a.epoch) - 3 and t.save_checkpoint(tmp_path / "c")
                ),
            ],
        )
        u = trainer()
        u.load_checkpoint(tmp_path / "c")
        b = u.fit(X, y, epochs=60, verbose=0, callbacks=[early(), CSVLogger(tmp_path / "log.csv")])
        assert b.epoch == a.epoch and bits(u.model) == bits(whole.model)


class TestMetricsOfTargets:
    def trainer(self, loss, outputs):
        model = nn.Linear(2, outputs)
        model.load_state_dict({"weight": np.zeros((outputs, 2)), "bias": np.zeros(outputs)})
        return pb.Trainer(model, loss=loss, optimizer=optim.SGD(lr=0.0), metrics=["accuracy"], seed=0)

    def test_equal_scores_count_the_first_class_for_labels_and_one_hot_rows(self):
        X, y = np.zeros((4, 2), np.float32), np.array([0, 1, 2, 2])
        trainer = self.trainer(nn.CrossEntropyLoss(), 3)
        assert trainer.evaluate(X, y)["accuracy"] == 0.25
        assert trainer.evaluate(X, np.eye(3)[y])["accuracy"] == 0.25

    def test_labels_in_a_column(self):
        trainer = self.trainer(nn.CrossEntropyLoss(), 3)
        assert trainer.evaluate(np.zeros((4, 2), np.float32), np.array([[0], [1], [2], [2]]))["accuracy"] == 0.25

    def test_several_yes_or_no_questions(self):
        trainer = self.trainer(nn.BCEWithLogitsLoss(), 2)
        Y = np.array([[0, 0], [0, 1], [1, 1], [1, 1]], np.float32)
        assert trainer.evaluate(np.zeros((4, 2), np.float32), Y)["accuracy"] == 3 / 8


def test_numbers_that_float32_cannot_hold_are_refused():
    X, y = np.zeros((4, 2)), np.zeros(4)
    X[3, 1] = 1e300
    model = nn.Linear(2, 1)
    trainer = pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1), seed=0)
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"X holds 1e\+300 in row 3, more than float32 can hold"):
        trainer.fit(X, y, verbose=0)
    for weights in ([1e-46] * 4, [1, 1, 1, 1e39]):
        with pytest.raises(ValueError, match="weight"):
            trainer.fit(np.zeros((4, 2)), y, sample_weight=weights, verbose=0)
    assert all((before[k] == v).all() for k, v in model.state_dict().items())


def test_a_checkpoint_from_before_any_fit_can_be_fitted(tmp_path):
    def new():
        return pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1), seed=0)

    X, y = np.ones((4, 2), np.float32), np.ones(4, np.float32)
    first = new()
    first.step(X, y)
    first.save_checkpoint(tmp_path / "c")
    second = new()
    second.load_checkpoint(tmp_path / "c")
    assert len(second.fit(X, y, epochs=2, verbose=0).history["loss"]) == 2


def test_shuffle_by_a_function():
    X, y = np.arange(12, dtype=np.float32).reshape(-1, 1), np.zeros((12, 1), np.float32)
    seen = []

    def order(epoch, rows):
        seen.append((epoch, rows))
        return np.roll(np.arange(rows), epoch)

    def fitted(shuffle, rows):
        pb.manual_seed(0)
        trainer = pb.Trainer(nn.Linear(1, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=1e-3))
        trainer.fit(X[rows], y, epochs=2 if callable(shuffle) else 1, batch_size=5, shuffle=shuffle, verbose=0)
        return trainer

    by_function = fitted(order, slice(None))
    assert seen == [(0, 12), (1, 12)]
    twin = fitted(False, slice(None))
    twin.fit(np.roll(X, 1, axis=0), y, epochs=1, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_array_equal(by_function.model.weight.numpy(), twin.model.weight.numpy())
    with pytest.raises(ValueError, match="shuffle gave 3 row numbers for 12 rows"):
        fitted(lambda epoch, rows: np.arange(3), slice(None))
