"""Dropout's random numbers: what they depend on, and that they look random."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases.dropout import random_bits

from pybackprop import _core


def mask(shape, *, rate=0.5, index=0, seed=0, step=0, dtype="float32", isa=None, threads=None):
    """True where dropout keeps a one."""
    graph = _core.Graph(dtype=dtype, training=True, isa=isa)
    x = graph.input(shape, False, "x")
    (y,) = graph.node("dropout", [x], rate=rate, index=index)
    program = _core.Program(graph, [y], threads=threads)
    outputs, _, _ = program.run((np.ones(shape, dtype),), seed=seed, step=step)
    return outputs[0] != 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mask_follows_the_page(isa, dtype):
    for seed, step, index in ((0, 0, 0), (7, 3, 2), (2**63 + 11, 2**40, 5)):
        wanted = random_bits((9, 3, 23), index, seed, step) >= 2**30
        got = mask((9, 3, 23), rate=0.25, index=index, seed=seed, step=step, dtype=dtype, isa=isa)
        assert np.array_equal(got, wanted)


def test_mask_ignores_threads(threads):
    assert np.array_equal(mask((33, 50), threads=threads), random_bits((33, 50)) >= 2**31)


def test_every_key_changes_the_mask():
    shape = (8, 64)
    masks = [mask(shape, seed=s, step=t, index=i) for s in (0, 1) for t in (0, 1) for i in (0, 1)]
    masks += [masks[0][::-1], masks[0][:, ::-1]]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            # Independent masks agree in half of 512 places, give or take five standard deviations.
            assert abs(np.mean(a == b) - 0.5) < 5 * 0.5 / np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_rate_is_kept(rate):
    n = 400 * 1000
    assert abs(np.mean(mask((400, 1000), rate=rate)) - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)


def test_numbers_are_uniform_and_uncorrelated():
    bits = random_bits((256, 1024)).astype(np.uint64)
    n = bits.size
    sigma = 0.5 / np.sqrt(n)
    planes = [(bits >> np.uint64(k) & np.uint64(1)).astype(np.int8) for k in range(32)]
    for k, plane in enumerate(planes):
        assert abs(plane.mean() - 0.5) < 5 * sigma, k
        for other in (
            plane[1:] != plane[:-1],
            plane[:, 1:] != plane[:, :-1],
            plane[1:, 1:] != plane[:-1, :-1],
            plane != planes[(k + 7) % 32],
        ):
            assert abs(other.mean() - 0.5) < 6 * sigma, k
    # Chi-square of the top byte over 256 classes: mean 255, standard deviation 22.6.
    counts = np.bincount((bits >> np.uint64(24)).reshape(-1).astype(np.int64), minlength=256)
    assert abs(((counts - n / 256) ** 2 / (n / 256)).sum() - 255) < 5 * 22.6


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and less than 1"):
        mask((2, 3), rate=rate)


def test_extreme_rates():
    assert mask((5, 40), rate=0.0).all()
    assert not mask((5, 40), rate=float(np.nextafter(1, 0))).any()
