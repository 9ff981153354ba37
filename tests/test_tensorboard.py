"""The TensorBoard callback: what stands in the event files, read record by record."""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training.callbacks import LambdaCallback, ReduceLROnPlateau, TensorBoard

pytest.importorskip("tensorboardX")


def events(folder):
    """All events of a folder's files, in the order of writing; a record is length, checksum, data, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def curves(folder):
    """``{name: {step: value}}`` as TensorBoard shows it: a later start drops what there was from its step on."""
    found = defaultdict(dict)
    for event in events(folder):
        if event.HasField("session_log"):
            for values in found.values():
                for step in [step for step in values if step >= event.step]:
                    del values[step]
        for value in event.summary.value:
            found[value.tag][event.step] = value.histo if value.HasField("histo") else value.simple_value
    return dict(found)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(32, 3)).astype(np.float32)
    return X, X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def trainer(*callbacks, lr=0.1):
    pb.manual_seed(0)
    return pb.Trainer(
        nn.Linear(3, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=lr), metrics=["mae"], callbacks=callbacks
    )


def test_scalars_of_every_epoch(data, tmp_path):
    t = trainer(lr=optim.StepLR(0.1, step_size=1, gamma=0.5, by="epoch"))
    history = t.fit(*data, epochs=3, validation_split=0.25, verbose=0, callbacks=[TensorBoard(tmp_path)]).history
    train, validation = curves(tmp_path / "train"), curves(tmp_path / "validation")
    assert sorted(train) == ["epoch_learning_rate", "epoch_loss", "epoch_mae"]
    assert sorted(validation) == ["epoch_loss", "epoch_mae"]
    for found, prefix in ((train, ""), (validation, "val_")):
        for name in ("loss", "mae"):
            assert found[f"epoch_{name}"] == pytest.approx(dict(enumerate(history[prefix + name])), rel=1e-6)
    assert train["epoch_learning_rate"] == pytest.approx({0: 0.1, 1: 0.05, 2: 0.025})


def test_a_rate_that_a_callback_sets(data, tmp_path):
    t = trainer(ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9), TensorBoard(tmp_path))
    t.fit(*data, epochs=3, verbose=0)
    assert curves(tmp_path / "train")["epoch_learning_rate"] == pytest.approx({0: 0.1, 1: 0.05, 2: 0.025})
    assert not (tmp_path / "validation").exists()


def test_histograms_of_parameters(data, tmp_path):
    weights = []
    t = trainer(lr=0.01)
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(t.model.weight.numpy()))
    t.fit(*data, epochs=4, verbose=0, callbacks=[note, TensorBoard(tmp_path, histogram_freq=2)])
    found = curves(tmp_path / "train")
    assert sorted(found["weight"]) == sorted(found["bias"]) == [1, 3]
    histogram = found["weight"][3]
    assert histogram.num == 3 and sum(histogram.bucket) == 3
    assert histogram.min == pytest.approx(weights[3].min()) and histogram.max == pytest.approx(weights[3].max())


def test_runs_of_one_second_have_files_of_their_own(data, tmp_path):
    board, t = TensorBoard(tmp_path), trainer()
    history = [t.fit(*data, epochs=1, verbose=0, callbacks=[board]).history["loss"][0] for _ in range(3)]
    assert len(list((tmp_path / "train").iterdir())) == 3
    assert curves(tmp_path / "train")["epoch_loss"] == pytest.approx(dict(enumerate(history)), rel=1e-6)


def test_a_resumed_run_goes_on_in_its_curves(data, tmp_path):
    """Epochs written after the checkpoint come a second time, and only then count."""
    t = trainer()
    save = LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 1 and t.save_checkpoint(tmp_path / "c"))
    t.fit(*data, epochs=4, verbose=0, callbacks=[TensorBoard(tmp_path / "logs"), save])
    again = trainer()
    again.load_checkpoint(tmp_path / "c")
    history = again.fit(*data, epochs=3, verbose=0, callbacks=[TensorBoard(tmp_path / "logs")]).history
    found = curves(tmp_path / "logs" / "train")["epoch_loss"]
    assert found == pytest.approx(dict(enumerate(history["loss"])), rel=1e-6) and len(found) == 3


def test_a_run_after_one_that_failed(data, tmp_path):
    board, t = TensorBoard(tmp_path), trainer()
    fail = LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        t.fit(*data, epochs=2, verbose=0, callbacks=[board, fail])
    t.fit(*data, epochs=2, verbose=0, callbacks=[board])
    assert sorted(curves(tmp_path / "train")["epoch_loss"]) == [0, 1, 2]


def test_a_run_that_failed_and_went_back(data, tmp_path):
    board, t = TensorBoard(tmp_path / "logs"), trainer()
    save = LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 0 and t.save_checkpoint(tmp_path / "c"))
    fail = LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 4 and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        t.fit(*data, epochs=9, verbose=0, callbacks=[board, save, fail])
    t.load_checkpoint(tmp_path / "c")
    t.fit(*data, epochs=2, verbose=0, callbacks=[board])
    assert sorted(curves(tmp_path / "logs" / "train")["epoch_loss"]) == [0, 1]


def test_mistakes(monkeypatch):
    with pytest.raises(ValueError, match="histogram_freq must be 0 or more"):
        TensorBoard(histogram_freq=-1)
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "pybackprop\[tensorboard\]"'):
        TensorBoard()
