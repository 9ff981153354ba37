"""Optimizers and schedules against PyTorch's: the same weights, the same gradients, 25 steps."""

from __future__ import annotations

import numpy as np
import pytest

from pybackprop import _core, optim

torch = pytest.importorskip("torch")
lr_scheduler = pytest.importorskip("torch.optim.lr_scheduler")

STEPS = 25
SHAPES = [(6, 5), (19,), (3, 4, 5)]

# (ours, torch's from the parameters). Lion is not in PyTorch.
PAIRS = [
    (optim.SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    (
        optim.SGD(0.05, momentum=0.9, dampening=0.2, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.2, weight_decay=0.1),
    ),
    (
        optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    (optim.Adam(), lambda p: torch.optim.Adam(p)),
    (
        optim.Adam(0.03, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.03, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    ),
    (optim.AdamW(), lambda p: torch.optim.AdamW(p)),
    (optim.AdamW(0.03, weight_decay=0.3), lambda p: torch.optim.AdamW(p, 0.03, weight_decay=0.3)),
    (optim.RMSprop(), lambda p: torch.optim.RMSprop(p)),
    (
        optim.RMSprop(0.02, momentum=0.7, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.02, momentum=0.7, weight_decay=0.1),
    ),
    (
        optim.RMSprop(0.02, alpha=0.9, eps=1e-4, centered=True, momentum=0.7),
        lambda p: torch.optim.RMSprop(p, 0.02, alpha=0.9, eps=1e-4, centered=True, momentum=0.7),
    ),
    (optim.Adagrad(), lambda p: torch.optim.Adagrad(p)),
    (
        optim.Adagrad(0.1, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-6),
        lambda p: torch.optim.Adagrad(p, 0.1, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-6),
    ),
]

SCHEDULES = [
    (optim.StepLR(0.1, 4, 0.5), lambda o: lr_scheduler.StepLR(o, 4, 0.5)),
    (optim.ExponentialLR(0.1, 0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    (optim.CosineLR(0.1, STEPS, 0.01), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.01)),
    (optim.OneCycle(0.1, STEPS), lambda o: lr_scheduler.OneCycleLR(o, 0.1, STEPS, cycle_momentum=False)),
    (
        optim.OneCycle(0.1, STEPS, pct_start=0.4, anneal_strategy="linear", div_factor=5, final_div_factor=7),
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.1, STEPS, pct_start=0.4, anneal_strategy="linear", div_factor=5, final_div_factor=7,
            cycle_momentum=False,
        ),
    ),
    (
        optim.OneCycle(0.1, STEPS, three_phase=True),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, STEPS, three_phase=True, cycle_momentum=False),
    ),
    (optim.Warmup(0.1, 6), lambda o: lr_scheduler.LinearLR(o, total_iters=6)),
    (
        optim.Warmup(optim.CosineLR(0.1, STEPS - 5), 5, start_factor=0.1),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(o, STEPS - 5)],
            milestones=[5],
        ),
    ),
]  # fmt: skip


def _trajectories(rule, hyper, lrs, make_torch, scheduler, dtype):
    """Weights after each step on sum(a * (w - c)^2), ours and PyTorch's, and PyTorch's learning rates."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(dtype) for s in SHAPES]
    params = [_core.Param(w, layout="linear" if w.ndim == 2 else "dense") for w in start]
    graph = _core.Graph(dtype=dtype, training=True)
    wrt, loss = [graph.param(p) for p in params], None
    for p, w in zip(wrt, start, strict=True):
        (d,) = graph.node("sub", [p, graph.input(w.shape)])
        (square,) = graph.node("mul", [d, d])
        (term,) = graph.node("sum", [graph.node("mul", [square, graph.input(w.shape)])[0]])
        loss = term if loss is None else graph.node("add", [loss, term])[0]
    program = _core.Program(graph, [loss], loss=loss, wrt=wrt)
    stepper = _core.Stepper(rule, params, [0] * len(params), [hyper])

    twins = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in start]
    theirs = make_torch(twins)
    scheduler = scheduler and scheduler(theirs)
    ours, wanted, rates = [], [], []
    for lr in lrs:
        batch = [a.astype(dtype) for w in start for a in (rng.standard_normal(w.shape), rng.uniform(0.1, 1, w.shape))]
        stepper.step(program, tuple(batch), float(lr))
        theirs.zero_grad()
        tensors = [torch.from_numpy(a) for a in batch]
        sum((a * (w - c) ** 2).sum() for w, c, a in zip(twins, tensors[::2], tensors[1::2], strict=True)).backward()
        rates.append(theirs.param_groups[0]["lr"])
        theirs.step()
        if scheduler:
            scheduler.step()
        ours.append(np.concatenate([p.numpy().ravel() for p in params]))
        wanted.append(np.concatenate([p.detach().numpy().ravel() for p in twins]))
    return np.array(ours), np.array(wanted), np.array(rates)


# In float both sides round at every step; dividing by the root of a small centered variance multiplies that.
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-8), ("float32", 1e-5)])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[repr(p[0]) for p in PAIRS])
def test_trajectory(ours, theirs, dtype, bound):
    if dtype == "float32" and getattr(ours, "centered", False):
        bound = 2e-4
    got, wanted, rates = _trajectories(ours.rule, ours.hyper, [ours.lr] * STEPS, theirs, None, dtype)
    assert set(rates) == {ours.lr}
    assert np.abs(got - wanted).max() < bound


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's own use of PyTorch's schedulers
@pytest.mark.parametrize(("ours", "theirs"), SCHEDULES, ids=[repr(p[0]) for p in SCHEDULES])
def test_schedule(ours, theirs):
    lrs = ours.values(0, STEPS)
    optimizer = optim.AdamW(ours)
    got, wanted, rates = _trajectories(
        "adamw", optimizer.hyper, lrs, lambda p: torch.optim.AdamW(p, 0.1), theirs, "float64"
    )
    np.testing.assert_allclose(lrs, rates, rtol=1e-12, atol=1e-17)
    assert np.abs(got - wanted).max() < 1e-8


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 1, "factor": 0.5},
        {"patience": 0, "cooldown": 2, "min_lr": 0.01},
        {"mode": "max", "patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
        {"mode": "max", "patience": 1, "threshold": 0.05},
    ],
)
def test_plateau(options):
    rng = np.random.default_rng(3)
    ours = optim.ReduceLROnPlateau(0.1, **options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    for epoch in range(60):
        metric = 1 / (1 + epoch) + 0.1 * rng.uniform()
        ours.step(metric)
        theirs.step(metric)
        assert ours(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
