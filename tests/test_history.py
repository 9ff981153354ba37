"""The History: how it shows itself, as a table, a frame, a picture."""

from __future__ import annotations

import math

import pytest

import pybackprop as pb


def history(epochs=12, first=0, **metrics):
    """A run whose validation loss is least in its epoch 3."""
    made = pb.History()
    for i in range(epochs):
        made.record(first + i, {"loss": 1 / (i + 1), "val_loss": abs(i - 3) + 0.5})
    return made


def test_repr_is_a_table_of_the_last_epochs():
    lines = repr(history()).splitlines()
    assert lines[0] == "History: 12 epochs, the last 8"
    assert lines[1].split() == ["epoch", "loss", "val_loss"]
    assert [line.split() for line in lines[3:-2]] == [
        [f"{i + 1}", f"{1 / (i + 1):.4g}", f"{i - 2.5}"] for i in range(4, 12)
    ]
    assert lines[-1] == "least val_loss: 0.5 in epoch 4"
    short = history(2, first=5)
    short.stopped, short.skipped, short.restored = "callback", 3, 2
    assert repr(short).splitlines()[0] == "History: 2 epochs; stopped: callback; 3 batches skipped; went back 2 times"
    assert repr(short).splitlines()[3].split()[0] == "6"


def test_repr_of_nothing_and_of_nan():
    assert repr(pb.History()) == "History: 0 epochs"
    empty = pb.History()
    empty.record(0, {"loss": 1.0, "val_loss": math.nan})
    assert "least" not in repr(empty) and "nan" in repr(empty)


def test_html():
    text = history()._repr_html_()
    assert text.count("<tr>") == 9 and "least val_loss: 0.5 in epoch 4" in text
    assert "0 epochs" in pb.History()._repr_html_()


def test_to_frame():
    pd = pytest.importorskip("pandas")
    made = history(4, first=2)
    made.record(6, {"loss": 0.25, "accuracy": 1.0})
    frame = made.to_frame()
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == ["loss", "val_loss", "accuracy"]
    assert frame.index.tolist() == [2, 3, 4, 5, 6] and frame.index.name == "epoch"
    assert frame["loss"].tolist() == made.history["loss"] and frame["accuracy"].isna().tolist() == [True] * 4 + [False]
    assert len(pb.History().to_frame()) == 0


def test_to_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r'History.to_frame needs pandas: pip install "pybackprop\[table\]"'):
        history().to_frame()


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    figure = history().plot(tmp_path / "curve.png", metrics="val_loss")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss"]
