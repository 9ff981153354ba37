"""Many Python threads that use one model, or the same cores, at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

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


class Level(nn.Module):
    """Weights that are all equal after every step, and so are its outputs; ``rest`` is written by the same steps."""

    def __init__(self, width=256):
        self.fc, self.rest = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        for layer in (self.fc, self.rest):
            layer.weight = np.zeros((width, width), np.float32)

    def forward(self, x):
        return self.fc(x) + self.rest(x)


def watch(train, look, times=60):
    """What ``look`` says, while ``train`` runs over and over in another thread."""
    stop, errors = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                train()
        except BaseException as error:  # to be seen in the main thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        seen = []
        for _ in range(times):
            time.sleep(0.002)  # Python lets the other thread go on
            seen.append(look())
    finally:
        stop.set()
        thread.join(_SECONDS)
    assert not thread.is_alive() and not errors, errors
    return seen


def uneven(*arrays):
    return len({float(value) for a in arrays for value in (a.min(), a.max())}) > 1


def level_training(fit, threads, width=256):
    model = Level(width)
    x = np.ones((8, width), np.float32)
    optimizer = optim.SGD(lr=2.0**-12)  # every sum is exact
    if fit:
        trainer = pb.Trainer(model, objective=lambda m, x: m(x).sum(), optimizer=optimizer, threads=threads)
        many = np.ones((2000, width), np.float32)
        return model, trainer, lambda: trainer.fit(many, epochs=1, batch_size=8, verbose=0)
    step = pb.TrainStep(lambda m, x: m(x).sum(), model, optimizer, threads=threads)
    return model, None, lambda: step(x)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fit", [False, True], ids=["step", "fit"])
def test_readers_see_a_finished_step(fit, threads):
    """Predictions, parameters and state dicts during a training that updates within its backward pass."""
    model, _, train = level_training(fit, threads)
    eye = np.eye(256, dtype=np.float32)
    train()
    assert not any(watch(train, lambda: uneven(model(eye))))
    assert not any(watch(train, lambda: uneven(np.asarray(model.fc.weight))))
    states = watch(train, lambda: model.state_dict().values())
    assert not any(uneven(*state) for state in states)
    assert len({float(next(iter(state))[0, 0]) for state in states}) > 5, "nothing was trained meanwhile"


def test_one_prediction_of_many_batches_sees_one_step():
    model, trainer, train = level_training(False, 1)
    trainer = pb.Trainer(model, objective=lambda m, x: m(x).sum(), optimizer=optim.SGD(lr=0.1))
    rows = np.tile(np.eye(256, dtype=np.float32), (5, 1))  # 1024 rows, then 256
    assert not any(watch(train, lambda: uneven(trainer.predict(rows)), 20))


def test_weights_are_loaded_between_steps():
    """All of a state dict, or none of it, is there when a step begins."""
    model, _, train = level_training(False, 2, 768)
    states = [{name: np.full((768, 768), value, np.float32) for name in model.state_dict()} for value in (1.0, 2.0)]
    turn = iter(range(10**6))

    def load():
        model.load_state_dict(states[next(turn) % 2])
        return uneven(*model.state_dict().values())

    assert not any(watch(train, load, 100))


def test_parameters_move_between_steps():
    """Building a training around a model that is being trained: no step is lost or done on what was left behind."""
    model, _, train = level_training(False, 2)

    def around():
        larger = nn.Sequential(model, nn.Linear(256, 1))
        step = pb.TrainStep(lambda m, x: m(x).sum(), larger, optim.SGD(lr=0.0))
        step(np.ones((1, 256), np.float32))
        return uneven(*model.state_dict().values())

    assert not any(watch(train, around, 10))


def test_a_fit_is_one_threads_own():
    inside, go = threading.Event(), threading.Event()

    class Wait(pb.Callback):
        def on_epoch_end(self, epoch, logs=None):
            inside.set()
            assert go.wait(_SECONDS)

    trainer = trainer_of(nn.Linear(3, 1))
    X, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(trainer.fit, X, y, epochs=2, verbose=0, callbacks=[Wait()])
        try:
            assert inside.wait(_SECONDS)
            calls = {
                "fit": lambda: trainer.fit(X, y, verbose=0),
                "step": lambda: trainer.step(X, y),
                "save_checkpoint": lambda: trainer.save_checkpoint("never written"),
                "load_checkpoint": lambda: trainer.load_checkpoint("never read"),
            }
            for name, call in calls.items():
                with pytest.raises(ValueError, match=f"^{name} was called while fit of the same Trainer is running"):
                    call()
            assert trainer.predict(X).shape == (8, 1)
        finally:
            go.set()
        fit.result(_SECONDS)
    trainer.fit(X, y, verbose=0)


def test_ops_in_python_within_a_run():
    """An op may use the model it belongs to, but not train it: it would wait for itself."""
    x = np.ones((4, 8), np.float32)
    seen = []
    model = Hooked(lambda: seen.append(model.state_dict()["fc.weight"].shape))
    step = pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), model, optim.SGD(lr=0.1))
    step(x)
    model(x)
    assert seen == [(8, 8)] * 2
    plain = nn.Linear(8, 8)
    other = pb.TrainStep(lambda m, x: (m(x) ** 2).mean(), plain, optim.SGD(lr=0.1))
    other(x)
    trains = Hooked(lambda: other(x))
    trains.fc = plain
    with pytest.raises(ValueError, match="cannot be trained or changed within its own ops"):
        trains(x)
    other(x)
    trains.hook.inside = lambda: None
    trains(x)
