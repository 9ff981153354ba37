"""Long use of one process leaves its memory as it was.

python tests/test_soak.py         the long form: 10 000 fits, 2 million steps, 1 000 models made and dropped
"""

import contextlib
import ctypes
import gc
import subprocess
import sys
import threading

import numpy as np

import pybackprop as pb
from pybackprop import nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 40)


def resident():
    """Bytes of this process that are in memory, without what the allocator keeps for later."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def trainer(width=8):
    model = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
    return pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=1e-3), metrics=["accuracy"])


def fits(count):
    """One trainer is fitted, evaluated and asked again and again, by batches of several sizes."""
    t = trainer()
    for i in range(count):
        t.fit(X, Y, batch_size=(7, 16, 40)[i % 3], validation_split=0.2, verbose=0)
        t.predict(X[: 1 + i % 40])


def steps(count):
    step = pb.TrainStep(lambda model, x, y: nn.CrossEntropyLoss()(model(x), y), trainer().model, optim.SGD(lr=1e-3))
    x, y = X[:4], Y[:4]
    for _ in range(count):
        step(x, y)


def models(count):
    """Made, trained with two threads of the core and from another one of Python's, refused, read, dropped."""
    for i in range(count):
        t = trainer(8 + i % 5)
        with pb.num_threads(2):
            t.fit(X, Y, verbose=0)
        thread = threading.Thread(target=t.predict, args=(X,))
        thread.start()
        thread.join()
        with contextlib.suppress(ValueError):
            t.fit(X * np.nan, Y, verbose=0)
        t.model.state_dict()
        pb.value_and_grad(lambda m, x: m(x).sum(), t.model)(X)


def grown(work, warm, count):
    """Bytes more in the second half than in the first, of twice ``count`` turns.

    Compared are the least of six readings of each half: what the allocator cannot give back at the moment comes and
    goes by a megabyte where threads do.
    """
    work(warm)
    halves = []
    for _ in range(2):
        readings = []
        for _ in range(6):
            work(count // 6)
            readings.append(resident())
        halves.append(min(readings))
    return halves[1] - halves[0]


PARTS = {"fits": (fits, 300, 10_000), "steps": (steps, 10_000, 2_000_000), "models": (models, 300, 1_000)}


def test_memory_stays_flat():
    """Each part in a process of its own, so that one does not pay from what another has freed."""
    for name, (_, warm, _) in PARTS.items():
        count = {"fits": 600, "steps": 100_000, "models": 150}[name]
        code = f"import sys; sys.path.insert(0, {__file__.rsplit('/', 1)[0]!r}); import test_soak as s\n"
        code += f"print(s.grown(s.{name}, {warm}, {count}))"
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 2**20, f"{name}: {done.stdout.strip()} bytes more"


if __name__ == "__main__":
    for name, (work, warm, count) in PARTS.items():
        print(f"{count} {name}: {grown(work, warm, count) / 1024:+.0f} KB", flush=True)
