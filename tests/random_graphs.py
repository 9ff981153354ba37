"""Random small models built from random ops, for tests of planning and of whole backward passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pybackprop import _core

SMOOTH = ("tanh", "sigmoid", "softplus", "silu", "gelu", "mish")
KINKED = ("relu", "leaky_relu", "abs", "hardtanh", "elu")


class Cube:
    """A user's own op: y = x**3 + z."""

    def forward(self, x, z):
        return x**3 + z

    def backward(self, inputs, outputs, d_outputs):
        return 3 * inputs[0] ** 2 * d_outputs[0], d_outputs[0]


@dataclass
class Model:
    """A graph with a scalar loss, and what it hangs on."""

    graph: _core.Graph
    params: list
    param_ids: list[int]
    values: list[int]
    loss: int
    inputs: tuple[np.ndarray, ...]

    def program(self, keep=(), threads=None) -> _core.Program:
        return _core.Program(self.graph, [self.loss], loss=self.loss, wrt=self.param_ids, keep=keep, threads=threads)


class _Builder:
    def __init__(self, seed: int, dtype: str, isa: str | None, host_ops: bool):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.graph = _core.Graph(dtype=dtype, training=True, isa=isa)
        self.host_ops = host_ops
        self.params, self.param_ids, self.weights = [], [], []
        self.batch = int(self.rng.integers(1, 6))
        width = int(self.rng.integers(1, 20))
        x = self.rng.standard_normal((self.batch, width))
        self.inputs = (x.astype(dtype),)
        self.values = [self.graph.input(x.shape, False, "x")]
        self.used: set[int] = set()
        self.randoms = 0

    def shape(self, v):
        return self.graph.shape(v)

    def pick(self, good=lambda shape: True):
        found = [v for v in self.values if good(self.shape(v))]
        # Late values more often: depth as well as fan-out.
        return found[int(max(self.rng.integers(len(found)), self.rng.integers(len(found))))]

    def param(self, shape, layout="dense", scale=1.0):
        p = _core.Param(np.asarray(scale * self.rng.standard_normal(shape), self.dtype), layout)
        self.params.append(p)
        self.param_ids.append(self.graph.param(p, f"p{len(self.params)}"))
        return self.param_ids[-1]

    def node(self, op, *inputs, **attrs):
        self.used.update(inputs)
        return self.graph.node(op, list(inputs), f"step {len(self.values)}", **attrs)[0]

    def linear(self):
        v = self.pick(lambda s: s[-1] > 0)
        columns = self.shape(v)[-1]
        tied = [w for w in self.weights if self.shape(w)[1] == columns]
        if tied and self.rng.random() < 0.4:
            weight = tied[int(self.rng.integers(len(tied)))]
        else:
            layout = "linear" if self.rng.random() < 0.5 else "dense"
            weight = self.param((int(self.rng.integers(1, 20)), columns), layout, columns**-0.5)
            self.weights.append(weight)
        bias = [self.param((self.shape(weight)[0],))] if self.rng.random() < 0.7 else []
        return self.node("linear", v, weight, *bias)

    def unary(self):
        names = SMOOTH if self.rng.random() < 0.7 else KINKED
        return self.node(names[int(self.rng.integers(len(names)))], self.pick())

    def binary(self):
        a = self.pick()
        op = ("add", "sub", "mul", "div", "maximum", "minimum")[int(self.rng.integers(6))]
        if self.rng.random() < 0.5:  # against a parameter that broadcasts
            shape = tuple(1 if self.rng.random() < 0.4 else n for n in self.shape(a))
            b = self.param(shape[int(self.rng.integers(len(shape) + 1)) :])
        else:
            b = self.pick(lambda s: s == self.shape(a))
        if op == "div":
            b = self.node("add", self.node("softplus", b), self.graph.constant(np.ones((), self.dtype)))
        return self.node(op, a, b)

    def normalise(self):
        v = self.pick()
        n = self.shape(v)[-1]
        kind = int(self.rng.integers(5))
        if kind == 0:
            return self.node("layer_norm", v, self.param((n,)), self.param((n,)), dims=1, eps=1e-2)
        if kind == 1:
            return self.node("rms_norm", v, self.param((n,)), dims=1, eps=1e-2)
        if kind == 2:
            return self.node("softmax", v, dim=-1)
        if kind == 3:
            return self.node("log_softmax", v, dim=-1)
        self.randoms += 1
        return self.node("dropout", v, rate=0.3, index=self.randoms - 1)

    def reduce(self):
        v = self.pick()
        op = ("sum", "mean", "logsumexp", "max")[int(self.rng.integers(4))]
        return self.node(op, v, dims=[int(self.rng.integers(len(self.shape(v))))], keepdim=1)

    def reshape(self):
        v = self.pick()
        shape = self.shape(v)
        kind = int(self.rng.integers(5))
        if kind == 0:
            return self.node("transpose", v, perm=[int(i) for i in self.rng.permutation(len(shape))])
        if kind == 1:
            return self.node("reshape", v, shape=[shape[0], 1, *shape[1:]] if len(shape) < 4 else [int(np.prod(shape))])
        if kind == 2:
            other = self.pick(lambda s: s == shape)
            return self.node("concat", v, other, dim=int(self.rng.integers(len(shape))))
        if kind == 3:
            dim = int(self.rng.integers(len(shape)))
            start, stop, step = [0] * len(shape), list(shape), [1] * len(shape)
            start[dim], stop[dim] = shape[dim] // 3, shape[dim]
            step[dim] = int(self.rng.integers(1, 3))
            return self.node("slice", v, start=start, stop=stop, step=step)
        ids = self.rng.integers(0, shape[0], int(self.rng.integers(1, 4)))
        return self.node("gather", v, self.graph.constant(ids))

    def product(self):
        v = self.pick(lambda s: len(s) >= 2)
        return self.node("matmul", v, v, transpose_b=1)

    def select(self):
        a = self.pick()
        b = self.pick(lambda s: s == self.shape(a))
        return self.node("where", self.node("greater", a, b), self.node("tanh", a), b)

    def host(self):
        v = self.pick()
        bounded = self.node("tanh", v)
        self.used.update((bounded, v))
        return self.graph.function(Cube(), [bounded, v], [self.shape(v)], "Cube")[0]

    def build(self, steps: int) -> Model:
        makers = [
            self.linear,
            self.linear,
            self.unary,
            self.unary,
            self.binary,
            self.binary,
            self.normalise,
            self.reduce,
            self.reshape,
            self.product,
            self.select,
        ] + [self.host] * self.host_ops
        for _ in range(steps):
            v = makers[int(self.rng.integers(len(makers)))]()
            # Keep the models small and the numbers near 1, so that differences have digits left.
            if np.prod(self.shape(v)) <= 600:
                self.values.append(v)
        loss = None
        # Every value nobody reads enters the loss.
        for v in [v for v in self.values if v not in self.used]:
            term = self.node("mean", self.node("tanh", v))
            loss = term if loss is None else self.node("add", loss, term)
        return Model(self.graph, self.params, self.param_ids, self.values, loss, self.inputs)


def random_model(
    seed: int, *, dtype: str = "float64", isa: str | None = None, steps: int = 12, host_ops: bool = True
) -> Model:
    """The same seed gives the same model, parameters and inputs."""
    return _Builder(seed, dtype, isa, host_ops).build(steps)
