"""Module.summary: what it counts, what it remembers, how it shows it."""

from __future__ import annotations

import copy
import pickle
from html.parser import HTMLParser

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, ops, optim


class Branches(nn.Module):
    """An embedding, a shared layer that is called twice, a parameter of its own, a buffer, a dict as output."""

    def __init__(self):
        self.ids, self.shared, self.norm = nn.Embedding(10, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.own = nn.Parameter(np.ones((4, 2)))
        self.unused = nn.Linear(7, 7, bias=False)

    def forward(self, ids, scale=1.0):
        x = self.shared(self.shared(self.ids(ids)))
        return {"a": self.norm(x) @ self.own, "b": x * scale}


def by_name(summary):
    return {layer.name: layer for layer in summary.layers}


def test_counts():
    summary = Branches().summary(np.arange(5))
    layers = by_name(summary)
    assert list(layers) == ["", "ids", "shared", "norm", "unused"]
    assert [layer.parameters for layer in summary.layers] == [8, 40, 20, 8, 49]
    assert [layer.multiply_adds for layer in summary.layers] == [5 * 2 * 4, 0, 2 * (5 * 4 * 4), 0, 0]
    assert summary.multiply_adds == 200 and summary.parameters == summary.trainable == 125
    assert layers[""].output == {"a": (5, 2), "b": (5, 4)} and layers["shared"].output == (5, 4)
    assert layers["unused"].output is None and layers["unused"].bytes == 49 * 4
    assert layers["ids"].bytes == 4 * (40 + 5 * 4)
    state = Branches().state_dict()  # with the norm's buffers, of which one is an integer
    assert summary.parameter_bytes == sum(array.nbytes for array in state.values()) > 4 * 125
    assert summary.working_bytes > 0 and summary.inputs == (5,)


def test_float64_counts_twice_the_bytes():
    model = nn.Linear(3, 2)
    single, double = model.summary((4, 3)), copy.deepcopy(model).astype("float64").summary((4, 3))
    assert (double.parameter_bytes, double.layers[0].bytes) == (2 * single.parameter_bytes, 2 * single.layers[0].bytes)


def test_a_tied_parameter_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    summary = Tied().summary((1, 4))
    assert summary.parameters == 16 and [layer.parameters for layer in summary.layers] == [0, 16, 0]


def test_frozen_layers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh())
    model[0].freeze()
    model[1].bias.trainable = False
    summary = model.summary((1, 2))
    assert (summary.parameters, summary.trainable) == (18, 10)
    shown = [line.split() for line in str(summary).splitlines()[3:7]]
    assert ["frozen" in line for line in shown] == [True, False, False, False]
    assert "in part" in str(summary).splitlines()[4] and "yes" in shown[2] and "yes" not in shown[3]
    assert "18 parameters: 10 trainable, 8 frozen" in str(summary)


def test_it_knows_the_shapes_of_the_last_call():
    model = Branches()
    unknown = model.summary()
    assert unknown.inputs is None and unknown.multiply_adds is None and unknown.working_bytes is None
    assert all(layer.output is None for layer in unknown.layers) and unknown.parameters == 125
    assert "unknown before a call" in str(unknown)
    model(np.arange(7))
    assert str(model.summary()) == str(model.summary(np.arange(7)))
    model(np.arange(3), scale=2.0)
    assert model.summary().inputs == {0: (3,), "scale": ()}
    assert model.shared.summary().inputs == (3, 4) and model.unused.summary().inputs is None


def test_it_keeps_no_objects_of_ones_own(rng):
    """They may hold Tensors, and with them a whole trace."""

    class Box:
        def __init__(self, tensor):
            self.tensor = tensor

    class Inner(nn.Module):
        def forward(self, box, factor):
            return box.tensor * factor

    class Outer(nn.Module):
        def __init__(self):
            self.inner, self.twice = Inner(), nn.Tanh()

        def forward(self, x):
            return self.twice(self.inner(Box(x), 2))

    model = Outer()
    model(rng.normal(size=(2, 3)))
    assert model.inner.summary().inputs is None and model.twice.summary().inputs == (2, 3)
    assert by_name(model.summary())["inner"].output == (2, 3)


def test_it_knows_the_shapes_of_a_training(rng):
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    X = rng.normal(size=(20, 3))
    pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1)).fit(X, X[:, :1], batch_size=10, verbose=0)
    assert model.summary().inputs == (10, 3)
    fresh = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    step = pb.TrainStep(lambda m, x: ops.mean(m(x)), fresh, optim.SGD(lr=0.1))
    step(X)
    assert by_name(fresh.summary())["1"].output == (20, 1)


def test_what_it_remembers_is_not_part_of_a_copy_and_traces_nothing_anew():
    model = nn.Linear(3, 2)
    model(np.ones((4, 3)))
    programs = model._compiled()
    model.summary()
    assert model._compiled() is programs
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.summary().inputs is None


def test_a_first_call_in_another_thread_disturbs_no_walk_through_the_model():
    model = Branches()
    walk = model.named_children()
    next(walk)
    model(np.arange(5))  # the model remembers programs and shapes now
    assert [name for name, _ in walk] == ["shared", "norm", "unused"]


def test_several_inputs_and_arrays_say_the_same(rng):
    class Two(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 2), nn.Linear(5, 2)

        def forward(self, x, y):
            return self.a(x) + self.b(y)

    shapes = Two().summary((6, 3), (6, 5))
    assert str(shapes) == str(Two().summary(rng.normal(size=(6, 3)), rng.normal(size=(6, 5))))
    assert shapes.inputs == ((6, 3), (6, 5))


def test_wrong_shapes_are_answered_as_in_a_call():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    with pytest.raises(ValueError, match=r"Sequential\[0\]: weight expects 4 input columns"):
        model.summary((3, 5))
    assert model.summary().inputs is None


def test_it_prints_nothing_and_shows_itself(capsys):
    summary = Branches().summary(np.arange(5))
    assert capsys.readouterr().out == ""
    text = str(summary)
    assert repr(summary) == text
    assert "(shared): Linear" in text and "{'a': (5, 2), 'b': (5, 4)}" in text
    assert max(map(len, text.splitlines())) < 110 and all(line == line.rstrip() for line in text.splitlines())


def test_html():
    seen = []

    class Reader(HTMLParser):
        def handle_data(self, data):
            seen.append(data)

    summary = Branches().summary(np.arange(5))
    Reader().feed(summary._repr_html_())
    assert {"Module", "(shared): Linear", "{'a': (5, 2), 'b': (5, 4)}", str(summary).splitlines()[-1]} <= set(seen)

    class Odd(nn.Module):
        def forward(self, x):
            return x

    Odd.__name__ = "<b>Odd & co</b>"
    assert "<b>" not in Odd().summary((1,))._repr_html_()
