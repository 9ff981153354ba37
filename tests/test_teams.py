"""Teams in awkward processes: fewer threads than asked for, many callers. Forked children are in test_fork."""

from __future__ import annotations

import pytest
from child import printed

SETUP = """
import os, sys
import numpy as np
from pybackprop import _core

def training(threads, rule="adam"):
    rng = np.random.default_rng(0)
    graph = _core.Graph(training=True)
    x, y = graph.input((64, 20)), graph.input((64, 5))
    params = [_core.Param(rng.standard_normal(shape).astype("float32"), "linear") for shape in ((40, 20), (5, 40))]
    ids = [graph.param(p) for p in params]
    (h,) = graph.node("linear", [x, ids[0]])
    (h,) = graph.node("softmax", [graph.node("gelu", [h])[0]])
    (h,) = graph.node("linear", [h, ids[1]])
    (loss,) = graph.node("mse", [h, y])
    program = _core.Program(graph, [loss], loss=loss, wrt=ids, threads=threads)
    stepper = _core.Stepper(rule, params, [0, 0], [{}], clip_norm=1.0, threads=threads)
    inputs = tuple(rng.standard_normal(shape).astype("float32") for shape in ((64, 20), (64, 5)))
    losses = [stepper.step(program, inputs, 0.01) for _ in range(20)]
    losses.append(stepper.backward(program, inputs))
    stepper.update(0.01)
    losses.append(float(program.run(inputs)[0][0]))
    return losses
"""


@pytest.mark.parametrize(
    ("variable", "value"), [("OMP_THREAD_LIMIT", "2"), ("OMP_THREAD_LIMIT", "1"), ("OMP_DYNAMIC", "true")]
)
def test_fewer_threads_than_asked_for(variable, value):
    """The runtime may grant less; nothing waits for threads that never came, and the bits are the same."""
    assert printed(SETUP + "print(training(4) == training(1))", **{variable: value}) == "True"


def test_many_python_threads_with_teams():
    code = """
from concurrent.futures import ThreadPoolExecutor
wanted = training(1)
with ThreadPoolExecutor(4) as pool:
    print(all(r == wanted for r in pool.map(training, [2] * 8)))
"""
    assert printed(SETUP + code) == "True"
