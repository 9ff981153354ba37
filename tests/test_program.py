"""Programs: what is added up, kept, refused; steps, memory and threads."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from op_program import same_bits
from random_graphs import Cube, random_model

from pybackprop import _core


def mlp(batch=8, widths=(4, 16, 3), dtype="float32", layout="linear", seed=0, dropout=0.0, norm=False):
    """(graph, params, loss) of a small network with mean squared error; inputs x and y."""
    rng = np.random.default_rng(seed)
    graph = _core.Graph(dtype=dtype, training=True)
    h = graph.input((batch, widths[0]), False, "x")
    y = graph.input((batch, widths[-1]), False, "y")
    params = []
    for k, (columns, rows) in enumerate(pairwise(widths)):
        weight = _core.Param((rng.standard_normal((rows, columns)) / columns**0.5).astype(dtype), layout)
        bias = _core.Param(np.zeros(rows, dtype))
        ids = [graph.param(weight, f"{k}.weight"), graph.param(bias, f"{k}.bias")]
        params += [weight, bias]
        h = graph.node("linear", [h, *ids], f"Sequential[{k}]")[0]
        if k < len(widths) - 2:
            if norm:
                scale, shift = _core.Param(np.ones(rows, dtype)), _core.Param(np.zeros(rows, dtype))
                h = graph.node("layer_norm", [h, graph.param(scale), graph.param(shift)], dims=1)[0]
                params += [scale, shift]
            h = graph.node("tanh", [h], f"Sequential[{k}]")[0]
            if dropout:
                h = graph.node("dropout", [h], rate=dropout, index=k)[0]
    (loss,) = graph.node("mse", [h, y])
    return graph, params, loss


def batch_of(batch=8, widths=(4, 16, 3), dtype="float32", seed=1):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((batch, n)).astype(dtype) for n in (widths[0], widths[-1]))


def program_of(graph, params, loss, **options):
    return _core.Program(graph, [loss], loss=loss, wrt=[graph.param(p) for p in params], **options)


def stepper_of(params, rule="adam", **options):
    return _core.Stepper(rule, params, [0] * len(params), [{}], **options)


# What is added up


def test_fan_out_sums_gradients():
    x = np.array([[1.0, -2.0, 3.0]])
    graph = _core.Graph(dtype="float64")
    v = graph.input(x.shape)
    (square,) = graph.node("mul", [v, v])
    (both,) = graph.node("add", [square, v])
    (again,) = graph.node("sub", [both, square])
    (loss,) = graph.node("sum", [graph.node("mul", [again, square])[0]])  # sum x * x^2
    _, (gradient,), _ = _core.Program(graph, [loss], loss=loss, wrt=[v]).run((x,))
    assert np.allclose(gradient, 3 * x**2, rtol=1e-14)


@pytest.mark.parametrize("layout", ["dense", "linear"])
def test_shared_parameter_sums_gradients(layout, rng):
    x, w = rng.standard_normal((5, 7)), rng.standard_normal((7, 7))
    weight = _core.Param(w, layout)
    graph = _core.Graph(dtype="float64")
    v, p = graph.input(x.shape), graph.param(weight, "weight")
    assert graph.param(weight, "weight") == p
    h = graph.node("linear", [v, p])[0]
    y = graph.node("linear", [h, p])[0]
    z = graph.node("mul", [y, graph.node("sum", [p])[0]])[0]  # and once outside any layer
    (loss,) = graph.node("sum", [z])
    _, (gradient,), _ = _core.Program(graph, [loss], loss=loss, wrt=[p]).run((x,))
    ones = np.ones((5, 7))
    d_y = ones * w.sum()
    wanted = d_y.T @ (x @ w.T) + (d_y @ w).T @ x + (x @ w.T @ w.T).sum()
    assert np.allclose(gradient, wanted, rtol=1e-12)


def test_unreached_parameter_has_zero_gradient(rng):
    graph = _core.Graph(dtype="float64")
    v = graph.input((2, 3))
    unread = [graph.param(_core.Param(rng.standard_normal((4, 3)), layout), layout) for layout in ("dense", "linear")]
    (loss,) = graph.node("sum", [v])
    _, gradients, _ = _core.Program(graph, [loss], loss=loss, wrt=[*unread, v]).run((np.ones((2, 3)),))
    assert all(g.shape == (4, 3) and not g.any() for g in gradients[:2]) and (gradients[2] == 1).all()


def test_kept_values_and_gradients(rng):
    x = rng.standard_normal((3, 4))
    graph = _core.Graph(dtype="float64")
    v = graph.input(x.shape)
    (h,) = graph.node("tanh", [v])
    (side,) = graph.node("exp", [v])
    (loss,) = graph.node("sum", [graph.node("mul", [h, h])[0]])
    program = _core.Program(graph, [loss], loss=loss, wrt=[v], keep=[h, side])
    _, _, ((value, gradient), (side_value, side_gradient)) = program.run((x,))
    assert np.allclose(value, np.tanh(x), rtol=1e-14) and np.allclose(gradient, 2 * np.tanh(x), rtol=1e-14)
    assert np.allclose(side_value, np.exp(x), rtol=1e-14)
    assert side_gradient is None or not side_gradient.any()


def test_outputs_that_are_inputs_params_and_aliases(rng):
    x = rng.standard_normal((2, 6)).astype("float32")
    weight = _core.Param(rng.standard_normal((3, 6)).astype("float32"), "linear")
    graph = _core.Graph()
    v, p = graph.input(x.shape), graph.param(weight)
    (r,) = graph.node("reshape", [v], shape=[3, 4])
    (rp,) = graph.node("reshape", [p], shape=[18])
    ids = graph.input((4,), True)
    (ri,) = graph.node("reshape", [ids], shape=[2, 2])
    assert graph.is_integer(ri)
    outputs, _, _ = _core.Program(graph, [v, p, r, rp, ri, r]).run((x, np.arange(4)))
    assert same_bits(outputs[0], x) and same_bits(outputs[1], weight.numpy())
    assert same_bits(outputs[2], x.reshape(3, 4)) and same_bits(outputs[5], outputs[2])
    assert same_bits(outputs[3], weight.numpy().reshape(18))
    assert np.array_equal(outputs[4], [[0, 1], [2, 3]])
    outputs[0][:] = 7  # an output is the caller's own
    assert not (x == 7).any()


def test_zero_size_batch_runs():
    graph = _core.Graph()
    v = graph.input((0, 5))
    weight, bias = (graph.param(_core.Param(np.ones(shape, "float32"))) for shape in ((3, 5), (3,)))
    (h,) = graph.node("linear", [v, weight, bias])
    (h,) = graph.node("softmax", [graph.node("relu", [h])[0]])
    (total,) = graph.node("sum", [h])
    outputs, gradients, _ = _core.Program(graph, [total, h], loss=total, wrt=[weight, bias]).run(
        (np.empty((0, 5), "float32"),)
    )
    assert outputs[0] == 0 and outputs[1].shape == (0, 3) and not any(g.any() for g in gradients)


# A user's own op


def test_function_node_joins_the_backward_pass(rng):
    x = rng.standard_normal((3, 5))
    graph = _core.Graph(dtype="float64")
    v = graph.input(x.shape)
    (h,) = graph.node("tanh", [v])
    (c,) = graph.function(Cube(), [h, v], [x.shape], "Cube")
    (loss,) = graph.node("sum", [graph.node("sigmoid", [c])[0]])
    outputs, (gradient,), _ = _core.Program(graph, [loss], loss=loss, wrt=[v]).run((x,))
    c = np.tanh(x) ** 3 + x
    s = 1 / (1 + np.exp(-c))
    assert np.isclose(outputs[0], s.sum(), rtol=1e-13)
    assert np.allclose(gradient, s * (1 - s) * (3 * np.tanh(x) ** 2 * (1 - np.tanh(x) ** 2) + 1), rtol=1e-12)


class Fails:
    def __init__(self, where):
        self.where = where

    def forward(self, x):
        if self.where == "forward":
            raise KeyError("forward failed")
        return np.ones((2, 2)) if self.where == "shape" else x

    def backward(self, inputs, outputs, d_outputs):
        if self.where == "backward":
            raise KeyError("backward failed")
        return d_outputs[0] if self.where == "count" else (d_outputs[0],)


@pytest.mark.parametrize("where", ["forward", "backward", "shape"])
def test_failing_function_changes_nothing(where):
    weight = _core.Param(np.ones((3, 3), "float32"))
    graph = _core.Graph(training=True)
    v, p = graph.input((4, 3)), graph.param(weight, "weight")
    (h,) = graph.node("linear", [v, p])
    (c,) = graph.function(Fails(where), [h], [(4, 3)], "Model.noise")
    (loss,) = graph.node("sum", [c])
    program = _core.Program(graph, [loss], loss=loss, wrt=[p])
    stepper = stepper_of([weight])
    with pytest.raises(ValueError if where == "shape" else KeyError):
        stepper.step(program, (np.ones((4, 3), "float32"),), 0.1)
    assert stepper.steps == 0
    assert (weight.numpy() == 1).all()
    assert not any(np.asarray(a).any() for arrays in stepper.state().values() for a in arrays)


# Steps


def test_step_equals_backward_then_update():
    results = []
    for fused in (True, False):
        graph, params, loss = mlp(dropout=0.2)
        program, stepper = program_of(graph, params, loss), stepper_of(params)
        stepper.seed = 5
        losses = []
        for k in range(5):
            inputs = batch_of(seed=k)
            if fused:
                losses.append(stepper.step(program, inputs, 0.01))
            else:
                losses.append(stepper.backward(program, inputs))
                stepper.update(0.01)
        assert stepper.steps == 5
        results.append((losses, [p.numpy() for p in params]))
    assert results[0][0] == results[1][0]
    assert all(same_bits(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_accumulated_batches_equal_one_large_batch():
    x, y = batch_of(batch=12, dtype="float64")
    graph, params, loss = mlp(batch=12, dtype="float64")
    stepper = stepper_of(params, "sgd")
    stepper.step(program_of(graph, params, loss), (x, y), 0.1)
    small_graph, small_params, small_loss = mlp(batch=4, dtype="float64")
    small = stepper_of(small_params, "sgd", accumulate=3)
    program = program_of(small_graph, small_params, small_loss)
    for k in range(3):
        assert small.steps == 0 and small.micro == k
        small.step(program, (x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4]), 0.1)
    assert small.steps == 1 and small.micro == 0
    for a, b in zip(params, small_params, strict=True):
        assert np.allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


def test_step_allocates_nothing():
    graph, params, loss = mlp(dropout=0.1)
    program, stepper, inputs = program_of(graph, params, loss), stepper_of(params, clip_norm=1.0), batch_of()
    stepper.step(program, inputs, 0.01)
    before = _core.allocations()
    for _ in range(1000):
        stepper.step(program, inputs, 0.01)
    assert _core.allocations() == before


def test_gradients_of_last_backward_can_be_read():
    graph, params, loss = mlp()
    program, stepper, inputs = program_of(graph, params, loss), stepper_of(params), batch_of()
    value = stepper.backward(program, inputs)
    outputs, gradients, _ = program.run(inputs)
    assert value == outputs[0] == stepper.outputs()[0]
    assert all(same_bits(a, b) for a, b in zip(stepper.grads(), gradients, strict=True))


def test_assigned_buffer_changes_only_after_a_step():
    mean, var, count = _core.Param(np.zeros(3, "float32")), _core.Param(np.ones(3, "float32")), _core.Param(np.array(0))
    weight = _core.Param(np.ones(3, "float32"))
    graph = _core.Graph(training=True)
    v = graph.input((4, 3))
    scale, m, s, n = (
        graph.param(p, name, t)
        for p, name, t in (
            (weight, "weight", True),
            (mean, "running_mean", False),
            (var, "running_var", False),
            (count, "num_batches_tracked", False),
        )
    )
    scaled = graph.node("mul", [v, scale])[0]
    y, new_mean, new_var = graph.node("batch_norm", [scaled, m, s], "norm")
    graph.assign(m, new_mean)
    graph.assign(s, new_var)
    graph.increment(n)
    (loss,) = graph.node("sum", [y])
    program = _core.Program(graph, [loss], loss=loss, wrt=[scale])
    x = np.arange(12, dtype="float32").reshape(4, 3)
    program.run((x,))
    assert not mean.numpy().any() and count.numpy() == 0
    stepper = stepper_of([weight], "sgd")
    stepper.step(program, (x,), 0.0)
    assert np.allclose(mean.numpy(), 0.1 * x.mean(0)) and count.numpy() == 1
    assert np.allclose(var.numpy(), 0.9 + 0.1 * x.var(0, ddof=1))


# Threads


def test_training_gives_equal_bits_on_any_team():
    """200 steps with dropout and layer norm, the global norm of the gradient clipped."""

    def train(n):
        graph, params, loss = mlp(batch=16, widths=(9, 33, 17, 5), dropout=0.3, norm=True)
        program, stepper = program_of(graph, params, loss, threads=n), stepper_of(params, threads=n, clip_norm=1.0)
        stepper.seed = 3
        losses = [stepper.step(program, batch_of(16, (9, 5), seed=k), 0.01) for k in range(200)]
        assert stepper.threads_used == n
        return losses, [p.numpy() for p in params]

    wanted_losses, wanted_params = train(1)
    assert train(1)[0] == wanted_losses
    for threads in (2, 3, 4):
        losses, params = train(threads)
        assert losses == wanted_losses
        assert all(same_bits(a, b) for a, b in zip(params, wanted_params, strict=True))


def test_one_program_runs_on_several_python_threads():
    model = random_model(4, dtype="float32", steps=20)
    program = model.program()
    inputs = [tuple(x * (1 + k / 8) for x in model.inputs) for k in range(8)]
    wanted = [program.run(x) for x in inputs]

    def work(k):
        for _ in range(30):
            outputs, gradients, _ = program.run(inputs[k])
            if not same_bits(outputs[0], wanted[k][0][0]):
                return False
            if not all(same_bits(a, b) for a, b in zip(gradients, wanted[k][1], strict=True)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_run_lets_other_python_threads_work():
    graph, params, loss = mlp(batch=512, widths=(512, 1024, 1024, 512))
    program, inputs = program_of(graph, params, loss, threads=1), batch_of(512, (512, 512))
    during, running = [], threading.Event()

    def count():
        while running.is_set():
            during.append(None)
            time.sleep(1e-4)

    running.set()
    other = threading.Thread(target=count)
    other.start()
    # A switch interval longer than the run: the other thread only moves on if the run gives the GIL away.
    interval = sys.getswitchinterval()
    try:
        before = len(during)
        sys.setswitchinterval(30)
        program.run(inputs)
        after = len(during)
    finally:
        sys.setswitchinterval(interval)
        running.clear()
        other.join()
    assert after > before


# Lifetimes


def test_program_outlives_graph_and_params(rng):
    model = random_model(2, dtype="float32")
    program, inputs = model.program(), model.inputs
    loss = program.run(inputs)[0][0]
    del model
    assert program.run(inputs)[0][0] == loss


def test_params_may_be_gathered_after_planning():
    graph, params, loss = mlp()
    program, inputs = program_of(graph, params, loss), batch_of()
    before = program.run(inputs)
    values = [p.numpy() for p in params]
    _core.gather(params)
    _core.gather(params[::-1])
    after = program.run(inputs)
    assert all(same_bits(a, p.numpy()) for a, p in zip(values, params, strict=True))
    assert same_bits(before[0][0], after[0][0])
    assert all(same_bits(a, b) for a, b in zip(before[1], after[1], strict=True))


def test_function_object_is_released_with_its_program():
    node = Cube()
    graph = _core.Graph()
    v = graph.input((2,))
    (y,) = graph.function(node, [v, v], [(2,)], "Cube")
    program = _core.Program(graph, [y])
    gone = weakref.ref(node)
    del node, graph
    program.run((np.ones(2, "float32"),))
    del program
    assert gone() is None
