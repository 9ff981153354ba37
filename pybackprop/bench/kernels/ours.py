"""pybackprop's kernels as programs of one op, timed job by job inside the core, each sample beside the limit."""

import time

import numpy as np

import pybackprop as pb
from pybackprop import _core, nn, optim
from pybackprop.bench.kernels.cases import Kernel

_LIMIT_SECONDS = 0.003


class _Limit:
    """The least time of a kernel: its arithmetic at the peak of the registers, or its traffic at the rate of memory."""

    def __init__(self, kernel, threads):
        self._kernel, self._threads = kernel, threads
        moved, held = kernel.traffic
        self._moved, self._span = moved, _core.MemorySpan(held) if held else None

    def measure(self):
        if self._span is None:
            rate = _core.measure_fma(self._threads, _LIMIT_SECONDS)
            return {"limit": self._kernel.flops / rate * 1e-9, "peak": rate}
        rate = self._span.rate(self._threads, _LIMIT_SECONDS)
        return {"limit": self._moved / rate * 1e-9, "peak": rate}


class _Program:
    """A program and those of its jobs that count."""

    def __init__(self, kernel, program, inputs, pick, results, threads):
        self._program, self._inputs, self._results = program, inputs, results
        jobs, _, _ = program.profile(inputs, 1)
        self._slots = [k for k, job in enumerate(jobs) if pick(job)]
        self._limit = _Limit(kernel, threads)

    def results(self):
        return self._results(*self._program.run(self._inputs)[:2])

    def sample(self, count):
        limit = self._limit.measure()
        _, work, wait = self._program.profile(self._inputs, count + 1)
        work, wait = work[1:, :, self._slots], wait[1:, :, self._slots]
        # Job by job, what the slowest thread takes, and what the last one to come spends at the barrier before.
        seconds = (work.max(axis=1) + wait.min(axis=1)).sum(axis=1)
        return {"seconds": float(seconds.mean()), **limit}  # the mean, as others get theirs


class _One(nn.Module):
    def __init__(self, w):
        self.w = nn.Parameter(w)


class _Update:
    """The optimizer's update of one large parameter."""

    def __init__(self, kernel, data, threads):
        self._model, g = _One(data["w"]), data["g"]
        # The loss whose gradient is g.
        self._step = pb.TrainStep(
            lambda model, g: (model.w * g).sum(), self._model, optim.Adam(lr=1e-3), threads=threads
        )
        self._step.backward(g)
        self._limit = _Limit(kernel, threads)

    def results(self):
        self._step.update()
        return [self._model.w.numpy()[:1000].astype(np.float64)]

    def sample(self, count):
        limit = self._limit.measure()
        self._step.update()
        start = time.perf_counter()
        for _ in range(count):
            self._step.update()
        return {"seconds": (time.perf_counter() - start) / count, **limit}


def build(kind, shape, data, threads):
    kernel = Kernel(kind, shape)
    if kind == "adam":
        return _Update(kernel, data, threads)
    graph = _core.Graph(training=True)

    def plan(outputs, loss=None, wrt=()):
        return _core.Program(graph, outputs, loss=loss, wrt=wrt, threads=threads)

    def outputs(out, _):
        return out

    def weigh(y, dy):  # a loss whose gradient with respect to y is dy
        (product,) = graph.node("mul", [y, graph.input(dy.shape)])
        return graph.node("sum", [product])[0]

    if kind.startswith("linear"):
        x = graph.input(data["x"].shape)
        w = graph.param(_core.Param(data["w"], "linear"))
        b = graph.param(_core.Param(data["b"]))
        (y,) = graph.node("relu", graph.node("linear", [x, w, b]))
        if kind == "linear forward":
            program, inputs = plan([y]), (data["x"],)
            return _Program(kernel, program, inputs, lambda job: job["op"] == "linear", outputs, threads)
        loss = weigh(y, data["dy"])
        program = plan([loss], loss, [x] if kind == "linear input gradient" else [w, b])
        return _Program(
            kernel,
            program,
            (data["x"], data["dy"]),
            lambda job: job["op"] == "linear" and job["backward"],
            lambda _, gradients: gradients,
            threads,
        )
    if kind == "matmul":
        product = graph.node("matmul", [graph.input(data["a"].shape), graph.input(data["b"].shape)])
        return _Program(
            kernel, plan(product), (data["a"], data["b"]), lambda job: True, lambda out, _: [out[0][:8]], threads
        )
    if kind == "cross_entropy":
        x, labels = graph.input(data["x"].shape), graph.input(data["labels"].shape, True)
        loss = graph.node("cross_entropy", [x, labels])[0]
        program = plan([loss], loss, [x])
        return _Program(
            kernel, program, (data["x"], data["labels"]), lambda job: True, lambda out, grads: [*out, *grads], threads
        )
    if kind == "layer_norm":
        x = graph.input(data["x"].shape)
        w, b = (graph.param(_core.Param(data[name])) for name in ("w", "b"))
        y = graph.node("layer_norm", [x, w, b], eps=1e-5)[0]
        loss = weigh(y, data["dy"])
        program = plan([y, loss], loss, [x, w, b])
        return _Program(
            kernel,
            program,
            (data["x"], data["dy"]),
            lambda job: job["op"] == "layer_norm",
            lambda out, grads: [out[0], *grads],
            threads,
        )
    (y,) = graph.node(kind, [graph.input(data["x"].shape)])
    return _Program(kernel, plan([y]), (data["x"],), lambda job: True, outputs, threads)


def version():
    return pb.__version__
