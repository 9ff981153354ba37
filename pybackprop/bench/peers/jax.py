"""JAX: one jitted step per batch with donated state, or (``scan``) all batches of an epoch in one compiled call."""

import jax
import jax.numpy as jnp
import numpy as np


def _make_step(case):
    activation = jax.nn.relu if case["activation"] == "relu" else jnp.tanh

    def loss_of(params, x, y):
        for w, b in params[:-1]:
            x = activation(x @ w + b)
        w, b = params[-1]
        x = x @ w + b
        if case["loss"] == "mse":
            return jnp.mean((x - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1))

    def step(state, x, y):
        params, m, v, t = state
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        if case["optimizer"] == "sgd":
            return (jax.tree.map(lambda p, g: p - case["lr"] * g, params, grads), m, v, t), loss
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate, root = case["lr"] / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + 1e-8), params, m, v)
        return (params, m, v, t), loss

    return step


class Run:
    def __init__(self, case, data, scan):
        layers = range(len(case["layers"]) - 1)
        params = [(jnp.asarray(data[f"w{k}"].T), jnp.asarray(data[f"b{k}"])) for k in layers]
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        self._state = (params, *zeros, jnp.float32(0))
        self._x = jnp.asarray(data["x"])
        self._y = jnp.asarray(data["y"] if case["loss"] == "mse" else data["y"].astype(np.int32))
        self._batches = [(self._x[i], self._y[i]) for i in range(len(self._x))]
        self._next = 0
        self.whole_epochs = scan
        step = _make_step(case)
        if scan:
            epoch = lambda state, xs, ys: jax.lax.scan(lambda s, batch: step(s, *batch), state, (xs, ys))  # noqa: E731
            self._epoch = jax.jit(epoch, donate_argnums=0)
        else:
            self._step = jax.jit(step, donate_argnums=0)

    def losses(self, count):
        if self.whole_epochs:
            losses = []
            for _ in range(count // len(self._batches)):
                self._state, epoch = self._epoch(self._state, self._x, self._y)
                losses += np.asarray(epoch).tolist()
            return losses
        return [float(self._advance()) for _ in range(count)]

    def run(self, steps):
        if self.whole_epochs:
            for _ in range(steps // len(self._batches)):
                self._state, _ = self._epoch(self._state, self._x, self._y)
        else:
            for _ in range(steps):
                self._advance()
        jax.block_until_ready(self._state)

    def _advance(self):
        x, y = self._batches[self._next]
        self._next = (self._next + 1) % len(self._batches)
        self._state, loss = self._step(self._state, x, y)
        return loss


def build(case, data, variant):
    return Run(case, data, scan=variant == "scan")


def version():
    return jax.__version__
