"""PyTorch in the same process: both train, in either order of import, and whoever forks afterwards can go on.

Both bring an OpenMP runtime; which one is used for which calls depends on what is loaded first.
"""

from __future__ import annotations

import os

import pytest
from child import printed

pytest.importorskip("torch")

# One network and a step of it on two threads: `Ours` and `Theirs`. PyTorch itself may not compute in a forked child.
SETUP = """
import os, select, signal, sys
IMPORTS
import numpy as np
import pybackprop as pb
from pybackprop import nn, optim

rng = np.random.default_rng(0)
X, y = rng.normal(size=(128, 200)).astype("float32"), rng.normal(size=(128, 5)).astype("float32")
weights = {
    "0.weight": rng.normal(size=(300, 200)) * 0.1, "0.bias": rng.normal(size=300) * 0.1,
    "2.weight": rng.normal(size=(5, 300)) * 0.1, "2.bias": rng.normal(size=5) * 0.1,
}

class Ours:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(200, 300), nn.Tanh(), nn.Linear(300, 5))
        self.model.load_state_dict(weights)
        self.trainer = pb.Trainer(self.model, loss=nn.MSELoss(), optimizer=optim.Adam(lr=1e-3), threads=2)
    def __call__(self):
        loss = self.trainer.step(X, y)
        assert self.trainer._step.stepper.threads_used == 2
        return loss

class Theirs:
    def __init__(self):
        torch.set_num_threads(2)
        t = torch.nn
        self.model = t.Sequential(t.Linear(200, 300), t.Tanh(), t.Linear(300, 5))
        self.model.load_state_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in weights.items()})
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
    def __call__(self):
        self.optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.model(torch.from_numpy(X)), torch.from_numpy(y))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

def answer(function, seconds=40):
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(w, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(w)
    if not select.select([r], [], [], seconds)[0]:
        os.kill(child, signal.SIGKILL)
    got = os.read(r, 65536).decode()
    os.waitpid(child, 0)
    return got or "hangs"
"""
either_order = pytest.mark.parametrize("imports", ["import torch, pybackprop", "import pybackprop, torch"])


@either_order
def test_both_train_by_turns(imports):
    code = """
alone, ours, theirs = Ours(), Ours(), Theirs()
wanted = [alone() for _ in range(20)]
losses = [(ours(), theirs()) for _ in range(20)]
np.testing.assert_allclose(*zip(*losses), rtol=2e-5)
for name, value in theirs.model.state_dict().items():
    np.testing.assert_allclose(ours.model.state_dict()[name], value.numpy(), rtol=2e-4, atol=2e-5)
print([a for a, _ in losses] == wanted)
"""
    assert printed(SETUP.replace("IMPORTS", imports) + code) == "True"


@either_order
def test_both_train_at_once(imports):
    """In two threads, so that their teams run beside each other."""
    code = """
from concurrent.futures import ThreadPoolExecutor
alone, ours, theirs = Ours(), Ours(), Theirs()
wanted = [alone() for _ in range(50)]
with ThreadPoolExecutor(2) as pool:
    a = pool.submit(lambda: [ours() for _ in range(50)])
    b = pool.submit(lambda: [theirs() for _ in range(50)])
    np.testing.assert_allclose(a.result(50), b.result(50), rtol=2e-4)
print(a.result() == wanted)
"""
    assert printed(SETUP.replace("IMPORTS", imports) + code) == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@either_order
@pytest.mark.parametrize("before", ["Ours(), Theirs()", "Theirs()"])
def test_child_where_pytorch_has_trained(imports, before):
    """The OpenMP runtime may be shared, and the child's copy of it waits for the threads that PyTorch had."""
    code = f"""
for step in [{before}]:
    for _ in range(10):
        step()
def train():
    step = Ours()
    return [step() for _ in range(10)]
print(answer(train) == repr(train()))
"""
    assert printed(SETUP.replace("IMPORTS", imports) + code) == "True"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the system does not tell a forked process")
def test_child_that_loads_us_after_pytorch_has_trained():
    first = """
import os, signal, sys, torch
torch.set_num_threads(2)
x = torch.randn(512, 512)
for _ in range(10):
    x = (x @ x).tanh()
assert "pybackprop" not in sys.modules
child = os.fork()
signal.alarm(40)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert printed(first + SETUP.replace("IMPORTS", "") + "print(Ours()() > 0)") == "True"
