"""Steps that update a parameter where its gradient ends: the same bits as a sweep after all gradients."""

import itertools

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, ops, optim

RULES = [
    optim.SGD(lr=0.1),
    optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    optim.AdamW(lr=1e-2, groups={"*.bias": dict(weight_decay=0), "2.*": dict(lr_scale=3)}),
    optim.RMSprop(lr=1e-2, momentum=0.5, centered=True),
    optim.Lion(lr=1e-3),
]


def network(widths=(600, 96, 40, 8)):
    pb.manual_seed(1)
    layers = [nn.Linear(widths[0], widths[1])]
    for i, o in itertools.pairwise(widths[1:]):
        layers += [nn.Tanh(), nn.Linear(i, o)]
    return nn.Sequential(*layers)


def cross_entropy(model, x, y):
    return ops.cross_entropy(model(x), y)


def batches(widths=(600, 8), rows=24, count=6):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(rows, widths[0])).astype(np.float32), rng.integers(0, widths[1], rows)) for _ in range(count)
    ]


def weights(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_step_is_backward_and_update(rule, threads):
    whole, parts = network(), network()
    step = pb.TrainStep(cross_entropy, whole, rule, threads=threads)
    apart = pb.TrainStep(cross_entropy, parts, rule, threads=1)
    for x, y in batches():
        loss = step(x, y)
        assert loss == apart.backward(x, y)
        for name, gradient in apart.grads().items():
            np.testing.assert_array_equal(step.grads()[name], gradient, err_msg=name)
        apart.update()
    assert_same_bits(weights(whole), weights(parts))
    for key, arrays in step.state_dict()["state"].items():
        assert_same_bits(dict(arrays), dict(apart.state_dict()["state"][key]))


@pytest.mark.parametrize("options", [dict(clip_norm=0.1), dict(accumulate=2)], ids=str)
def test_what_needs_all_gradients_first_still_gets_them(options):
    one, two = network(), network()
    step = pb.TrainStep(cross_entropy, one, optim.Adam(lr=1e-2), threads=2, **options)
    apart = pb.TrainStep(cross_entropy, two, optim.Adam(lr=1e-2), threads=1, **options)
    for i, (x, y) in enumerate(batches()):
        step(x, y)
        apart.backward(x, y)
        if (i + 1) % options.get("accumulate", 1) == 0:
            apart.update()
    assert_same_bits(weights(one), weights(two))


def test_clamped_gradients():
    one, two = network(), network()
    step = pb.TrainStep(cross_entropy, one, optim.SGD(lr=1.0), clip_value=1e-3)
    apart = pb.TrainStep(cross_entropy, two, optim.SGD(lr=1.0), clip_value=1e-3)
    for x, y in batches():
        step(x, y)
        apart.backward(x, y)
        apart.update()
    assert_same_bits(weights(one), weights(two))


class Tied(nn.Module):
    """Reads its weight twice, and its bias once more after the product's backward would have updated it."""

    def __init__(self):
        self.fc = nn.Linear(96, 96)

    def forward(self, x):
        return ops.linear(ops.linear(x, self.fc.weight, self.fc.bias).tanh() * self.fc.bias, self.fc.weight)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_weight_that_is_read_again_keeps_its_old_value_until_then(threads):
    def objective(model, x, y):
        return ((model(x) - y) ** 2).mean() + 1e-2 * (model.fc.weight**2).sum()

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 16, 96)).astype(np.float32)
    models = []
    for early in (True, False):
        pb.manual_seed(0)
        model = Tied()
        step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), threads=threads)
        for _ in range(5):
            if early:
                step(x, y)
            else:
                step.backward(x, y)
                step.update()
        models.append(weights(model))
    assert_same_bits(*models)


def test_a_dense_parameter_as_weight():
    class Dense(nn.Module):  # stored (out, in), unlike the weight of nn.Linear
        def __init__(self):
            rng = np.random.default_rng(3)
            self.w = nn.Parameter(rng.normal(size=(50, 100)).astype(np.float32))
            self.b = nn.Parameter(np.zeros(50, np.float32))

        def forward(self, x):
            return ops.linear(x, self.w, self.b).relu()

    x = np.random.default_rng(0).normal(size=(20, 100)).astype(np.float32)
    models = [Dense(), Dense()]
    steps = [pb.TrainStep(lambda m, x: m(x).mean(), m, optim.AdamW(lr=1e-2), threads=2) for m in models]
    for _ in range(4):
        steps[0](x)
        steps[1].backward(x)
        steps[1].update()
    assert_same_bits(weights(models[0]), weights(models[1]))


def test_backward_alone_changes_no_parameter():
    model = network()
    step = pb.TrainStep(cross_entropy, model, optim.Adam(lr=1e-2))
    (x, y), *_ = batches()
    step(x, y)
    before = weights(model)
    step.backward(x, y)
    assert_same_bits(before, weights(model))


@pytest.mark.parametrize("rows", [1, 16, 17, 80])
def test_wide_inputs_are_summed_in_the_same_order_in_training_and_inference(rows):
    # The training program cuts the first layer's sum between threads, the inference program does not.
    pb.manual_seed(0)
    layer = nn.Linear(1201, 33)
    x = np.random.default_rng(0).normal(size=(rows, 1201)).astype(np.float32)
    expected = layer(x)
    for threads in (1, 2, 3, 4):
        seen = []
        step = pb.TrainStep(
            lambda m, x, seen=seen: (m(x).sum() * 0, {"first": m(x)[0, 0], "last": m(x)[-1, -1]}),
            layer,
            optim.SGD(lr=0.0),
            threads=threads,
        )
        step(x)
        assert step.extras["first"] == expected[0, 0]
        assert step.extras["last"] == expected[-1, -1]


def test_large_arrays_are_read_where_they_lie_and_only_during_the_call():
    model = network()
    step = pb.TrainStep(cross_entropy, model, optim.SGD(lr=0.0))
    (x, y), (other, _), *_ = batches()
    first = step(x, y)
    kept = x.copy()
    x[:] = np.nan  # the caller's array again
    assert step(kept, y) == first
    assert step(other, y) != first
    assert step(np.asfortranarray(kept), y) == first  # copied
    assert step(kept.astype(np.float64), y) == first  # cast
    assert step(kept, y) == first


@pytest.mark.parametrize("width", [3, 8, 40, 700])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_fill_their_parts_of_a_batch(width, threads):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(101, width)).astype(np.float32)
    results = []
    for n in (1, threads):
        pb.manual_seed(0)
        model = nn.Linear(width, 3)
        trainer = pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.Adam(lr=1e-2), seed=0, threads=n)
        history = trainer.fit(x, x[:, :3].copy(), epochs=3, batch_size=16, verbose=0)
        results.append((weights(model), history.history["loss"]))
    assert_same_bits(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
