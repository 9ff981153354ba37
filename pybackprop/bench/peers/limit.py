"""No library: the least time of a step on this machine, measured in the moments between the others' samples.

    flops / (multiply-adds in registers) + bytes of the update / (a pass in place over as much memory)

A step multiplies three times (forward, the input's gradient but for the first layer, the weight's gradient), two
operations a multiply-add. Adam reads and writes 28 bytes a parameter (weight, two moments; the gradient is read) of 16
that it holds, SGD 12 of 8. The memory's rate is that of a pass over as many bytes as the update holds, so it is the
cache's where they fit into it. Both rates are of as many threads as the step has.
"""

from itertools import pairwise

import pybackprop as pb
from pybackprop import _core
from pybackprop.training.profile import update_traffic

_SECONDS = 0.004


class Run:
    def __init__(self, case):
        layers = list(pairwise(case["layers"]))
        products = sum(i * o for i, o in layers)
        self._flops = 2.0 * case["batch"] * (3 * products - layers[0][0] * layers[0][1])
        self._traffic, held = update_traffic(case["optimizer"], sum((i + 1) * o for i, o in layers), "float32")
        self._threads = case["threads"]
        self._span = _core.MemorySpan(held)

    def losses(self, count):
        return None

    def sample(self, steps):
        arithmetic = _core.measure_fma(self._threads, _SECONDS)
        memory = self._span.rate(self._threads, _SECONDS)
        seconds = (self._flops / arithmetic + self._traffic / memory) * 1e-9
        return {"seconds": steps * seconds, "gflops": arithmetic, "gbytes": memory}


def build(case, data, variant):
    return Run(case)


def version():
    return pb.__version__
