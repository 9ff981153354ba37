"""Many Python threads that use one model, or the same cores, at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import pybackprop as pb
from pybackprop import _core, nn, optim

_SECONDS = 30.0  # within which a thread must come along, on a busy machine too


def trainer_of(model):
    return pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.01), seed=0)


def test_eight_callers_of_one_model(rng):
    """Different batch sizes at once, in programs that nobody has compiled yet: the bits of a lone call."""
    model = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.LayerNorm(96), nn.Linear(96, 7))
    trainer = trainer_of(model)
    inputs = [rng.normal(size=(n, 24)).astype(np.float32) for n in (1, 3, 17, 64, 100, 257, 700, 1100)]
    start = threading.Barrier(len(inputs))

    def call(x):
        start.wait(_SECONDS)
        return [(trainer.predict(x), model(x)) for _ in range(20)]

    with ThreadPoolExecutor(len(inputs)) as pool:
        answers = list(pool.map(call, inputs))
    for x, seen in zip(inputs, answers, strict=True):
        predicted, called = trainer.predict(x), model(x)
        for p, c in seen:
            np.testing.assert_array_equal(p, predicted)
            np.testing.assert_array_equal(c, called)


class Hook(pb.Function):
    """The identity, which calls ``self.inside`` in the middle of a run."""

    def __init__(self, inside):
        self.inside = inside

    def shape(self, x):
        return x

    def forward(self, x):
        self.inside()
        return x.copy()

    def backward(self, inputs, outputs, d_outputs):
        return d_outputs[0]


class Hooked(nn.Module):
    def __init__(self, inside):
        self.fc, self.hook = nn.Linear(8, 8), Hook(inside)

    def forward(self, x):
        return self.hook(self.fc(x))


def test_two_runs_of_one_model_overlap(rng):
    """Both are inside the program before either leaves it; a lock around the run would break the barrier."""
    meeting = threading.Barrier(2)
    trainer = trainer_of(Hooked(lambda: meeting.wait(_SECONDS)))
    X = rng.normal(size=(4, 8)).astype(np.float32)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(trainer.predict, [X, X])
    np.testing.assert_array_equal(first, second)


def wide(threads=None):
    """A program worth a team, and its input."""
    graph = _core.Graph()
    x = graph.input((512, 256))
    w = _core.Param(np.ones((256, 256), np.float32), "linear")
    (y,) = graph.node("linear", [x, graph.param(w)])
    return _core.Program(graph, [y], threads=threads), (np.ones((512, 256), np.float32),)


def test_cores_in_use_are_left_to_their_run():
    """A run beside another that has all cores takes one; a forced team, and a run alone, take what they want."""
    free, inputs = wide()
    forced, _ = wide(threads=2)
    seen = []

    def other_caller():
        free.run(inputs)
        forced.run(inputs)
        seen.append((free.threads_used, forced.threads_used))

    def inside():
        thread = threading.Thread(target=other_caller)
        thread.start()
        thread.join(_SECONDS)

    class Outer(nn.Module):
        def __init__(self):
            self.fc, self.hook = nn.Linear(256, 256), Hook(inside)

        def forward(self, x):
            return self.hook(self.fc(x))

    before = pb.get_num_threads()
    pb.set_num_threads(2)
    try:
        free.run(inputs)
        assert free.threads_used == 2
        Outer()(inputs[0])
        assert seen == [(1, 2)]
        free.run(inputs)
        assert free.threads_used == 2  # given back
    finally:
        pb.set_num_threads(before)


def training(seed=0):
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
    rng = np.random.default_rng(seed)
    model.load_state_dict({k: rng.normal(size=v.shape) * 0.1 for k, v in model.state_dict().items()})
    step = pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), model, optim.Adam(lr=1e-3))
    return model, step, rng.normal(size=(32, 16)).astype(np.float32)


def state_after(model, work, callers):
    """The parameters after ``work(i)`` in that many threads at once."""
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(work, range(callers)))
    return model.state_dict()


def test_steps_of_one_training_are_serialised():
    """Two threads stepping on the same batch do what one thread does in as many steps."""
    steps = 1500
    model, step, x = training()
    together = state_after(model, lambda _: [step(x) for _ in range(steps)] and None, 2)
    model, step, x = training()
    alone = state_after(model, lambda _: [step(x) for _ in range(2 * steps)] and None, 1)
    for name, value in alone.items():
        np.testing.assert_array_equal(together[name], value, err_msg=name)


def test_two_trainings_at_once():
    """Different models in different threads: the bits of training alone."""

    def train(seed):
        model, step, x = training(seed)
        losses = [step(x) for _ in range(1000)]
        return losses, model.state_dict()

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(train, [1, 2]))
    for (losses, state), seed in zip(together, [1, 2], strict=True):
        wanted, expected = train(seed)
        assert losses == wanted
        for name, value in expected.items():
            np.testing.assert_array_equal(state[name], value, err_msg=name)
