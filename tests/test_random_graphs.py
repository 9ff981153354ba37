"""Properties of whole programs, over random small models built from random ops."""

from __future__ import annotations

import numpy as np
import pytest
from op_program import same_bits
from random_graphs import random_model

from pybackprop import _core

SEEDS = range(60)
# Small, so that no kink lies within 2 h of the point for any seed; the four-point formula leaves rounding alone:
# eps |loss| / h < 1e-10.
STEP = 1e-5


def run(program, inputs):
    outputs, gradients, kept = program.run(inputs)
    return float(outputs[0]), gradients, kept


@pytest.mark.parametrize("seed", SEEDS)
def test_directional_derivative(seed, isa):
    model = random_model(seed, isa=isa)
    program = model.program()
    _, gradients, _ = run(program, model.inputs)
    rng = np.random.default_rng(seed + 1000)
    directions = [rng.standard_normal(p.shape) for p in model.params]
    start = [p.numpy() for p in model.params]
    at = []
    for k in (-2, -1, 1, 2):
        for p, value, direction in zip(model.params, start, directions, strict=True):
            p.assign(value + k * STEP * direction)
        at.append(run(program, model.inputs)[0])
    numerical = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * STEP)
    products = [g * d for g, d in zip(gradients, directions, strict=True)]
    scale = max(1.0, sum(float(np.abs(p).sum()) for p in products))
    assert abs(numerical - sum(float(p.sum()) for p in products)) <= 1e-7 * scale


@pytest.mark.parametrize("seed", SEEDS)
def test_reused_memory_changes_nothing(seed):
    """Values that share arena memory give the bits they give when each one is kept apart."""
    model = random_model(seed, dtype="float32")
    planned, kept = model.program(), model.program(keep=model.values)
    assert planned.arena_bytes <= kept.arena_bytes
    loss, gradients, _ = run(planned, model.inputs)
    kept_loss, kept_gradients, values = run(kept, model.inputs)
    assert loss == kept_loss
    assert all(same_bits(a, b) for a, b in zip(gradients, kept_gradients, strict=True))
    assert [value.shape for value, _ in values] == [model.graph.shape(v) for v in model.values]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_stale_is_read(seed):
    """A run right after one that filled the arena with NaN gives the bits of a first run."""
    first = random_model(seed, dtype="float32", host_ops=False)
    wanted = run(first.program(), first.inputs)
    program = first.program()
    run(program, tuple(np.full_like(x, np.nan) for x in first.inputs))
    loss, gradients, _ = run(program, first.inputs)
    assert loss == wanted[0] and np.isfinite(loss)
    assert all(same_bits(a, b) for a, b in zip(gradients, wanted[1], strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_teams_give_equal_bits(seed):
    model = random_model(seed, dtype="float32")
    results = []
    for threads in (1, 2, 3, 4):
        program = model.program(threads=threads)
        results.append(run(program, model.inputs))
        assert program.threads_used == threads
    for loss, gradients, _ in results[1:]:
        assert loss == results[0][0]
        assert all(same_bits(a, b) for a, b in zip(gradients, results[0][1], strict=True))


def test_levels_are_near_each_other():
    """float32 on every level against double, whole models through."""
    for seed in SEEDS:
        wanted, gradients, _ = run(random_model(seed).program(), random_model(seed).inputs)
        for level in _core.isa_names():
            model = random_model(seed, dtype="float32", isa=level)
            loss, got, _ = run(model.program(), model.inputs)
            assert abs(loss - wanted) <= 1e-4, (seed, level)
            for a, b in zip(got, gradients, strict=True):
                # A float32 number may fall on the other side of a kink; then single elements differ, never the bulk.
                assert np.linalg.norm(a - b) <= 1e-3 * max(1.0, np.linalg.norm(b)), (seed, level)
