"""A run over many batches calls the allocator exactly as often as a run over few."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("count_allocations.c")

PROGRAM = """
import ctypes
import sys

import numpy as np

from pybackprop import _core

counter = ctypes.CDLL(sys.argv[1])
counter.allocations_so_far.restype = ctypes.c_long


class Feeder(ctypes.Structure):
    _fields_ = [("fill", ctypes.c_void_p), ("context", ctypes.c_void_p), ("needs_gil", ctypes.c_int),
                ("fill_part", ctypes.c_void_p)]


widths = (ctypes.c_int64 * 2)(12, 3)
feeder = Feeder(ctypes.cast(counter.fill, ctypes.c_void_p), ctypes.cast(widths, ctypes.c_void_p), 0, None)
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule = ctypes.pythonapi.PyCapsule_New(ctypes.addressof(feeder), b"pybackprop.feeder", None)

rng = np.random.default_rng(0)
graph = _core.Graph(training=True)
x, y = graph.input((32, 12)), graph.input((32, 3))
params = [_core.Param(rng.standard_normal(shape).astype("float32"), layout) for shape, layout in
          (((40, 12), "linear"), ((40,), "dense"), ((40,), "dense"), ((40,), "dense"), ((3, 40), "linear"))]
w1, b1, g, b, w2 = (graph.param(p) for p in params)
(h,) = graph.node("linear", [x, w1, b1])
(h,) = graph.node("layer_norm", [h, g, b], dims=1)
(h,) = graph.node("gelu", [h])
(h,) = graph.node("dropout", [h], rate=0.1, index=0)
(h,) = graph.node("linear", [h, w2])
(loss,) = graph.node("mse", [h, y])
threads = int(sys.argv[2])
program = _core.Program(graph, [loss], loss=loss, wrt=[w1, b1, g, b, w2], threads=threads)
stepper = _core.Stepper("adam", params, [0] * 5, [{}], clip_norm=1.0, threads=threads)


def allocations(batches):
    lrs, results = np.full(batches, 1e-3), np.empty((batches, 1))
    before = counter.allocations_so_far()
    done = stepper.run(program, capsule, 0, 32, batches, lrs, 60.0, results)
    spent = counter.allocations_so_far() - before
    assert done == batches and np.isfinite(results).all(), (done, results)
    return spent


allocations(10)
few, many = allocations(10), allocations(1000)
assert many == few, f"{few} allocations in 10 steps, {many} in 1000"
print("steady")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator is wrapped by preloading, on Linux")
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_call_no_allocator(threads, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the counter with")
    library = tmp_path / "count.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(library), str(threads)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "steady"
