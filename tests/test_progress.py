"""What fit shows: a bar in a terminal, a widget in a notebook, lines without tqdm, nothing with verbose=0."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training import LambdaCallback, progress


@pytest.fixture
def data(rng):
    X = rng.normal(size=(48, 3)).astype(np.float32)
    return X, X[:, :1]


def trainer(*callbacks):
    return pb.Trainer(nn.Linear(3, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.01), callbacks=callbacks)


class Bar:
    """Stands for tqdm's bar, and remembers."""

    made: list[Bar]

    def __init__(self, total, **options):
        self.total, self.n, self.text, self.options, self.closed = total, 0, [], options, False
        self.made.append(self)

    def set_description(self, text, refresh):
        self.description = text

    def set_postfix_str(self, text, refresh):
        self.text.append(text)

    def update(self, by):
        self.n += by

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    Bar.made = []
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    return Bar.made


def hide(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_bar_in_a_terminal(data, verbose, capfd):
    pytest.importorskip("tqdm")
    trainer().fit(*data, epochs=2, verbose=verbose)
    out, err = capfd.readouterr()
    assert out == "" and bool(err) == bool(verbose)
    if verbose:
        last = err.rstrip().split("\r")[-1]
        assert last.startswith("epoch 2/2: 100%") and "4/4" in last and "loss" in last


def test_a_bar_that_was_fast_does_not_stand_still_when_it_is_slow(capfd):
    pytest.importorskip("tqdm")
    shown = progress.Progress(1, 1, 0, 10**9)
    begin, n = time.monotonic(), 0
    while time.monotonic() - begin < 0.3:
        n += 1000
        shown.chunk(n, {"loss": 1.0})
    for loss in (0.5, 0.25, 0.125):
        time.sleep(0.12)  # tqdm draws ten times a second
        shown.chunk(n := n + 1, {"loss": loss})
    assert "loss 0.125" in capfd.readouterr().err
    shown.close()


def test_the_bar_counts_batches_and_shows_the_last_validation(data, bars):
    history = trainer().fit(*data, epochs=3, batch_size=8, validation_split=1 / 3, verbose=1)
    (bar,) = bars
    assert (bar.total, bar.n, bar.description, bar.closed) == (12, 12, "epoch 3/3", True)
    assert bar.text[-1].endswith(f"val_loss {history.history['val_loss'][-1]:.4g}")
    before = f"val_loss {history.history['val_loss'][0]:.4g}"
    assert sum(before in text for text in bar.text) >= 2  # at the end of its epoch, and in the next one


def test_a_run_that_a_callback_stops_has_a_full_bar(data, bars):
    t = trainer(LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(t, "stop_training", epoch == 1)))
    t.fit(*data, epochs=10, verbose=1)
    assert bars[0].total == bars[0].n == 4 and bars[0].closed


def test_a_run_that_fails_has_not(data, bars):
    with pytest.raises(ZeroDivisionError):
        trainer(LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)).fit(*data, epochs=10, verbose=1)
    assert (bars[0].total, bars[0].n, bars[0].closed) == (20, 2, True)


def test_an_iterable_of_unknown_length(data, bars):
    trainer().fit((data for _ in range(5)), epochs=1, verbose=1)
    assert bars[0].total is None and bars[0].closed


@pytest.mark.parametrize(("widgets", "expected"), [(True, "tqdm.notebook"), (False, "tqdm.std")])
def test_a_notebook_gets_a_widget_if_there_are_any(monkeypatch, widgets, expected):
    pytest.importorskip("tqdm")
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
    notebook = ModuleType("tqdm.notebook")
    notebook.tqdm = type("tqdm", (), {"__module__": "tqdm.notebook"})
    found = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", notebook)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: widgets or None if name == "ipywidgets" else found(name, *rest)
    )
    assert progress._bar_class().__module__ == expected
    ipython.get_ipython = lambda: SimpleNamespace(config={})  # IPython in a terminal
    assert progress._bar_class().__module__ == "tqdm.std"
    ipython.get_ipython = lambda: None
    assert progress._bar_class().__module__ == "tqdm.std"


def test_lines_without_tqdm(data, monkeypatch, capfd):
    hide(monkeypatch, "tqdm", "tqdm.std")
    trainer().fit(*data, epochs=2, verbose=1)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == "" and len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss") and lines[1].startswith("epoch 2/2  loss") and "s left" in lines[0]


def test_fast_epochs_do_not_flood_the_screen(monkeypatch, capfd):
    """A thousand in a second: the first, one every half second, the last."""
    hide(monkeypatch, "tqdm", "tqdm.std")
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress(1, 1000, 0, 4)
    for epoch in range(1000):
        now[0] += 0.001
        shown.epoch_end(epoch, {"loss": 1.0})
    shown.close()
    epochs = [int(line.split()[1].split("/")[0]) for line in capfd.readouterr().out.splitlines()]
    assert epochs[0] == 1 and epochs[-1] == 1000 and len(epochs) <= 4


def test_a_line_an_epoch(data, bars, capfd):
    trainer().fit(*data, epochs=9, verbose=2)
    lines = capfd.readouterr().out.splitlines()
    assert bars == [] and [line.split("  ")[0] for line in lines] == [f"epoch {i + 1}/9" for i in range(9)]


def test_auto_is_a_bar_and_other_words_are_refused(data, bars):
    trainer().fit(*data, verbose="auto")
    trainer().fit(*data, verbose=True)
    assert len(bars) == 2
    for wrong in (3, -1, "loud", None, 0.5):
        t = trainer()
        before = t.model.state_dict()
        with pytest.raises(ValueError, match=f"verbose must be 0, 1 or 2, got {wrong!r}"):
            t.fit(*data, verbose=wrong)
        assert all((value == before[name]).all() for name, value in t.model.state_dict().items())


def test_a_finished_run_that_goes_on_shows_nothing(data, capfd, tmp_path):
    t = trainer()
    t.fit(*data, epochs=1, verbose=0)
    t.save_checkpoint(tmp_path / "c")
    t.load_checkpoint(tmp_path / "c")
    t.fit(*data, epochs=1, verbose=1)
    assert capfd.readouterr() == ("", "")
