"""Teams in awkward processes: fewer threads than asked for, forked children, nested regions, many callers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pybackprop import _core

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


def printed(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=os.sep,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("variable", "value"), [("OMP_THREAD_LIMIT", "2"), ("OMP_THREAD_LIMIT", "1"), ("OMP_DYNAMIC", "true")]
)
def test_fewer_threads_than_asked_for(variable, value):
    """The runtime may grant less; nothing waits for threads that never came, and the bits are the same."""
    assert printed("print(training(4) == training(1))", **{variable: value}) == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_computes():
    """A child has none of its parent's team; it computes alone instead of waiting for it."""
    code = """
wanted = training(3)
child = os.fork()
if child == 0:
    os._exit(0 if training(3) == wanted else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), training(3) == wanted)
"""
    assert printed(code) == "0 True"


def test_many_python_threads_with_teams():
    code = """
from concurrent.futures import ThreadPoolExecutor
wanted = training(1)
with ThreadPoolExecutor(4) as pool:
    print(all(r == wanted for r in pool.map(training, [2] * 8)))
"""
    assert printed(code) == "True"


def test_order_of_thread_settings():
    """A num_threads block, then set_num_threads, then the OpenMP variable."""
    code = """
import pybackprop as pb
seen = [pb.get_num_threads()]
pb.set_num_threads(3)
seen.append(pb.get_num_threads())
with pb.num_threads(2):
    seen.append(pb.get_num_threads())
    with pb.num_threads(1):
        seen.append(pb.get_num_threads())
    seen.append(pb.get_num_threads())
seen.append(pb.get_num_threads())
pb.set_num_threads(None)
seen.append(pb.get_num_threads())
print(seen)
"""
    assert printed(code, OMP_NUM_THREADS="5") == "[5, 3, 2, 1, 2, 3, 5]"


def test_threadpoolctl_limit_caps():
    pytest.importorskip("threadpoolctl")
    code = """
import threadpoolctl, pybackprop as pb
pb.set_num_threads(4)
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    inside = pb.get_num_threads()
print(inside, pb.get_num_threads())
"""
    assert printed(code) == "1 4"


def test_thread_count_is_checked():
    for bad in (0, -1):
        with pytest.raises(ValueError, match="thread"):
            _core.set_num_threads(bad)
