"""Callbacks: when hooks are called, and what the ready-made ones do."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    TerminateOnNaN,
)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(40, 3)).astype(np.float32)
    return X, X @ np.array([1.0, -2.0, 0.5], np.float32)


def trainer(lr=0.05, **options):
    pb.manual_seed(0)
    return pb.Trainer(nn.Linear(3, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=lr), metrics=["mae"], **options)


class Recorder(Callback):
    def __init__(self):
        self.calls = []


for _hook in [name for name in vars(Callback) if name.startswith("on_") and "chunk" not in name]:
    setattr(Recorder, _hook, lambda self, *args, _hook=_hook: self.calls.append((_hook, *args)))


def test_order_and_arguments_of_hooks(data):
    recorder = Recorder()
    t = trainer()
    history = t.fit(*data, epochs=2, batch_size=16, callbacks=[recorder], verbose=0)
    names = [call[0] for call in recorder.calls]
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    epoch = ["on_epoch_begin", *batch * 3, "on_epoch_end"]
    assert names == ["on_train_begin", *epoch * 2, "on_train_end"]
    ends = [call for call in recorder.calls if call[0] == "on_epoch_end"]
    assert [e[1] for e in ends] == [0, 1] and ends[1][2] == {k: v[1] for k, v in history.history.items()}
    assert [call[1] for call in recorder.calls if call[0] == "on_train_batch_end"] == [0, 1, 2] * 2
    assert recorder.trainer is t and recorder.model is t.model
    assert (
        recorder.params["epochs"] == 2
        and recorder.params["batches"] == 3
        and recorder.params["metrics"] == ["loss", "mae"]
    )


def test_the_history_is_written_before_on_epoch_end(data):
    lengths = []
    t = trainer()
    t.fit(
        *data,
        epochs=3,
        validation_split=0.2,
        verbose=0,
        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: lengths.append(len(t.history.history["val_mae"])))],
    )
    assert lengths == [1, 2, 3]


def test_chunk_hooks_see_running_means(data):
    seen = []
    t = trainer(
        callbacks=[LambdaCallback(on_train_chunk_end=lambda batches, logs: seen.append((batches, logs["loss"])))]
    )
    history = t.fit(*data, epochs=1, batch_size=40, verbose=0)
    assert seen[-1] == (1, history.history["loss"][0])


def test_stop_training_ends_the_epoch_early(data):
    t = trainer()

    def stop(batch, logs):
        t.stop_training = batch == 1

    history = t.fit(*data, epochs=5, batch_size=4, callbacks=[LambdaCallback(on_train_batch_end=stop)], verbose=0)
    assert history.epoch == [0] and history.stopped == "callback"
    assert t.fit(*data, epochs=2, verbose=0).stopped is None


class Scripted(Callback):
    """Gives epochs the validation losses of a script."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


class TestEarlyStopping:
    def run(self, values, data, **options):
        stopping = EarlyStopping(**options)
        t = trainer()
        weights = []
        record = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(t.model.state_dict()))
        history = t.fit(
            *data, epochs=len(values), validation_split=0.2, verbose=0, callbacks=[Scripted(values), stopping, record]
        )
        return stopping, t, history, weights

    def test_patience(self, data):
        stopping, _, history, _ = self.run([5, 4, 4, 4, 3, 2], data, patience=2)
        assert history.epoch == [0, 1, 2, 3] and stopping.stopped_epoch == 3 and stopping.best == 4

    def test_min_delta(self, data):
        stopping, _, history, _ = self.run([5, 4.5, 4.4, 4.3], data, patience=1, min_delta=0.5)
        assert history.epoch == [0, 1] and stopping.best == 5

    def test_mode_max(self, data):
        _, _, history, _ = self.run([1, 2, 3, 2, 4], data, patience=1, mode="max")
        assert len(history.epoch) == 4

    def test_nan_is_no_improvement(self, data):
        stopping, _, history, _ = self.run([float("nan"), 3, float("nan"), float("nan"), 2], data, patience=2)
        assert len(history.epoch) == 4 and stopping.best == 3

    def test_restores_the_best_weights(self, data):
        _, t, _, weights = self.run([5, 3, 4, 6], data, patience=2, restore_best_weights=True)
        for name, array in t.model.state_dict().items():
            np.testing.assert_array_equal(array, weights[1][name])

    def test_best_weights_also_without_a_stop(self, data):
        stopping, t, history, weights = self.run([5, 3, 4], data, patience=9, restore_best_weights=True)
        assert history.stopped is None and stopping.best_epoch == 1
        np.testing.assert_array_equal(t.model.state_dict()["weight"], weights[1]["weight"])

    def test_start_from_epoch(self, data):
        stopping, _, history, _ = self.run([1, 9, 5, 6, 4, 5, 6], data, patience=2, start_from_epoch=2)
        assert len(history.epoch) == 7 and (stopping.best, stopping.best_epoch) == (4, 4)
        assert len(self.run([1, 9, 5, 6], data, patience=2, start_from_epoch=1)[2].epoch) == 4

    def test_start_from_epoch_counts_the_epochs_of_a_run(self, data):
        stopping = EarlyStopping("loss", patience=1, start_from_epoch=2)
        t = trainer(lr=0.0, callbacks=[stopping])
        assert t.fit(*data, epochs=9, verbose=0, shuffle=False).epoch == [0, 1, 2, 3]
        assert t.fit(*data, epochs=9, verbose=0, shuffle=False).epoch == [4, 5, 6, 7]

    def test_baseline(self, data):
        """Better than before is best, but only better than the baseline too begins the count anew."""
        stopping, _, history, _ = self.run([9, 8, 7, 7, 2], data, patience=4, baseline=5)
        assert len(history.epoch) == 4 and (stopping.best, stopping.best_epoch) == (7, 2)
        assert len(self.run([9, 8, 4, 4, 4, 4, 4], data, patience=4, baseline=5)[2].epoch) == 7
        assert len(self.run([0.1, 0.6, 0.6, 0.7], data, patience=2, baseline=0.5, mode="max")[2].epoch) == 4

    def test_a_second_fit_starts_anew(self, data):
        stopping = EarlyStopping("loss", patience=1)
        t = trainer(lr=0.0, callbacks=[stopping])
        assert len(t.fit(*data, epochs=9, verbose=0, shuffle=False).epoch) == 2
        assert len(t.fit(*data, epochs=9, verbose=0, shuffle=False).epoch) == 2

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (dict(patience=-1), "patience"),
            (dict(min_delta=-1.0), "min_delta"),
            (dict(mode="up"), "mode must be"),
            (dict(start_from_epoch=-1), "start_from_epoch"),
        ],
    )
    def test_bad_options(self, options, words):
        with pytest.raises(ValueError, match=words):
            EarlyStopping(**options)

    def test_unknown_monitor(self, data):
        with pytest.raises(ValueError, match="monitors 'acc', but the metrics are loss, mae"):
            trainer().fit(*data, callbacks=[EarlyStopping("acc")], verbose=0)


class TestModelCheckpoint:
    def test_one_file_an_epoch(self, data, tmp_path):
        t = trainer()
        t.fit(*data, epochs=3, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "run-{epoch:02d}.ckpt")])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run-01.ckpt", "run-02.ckpt", "run-03.ckpt"]
        u = trainer()
        u.load_checkpoint(tmp_path / "run-02.ckpt")
        u.fit(*data, epochs=3, verbose=0)
        assert u.model.state_dict()["weight"].tobytes() == t.model.state_dict()["weight"].tobytes()

    def test_best_only_and_weights_only(self, data, tmp_path):
        path = tmp_path / "best.safetensors"
        t = trainer()
        weights = []
        record = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(t.model.state_dict()))
        save = ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
        t.fit(*data, epochs=4, validation_split=0.2, verbose=0, callbacks=[save, record, Scripted([4, 2, 3, 3])])
        loaded = nn.Linear(3, 1)
        pb.load(loaded, path)
        np.testing.assert_array_equal(loaded.state_dict()["weight"], weights[1]["weight"])

    def test_it_is_called_after_callbacks_that_keep_state(self, data, tmp_path):
        stopping = EarlyStopping("loss", patience=5)
        t = trainer()
        t.fit(*data, epochs=2, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "c"), stopping])
        again = EarlyStopping("loss", patience=5)
        u = trainer(callbacks=[again])
        u.load_checkpoint(tmp_path / "c")
        assert again.best == stopping.best and again.best_epoch == stopping.best_epoch

    def test_unknown_name_in_the_path(self, data, tmp_path):
        with pytest.raises(ValueError, match="'val_loss', but the metrics are loss, mae"):
            trainer().fit(*data, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "{val_loss}")])


class TestLearningRateScheduler:
    def test_sets_the_rate_before_each_epoch(self, data):
        rates = []
        t = trainer(lr=0.1)
        t.fit(
            *data,
            epochs=3,
            verbose=0,
            callbacks=[
                LearningRateScheduler(lambda epoch, lr: lr if epoch == 0 else lr / 2),
                LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(t.optimizer.lr)),
            ],
        )
        assert rates == [0.1, 0.05, 0.025]

    def test_counts_from_the_next_update(self, data):
        t = trainer(lr=0.1)
        weights = []
        t.fit(
            *data,
            epochs=2,
            verbose=0,
            callbacks=[
                LearningRateScheduler(lambda epoch, lr: 0.1 if epoch == 0 else 0.0),
                LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(t.model.state_dict()["weight"])),
            ],
        )
        np.testing.assert_array_equal(weights[0], weights[1])

    def test_refuses_a_schedule(self, data):
        with pytest.raises(TypeError, match="needs a number as lr"):
            trainer(lr=optim.Constant(0.1)).fit(*data, verbose=0, callbacks=[LearningRateScheduler(lambda e, lr: lr)])


def test_csv_logger(data, tmp_path):
    path = tmp_path / "log.csv"
    t = trainer(callbacks=[CSVLogger(path)])
    history = t.fit(*data, epochs=2, verbose=0)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(r["loss"]) for r in rows] == history.history["loss"] and [r["epoch"] for r in rows] == ["0", "1"]
    t.fit(*data, epochs=1, verbose=0)
    assert len(path.read_text().splitlines()) == 2
    t.fit(*data, epochs=1, verbose=0, callbacks=[CSVLogger(path, append=True)])
    assert path.read_text().splitlines()[0] == "epoch,loss,mae"


def test_lambda_callback_knows_its_hooks():
    with pytest.raises(TypeError, match="'on_epoch' is no hook; there are on_train_begin"):
        LambdaCallback(on_epoch=print)


def test_terminate_on_nan(data):
    t, stop = trainer(lr=1e30), TerminateOnNaN()
    history = t.fit(*data, epochs=50, batch_size=4, verbose=0, callbacks=[stop])
    assert history.stopped == "callback" and history.epoch == [0] and np.isfinite(history.history["loss"]).all()
    assert stop.error is not None and "learning rate" in str(stop.error)
    assert all(np.isfinite(w).all() for w in t.model.state_dict().values())
    t.fit(*data, epochs=0, verbose=0, callbacks=[stop])
    assert stop.error is None
