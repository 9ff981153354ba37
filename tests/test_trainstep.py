"""TrainStep, value_and_grad, inspect, gradcheck."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim


def mlp(seed=0, **options):
    pb.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def objective(model, x, y):
    return ((model(x) - y) ** 2).mean()


@pytest.fixture
def batch(rng):
    return rng.normal(size=(8, 6)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)


def state_bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def test_step_is_backward_reduce_update(batch):
    one, two = mlp(), mlp()
    fused = pb.TrainStep(objective, one, optim.AdamW(lr=0.01))
    apart = pb.TrainStep(objective, two, optim.AdamW(lr=0.01))
    for _ in range(5):
        loss = fused(*batch)
        assert apart.backward(*batch) == loss
        apart.update()
    assert state_bits(one) == state_bits(two)


def test_gradients_agree_with_sgd_and_value_and_grad(batch):
    model = mlp()
    before = model.state_dict()
    value, grads = pb.value_and_grad(objective, model)(*batch)
    step = pb.TrainStep(objective, model, optim.SGD(lr=0.1))
    assert step(*batch) == value
    assert list(grads) == ["0.weight", "0.bias", "2.weight", "2.bias"] == list(step.grads())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(step.grads()[name], grads[name])
        np.testing.assert_allclose(array, before[name] - 0.1 * grads[name], rtol=1e-5, atol=1e-7)


def test_extras(batch):
    model = mlp()

    def with_extras(model, x, y):
        error = model(x) - y
        return (error**2).mean(), {"mae": error.abs().mean()}

    step = pb.TrainStep(with_extras, model, optim.SGD(lr=0.0))
    assert step.extras == {}
    step(*batch)
    expected = np.abs(model(batch[0]) - batch[1]).mean()
    assert step.extras == {"mae": pytest.approx(expected, rel=1e-5)}
    (loss, extras), grads = pb.value_and_grad(with_extras, model)(*batch)
    assert extras["mae"] == pytest.approx(expected, rel=1e-5) and "0.weight" in grads and loss > 0


def test_accumulated_batches_are_one_big_batch(rng):
    x, y = rng.normal(size=(32, 6)).astype(np.float32), rng.normal(size=(32, 3)).astype(np.float32)
    big, small = mlp().astype("float64"), mlp().astype("float64")
    one = pb.TrainStep(objective, big, optim.Adam(lr=0.01), clip_norm=0.5)
    four = pb.TrainStep(objective, small, optim.Adam(lr=0.01), clip_norm=0.5, accumulate=4)
    for _ in range(3):
        one(x, y)
        for i in range(0, 32, 8):
            four(x[i : i + 8], y[i : i + 8])
    assert four.steps == one.steps == 3
    for a, b in zip(big.state_dict().values(), small.state_dict().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_clipping(batch):
    model = mlp()
    before = model.state_dict()
    step = pb.TrainStep(objective, model, optim.SGD(lr=1.0), clip_norm=0.01)
    step(*batch)
    moved = np.sqrt(sum(((a - before[n]) ** 2).sum() for n, a in model.state_dict().items()))
    assert moved == pytest.approx(0.01, rel=1e-3)
    step = pb.TrainStep(objective, model, optim.SGD(lr=1.0), clip_value=1e-3)
    before = model.state_dict()
    step(*batch)
    assert max(np.abs(a - before[n]).max() for n, a in model.state_dict().items()) == pytest.approx(1e-3, rel=1e-3)


def test_frozen_parameters_are_left_alone(batch):
    model = mlp()
    model[0].freeze()
    step = pb.TrainStep(objective, model, optim.Adam(lr=0.1, groups={"2.bias": dict(frozen=True)}))
    before = state_bits(model)
    step(*batch)
    after = state_bits(model)
    assert list(step.grads()) == ["2.weight"] == list(step.state_dict()["state"]["exp_avg"])
    assert [n for n in before if before[n] != after[n]] == ["2.weight"]


def test_freezing_between_steps_keeps_the_rest_of_the_state(batch):
    model = mlp()
    step = pb.TrainStep(objective, model, optim.Adam(lr=0.1))
    step(*batch)
    average = step.state_dict()["state"]["exp_avg"]["2.weight"]
    model[0].freeze()
    frozen = model.state_dict()["0.weight"]
    assert step.steps == 1
    step.backward(*batch)
    np.testing.assert_array_equal(step.state_dict()["state"]["exp_avg"]["2.weight"], average)
    step.update()
    np.testing.assert_array_equal(model.state_dict()["0.weight"], frozen)
    assert step.steps == 2


def test_numbers_of_the_optimizer_are_read_at_every_step(batch):
    model = mlp()
    optimizer = optim.SGD(lr=0.0)
    step = pb.TrainStep(objective, model, optimizer)
    before = state_bits(model)
    step(*batch)
    assert state_bits(model) == before
    optimizer.lr = 0.1
    step(*batch)
    assert state_bits(model) != before
    optimizer.lr, optimizer.weight_decay = 1.0, 1.0
    with_decay, expected = model.state_dict(), pb.value_and_grad(objective, model)(*batch)[1]
    step(*batch)
    np.testing.assert_allclose(model.state_dict()["0.weight"], -expected["0.weight"], atol=1e-6)
    assert with_decay["0.weight"].shape == (16, 6)


def test_a_schedule_follows_the_updates(batch):
    rates = []
    for steps in range(4):
        model = mlp()
        step = pb.TrainStep(objective, model, optim.SGD(lr=optim.StepLR(0.1, step_size=2, gamma=0.5)))
        for _ in range(steps):
            step(*batch)
        before, grads = model.state_dict(), pb.value_and_grad(objective, model)(*batch)[1]
        step(*batch)
        rates.append(np.median((before["0.bias"] - model.state_dict()["0.bias"]) / grads["0.bias"]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.05], rtol=1e-3)


def test_shapes_and_kinds_may_change_from_call_to_call(rng):
    model = mlp()
    step = pb.TrainStep(objective, model, optim.SGD(lr=0.01))
    for rows in (4, 4, 7, 4, 1, 7):
        x, y = rng.normal(size=(rows, 6)), rng.normal(size=(rows, 3))
        expected = ((model(x.astype(np.float32)) - y) ** 2).mean()
        assert step(x, y) == pytest.approx(expected, rel=1e-4)
    assert step(x.tolist(), y.tolist()) > 0
    assert step(np.asfortranarray(x), y[:, ::-1]) > 0


def test_nested_arguments(rng):
    model = mlp()
    x = rng.normal(size=(4, 3)).astype(np.float32)

    def nested(model, parts, options):
        return (model(pb.ops.concat([parts["a"], parts["b"]], 1)) * options[0]).mean()

    step = pb.TrainStep(nested, model, optim.SGD(lr=0.1))
    scale = np.ones((4, 3), np.float32)
    first = step({"a": x, "b": x}, (scale,))
    assert step({"a": x, "b": x}, (scale,)) < first


def test_bad_batches_change_nothing(batch):
    model = nn.Sequential(nn.Linear(6, 3))
    loss = nn.CrossEntropyLoss()
    step = pb.TrainStep(lambda model, x, y: loss(model(x), y), model, optim.Adam(lr=0.1))
    x, labels = batch[0], np.array([0, 1, 2, 0, 1, 2, 0, 1])
    step(x, labels)
    before, optimizer = state_bits(model), step.state_dict()
    for bad, words in (
        ((x, labels + 1), "labels must be from 0 to 2, got 3"),
        ((x, labels - 1), "labels must be from 0 to 2, got -1"),
        ((x[:, :5], labels), "weight expects 6 input columns"),
        ((x,), "missing 1 required positional argument"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            step(*bad)
    assert state_bits(model) == before and step.steps == 1
    for name, array in step.state_dict()["state"]["exp_avg"].items():
        np.testing.assert_array_equal(array, optimizer["state"]["exp_avg"][name])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda model, x, y: model(x), "use .mean"),
        (lambda model, x, y: 1.0, "got float"),
        (lambda model, x, y: (model(x).mean(), model(x).mean()), "tuple of 2"),
        (lambda model, x, y: (model(x).mean(), {"all": model(x)}), "extra 'all' has shape"),
        (lambda model, x, y: x.mean(), "nothing to train"),
    ],
)
def test_objectives_that_are_none(function, words, batch):
    with pytest.raises((TypeError, ValueError), match=words):
        pb.TrainStep(function, mlp(), optim.SGD(lr=0.1))(*batch)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (dict(accumulate=0), ValueError, "accumulate must be at least 1"),
        (dict(accumulate=1.5), TypeError, "accumulate must be an integer"),
        (dict(clip_norm=-1.0), ValueError, "clip_norm must be above 0"),
        (dict(clip_value=0.0), ValueError, "clip_value must be above 0"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        pb.TrainStep(objective, mlp(), optim.SGD(lr=0.1), **options)


def test_before_any_step():
    step = pb.TrainStep(objective, mlp(), optim.SGD(lr=0.1))
    with pytest.raises(ValueError, match="nothing was computed"):
        step.grads()
    with pytest.raises(ValueError, match="nothing was computed"):
        step.update()


def test_state_dict_resumes_to_the_same_bits(batch):
    def dropout_model():
        pb.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))

    model = dropout_model()
    step = pb.TrainStep(objective, model, optim.AdamW(lr=0.01), seed=5)
    for _ in range(3):
        step(*batch)
    weights, state = model.state_dict(), copy.deepcopy(step.state_dict())
    losses = [step(*batch) for _ in range(3)]

    twin = dropout_model()
    twin.load_state_dict(weights)
    resumed = pb.TrainStep(objective, twin, optim.AdamW(lr=0.5), seed=9)
    resumed.load_state_dict(state)
    assert [resumed(*batch) for _ in range(3)] == losses
    assert state_bits(twin) == state_bits(model)


def test_state_of_a_step_that_never_ran_sets_back_one_that_did(batch):
    step = pb.TrainStep(objective, mlp(), optim.Adam(lr=0.01), seed=3)
    begin, weights = step.state_dict(), copy.deepcopy(step.model.state_dict())
    first = [step(*batch) for _ in range(4)]
    step.load_state_dict(begin)
    step.model.load_state_dict(weights)
    assert step.steps == 0
    assert [step(*batch) for _ in range(4)] == first


def test_state_dicts_that_do_not_fit(batch):
    model = mlp()
    step = pb.TrainStep(objective, model, optim.Adam(lr=0.01))
    step(*batch)
    state = step.state_dict()
    with pytest.raises(ValueError, match="the rule 'adam'"):
        pb.TrainStep(objective, model, optim.SGD(lr=0.1)).load_state_dict(state)
    with pytest.raises(ValueError, match="no parameter of the model"):
        pb.TrainStep(objective, nn.Linear(2, 2), optim.Adam(lr=0.1)).load_state_dict(state)
    with pytest.raises(ValueError, match="schedule"):
        pb.TrainStep(objective, model, optim.Adam(lr=optim.Constant(0.1))).load_state_dict({**state, "lr": 0.1})
    with pytest.raises(ValueError, match="no entry 'lr'"):
        step.load_state_dict({})


def test_same_bits_for_any_number_of_threads():
    data = np.random.default_rng(7)
    x, y = data.normal(size=(37, 20)).astype(np.float32), data.integers(0, 4, 37)
    loss = nn.CrossEntropyLoss()
    found = []
    for threads in (1, 2, 3, 4):
        pb.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 48), nn.LayerNorm(48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 4))
        step = pb.TrainStep(
            lambda m, x, y: loss(m(x), y), model, optim.AdamW(lr=0.01), clip_norm=1.0, seed=3, threads=threads
        )
        found.append(([step(x, y) for _ in range(200)], state_bits(model)))
    assert all(bits == found[0] for bits in found)


def test_two_steps_train_two_parts_of_one_model(rng):
    pb.manual_seed(0)

    class Pair(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    model, x = Pair(), rng.normal(size=(5, 3)).astype(np.float32)
    first = pb.TrainStep(lambda m, x: (m.a(x) ** 2).mean(), model, optim.Adam(lr=0.1))
    second = pb.TrainStep(
        lambda m, x: (m.b(m.a(x)) ** 2).mean(), model, optim.Adam(lr=0.1, groups={"a.*": dict(frozen=True)})
    )
    before = state_bits(model)
    first(x)
    middle = state_bits(model)
    second(x)
    after = state_bits(model)
    assert [n for n in before if before[n] != middle[n]] == ["a.weight", "a.bias"]
    assert [n for n in before if middle[n] != after[n]] == ["b.weight", "b.bias"]


def test_batch_statistics_change_only_in_training_steps(rng):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    x = rng.normal(size=(9, 4)).astype(np.float32)
    buffers = {n: a.copy() for n, a in model.state_dict().items() if "running" in n}
    pb.value_and_grad(lambda m, x: m(x).mean(), model)(x)
    pb.inspect(lambda m, x: (m(x) ** 2).mean(), model)(x)
    model(x)
    for name, array in buffers.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), model, optim.SGD(lr=0.0))(x)
    assert any((model.state_dict()[n] != a).any() for n, a in buffers.items())
    assert int(model.state_dict()["1.num_batches_tracked"]) == 1


class TestValueAndGrad:
    def test_input_gradients(self, batch):
        model = mlp()
        x, y = batch
        _, _, dx = pb.value_and_grad(objective, model, argnums=0)(x, y)
        _, _, (dy, dx2) = pb.value_and_grad(objective, model, argnums=(1, 0))(x, y)
        expected = -2 * (model(x) - y) / y.size
        np.testing.assert_allclose(dy, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(dx, dx2)
        assert dx.shape == x.shape

    def test_nested_input_gradients(self, batch):
        model, (x, _) = mlp(), batch
        function = pb.value_and_grad(lambda m, p: (m(p["x"]) * p["w"]).mean(), model, argnums=0)
        _, _, gradients = function({"x": x, "w": np.ones((8, 3), np.float32)})
        assert {k: v.shape for k, v in gradients.items()} == {"x": (8, 6), "w": (8, 3)}

    def test_training_false_runs_the_inference_program(self, rng):
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9))
        x = rng.normal(size=(64, 4)).astype(np.float32)
        value, _ = pb.value_and_grad(lambda m, x: m(x).mean(), model, training=False)(x)
        assert value == pytest.approx(model(x).mean(), rel=1e-4)

    def test_bad_argnums(self, batch):
        with pytest.raises(ValueError, match="argnums asks for argument 2"):
            pb.value_and_grad(objective, mlp(), argnums=2)(*batch)
        with pytest.raises(TypeError, match="holds integers"):
            pb.value_and_grad(lambda m, x, i: m(x).mean(), mlp(), argnums=1)(batch[0], np.arange(8))


def test_inspect(batch):
    model = mlp()
    seen = pb.inspect(objective, model)(*batch)
    value, grads = pb.value_and_grad(objective, model)(*batch)
    assert seen.loss == value
    np.testing.assert_array_equal(seen.gradients["0.weight"], grads["0.weight"])
    hidden, gradient = seen["1"]
    np.testing.assert_allclose(
        hidden, np.tanh(batch[0] @ np.asarray(model[0].weight).T + np.asarray(model[0].bias)), rtol=1e-4, atol=1e-5
    )
    output, d_output = seen["2"]
    np.testing.assert_allclose(d_output, 2 * (output - batch[1]) / output.size, rtol=1e-4, atol=1e-6)
    assert gradient.shape == hidden.shape and len(seen) >= 3 and set(seen) >= {"0", "1", "2"}


class TestGradcheck:
    def test_a_right_gradient(self, batch):
        model = mlp()
        before = state_bits(model)
        found = pb.gradcheck(objective, model, *batch)
        assert found and found.ok and set(found.errors) == set(model.state_dict())
        assert max(found.errors.values()) < 1e-8
        assert state_bits(model) == before

    def test_with_dropout_and_batch_norm(self, rng):
        model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
        x, y = rng.normal(size=(7, 5)), rng.normal(size=(7, 2))
        found = pb.gradcheck(objective, model, x, y)
        assert found.ok, found

    def test_a_wrong_gradient(self, rng):
        class Wrong(pb.Function):
            def shape(self, x):
                return x

            def forward(self, x):
                return x * x

            def backward(self, inputs, outputs, d_outputs):
                return (3 * inputs[0] * d_outputs[0],)

        found = pb.gradcheck(lambda m, x: Wrong()(m(x)).mean(), nn.Linear(3, 2), rng.normal(size=(4, 3)))
        assert not found and found.worst[0] in ("weight", "bias")


def test_nothing_leaks(batch):
    model = mlp()
    for _ in range(3):
        pb.TrainStep(objective, model, optim.SGD(lr=0.1))(*batch)
    gc.collect()
    count = len(gc.get_objects())
    for _ in range(20):
        pb.TrainStep(objective, model, optim.SGD(lr=0.1))(*batch)
    gc.collect()
    assert len(gc.get_objects()) < count + 200


def test_an_objective_that_constructs_its_loss_is_traced_once():
    traced = []

    def objective(model, x, y):
        traced.append(1)
        return nn.MSELoss()(model(x), y)

    step = pb.TrainStep(objective, nn.Linear(3, 1), optim.SGD(lr=0.1))
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
    for _ in range(5):
        step(x, y)
    assert len(traced) == 1
    gradients = pb.value_and_grad(objective, nn.Linear(3, 1))
    for _ in range(5):
        gradients(x, y)
    assert len(traced) == 2
