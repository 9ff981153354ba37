"""NaN and infinity in training: what is not applied, what is said, and how fit goes on."""

import math
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, nn, ops, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 24)).astype(np.float32)
Y = RNG.integers(0, 3, 96)


def bits(model, step=None):
    """Everything a training step may change."""
    state = {name: np.array(value) for name, value in model.state_dict().items()}
    if step is not None:
        kept = step.state_dict()
        state["steps"] = np.array(kept["steps"])
        for key, arrays in kept["state"].items():
            state |= {f"{key} of {name}": np.array(value) for name, value in arrays.items()}
    return state


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def all_finite(state):
    return all(np.isfinite(value).all() for value in state.values())


class Net(nn.Module):
    """Dropout, running statistics, a norm; ``width`` decides whether parameters are updated early."""

    def __init__(self, width):
        self.first, self.norm, self.drop = nn.Linear(24, width), nn.BatchNorm1d(width), nn.Dropout(0.3)
        self.scale, self.last = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.last(self.scale(self.drop(self.norm(self.first(x)).relu())))


class Double(pb.Function):
    def shape(self, x):
        return x

    def forward(self, x):
        return 2 * x

    def backward(self, inputs, outputs, d_outputs):
        return 2 * d_outputs[0]


class Hosted(Net):
    def forward(self, x):
        return Double()(super().forward(x))


class Words(nn.Module):
    def __init__(self, width, sparse=True):
        self.table, self.net = nn.Embedding(50, 24, sparse=sparse), Net(width)

    def forward(self, ids):
        return self.net(self.table(ids))


def objective(model, x, y, trap):
    """Finite if ``trap`` is above 0: the logarithm comes after the model, in the loss."""
    return ops.cross_entropy(model(x), y) + 0 * trap.log().mean()


IDS = [RNG.integers(0, 50, 16) for _ in range(6)]


def batch(i, bad=False, ids=False):
    rows = slice(16 * i, 16 * i + 16)
    return IDS[i] if ids else X[rows], Y[rows], np.full(16, -1.0 if bad else 1.0, np.float32)


CASES = {
    "tiny": (lambda: Net(4), {}),
    "early, one thread": (lambda: Net(400), dict(threads=1)),
    "early, two threads": (lambda: Net(400), dict(threads=2)),
    "early, three threads": (lambda: Net(400), dict(threads=3)),
    "clipped": (lambda: Net(400), dict(threads=2, clip_norm=0.5)),
    "accumulated": (lambda: Net(400), dict(threads=2, accumulate=2)),
    "tiny, two threads": (lambda: Net(4), dict(threads=2)),
    "double": (lambda: Net(400).astype("float64"), dict(threads=2)),
    "host op": (lambda: Hosted(400), dict(threads=2)),
    "sparse embedding": (lambda: Words(400), dict(threads=2)),
    "sparse embedding, tiny": (lambda: Words(4), dict(threads=2)),
    "dense embedding": (lambda: Words(400, sparse=False), dict(threads=2)),
}


def make(case):
    build, options = CASES[case]
    pb.manual_seed(0)
    model = build()
    return model, options, "embedding" in case


@pytest.mark.parametrize("case", CASES)
def test_a_batch_whose_loss_is_nan_changes_nothing(case):
    model, options, ids = make(case)
    step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), **options)
    for i in range(2):
        step(*batch(i, ids=ids))
    before = bits(model, step)
    with pytest.raises(pb.NonFiniteError, match=r"training step \d: the loss is nan, first in the forward pass of "):
        step(*batch(2, bad=True, ids=ids))
    assert_same(before, bits(model, step))
    assert all_finite(before)


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_as_if_the_batch_had_not_come(case):
    states = []
    for with_bad in (True, False):
        model, options, ids = make(case)
        step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), on_nonfinite="skip", **options)
        for i in range(6):
            if with_bad and i in (0, 3, 5):
                assert math.isnan(step(*batch(5 - i, bad=True, ids=ids)))
            step(*batch(i, ids=ids))
        states.append(bits(model, step))
        assert step.skipped == 3 * with_bad
    assert_same(*states)


def test_half_width_products():
    try:
        step = pb.TrainStep(objective, make("tiny")[0], optim.SGD(lr=0.1), precision="bf16")
    except ValueError:
        pytest.skip("needs avx512_bf16")
    model, options, _ = make("early, two threads")
    step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), precision="bf16", **options)
    step(*batch(0))
    before = bits(model, step)
    with pytest.raises(pb.NonFiniteError, match=r"objective \(log\)"):
        step(*batch(1, bad=True))
    assert_same(before, bits(model, step))


def test_infinity_is_as_bad_as_nan():
    model = nn.Linear(1, 1)
    step = pb.TrainStep(lambda m, x: m(x).exp().sum(), model, optim.SGD(lr=0.1))
    before = bits(model)
    x = np.full((2, 1), 1e4 * np.sign(model.weight.numpy()[0, 0]), np.float32)
    with pytest.raises(pb.NonFiniteError, match=r"the loss is inf.*exp overflows"):
        step(x)
    assert_same(before, bits(model))
    assert step.steps == 0


# Gradients


class Root(nn.Module):
    """Rows of zeros give a finite loss and, behind the root, gradients that are NaN."""

    def __init__(self, width=8):
        self.below, self.above = nn.Linear(24, width, bias=False), nn.Linear(1, 40 * width)

    def forward(self, x):
        return self.above((self.below(x) ** 2).sum(dim=1, keepdim=True).sqrt())


def root_objective(model, x):
    return (model(x) ** 2).mean()


ZEROS = X[:16] * (np.arange(16) != 5)[:, None].astype(np.float32)


def root_step(width, **options):
    pb.manual_seed(1)
    model = Root(width)
    return model, pb.TrainStep(root_objective, model, optim.Adam(lr=1e-2), **options)


@pytest.mark.parametrize(
    "width, options",
    [
        (8, dict(threads=1)),
        (8, dict(threads=2)),
        (500, dict(threads=2, clip_norm=1.0)),
        (500, dict(threads=2, clip_norm=math.inf)),
        (500, dict(threads=2, accumulate=2)),
        (500, dict(threads=1, accumulate=1, clip_norm=1.0, clip_value=0.1)),
    ],
    ids=str,
)
def test_gradients_that_are_not_finite_change_nothing_if_all_are_seen_first(width, options):
    model, step = root_step(width, **options)
    for _ in range(2):
        step(X[:16])
    before = bits(model, step)
    with pytest.raises(pb.NonFiniteError, match="is not finite, first in the backward pass") as caught:
        step(ZEROS)
    assert_same(before, bits(model, step))
    error = caught.value
    assert (error.layer, error.direction, error.applied_in_part) == ("Root (sqrt)", "backward", False)
    assert error.input_range is not None and error.input_range[0] == 0 and math.isfinite(error.loss)
    assert "the derivative of sqrt is infinite at 0" in str(error)


def test_an_infinite_clip_norm_clips_nothing():
    states = []
    for options in (dict(), dict(clip_norm=math.inf)):
        model, step = root_step(8, **options)
        for _ in range(3):
            step(X[:16])
        states.append(bits(model, step))
    assert_same(*states)


def test_where_parameters_are_updated_early_nothing_that_is_not_finite_is_applied():
    states = []
    for threads in (1, 2, 3):
        model, step = root_step(500, threads=threads)
        step(X[:16])
        before = bits(model, step)
        with pytest.raises(pb.NonFiniteError, match="whose gradient is finite were updated") as caught:
            step(ZEROS)
        after = bits(model, step)
        assert caught.value.applied_in_part and caught.value.layer == "Root (sqrt)"
        assert all_finite(after)
        np.testing.assert_array_equal(before["below.weight"], after["below.weight"])
        np.testing.assert_array_equal(before["exp_avg of below.weight"], after["exp_avg of below.weight"])
        assert (before["above.weight"] != after["above.weight"]).any()
        assert before["steps"] == after["steps"]
        step(X[16:32])
        states.append(bits(model, step))
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])


@pytest.mark.parametrize("threads", [2, 3])
def test_single_elements_that_overflow_are_left_alone_for_any_number_of_threads(threads):
    """Where a piece of a gradient was cut must not show: only some of its elements are infinite."""
    x = np.ones((4, 300), np.float32)
    x[:, 7::50] = 0
    x[0, 7::50] = 1e25
    c = np.ones((4, 40), np.float32)
    c[0, 3:9] = 1e14  # x * c does not fit in a float; their weights are 0, so the loss does
    states = []
    for n in (1, threads):
        pb.manual_seed(0)
        model = nn.Linear(300, 40, bias=False)
        model.weight = np.where(np.arange(300) % 50 == 7, 0, model.weight.numpy())
        before = model.weight.numpy()
        step = pb.TrainStep(lambda m, x, c: (m(x) * c).sum(), model, optim.SGD(lr=1e-3), threads=n)
        with pytest.raises(pb.NonFiniteError) as caught:
            step(x, c)
        assert caught.value.applied_in_part
        changed = (model.weight.numpy() != before).reshape(40, 300)
        assert changed.sum() == 40 * 300 - 6 * 6 and not changed[3:9, 7::50].any()
        states.append(bits(model))
    assert all_finite(states[0])
    assert_same(*states)


def test_accumulated_gradients_are_dropped_with_the_bad_one():
    model, step = root_step(8, accumulate=3, on_nonfinite="skip")
    fresh, other = root_step(8, accumulate=3, on_nonfinite="skip")
    step(X[:16])
    step(ZEROS)
    assert step.skipped == 2
    for i in range(3):
        step(X[16 * i : 16 * i + 16])
        other(X[16 * i : 16 * i + 16])
    assert_same(bits(model, step), bits(fresh, other))


@pytest.mark.parametrize("width", [8, 500])
def test_the_parts_of_a_step(width):
    model, step = root_step(width)
    step.backward(X[:16])
    step.update()
    before = bits(model, step)
    step.backward(ZEROS)
    assert np.isnan(step.grads()["below.weight"]).any()  # to be looked at
    with pytest.raises(
        pb.NonFiniteError, match=r"the gradient is not finite, first in the backward pass of Root \(sqrt"
    ) as caught:
        step.update()
    assert caught.value.applied_in_part == (width == 500)
    after = bits(model, step)
    if width == 500:
        assert all_finite(after) and before["steps"] == after["steps"]
        np.testing.assert_array_equal(before["below.weight"], after["below.weight"])
    else:
        assert_same(before, after)
    with pytest.raises(ValueError, match=r"without gradients|needs gradients"):
        step.update()
    with pytest.raises(pb.NonFiniteError, match="the loss is nan"):
        step.backward(np.full((16, 24), np.nan))
    with pytest.raises(ValueError, match=r"without gradients|needs gradients"):
        step.update()
    step.backward(X[:16])
    step.update()
    # The stepper itself forgets what it refused.
    _, step = root_step(8, accumulate=2)
    step.backward(X[:16])
    with pytest.raises(pb.NonFiniteError):
        step.backward(ZEROS)
    assert step.stepper.micro == 0
    _, step = root_step(8)
    step.backward(ZEROS)
    for error, message in ((_core.Refused, "not finite"), (ValueError, "without gradients")):
        with pytest.raises(error, match=message):
            step.stepper.update(0.1)


class Spelled(nn.Module):
    """A row of zeros in a table with row-sparse gradients, before a root."""

    def __init__(self, width):
        self.table, self.above = nn.Embedding(20, 8, sparse=True), nn.Linear(1, width)

    def forward(self, ids):
        return self.above((self.table(ids) ** 2).sum(dim=1, keepdim=True).sqrt())


@pytest.mark.parametrize(
    "width, options, in_part",
    [(3, {}, False), (3, dict(threads=2), False), (6000, dict(threads=2), True), (6000, dict(clip_norm=1.0), False)],
    ids=str,
)
def test_row_sparse_gradients(width, options, in_part):
    pb.manual_seed(0)
    model = Spelled(width)
    table = model.table.weight.numpy()
    table[3] = 0
    model.table.weight = table
    step = pb.TrainStep(root_objective, model, optim.Adam(lr=1e-2), **options)
    step(np.array([1, 2, 4, 5]))
    before = bits(model, step)
    with pytest.raises(pb.NonFiniteError) as caught:
        step(np.array([1, 2, 3, 5]))
    assert caught.value.layer == "Spelled (sqrt)" and caught.value.applied_in_part == in_part
    after = bits(model, step)
    assert all_finite(after)
    if not in_part:
        return assert_same(before, after)
    same = (before["table.weight"] == after["table.weight"]).all(axis=1)
    assert np.flatnonzero(~same).tolist() == [1, 2, 5] and before["steps"] == after["steps"]


def test_options():
    with pytest.raises(ValueError, match="on_nonfinite must be 'raise' or 'skip', got 'restore'"):
        pb.TrainStep(root_objective, Root(), optim.SGD(lr=0.1), on_nonfinite="restore")
    with pytest.raises(ValueError, match="on_nonfinite must be 'raise', 'skip' or 'restore', got 'ignore'"):
        pb.Trainer(nn.Linear(24, 3), loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1)).fit(
            X, Y, on_nonfinite="ignore", verbose=0
        )


# What is said


def caught(function, *args, **options):
    with pytest.raises(pb.NonFiniteError) as error:
        function(*args, **options)
    return error.value


class Logs(nn.Module):
    def forward(self, x):
        return x.log()


@pytest.mark.parametrize("width", [4, 400])
def test_born_in_the_middle_of_the_forward_pass(width):
    model = nn.Sequential(nn.Linear(24, width), nn.ReLU(), Logs(), nn.Linear(width, 3))
    trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1), threads=2)
    error = caught(trainer.fit, X, Y, batch_size=32, verbose=0)
    assert (error.epoch, error.batch, error.layer, error.direction) == (0, 0, "Sequential[2] (log)", "forward")
    hidden = nn.Sequential(model[0], model[1])(X)
    assert error.input_range[0] == 0 == hidden.min() and error.input_range[1] <= hidden.max()
    assert str(error).startswith("epoch 0, batch 0 (counted from 0): the loss is ")
    assert "the logarithm of zero" in str(error) and "the batch was not applied" in str(error)
    assert "\n" not in str(error) and math.isnan(error.loss) | math.isinf(error.loss)


def test_born_in_the_loss():
    error = caught(pb.TrainStep(objective, Net(4), optim.SGD(lr=0.1)), *batch(0, bad=True))
    assert (error.layer, error.direction, error.input_range) == ("objective (log)", "forward", (-1.0, -1.0))
    assert error.epoch is None and error.batch is None and "negative number" in str(error)


def test_a_division_by_zero():
    step = pb.TrainStep(lambda m, x, n: (m(x) / n).mean(), nn.Linear(24, 1), optim.SGD(lr=0.1))
    error = caught(step, X, np.zeros((96, 1)))
    assert error.layer == "objective (div)" and "a division by zero" in str(error)


def test_weights_of_rows_that_sum_to_zero():
    loss = nn.CrossEntropyLoss()
    step = pb.TrainStep(lambda m, x, y, w: loss(m(x), y, sample_weight=w), nn.Linear(24, 3), optim.SGD(lr=0.1))
    step(X, Y, np.ones(96))
    error = caught(step, X, Y, np.zeros(96))
    assert error.layer == "CrossEntropyLoss (cross_entropy)" and "weights sum to 0" in str(error)


def test_data_that_is_not_finite():
    step = pb.TrainStep(lambda m, x: m(x).mean(), nn.Sequential(nn.ReLU(), nn.Linear(24, 3)), optim.SGD(lr=0.1))
    x = X.copy()
    x[3, 4] = np.inf
    error = caught(step, x)
    assert error.layer == "Sequential[0] (relu)" and "input 0 holds numbers that are not finite" in str(error)
    finite = x[np.isfinite(x)]
    assert error.input_range == (finite.min(), finite.max())


def test_data_of_a_memory_map_is_read_in_training_first(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    x[:] = X
    x[70, 3] = np.nan
    model = nn.Linear(24, 3)
    trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1))
    error = caught(trainer.fit, x, Y, batch_size=16, shuffle=False, verbose=0)
    assert (error.batch, error.layer) == (4, "Linear (linear)") and "X holds numbers that are not finite" in str(error)
    assert trainer._step.steps == 4


def test_data_of_an_iterable():
    x = X.copy()
    x[40, 3] = np.nan

    def batches():
        for i in range(6):
            yield x[16 * i : 16 * i + 16], Y[16 * i : 16 * i + 16]

    def trainer():
        pb.manual_seed(0)
        return pb.Trainer(nn.Linear(24, 3), loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.1))

    one = trainer()
    with pytest.raises(ValueError, match="batch 2 of the iterable: X holds NaN in row 8, column 3"):
        one.fit(batches(), verbose=0)
    assert one._step.steps == 2
    two, three = trainer(), trainer()
    with pytest.warns(RuntimeWarning, match="batch 2 .*: X holds NaN in row 8.*not applied.*skip") as seen:
        history = two.fit(batches(), verbose=0, on_nonfinite="skip")
    assert len(seen) == 1 and history.skipped == 1
    other = three.fit([b for i, b in enumerate(batches()) if i != 2].__iter__(), verbose=0)
    assert_same(bits(two.model), bits(three.model))
    assert history.history == other.history


def test_weights_that_explode():
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1))
    trainer = pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=1e30))
    error = caught(trainer.fit, X, X[:, :1], batch_size=16, epochs=2, verbose=0)
    assert error.batch == 1 and error.direction == "forward" and error.layer == "Sequential[2] (linear)"
    assert "the learning rate is probably too high" in str(error) and error.input_range[1] > 1e20
    assert all_finite(bits(model))


def test_inputs_that_are_not_scaled():
    step = pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), nn.Linear(24, 3), optim.SGD(lr=1e-3))
    error = caught(step, X * np.float32(1e25))
    assert "input 0 reaches " in str(error) and "scale it" in str(error)


def test_weights_that_were_not_finite_before():
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    model[2].bias = np.array([0, np.nan, 0], np.float32)
    trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1))
    error = caught(trainer.fit, X, Y, verbose=0)
    assert error.layer == "Sequential[2] (linear)" and "parameter 2.bias was not finite before" in str(error)
    # There is nothing to go on with, or back to.
    for policy in ("skip", "restore"):
        assert caught(trainer.fit, X, Y, verbose=0, on_nonfinite=policy).epoch is not None


def test_numbers_that_never_reach_the_loss_are_not_blamed():
    def loss(model, x):
        h = model(x)
        safe = ops.where(x[:, :1] > 100, (0 * h).log(), h)  # log(0) everywhere, and nowhere chosen
        return (safe + x[:, 1:2].log()).mean(), {"unused": (h * 0 - 1).log().mean()}

    error = caught(pb.TrainStep(loss, nn.Linear(24, 1), optim.SGD(lr=0.1)), -np.abs(X) - 1)
    assert error.layer == "loss (log)" and error.input_range[1] <= -1


class Bad(Double):
    def __init__(self, method):
        self.method = method

    def forward(self, x):
        return x * np.nan if self.method == "forward" else x

    def backward(self, inputs, outputs, d_outputs):
        return d_outputs[0] * np.nan


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_born_in_an_op_written_in_python(method):
    op = Bad(method)

    class Model(nn.Sequential):
        def forward(self, x):
            return op(super().forward(x))

    model = Model(nn.Linear(24, 300))
    before = bits(model)
    step = pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), model, optim.SGD(lr=0.1))
    error = caught(step, X)
    assert error.direction == method and f"Bad.{method}, an op written in Python" in str(error)
    assert_same(before, bits(model))


def test_an_op_that_raises_is_not_taken_for_it():
    class Raises(Double):
        def forward(self, x):
            raise FloatingPointError("mine")

    step = pb.TrainStep(lambda m, x: Raises()(m(x)).mean(), nn.Linear(24, 1), optim.SGD(lr=0.1), on_nonfinite="skip")
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=r"^mine$") as error:
            step(X)
        assert not isinstance(error.value, pb.NonFiniteError)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_batch_runs_once_more_with_the_same_masks(accumulate):
    """Infinite if and only if dropout takes one certain element, with probability 1/2."""

    def loss(model, x):
        return (ops.dropout(x, 0.5)[-1, 0] + 0 * model(x).mean()).log()

    step = pb.TrainStep(loss, nn.Linear(24, 1), optim.SGD(lr=0.0), accumulate=accumulate)
    x = np.ones((4, 24), np.float32)
    seen = 0
    for _ in range(40):
        try:
            step(x)
        except pb.NonFiniteError as error:
            seen += 1
            assert error.layer == "loss (log)"
            x = x[:-1] if len(x) > 3 else np.ones((5, 24), np.float32)  # else it would be refused for ever
            step.seed = 0
            step._stepper.seed += 1
    assert 5 < seen < 38


def test_the_error_travels_between_processes():
    error = caught(pb.TrainStep(objective, Net(4), optim.SGD(lr=0.1)), *batch(0, bad=True))
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error) and twin.layer == error.layer and twin.input_range == error.input_range
    assert isinstance(twin, ArithmeticError)


# fit


BAD = np.ones(96, np.float32)
BAD[[33, 80]] = -1  # batches 2 and 5 of 16 rows


def fit_objective(model, x, y):
    return objective(model, x["x"], y, x["trap"])


def fitted(case, trap, seed=0, lr=1e-2, **options):
    model, settings, ids = make(case)
    trainer = pb.Trainer(model, objective=fit_objective, optimizer=optim.Adam(lr=lr), seed=seed, **settings)
    x = np.concatenate(IDS) if ids else X
    run = dict(epochs=2, batch_size=16, shuffle=False, verbose=0) | options
    return trainer, lambda: trainer.fit({"x": x, "trap": trap}, Y, **run)


@pytest.mark.parametrize("case", CASES)
def test_fit_stops_before_the_batch(case):
    trainer, fit = fitted(case, BAD)
    error = caught(fit)
    accumulate = CASES[case][1].get("accumulate", 1)
    assert (error.epoch, error.batch, error.direction) == (0, 2, "forward") and "(log)" in error.layer
    assert trainer._step.steps == 2 // accumulate and trainer._step.stepper.micro == 0
    reference, fit = fitted(case, BAD)
    reference.callbacks = [pb.callbacks.LambdaCallback(on_train_batch_end=stop_after(reference, 2))]
    fit()
    assert_same(bits(trainer.model, trainer._step), bits(reference.model, reference._step))
    # It can be used as before.
    trainer.step({"x": IDS[0] if "embedding" in case else X[:16], "trap": BAD[:16]}, Y[:16])


def stop_after(trainer, batches):
    def hook(batch, logs):
        if batch + 1 == batches:
            trainer.stop_training = True

    return hook


@pytest.mark.parametrize("each_batch", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_skip_is_as_if_the_batches_were_not_there(case, each_batch):
    if case == "accumulated":
        pytest.skip("batches are counted in another way: see below")
    trainer, fit = fitted(case, BAD, on_nonfinite="skip")
    batches = []
    if each_batch:
        trainer.callbacks = [pb.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: batches.append(b))]
    with pytest.warns(RuntimeWarning, match="epoch 0, batch 2 .*on_nonfinite='skip' leaves such batches out") as seen:
        history = fit()
    assert len(seen) == 1 and seen[0].filename == __file__
    assert history.skipped == 4 and history.epoch == [0, 1]
    assert batches == ([*range(6)] * 2 if each_batch else [])

    model, settings, ids = make(case)
    step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), **settings)
    for epoch in range(2):
        losses = [step(*batch(i, ids=ids)) for i in (0, 1, 3, 4)]
        assert history.history["loss"][epoch] == pytest.approx(np.mean(losses), rel=1e-12)
    assert_same(bits(trainer.model, trainer._step), bits(model, step))


@pytest.mark.parametrize("bad", [(0,), (1,), (2, 3), (4,), (5,), (4, 5), (0, 1, 2, 3, 4)], ids=str)
def test_skip_in_accumulations(bad):
    trap = np.ones(96, np.float32)
    trap[[16 * i for i in bad]] = -1
    trainer, fit = fitted("accumulated", trap, epochs=1, on_nonfinite="skip")
    with pytest.warns(RuntimeWarning, match=f"batch {bad[0]} "):
        history = fit()
    assert history.skipped == len(bad)
    model, settings, _ = make("accumulated")
    step = pb.TrainStep(objective, model, optim.Adam(lr=1e-2), **settings)
    for i in range(6):
        if i not in bad:
            step(*batch(i))
    if step._stepper.micro:
        step.update()
    assert_same(bits(trainer.model, trainer._step), bits(model, step))


@pytest.mark.parametrize("stream", [False, True])
def test_skip_gradients(stream):
    def trainer():
        pb.manual_seed(1)
        return pb.Trainer(
            Root(8), objective=lambda m, x: root_objective(m, x), optimizer=optim.Adam(lr=1e-2), accumulate=2
        )

    good = [X[:16], X[16:32], X[32:48], X[48:64]]
    data = [*good[:3], ZEROS, good[3]]
    one, two = trainer(), trainer()
    run = dict(batch_size=16, shuffle=False, verbose=0, on_nonfinite="skip")
    with pytest.warns(RuntimeWarning, match="batch 3 .*its gradient is not finite"):
        history = one.fit(iter([(b,) for b in data]) if stream else np.concatenate(data), **run)
    two.fit(np.concatenate([good[0], good[1], good[3]]), **run)
    assert history.skipped == 2  # the accumulation of batches 2 and 3
    assert_same(bits(one.model, one._step), bits(two.model, two._step))
    assert history.history == two.history.history


def test_all_batches_are_bad():
    trainer, fit = fitted("tiny", -BAD * 0 - 1, on_nonfinite="skip")
    before = bits(trainer.model)
    with pytest.warns(RuntimeWarning):
        history = fit()
    assert_same(before, bits(trainer.model))
    assert history.skipped == 12 and np.isnan(history.history["loss"]).all() and history.epoch == [0, 1]


def test_skipped_batches_are_in_the_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"
    whole, fit_whole = fitted("early, two threads", BAD, on_nonfinite="skip")
    first, fit_first = fitted("early, two threads", BAD, on_nonfinite="skip")
    first.callbacks = [
        pb.callbacks.LambdaCallback(on_train_batch_end=lambda b, _: b == 3 and first.save_checkpoint(path))
    ]
    second, fit_second = fitted("early, two threads", BAD, on_nonfinite="skip")
    with pytest.warns(RuntimeWarning):
        fit_whole()
        fit_first()
    second.load_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_second()
    assert_same(bits(whole.model, whole._step), bits(second.model, second._step))
    assert second.history.history == whole.history.history and second.history.skipped >= 3


def cliff(lr):
    """Diverges within a few batches if lr is above 2 / 3 or so: w <- w (1 - 3 lr)."""

    class Model(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(np.full(1, 3.0, np.float32))

        def forward(self, x):
            return x * self.w

    def loss(model, x):
        return (1.5 * model(x) ** 2).mean() + 0 * (50 - model(x)).log().mean()

    return pb.Trainer(Model(), objective=loss, optimizer=optim.SGD(lr=lr, momentum=0.5))


ONES = np.ones((64, 1), np.float32)


@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_restore(schedule, stream):
    first, second = 4.0, 0.2  # diverges in epoch 0 until it is 1.0 or less
    lr = optim.StepLR(first, 1, gamma=second / first, by="epoch") if schedule else first

    class Batches:
        def __iter__(self):
            return iter([(ONES[:8],)] * 8)

        def __len__(self):
            return 8

    data = Batches() if stream else ONES
    run = dict(epochs=2, batch_size=8, shuffle=False, verbose=0)
    begun = []
    trainer = cliff(lr)
    trainer.callbacks = [pb.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: begun.append(e))]
    with pytest.warns(RuntimeWarning, match="on_nonfinite='restore' went back .* epoch 0 began") as seen:
        history = trainer.fit(data, on_nonfinite="restore", **run)
    assert history.restored == len(seen) >= 1 and history.epoch == [0, 1] and begun == [0, 1]
    factor = 0.5**history.restored
    # The same bits as a run that had the lower rate from the start.
    other = cliff(optim.StepLR(first * factor, 1, gamma=second / first, by="epoch") if schedule else first * factor)
    expected = other.fit(data, **run)
    assert_same(bits(trainer.model, trainer._step), bits(other.model, other._step))
    assert history.history == expected.history
    if not schedule:
        assert trainer.optimizer.lr == first * factor


def test_restore_goes_back_to_the_last_epoch_and_its_optimizer(tmp_path):
    def raises_rate(trainer, at):
        def hook(epoch, logs):
            if epoch == at:
                trainer.optimizer.lr = 4.0

        return pb.callbacks.LambdaCallback(on_epoch_begin=hook)

    trainer, other = cliff(0.1), cliff(0.1)
    run = dict(epochs=3, batch_size=8, shuffle=False, verbose=0)
    trainer.callbacks = [raises_rate(trainer, 1)]
    with pytest.warns(RuntimeWarning, match="epoch 1 began") as seen:
        history = trainer.fit(ONES, on_nonfinite="restore", **run)
    assert len(seen) == 1 and history.epoch == [0, 1, 2]
    other.fit(ONES, **run | dict(epochs=1))
    other.optimizer.lr = 0.05
    other.fit(ONES, **run | dict(epochs=2))
    assert_same(bits(trainer.model, trainer._step), bits(other.model, other._step))
    # The factor of a schedule is in the checkpoint.
    trainer._step.rates.factor = 0.25
    trainer.save_checkpoint(tmp_path / "c")
    other.load_checkpoint(tmp_path / "c")
    assert other._step.rates.factor == 0.25 and other.history.restored == 1


def test_restore_does_not_try_for_ever():
    trainer = cliff(1e6)
    with pytest.warns(RuntimeWarning) as seen:
        error = caught(trainer.fit, ONES, batch_size=8, epochs=3, verbose=0, on_nonfinite="restore")
    assert len(seen) == 5 and error.epoch == 0
    with pytest.raises(ValueError, match="on_nonfinite='restore' begins an epoch again, but an iterator"):
        trainer.fit(iter([(ONES,)]), verbose=0, on_nonfinite="restore")


def test_restore_passes_over_an_epoch_that_ended_with_infinite_weights():
    """The last update of epoch 1 overflows: no loss has seen it yet, so epoch 1's end is nothing to go back to."""
    trainer = cliff(0.1)

    def overflow(batch, logs):
        if trainer.epoch == 1 and batch == 7 and not trainer.history.restored:
            trainer.model.w = np.array([np.inf], np.float32)

    trainer.callbacks = [pb.callbacks.LambdaCallback(on_train_batch_end=overflow)]
    with pytest.warns(RuntimeWarning, match="w was not finite before.*epoch 1 began"):
        history = trainer.fit(ONES, epochs=3, batch_size=8, verbose=0, on_nonfinite="restore")
    assert history.epoch == [0, 1, 2] and np.isfinite(history.history["loss"]).all()
    assert all_finite(bits(trainer.model))


def test_a_validation_loss_that_is_nan_does_not_stop_training():
    x = {"x": X, "trap": np.ones(96, np.float32)}
    trainer, _ = fitted("tiny", BAD)
    history = trainer.fit(x, Y, epochs=2, verbose=0, validation_data=({"x": X, "trap": -np.ones(96, np.float32)}, Y))
    assert np.isnan(history.history["val_loss"]).all() and len(history.epoch) == 2


def test_callbacks_hear_of_it():
    heard = []
    trainer, fit = fitted("tiny", BAD, on_nonfinite="skip", epochs=1)
    trainer.callbacks = [pb.callbacks.LambdaCallback(on_train_nonfinite=lambda error: heard.append(error.batch))]
    with pytest.warns(RuntimeWarning):
        fit()
    assert heard == [2, 5]
    trainer, fit = fitted("tiny", BAD)
    stop = pb.callbacks.TerminateOnNaN()
    trainer.callbacks = [stop]
    history = fit()
    assert history.stopped == "callback" and stop.error.batch == 2 and trainer._step.steps == 2


TABLE = """
import sys
import numpy as np
rng = np.random.default_rng(0)
with open("t.csv", "w") as file:
    file.write("a,b,target\\n")
    for a, b in rng.normal(size=(400, 2)):
        file.write(f"{a},{b},{3 * a - b}\\n")
from pybackprop.cli import main
sys.exit(main(["train", "t.csv", "--target", "target", "--lr", sys.argv[1], "--epochs", "3", "--quiet"]))
"""


def test_the_command_line_ends_in_one_sentence_and_writes_no_model(tmp_path):
    pytest.importorskip("pandas")
    child = subprocess.run(
        [sys.executable, "-P", "-c", TABLE, "1e30"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 2 and child.stdout == ""
    assert child.stderr.count("\n") == 1 and child.stderr.startswith("pybackprop: epoch 0, batch ")
    assert "learning rate is probably too high" in child.stderr
    assert sorted(os.listdir(tmp_path)) == ["t.csv"]
