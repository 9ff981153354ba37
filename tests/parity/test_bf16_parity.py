"""Half-width products against PyTorch's bfloat16 linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pybackprop as pb
from pybackprop import _core, nn, optim


@pytest.mark.skipif(not _core.isa_has_bf16(), reason="the CPU, or the instruction set in use, lacks avx512_bf16")
@pytest.mark.parametrize("size", [(5, 7, 3), (33, 129, 65), (64, 784, 128)], ids=str)
def test_linear(size, rng):
    """PyTorch rounds results and gradients to bfloat16 as well: half a unit in their last place, 2**-9, and of sums of
    cancelling terms a little more."""
    rows, n_in, n_out = size
    layer = nn.Linear(n_in, n_out)
    x, d = rng.standard_normal((rows, n_in)).astype(np.float32), rng.standard_normal((rows, n_out)).astype(np.float32)
    step = pb.TrainStep(lambda m, x, d: (m(x) * d).sum(), layer, optim.SGD(lr=0.1), precision="bf16")
    step.backward(x, d)
    trainer = pb.Trainer(layer, nn.MSELoss(), optimizer=optim.SGD(lr=0.1), precision="bf16")
    weight = torch.tensor(layer.weight.numpy(), requires_grad=True)
    bias = torch.tensor(layer.bias.numpy(), requires_grad=True)
    y = torch.nn.functional.linear(torch.tensor(x).bfloat16(), weight.bfloat16(), bias.bfloat16())
    y.backward(torch.tensor(d).bfloat16())
    for got, wanted in (
        (trainer.predict(x), y.detach().float()),
        (step.grads()["weight"], weight.grad),
        (step.grads()["bias"], bias.grad),
    ):
        wanted = wanted.numpy()
        assert np.abs(got - wanted).max() <= 2.0**-7 * np.abs(wanted).max()
