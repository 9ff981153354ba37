"""Corners of the training step: refused batches, re-entry, averaging, sparse tables, running statistics."""

from __future__ import annotations

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, nn, optim


def mean_of(model, x):
    return model(x).mean()


class Scale(nn.Module):
    """x * gain: the gradient of its mean with respect to the gain is the mean of x."""

    def __init__(self):
        self.gain = nn.Parameter(np.zeros(()))

    def forward(self, x):
        return x * self.gain


def column(value: float, rows: int = 2) -> np.ndarray:
    return np.full((rows, 1), value, np.float32)


def test_more_inputs_than_anybody_expects():
    class Sum(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

        def forward(self, *inputs):
            total = inputs[0]
            for x in inputs[1:]:
                total = total + x
            return self.fc(total)

    X = tuple(np.full((8, 1), i, np.float32) for i in range(80))
    trainer = pb.Trainer(Sum(), loss=nn.MSELoss(), optimizer=optim.SGD(lr=1e-6), seed=0)
    history = trainer.fit(X, np.ones((8, 1), np.float32), epochs=2, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_a_refused_batch_takes_the_gradients_before_it_along():
    model = nn.Embedding(10, 3, sparse=True)
    step = pb.TrainStep(mean_of, model, optim.SGD(lr=0.1))
    step(np.arange(8))
    step.backward(np.arange(2))
    before = model.state_dict()["weight"]
    with pytest.raises(ValueError, match="ids must be from 0 to 9, got 99"):
        step.backward(np.array([0, 99, 1, 2, 3, 4, 5, 6]))
    with pytest.raises(ValueError, match="backward"):
        step.update()
    assert (model.state_dict()["weight"] == before).all()


def test_a_step_called_from_inside_itself_is_refused():
    class Inner(pb.Function):
        def shape(self, x):
            return x

        def forward(self, x):
            step.state_dict()
            return x

        def backward(self, inputs, outputs, d_outputs):
            return d_outputs[0]

    model = nn.Linear(1, 1)
    step = pb.TrainStep(lambda m, x: Inner()(m(x)).mean(), model, optim.SGD(lr=0.1))
    with pytest.raises(ValueError, match="inside"):
        step(column(1.0))


def test_an_error_of_a_users_op_is_shown_at_once():
    calls = []

    class Fails(pb.Function):
        def shape(self, x):
            return x

        def forward(self, x):
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("the second call fails")
            return x

        def backward(self, inputs, outputs, d_outputs):
            return d_outputs[0]

    model = nn.Linear(1, 1)
    step = pb.TrainStep(lambda m, x: Fails()(m(x)).mean(), model, optim.SGD(lr=0.1))
    x = column(1.0)
    step(x)
    before = model.state_dict()
    with pytest.raises(ValueError, match="the second call fails"):
        step(x)
    assert len(calls) == 2
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    step(x)


def test_a_sparse_table_read_by_anything_but_an_embedding():
    class Penalised(nn.Module):
        def __init__(self):
            self.table = nn.Embedding(4, 3, sparse=True)

        def forward(self, ids):
            return (self.table.weight.reshape(12) ** 2).sum() + self.table(ids).sum()

    with pytest.raises(ValueError, match="row-sparse"):
        pb.TrainStep(lambda m, ids: m(ids), Penalised(), optim.SGD(lr=0.1))(np.arange(2))


class TestAccumulation:
    def step(self, k):
        model = Scale()
        return model, pb.TrainStep(mean_of, model, optim.SGD(lr=1.0), accumulate=k)

    def test_gradients_after_an_update_are_the_mean(self):
        _, step = self.step(2)
        step(column(1.0))
        step(column(3.0))
        assert step.grads()["gain"] == 2.0

    def test_more_batches_than_asked_for(self):
        model, step = self.step(2)
        step.backward(column(1.0))
        step.backward(column(1.0))
        step(column(1.0))
        assert model.gain.item() == -1.0

    def test_fewer_batches_than_asked_for(self):
        model, step = self.step(4)
        step.backward(column(1.0))
        step.backward(column(3.0))
        step.update()
        assert model.gain.item() == -2.0

    def test_masks_of_unequal_batches_are_those_of_one_batch(self):
        def masks(*sizes):
            model = nn.Sequential(nn.Dropout(0.5), Scale())
            step = pb.TrainStep(
                lambda m, x: (m(x).sum(), {"kept": m[0](x).sum()}), model, optim.SGD(lr=0.1), accumulate=len(sizes)
            )
            kept = 0.0
            for n in sizes:
                step(np.ones((n, 8), np.float32))
                kept += step.extras["kept"]
            return kept

        assert masks(4, 2) == masks(6)


def test_batch_norm_used_twice_updates_its_statistics_twice():
    class Twice(nn.Module):
        def __init__(self):
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x, y):
            return self.norm(x) + self.norm(y)

    model = Twice()
    step = pb.TrainStep(lambda m, x, y: m(x, y).mean(), model, optim.SGD(lr=0.1))
    step(np.array([[1.0], [3.0]], np.float32), np.array([[100.0], [104.0]], np.float32))
    buffers = model.state_dict()
    assert buffers["norm.running_mean"] == pytest.approx(0.9 * 0.2 + 0.1 * 102)
    assert buffers["norm.num_batches_tracked"] == 2


class TestCore:
    def test_unknown_loss(self):
        with pytest.raises(ValueError, match="no value"):
            _core.Program(_core.Graph(), [], loss=50_000_000)

    def test_a_parameter_given_twice(self):
        p = _core.Param(np.zeros(3, np.float32))
        with pytest.raises(ValueError, match="twice"):
            _core.Stepper("sgd", [p, p], [0, 0], [{}])

    def test_gradient_of_what_linear_absorbs(self):
        graph = _core.Graph("float64", training=True)
        x = graph.input((2, 3))
        w = graph.param(_core.Param(np.ones((4, 3)), layout="linear"))
        (h,) = graph.node("linear", [x, w])
        (y,) = graph.node("relu", [h])
        (loss,) = graph.node("sum", [y])
        _, (gradient,), _ = _core.Program(graph, [loss], loss=loss, wrt=[h]).run((np.ones((2, 3)),))
        assert (gradient == 1).all()

    def test_gradient_of_the_loss_itself(self):
        graph = _core.Graph("float64", training=True)
        p = graph.param(_core.Param(np.array(3.0)))
        (loss,) = graph.node("neg", [p])
        _, gradients, _ = _core.Program(graph, [loss], loss=loss, wrt=[loss, p]).run(())
        assert [float(g) for g in gradients] == [1.0, -1.0]

    def test_new_running_statistics_carry_no_gradient(self):
        graph = _core.Graph("float32", training=True)
        x = graph.input((4, 2))
        buffers = [graph.param(_core.Param(np.ones(2, np.float32)), trainable=False) for _ in range(2)]
        _, mean, _ = graph.node("batch_norm", [x, *buffers])
        (loss,) = graph.node("sum", [mean])
        with pytest.raises(ValueError, match="depend"):
            _core.Program(graph, [loss], loss=loss, wrt=[x])

    def test_assign_takes_only_what_fits(self):
        graph = _core.Graph("float32", training=True)
        weight = graph.param(_core.Param(np.zeros((2, 3), np.float32), layout="linear"))
        with pytest.raises(ValueError, match="assign"):
            graph.assign(weight, graph.input((2, 3)))

    def test_rows_that_the_program_does_not_take(self):
        model = nn.Linear(1, 1)
        step = pb.TrainStep(mean_of, model, optim.SGD(lr=0.1))
        compiled = step.compile((pb._trace.Spec((4, 1)),))
        feeder = pb.data.ArrayFeeder([np.ones((8, 1), np.float32)], ["float32"])
        with pytest.raises(ValueError, match="rows"):
            step.stepper.run(compiled.program, feeder.capsule(), 0, 8, 1, np.ones(1), 1.0, np.empty((1, 1)))
