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


class Fit:
    """Batches gathered inside compiled calls: one a batch, or (``scan``) one an epoch, the order of rows included."""

    def __init__(self, case, data, scan):
        layers = range(len(case["layers"]) - 1)
        params = [(jnp.asarray(data[f"w{k}"].T), jnp.asarray(data[f"b{k}"])) for k in layers]
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        self._state = (params, *zeros, jnp.float32(0))
        self._x = jnp.asarray(data["x"])
        self._y = jnp.asarray(data["y"] if case["loss"] == "mse" else data["y"].astype(np.int32))
        self._epochs, self._batch, self._scan = case["epochs"], case["batch"], scan
        self._key = jax.random.key(0)
        self._rng = np.random.default_rng(0)
        step = _make_step(case)
        rows, batch = len(self._x), case["batch"]
        full = rows // batch * batch

        def on_rows(state, x, y, at):
            return step(state, x[at], y[at])

        def epoch(state, x, y, key):
            order = jax.random.permutation(key, rows)
            body = lambda s, at: on_rows(s, x, y, at)  # noqa: E731
            state, losses = jax.lax.scan(body, state, order[:full].reshape(-1, batch))
            total = losses.sum() * batch
            if full < rows:
                state, loss = on_rows(state, x, y, order[full:])
                total += loss * (rows - full)
            return state, total / rows

        self._epoch = jax.jit(epoch, donate_argnums=0)
        self._step = jax.jit(on_rows, donate_argnums=0)

    def losses(self, count):
        return [float(self._scanned() if self._scan else self._looped()) for _ in range(self._epochs)]

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)

    def _scanned(self):
        self._key, key = jax.random.split(self._key)
        self._state, loss = self._epoch(self._state, self._x, self._y, key)
        return loss

    def _looped(self):
        order, parts = self._rng.permutation(len(self._x)).astype(np.int32), []
        for at in range(0, len(order), self._batch):
            rows = order[at : at + self._batch]
            self._state, loss = self._step(self._state, self._x, self._y, rows)
            parts.append(len(rows) * loss)
        return jnp.stack(parts).sum() / len(order)


def build(case, data, variant):
    return (Fit if "epochs" in case else Run)(case, data, scan=variant == "scan")


def version():
    return jax.__version__
