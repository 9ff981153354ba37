"""A multilayer perceptron trained in pure NumPy, as fast as NumPy can: the yardstick of the demo and the benchmarks.

Everything is float32, allocated once and updated in place. Biases' gradients are matrix products, because those are
faster than column sums. All parameters lie in one flat array, so that the optimizer is a handful of passes; it goes
through them in pieces that stay in the cache.
"""

import numpy as np

_PIECE = 1 << 15  # elements per piece of the optimizer's pass: four float32 arrays of 128 KB stay in a 1 MB L2 cache


class NumpyMLP:
    """Linear layers with ``relu`` or ``tanh`` between them; softmax cross-entropy or mean squared error; Adam or SGD.

    Args:
        weights: one array (out, in) per layer.
        biases: one array (out,) per layer.
        batch: rows of the largest batch.
        activation: ``"relu"`` or ``"tanh"``.
        loss: ``"cross_entropy"`` (integer labels) or ``"mse"``.
        optimizer: ``"adam"`` or ``"sgd"``.
        lr: learning rate.
    """

    def __init__(self, weights, biases, *, batch, activation="relu", loss="cross_entropy", optimizer="adam", lr=1e-3):
        shapes = [(w.shape[1], w.shape[0]) for w in weights]  # stored (in, out): the forward product reads rows
        size = sum((i + 1) * o for i, o in shapes)
        self._params, self._grads, self._m, self._v = (np.zeros(size, np.float32) for _ in range(4))
        self._scratch = np.empty(min(size, _PIECE), np.float32)
        self.weights, self.biases = self._views(self._params, shapes)
        self._d_weights, self._d_biases = self._views(self._grads, shapes)
        for own_w, own_b, w, b in zip(self.weights, self.biases, weights, biases, strict=True):
            own_w[...] = w.T
            own_b[...] = b
        self._activation, self._loss, self._optimizer, self._lr = activation, loss, optimizer, lr
        self._steps = 0
        widths = [o for _, o in shapes]
        self._out = [np.empty((batch, o), np.float32) for o in widths]
        self._delta = [np.empty((batch, o), np.float32) for o in widths]
        self._mask = [np.empty((batch, o), bool) for o in widths]
        self._square = [np.empty((batch, o), np.float32) for o in widths]
        self._ones = np.ones(batch, np.float32)
        self._rows = np.arange(batch)

    @staticmethod
    def _views(flat, shapes):
        weights, biases, start = [], [], 0
        for i, o in shapes:
            weights.append(flat[start : start + i * o].reshape(i, o))
            biases.append(flat[start + i * o : start + (i + 1) * o])
            start += (i + 1) * o
        return weights, biases

    def predict(self, x):
        """Outputs (rows, out) for inputs (rows, in); any number of rows."""
        last = len(self.weights) - 1
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ w
            x += b
            if k < last:
                np.maximum(x, 0, out=x) if self._activation == "relu" else np.tanh(x, out=x)
        return x

    def step(self, x, y):
        """One training step on a batch (rows, in); returns its loss before the update."""
        n = len(x)
        loss = self._forward_and_loss(x, y, n)
        self._backward(x, n)
        self._steps += 1
        self._adam() if self._optimizer == "adam" else self._sgd()
        return loss

    def _forward_and_loss(self, x, y, n):
        last = len(self.weights) - 1
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = self._out[k][:n]
            np.matmul(x, w, out=out)
            out += b
            if k < last:
                np.maximum(out, 0, out=out) if self._activation == "relu" else np.tanh(out, out=out)
            x = out
        delta = self._delta[last][:n]
        if self._loss == "mse":
            np.subtract(x, y, out=delta)
            loss = float(np.dot(delta.reshape(-1), delta.reshape(-1))) / delta.size
            delta *= np.float32(2 / delta.size)
            return loss
        np.subtract(x, x.max(axis=1, keepdims=True), out=delta)
        rows = self._rows[:n]
        picked = delta[rows, y]
        np.exp(delta, out=delta)
        total = delta.sum(axis=1, keepdims=True)
        loss = float(np.log(total).sum() - picked.sum()) / n
        total *= np.float32(n)
        delta /= total
        delta[rows, y] -= np.float32(1 / n)
        return loss

    def _backward(self, x, n):
        for k in range(len(self.weights) - 1, -1, -1):
            delta = self._delta[k][:n]
            below = self._out[k - 1][:n] if k else x
            np.matmul(below.T, delta, out=self._d_weights[k])
            np.matmul(self._ones[:n], delta, out=self._d_biases[k])
            if k:
                d_below = self._delta[k - 1][:n]
                np.matmul(delta, self.weights[k].T, out=d_below)
                if self._activation == "relu":
                    mask = self._mask[k - 1][:n]
                    np.greater(below, 0, out=mask)
                    d_below *= mask
                else:
                    square = self._square[k - 1][:n]
                    np.multiply(below, below, out=square)
                    np.subtract(1, square, out=square)
                    d_below *= square

    def _pieces(self):
        for start in range(0, len(self._params), _PIECE):
            yield slice(start, start + _PIECE)

    def _sgd(self):
        for piece in self._pieces():
            g = self._grads[piece]
            g *= np.float32(self._lr)
            self._params[piece] -= g

    def _adam(self):
        """Adam (Kingma and Ba, 2015), beta 0.9 and 0.999, eps 1e-8.

        The moments are kept without their factors (1 - beta), which move into the step size: two passes fewer.
        """
        root = np.sqrt((1 - 0.999**self._steps) / (1 - 0.999))
        rate = np.float32(self._lr * root * (1 - 0.9) / (1 - 0.9**self._steps))
        eps, beta1, beta2 = np.float32(1e-8 * root), np.float32(0.9), np.float32(0.999)
        for piece in self._pieces():
            g, m, v = self._grads[piece], self._m[piece], self._v[piece]
            t = self._scratch[: len(g)]
            m *= beta1
            m += g
            g *= g
            v *= beta2
            v += g
            np.sqrt(v, out=t)
            t += eps
            np.divide(m, t, out=t)
            t *= rate
            self._params[piece] -= t


class Run:
    """The benchmark's peer: batches ``x[i], y[i]`` in turn."""

    def __init__(self, case, data):
        layers = range(len(case["layers"]) - 1)
        self._x, self._y = data["x"], data["y"]
        self._net = NumpyMLP(
            [data[f"w{k}"] for k in layers],
            [data[f"b{k}"] for k in layers],
            batch=case["batch"],
            activation=case["activation"],
            loss=case["loss"],
            optimizer=case["optimizer"],
            lr=case["lr"],
        )
        self._next = 0

    def losses(self, count):
        return [self._step() for _ in range(count)]

    def run(self, steps):
        for _ in range(steps):
            self._step()

    def _step(self):
        i, self._next = self._next, (self._next + 1) % len(self._x)
        return self._net.step(self._x[i], self._y[i])


class Fit(Run):
    """The benchmark's whole fit: rows gathered into one buffer in a new order every epoch."""

    def __init__(self, case, data):
        super().__init__(case, data)
        self._epochs, self._batch = case["epochs"], case["batch"]
        self._buffer = np.empty((self._batch, self._x.shape[1]), np.float32)
        self._rng = np.random.default_rng(0)

    def losses(self, count):
        losses = []
        for _ in range(self._epochs):
            order, total = self._rng.permutation(len(self._x)), 0.0
            for at in range(0, len(order), self._batch):
                rows = order[at : at + self._batch]
                x = np.take(self._x, rows, axis=0, out=self._buffer[: len(rows)], mode="clip")  # else it buffers
                total += len(rows) * self._net.step(x, self._y[rows])
            losses.append(total / len(order))
        return losses

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    return Fit(case, data) if "epochs" in case else Run(case, data)


def version():
    return np.__version__
