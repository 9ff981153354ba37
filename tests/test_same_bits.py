"""Whole training runs have the same bits for any number of threads: every optimizer, dropout, shuffling, tables."""

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, ops, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 64)).astype(np.float32)
IDS = RNG.integers(0, 50, (300, 3))
Y = RNG.integers(0, 5, 300)

OPTIMIZERS = {
    name: cls
    for name, cls in vars(optim).items()
    if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer
}


class Net(nn.Module):
    def __init__(self, sparse):
        self.table = nn.Embedding(50, 16, sparse=sparse)
        self.first, self.norm = nn.Linear(64 + 48, 130), nn.BatchNorm1d(130)
        self.drop, self.second, self.layer = nn.Dropout(0.3), nn.Linear(130, 130), nn.LayerNorm(130)
        self.last = nn.Linear(130, 5)

    def forward(self, x, ids):
        h = ops.concat([x, self.table(ids).reshape(x.shape[0], 48)], dim=1)
        h = self.drop(self.norm(self.first(h)).relu())
        return self.last(self.layer(h + self.second(h)).gelu())


def run(threads, optimizer, sparse=False, **options):
    pb.manual_seed(3)
    trainer = pb.Trainer(
        Net(sparse),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        metrics=["accuracy"],
        seed=5,
        threads=threads,
        **options,
    )
    history = trainer.fit((X, IDS), Y, epochs=3, batch_size=44, validation_split=0.2, verbose=0)
    assert trainer._step.stepper.threads_used == threads
    state = trainer._step.state_dict()["state"]
    found = {f"{key} {name}": a.tobytes() for key, arrays in state.items() for name, a in arrays.items()}
    found |= {name: a.tobytes() for name, a in trainer.model.state_dict().items()}
    return found, history.history, trainer.predict((X, IDS)).tobytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name):
    wanted = run(1, OPTIMIZERS[name](lr=1e-3))
    assert len(set(wanted[1]["loss"])) == 3  # it trains
    for threads in (2, 3, 4):
        assert run(threads, OPTIMIZERS[name](lr=1e-3)) == wanted


@pytest.mark.parametrize(
    "options",
    [
        dict(clip_norm=0.1),
        dict(clip_value=0.01),
        dict(accumulate=3),
        dict(accumulate=2, clip_norm=0.1),
        dict(sparse=True),
    ],
    ids=str,
)
def test_what_an_update_may_wait_for(options):
    wanted = run(1, optim.Adam(lr=1e-3), **options)
    for threads in (2, 3, 4):
        assert run(threads, optim.Adam(lr=1e-3), **options) == wanted
