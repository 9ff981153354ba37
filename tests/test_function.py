"""pb.Function: operations written in Python."""

from __future__ import annotations

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import Function, _core, nn
from pybackprop._trace import spec_of, trace


class Cube(Function):
    def shape(self, x):
        return x

    def forward(self, x):
        return x**3

    def backward(self, inputs, outputs, d_outputs):
        return 3 * inputs[0] ** 2 * d_outputs[0]


class SumAndTake(Function):
    """(a + b, a[ids]) with two results, an integer input, and a missing gradient."""

    def shape(self, a, b, ids):
        if a != b:
            raise ValueError(f"a and b must agree, got {a} and {b}")
        return [a, (*ids, *a[1:])]

    def forward(self, a, b, ids):
        assert ids.dtype == np.int64
        return a + b, a[ids]

    def backward(self, inputs, outputs, d_outputs):
        a, _, ids = inputs
        da = np.zeros_like(a) if d_outputs[0] is None else d_outputs[0].copy()
        if d_outputs[1] is not None:
            np.add.at(da, ids, d_outputs[1])
        return da, d_outputs[0], None


class Net(nn.Module):
    def __init__(self, fn):
        self.fc, self.fn = nn.Linear(3, 3), fn

    def forward(self, *args):
        return self.fn(self.fc(args[0]), *args[1:])


def gradients(fn, *arrays, dtype="float64"):
    traced = trace(fn, None, tuple(spec_of(a) for a in arrays), dtype=dtype)
    loss = traced.outputs._value
    wrt = [v for v, a in zip(traced.inputs, arrays, strict=True) if a.dtype.kind == "f"]
    return _core.Program(traced.graph, [loss], loss=loss, wrt=wrt).run(arrays)[1]


def test_on_arrays():
    np.testing.assert_array_equal(Cube()(np.array([2.0])), [8.0])
    assert Cube()([2.0]).dtype == np.float32
    total, taken = SumAndTake()(np.ones((3, 2)), np.ones((3, 2)), np.array([1, 1]))
    np.testing.assert_array_equal(total, np.full((3, 2), 2.0))
    assert taken.shape == (2, 2)


def test_gradient_between_other_ops(rng):
    x = rng.normal(size=(4, 3))
    (dx,) = gradients(lambda x: (Cube()(x.tanh()) * 2).sum(), x)
    np.testing.assert_allclose(dx, 6 * np.tanh(x) ** 2 * (1 - np.tanh(x) ** 2), rtol=1e-10)


def test_several_results(rng):
    a, b, ids = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), np.array([2, 2])
    fn = SumAndTake()
    da, db = gradients(lambda a, b, i: fn(a, b, i)[0].sum() + fn(a, b, i)[1].sum(), a, b, ids)
    np.testing.assert_array_equal(da, [[1, 1], [1, 1], [3, 3]])
    np.testing.assert_array_equal(db, np.ones((3, 2)))
    da, db = gradients(lambda a, b, i: fn(a, b, i)[1].sum() + 0 * b.sum(), a, b, ids)
    np.testing.assert_array_equal(da, [[0, 0], [0, 0], [2, 2]])
    np.testing.assert_array_equal(db, np.zeros((3, 2)))


def test_in_a_module(rng):
    model, x = Net(Cube()), rng.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(model(x), model.fc(x) ** 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ({"shape": lambda self, x: "ab"}, TypeError, "shape must return a tuple of integers"),
        ({"shape": lambda self, x: (-1,)}, TypeError, "shape must return a tuple of integers"),
        ({"forward": lambda self, x: x[:1]}, ValueError, "forward"),
        ({"forward": lambda self, x: (x, x)}, ValueError, "forward should return 1 arrays, got 2"),
        ({"forward": lambda self, x: 1 / 0}, ZeroDivisionError, "division"),
        ({"forward": Function.forward}, TypeError, "has no forward method"),
        ({"shape": Function.shape}, TypeError, "has no shape method"),
    ],
)
def test_mistakes(methods, error, message):
    bad = type("Bad", (Cube,), methods)()
    with pytest.raises(error, match=message):
        Net(bad)(np.ones((2, 3)))


def test_shape_errors_have_the_place():
    with pytest.raises(ValueError, match=r"^\[SumAndTake\] Net: a and b must agree, got \(2, 3\) and \(3,\)"):
        Net(SumAndTake())(np.ones((2, 3)), np.ones(3), np.array([0]))


def test_backward_mistakes():
    bad = type("Bad", (Cube,), {"backward": lambda self, i, o, d: (d[0], d[0])})()
    with pytest.raises(ValueError, match="backward should return 1 arrays, got 2"):
        gradients(lambda x: bad(x).sum(), np.ones(3))
    missing = type("Bad", (Cube,), {"backward": Function.backward})()
    with pytest.raises(TypeError, match="has no backward method"):
        gradients(lambda x: missing(x).sum(), np.ones(3))


def test_methods_may_keep_and_write_what_they_are_given():
    class Scribble(Cube):
        def forward(self, x):
            y = x**3
            x[:] = np.nan
            self.kept = x
            return y

    fn, x = Scribble(), np.array([2.0, 3.0])
    (dx,) = gradients(lambda x: (fn(x) + x).sum(), x)
    np.testing.assert_array_equal(dx, 3 * x**2 + 1)
    np.testing.assert_array_equal(x, [2, 3])
    assert np.isnan(fn.kept).all()


def test_fit_feeds_the_batches_of_an_array():
    def trainer():
        pb.manual_seed(0)
        return pb.Trainer(Net(Cube()), loss=nn.MSELoss(), optimizer=pb.optim.Adam(lr=1e-2))

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 3)).astype(np.float32)
    one, other = trainer(), trainer()
    history = one.fit(x, y, batch_size=5, shuffle=False, verbose=0)
    losses = [other.step(x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5)]
    assert history.history["loss"] == pytest.approx([np.mean(losses)], rel=1e-12)
    for name, value in one.model.state_dict().items():
        np.testing.assert_array_equal(value, other.model.state_dict()[name])
