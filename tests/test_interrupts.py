"""Ctrl-C and exceptions in the middle of fit: the weights of a finished batch, and a trainer that goes on."""

import subprocess
import sys

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, ops, optim
from pybackprop.training import LambdaCallback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 120)
RUN = dict(epochs=2, batch_size=10, verbose=0)


def make(accumulate=1, threads=None):
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    return pb.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(lr=1e-2),
        metrics=["accuracy"],
        accumulate=accumulate,
        threads=threads,
    )


def bits(trainer):
    state = {name: np.array(value) for name, value in trainer.model.state_dict().items()}
    for key, arrays in trainer._step.state_dict()["state"].items():
        state |= {f"{key} of {name}": np.array(value) for name, value in arrays.items()}
    return state


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Stop(Exception):
    pass


class Batches:
    """An iterable; raises before a batch of one epoch."""

    def __init__(self, fails_before=None):
        self.fails_before = fails_before

    def __iter__(self):
        for i in range(12):
            if i == self.fails_before:
                self.fails_before = None
                raise Stop
            yield X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10]

    def __len__(self):
        return 12


def data(stream):
    return (Batches(),) if stream else (X, Y)


def stops_after(trainer, batches, how):
    """A callback that ends the run after so many batches in all."""
    count = [0]

    def hook(batch, logs):
        count[0] += 1
        if count[0] == batches:
            how(trainer)

    return LambdaCallback(on_train_batch_end=hook)


def raise_stop(trainer):
    raise Stop


def ask_to_stop(trainer):
    trainer.stop_training = True


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("accumulate, after", [(1, 5), (1, 17), (2, 5), (5, 4), (5, 5)])
def test_an_exception_in_a_callback(stream, accumulate, after, tmp_path):
    whole = make(accumulate)
    whole.fit(*data(stream), **RUN)
    trainer = make(accumulate)
    with pytest.raises(Stop):
        trainer.fit(*data(stream), callbacks=[stops_after(trainer, after, raise_stop)], **RUN)
    done = after % 12 // accumulate * accumulate  # batches that updates have taken in
    assert trainer.epoch == after // 12 and (trainer.cut.position if trainer.cut else 0) == done
    assert not trainer.accumulating

    # The same bits as a run that stopped there in another way.
    if done:
        other = make(accumulate)
        other.fit(*data(stream), callbacks=[stops_after(other, after - after % 12 + done, ask_to_stop)], **RUN)
        assert_same(bits(trainer), bits(other))
        assert trainer.evaluate(X, Y) == other.evaluate(X, Y)

    # A checkpoint finishes the run to the same bits; the trainer itself goes on like the other one.
    trainer.save_checkpoint(tmp_path / "c")
    resumed = make(accumulate)
    resumed.load_checkpoint(tmp_path / "c")
    history = resumed.fit(*data(stream), **RUN)
    assert_same(bits(resumed), bits(whole))
    assert history.history == whole.history.history
    if done:
        trainer.fit(*data(stream), **RUN | dict(epochs=1))
        other.fit(*data(stream), **RUN | dict(epochs=1))
        assert_same(bits(trainer), bits(other))


def test_an_exception_in_an_iterable(tmp_path):
    whole, trainer, resumed = make(), make(), make()
    whole.fit(Batches(), **RUN)
    with pytest.raises(Stop):
        trainer.fit(Batches(fails_before=7), **RUN)
    assert trainer.cut.position == 7 and trainer._step.steps == 7
    trainer.save_checkpoint(tmp_path / "c")
    resumed.load_checkpoint(tmp_path / "c")
    resumed.fit(Batches(), **RUN)
    assert_same(bits(resumed), bits(whole))
    trainer.fit(Batches(), **RUN)


@pytest.mark.parametrize("method", ["forward", "backward"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_exception_in_an_op_written_in_python(method, accumulate, tmp_path):
    class Op(pb.Function):
        left = None

        def shape(self, x):
            return x

        def _call(self, name):
            if name == method and self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Stop

        def forward(self, x):
            self._call("forward")
            return 2 * x

        def backward(self, inputs, outputs, d_outputs):
            self._call("backward")
            return 2 * d_outputs[0]

    op = Op()

    def trainer():
        pb.manual_seed(0)
        return pb.Trainer(
            nn.Linear(8, 3),
            objective=lambda m, x, y: ops.cross_entropy(op(m(x)), y),
            optimizer=optim.Adam(lr=1e-2),
            accumulate=accumulate,
        )

    whole, cut, resumed = trainer(), trainer(), trainer()
    whole.fit(X, Y, **RUN)
    op.left = 7
    with pytest.raises(Stop):
        cut.fit(X, Y, **RUN)
    op.left = None
    assert cut.cut.position == 7 // accumulate * accumulate == cut._step.steps * accumulate
    cut.save_checkpoint(tmp_path / "c")
    resumed.load_checkpoint(tmp_path / "c")
    resumed.fit(X, Y, **RUN)
    assert_same(bits(resumed), bits(whole))
    cut.fit(X, Y, **RUN)


def test_an_iterator_after_a_run_that_was_cut_short():
    trainer = make()
    with pytest.raises(Stop):
        trainer.fit(Batches(fails_before=3), **RUN)
    trainer.fit(iter(Batches()), **RUN | dict(epochs=1))
    assert trainer.epoch == 2


# Calls from within


def test_fit_within_fit_is_refused(tmp_path):
    trainer = make()
    trainer.fit(X, Y, **RUN)
    trainer.save_checkpoint(tmp_path / "c")
    said = []

    def inside(epoch, logs):
        for call in (lambda: trainer.fit(X, Y, **RUN), lambda: trainer.load_checkpoint(tmp_path / "c")):
            with pytest.raises(ValueError, match="while fit of the same Trainer is running") as error:
                call()
            said.append(str(error.value).split()[0])

    other = make()
    other.fit(X, Y, **RUN)
    trainer.fit(X, Y, callbacks=[LambdaCallback(on_epoch_end=inside)], **RUN)
    other.fit(X, Y, **RUN)
    assert said == ["fit", "load_checkpoint"] * 2
    assert_same(bits(trainer), bits(other))
    # Another trainer may.
    trainer.fit(X, Y, callbacks=[LambdaCallback(on_epoch_end=lambda e, logs: make().fit(X, Y, **RUN))], **RUN)


def test_a_fit_that_failed_early_can_be_called_again():
    class Fails(pb.Callback):
        def on_train_begin(self, logs=None):
            raise Stop

    trainer = make()
    for _ in range(2):
        with pytest.raises(Stop):
            trainer.fit(X, Y, callbacks=[Fails()], **RUN)
    trainer.fit(X, Y, **RUN)
    assert trainer.epoch == 2


@pytest.mark.parametrize("each_batch", [False, True])
def test_evaluate_and_predict_within_fit_change_nothing(each_batch):
    trainer, other = make(), make()
    seen = []

    def look(number, logs):
        seen.append(trainer.evaluate(X, Y)["loss"])
        trainer.predict(X)

    hook = "on_train_batch_end" if each_batch else "on_epoch_end"
    trainer.fit(X, Y, callbacks=[LambdaCallback(**{hook: look})], **RUN)
    other.fit(X, Y, **RUN)
    assert len(seen) == (24 if each_batch else 2)
    assert_same(bits(trainer), bits(other))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_within_fit_is_one_more_step(accumulate):
    """It counts in the schedule and joins an accumulation that has begun, and the run's own batches all come."""
    trainer, other = make(accumulate), make(accumulate)
    run = RUN | dict(epochs=1, shuffle=False)
    extra = X[:10] * 2, Y[:10]
    count = []

    def hook(batch, logs):
        if batch < 11:
            count.append(trainer.step(*extra))

    history = trainer.fit(X, Y, callbacks=[LambdaCallback(on_train_batch_end=hook)], **run)
    losses = []
    for i in range(12):
        losses.append(other.step(X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10]))
        assert i == 11 or other.step(*extra) == count[i]
    if accumulate == 2:  # an epoch's last accumulation need not be full
        other._step.update()
    assert len(count) == 11 and trainer._step.steps == other._step.steps == (23 if accumulate == 1 else 12)
    assert history.history["loss"] == pytest.approx([np.mean(losses)], rel=1e-12)
    assert_same(bits(trainer), bits(other))


# SIGINT at any moment

CHILD = """
import os, random, signal, sys, threading, time, warnings
import numpy as np
import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training import LambdaCallback
from pybackprop.training import run as looks

kind, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background process does not inherit
warnings.simplefilter("ignore")
accumulate = 3 if kind == "accumulate" else 1
per_epoch = 2000
looks._SECONDS = 0.005  # instead of 0.05: an epoch is many times that
rng = np.random.default_rng(0)
X = rng.normal(size=(16 * per_epoch, 12)).astype(np.float32)
Y = rng.integers(0, 3, len(X))
run = dict(epochs=2, batch_size=16, verbose=0)

class Stream:
    def __iter__(self):
        for i in range(per_epoch):
            yield X[16 * i : 16 * i + 16], Y[16 * i : 16 * i + 16]
    def __len__(self):
        return per_epoch

data = (Stream(),) if kind == "stream" else (X, Y)

def make():
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 128), nn.Tanh(), nn.Linear(128, 96), nn.Dropout(0.1), nn.Linear(96, 3))
    return pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=1e-3), accumulate=accumulate,
                      callbacks=[LambdaCallback(on_train_batch_end=lambda b, logs: None)] if kind == "batch" else [])

def digest(trainer):
    return hash(b"".join(np.ascontiguousarray(a).tobytes() for a in trainer.model.state_dict().values()))

reference = make()
states = [digest(reference)]
note = LambdaCallback(on_train_batch_end=lambda b, logs: states.append(digest(reference)))
reference.fit(*data, callbacks=[note], **run)
begun = time.monotonic()
make().fit(*data, **run)
lasts = time.monotonic() - begun

moments = random.Random(seed)
within = 0  # an epoch
for _ in range(rounds):
    trainer = make()
    killer = threading.Timer(moments.uniform(0, lasts), os.kill, (os.getpid(), signal.SIGINT))
    try:
        try:
            killer.start()
            trainer.fit(*data, **run)
        finally:
            killer.join()
            time.sleep(0.001)
    except KeyboardInterrupt:
        pass  # it came before or after the run
    position = trainer.cut.position if trainer.cut else 0
    within += position > 0
    assert position % accumulate == 0 and not (trainer._step.seen and trainer.accumulating)
    assert digest(trainer) == states[trainer.epoch * per_epoch + position], (trainer.epoch, position)
    trainer.save_checkpoint("c.safetensors")
    resumed = make()
    resumed.load_checkpoint("c.safetensors")
    resumed.fit(*data, **run)
    assert digest(resumed) == states[-1]
    trainer.fit(*data, **run | dict(epochs=1))
    assert trainer.cut is None
print(within)
"""


@pytest.mark.parametrize("kind, rounds", [("arrays", 20), ("accumulate", 6), ("stream", 4), ("batch", 4)])
def test_ctrl_c_at_any_moment_leaves_a_finished_batch(kind, rounds, tmp_path):
    child = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, kind, str(rounds), "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) >= rounds // 4  # else the test has tested nothing
