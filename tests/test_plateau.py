"""ReduceLROnPlateau as a callback: Keras's timing, its place in a run, and in a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training import LambdaCallback
from pybackprop.training.callbacks import ModelCheckpoint, ReduceLROnPlateau


def rates(values, lr=1.0, **options):
    """The learning rate after each epoch of a run whose metric takes these values."""
    callback = ReduceLROnPlateau(**options)
    callback.trainer = SimpleNamespace(optimizer=optim.SGD(lr=lr))
    callback.params = {"metrics": []}
    callback.on_train_begin()
    found = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {callback.monitor: value})
        found.append(callback.trainer.optimizer.lr)
    return found


def keras_rates(values, lr=1.0, *, factor, patience, min_delta, cooldown, min_lr, sign):
    """The rule as Keras documents and applies it, in one loop."""
    best, wait, cooling, found = None, 0, 0, []
    for value in values:
        if cooling:
            cooling, wait = cooling - 1, 0
        if np.isfinite(value) and (best is None or sign * (best - value) > min_delta):
            best, wait = value, 0
        elif not cooling:
            wait += 1
            if wait >= patience and lr > min_lr:
                lr = max(lr * factor, min_lr)
                cooling, wait = cooldown, 0
        found.append(lr)
    return found


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 2, 4])
@pytest.mark.parametrize("cooldown", [0, 1, 2, 3])
def test_the_timing_is_that_of_keras(rng, mode, patience, cooldown):
    options = {"factor": 0.5, "patience": patience, "min_delta": 0.05, "cooldown": cooldown, "min_lr": 0.01}
    for _ in range(20):
        values = rng.normal(size=40).cumsum() * 0.1
        values[rng.integers(0, 40, 3)] = np.nan
        expected = keras_rates(values, sign=1 if mode == "min" else -1, **options)
        assert rates(values, mode=mode, **options) == expected
    assert min(expected) < 1


def test_auto_mode_knows_which_metrics_rise():
    assert rates([0.5, 0.6, 0.7], monitor="val_accuracy", patience=1) == [1, 1, 1]
    assert rates([0.5, 0.6, 0.7], monitor="val_loss", patience=1) == pytest.approx([1, 0.1, 0.01])


def test_a_rate_below_min_lr_is_left_alone():
    assert rates([1.0, 1.0, 1.0], lr=0.01, patience=1, min_lr=0.1) == [0.01] * 3


@pytest.fixture
def data(rng):
    X = rng.normal(size=(48, 3)).astype(np.float32)
    return X, (X @ np.array([[1.0], [-2.0], [0.5]]) + rng.normal(size=(48, 1))).astype(np.float32)


def trainer(*callbacks, lr=0.3):
    pb.manual_seed(0)
    return pb.Trainer(nn.Linear(3, 1), loss=nn.MSELoss(), optimizer=optim.Adam(lr=lr), callbacks=callbacks)


def plateau():
    return ReduceLROnPlateau("val_loss", factor=0.5, patience=2, cooldown=2)


def test_it_lowers_the_rate_of_the_run_and_says_when(data):
    callback, seen = plateau(), []
    t = trainer(callback)
    note = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(t.optimizer.lr))
    t.fit(*data, epochs=30, validation_split=0.25, verbose=0, callbacks=[note])
    assert callback.reductions and callback.reductions[-1][1] == t.optimizer.lr == t.learning_rate < 0.3
    for epoch, rate in callback.reductions[:-1]:
        assert seen[epoch] == 2 * rate and seen[epoch + 1] == rate
    t.fit(*data, epochs=1, validation_split=0.25, verbose=0)
    assert callback.reductions == [] and callback.wait == 0  # a new run begins anew


def test_a_resumed_run_has_the_same_bits(data, tmp_path):
    options = {"epochs": 24, "validation_split": 0.25, "verbose": 0}
    whole = plateau()
    expected = trainer(whole)
    expected.fit(*data, **options)
    assert len(whole.reductions) > 2
    for killed in (4, 9, whole.reductions[1][0] + 1, 17):
        first = trainer(plateau(), ModelCheckpoint(tmp_path / f"run-{killed}"))
        stop = LambdaCallback(on_epoch_end=lambda e, logs, t=first, at=killed: setattr(t, "stop_training", e == at))
        first.fit(*data, **options, callbacks=[stop])
        callback = plateau()
        again = trainer(callback)
        again.load_checkpoint(tmp_path / f"run-{killed}")
        again.fit(*data, **options)
        assert callback.reductions == whole.reductions and again.optimizer.lr == expected.optimizer.lr
        for name, value in again.model.state_dict().items():
            assert value.tobytes() == expected.model.state_dict()[name].tobytes()


def test_mistakes(data):
    for options, words in [
        ({"factor": 1.0}, r"factor must be in \[0, 1\)"),
        ({"patience": -1}, "patience must be 0 or more"),
        ({"cooldown": -1}, "cooldown must be 0 or more"),
        ({"mode": "up"}, "mode must be 'auto', 'min' or 'max'"),
        ({"min_delta": -1}, "min_delta must be at least 0"),
        ({"min_lr": -1}, "min_lr must be 0 or more"),
    ]:
        with pytest.raises(ValueError, match=words):
            ReduceLROnPlateau(**options)
    with pytest.raises(ValueError, match="monitors 'val_loss', but the metrics are loss; give fit validation data"):
        trainer(plateau()).fit(*data, verbose=0)
    with pytest.raises(TypeError, match=r"needs a number as lr.*a schedule of that kind is optim.ReduceLROnPlateau"):
        trainer(ReduceLROnPlateau("loss"), lr=optim.CosineLR(0.1)).fit(*data, verbose=0)


@pytest.mark.parametrize(
    "change", [{"best": "low"}, {"bad_epochs": -1}, {"cooldown_left": 1.5}, {"reductions": [[1]]}, {"more": 1}]
)
def test_a_state_of_another_form_is_refused(change):
    state = {"best": 1.0, "bad_epochs": 1, "cooldown_left": 0, "reductions": [[3, 0.1]]}
    callback = ReduceLROnPlateau()
    callback.load_state_dict(state)
    assert callback.state_dict() == state
    with pytest.raises(ValueError, match="ReduceLROnPlateau cannot take over"):
        callback.load_state_dict({**state, **change})
    assert callback.state_dict() == state
