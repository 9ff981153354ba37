"""Numba: a whole epoch in one compiled call, NumPy style, with what helps: fast math, BLAS products, fused loops.

Products of tiny matrices are loops, the others BLAS. Several threads work in BLAS alone: Numba's own beside them would
be twice as many as there are CPUs, and cost more than they bring.
"""

import numba
import numpy as np
import scipy.linalg  # noqa: F401  (Numba's products are SciPy's)

_LOOPS_BELOW = 1 << 14  # multiply-adds of a product


def _make_epoch(case, layers):
    relu, mse, adam, rate = (
        case["activation"] == "relu",
        case["loss"] == "mse",
        case["optimizer"] == "adam",
        np.float32(case["lr"]),
    )
    last = len(layers) - 1
    small = case["batch"] * max(i * o for i, o in layers) < _LOOPS_BELOW
    inline = numba.njit(fastmath=True, error_model="numpy", inline="always")
    compiled = numba.njit(fastmath=True, error_model="numpy")

    @inline
    def product(a, b, out):
        if small:
            for i in range(a.shape[0]):
                out[i, :] = 0
                for k in range(a.shape[1]):
                    for j in range(b.shape[1]):
                        out[i, j] += a[i, k] * b[k, j]
        else:
            np.dot(a, b, out)

    @compiled
    def adam_sweep(w, g, m, v, step_rate, eps):
        for i in range(w.size):
            m[i] = np.float32(0.9) * m[i] + g[i]
            v[i] = np.float32(0.999) * v[i] + g[i] * g[i]
            w[i] -= step_rate * m[i] / (np.sqrt(v[i]) + eps)

    @compiled
    def sgd_sweep(w, g):
        for i in range(w.size):
            w[i] -= rate * g[i]

    @compiled
    def finish_forward(out, bias, hidden):
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                z = out[i, j] + bias[j]
                if hidden:
                    z = max(z, np.float32(0)) if relu else np.tanh(z)
                out[i, j] = z

    @compiled
    def finish_backward(delta, out):
        for i in range(delta.shape[0]):
            for j in range(delta.shape[1]):
                if relu:
                    if out[i, j] <= 0:
                        delta[i, j] = 0
                else:
                    delta[i, j] *= 1 - out[i, j] * out[i, j]

    @inline
    def loss_of(out, y, delta):
        total = 0.0
        n, width = out.shape
        if mse:
            for i in range(n):
                for j in range(width):
                    d = out[i, j] - y[i, j]
                    total += d * d
                    delta[i, j] = d * np.float32(2 / (n * width))
            return total / (n * width)
        for i in range(n):
            top = out[i, 0]
            for j in range(1, width):
                top = max(top, out[i, j])
            mass = np.float32(0)
            for j in range(width):
                delta[i, j] = np.exp(out[i, j] - top)
                mass += delta[i, j]
            label = y[i]
            total += np.log(mass) - (out[i, label] - top)
            for j in range(width):
                delta[i, j] /= mass * n
            delta[i, label] -= np.float32(1 / n)
        return total / n

    @compiled
    def step(x, y, n, weights, biases, d_weights, d_biases, outs, deltas, flat, t):
        below = x
        for k in range(last + 1):
            out = outs[k][:n]
            product(below, weights[k], out)
            finish_forward(out, biases[k], k < last)
            below = out
        loss = loss_of(outs[last][:n], y, deltas[last][:n])
        for k in range(last, -1, -1):
            delta = deltas[k][:n]
            if k == 0:
                product(x.T, delta, d_weights[0])
            else:
                product(outs[k - 1][:n].T, delta, d_weights[k])
            d_bias = d_biases[k]
            d_bias[:] = 0
            for i in range(n):
                for j in range(d_bias.size):
                    d_bias[j] += delta[i, j]
            if k > 0:
                d_below = deltas[k - 1][:n]
                product(delta, weights[k].T, d_below)
                finish_backward(d_below, outs[k - 1][:n])
        w, g, m, v = flat
        if adam:
            # The moments lack their factors (1 - beta), which move into the step size.
            root = np.sqrt((1 - 0.999**t) / (1 - 0.999))
            adam_sweep(w, g, m, v, np.float32(rate * root * (1 - 0.9) / (1 - 0.9**t)), np.float32(1e-8 * root))
        else:
            sgd_sweep(w, g)
        return loss

    @compiled
    def batches(xs, ys, first, count, weights, biases, d_weights, d_biases, outs, deltas, flat, t, losses):
        for i in range(count):
            at = (first + i) % len(xs)
            losses[i] = step(
                xs[at], ys[at], len(xs[at]), weights, biases, d_weights, d_biases, outs, deltas, flat, t + i + 1
            )

    @compiled
    def shuffled(x, y, xb, yb, batch, weights, biases, d_weights, d_biases, outs, deltas, flat, t):
        order = np.random.permutation(len(x))  # noqa: NPY002  (Numba's, compiled)
        total, at = 0.0, 0
        while at < len(x):
            n = min(batch, len(x) - at)
            for i in range(n):
                xb[i] = x[order[at + i]]
                yb[i] = y[order[at + i]]
            t += 1
            loss = step(xb[:n], yb[:n], n, weights, biases, d_weights, d_biases, outs, deltas, flat, t)
            total += n * loss
            at += n
        return total / len(x), t

    return batches, shuffled


class _Net:
    def __init__(self, case, data):
        count = len(case["layers"]) - 1
        layers = list(zip(case["layers"], case["layers"][1:], strict=False))
        size = sum((i + 1) * o for i, o in layers)
        flat = tuple(np.zeros(size, np.float32) for _ in range(4))
        views = []
        for array in flat[:2]:
            at = 0
            pair: tuple[list, list] = ([], [])
            for i, o in layers:
                pair[0].append(array[at : at + i * o].reshape(i, o))
                pair[1].append(array[at + i * o : at + (i + 1) * o])
                at += (i + 1) * o
            views += [tuple(pair[0]), tuple(pair[1])]
        for k in range(count):
            views[0][k][...] = data[f"w{k}"].T
            views[1][k][...] = data[f"b{k}"]
        outs, deltas = (tuple(np.zeros((case["batch"], o), np.float32) for _, o in layers) for _ in range(2))
        self._net = (*views, outs, deltas, flat)
        self._batches, self._shuffled = _make_epoch(case, layers)
        self._t = 0
        self._x, self._y = data["x"], data["y"]


class Run(_Net):
    """Any number of steps in one call."""

    def losses(self, count):
        losses = np.zeros(count)
        self._batches(self._x, self._y, self._t % len(self._x), count, *self._net, self._t, losses)
        self._t += count
        return losses.tolist()

    def run(self, steps):
        if steps:
            self.losses(steps)


class Fit(_Net):
    """An epoch, shuffling included, in one call."""

    def __init__(self, case, data):
        super().__init__(case, data)
        self._epochs, self._batch = case["epochs"], case["batch"]
        self._xb, self._yb = self._x[: self._batch].copy(), self._y[: self._batch].copy()

    def losses(self, count):
        losses = []
        for _ in range(self._epochs):
            loss, self._t = self._shuffled(self._x, self._y, self._xb, self._yb, self._batch, *self._net, self._t)
            losses.append(loss)
        return losses

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    return Fit(case, data) if "epochs" in case else Run(case, data)


def version():
    return numba.__version__
