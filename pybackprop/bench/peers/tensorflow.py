"""TensorFlow: many batches in one tf.function, with its fused optimizer kernels; layers and gradients are its own."""

import os

import tensorflow as tf


class _Net:
    def __init__(self, case, data):
        threads = int(os.environ["OMP_NUM_THREADS"])
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        layers = range(len(case["layers"]) - 1)
        self._params = [tf.Variable(a) for k in layers for a in (data[f"w{k}"].T.copy(), data[f"b{k}"])]
        self._m, self._v = ([tf.Variable(tf.zeros_like(p)) for p in self._params] for _ in range(2))
        self._t = tf.Variable(0.0)
        self._case = case
        self._x = tf.constant(data["x"])
        self._y = tf.constant(data["y"] if case["loss"] == "mse" else data["y"].astype("int32"))

    def _step(self, x, y):
        case, params = self._case, self._params
        activation = tf.nn.relu if case["activation"] == "relu" else tf.tanh
        with tf.GradientTape() as tape:
            for k in range(0, len(params), 2):
                x = tf.nn.bias_add(tf.matmul(x, params[k]), params[k + 1])
                if k + 2 < len(params):
                    x = activation(x)
            if case["loss"] == "mse":
                loss = tf.reduce_mean(tf.math.squared_difference(x, y))
            else:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x))
        grads = tape.gradient(loss, params)
        if case["optimizer"] == "sgd":
            for p, g in zip(params, grads, strict=True):
                tf.raw_ops.ResourceApplyGradientDescent(var=p.handle, alpha=case["lr"], delta=g)
            return loss
        t = self._t.assign_add(1.0)
        for p, m, v, g in zip(params, self._m, self._v, grads, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=p.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=0.9**t,
                beta2_power=0.999**t,
                lr=case["lr"],
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8,
                grad=g,
            )
        return loss


class Run(_Net):
    def __init__(self, case, data):
        super().__init__(case, data)
        self._next = 0
        self._many = tf.function(self._loop)

    def _loop(self, first, count):
        losses = tf.TensorArray(tf.float32, size=count)
        for i in tf.range(count):
            at = (first + i) % tf.shape(self._x)[0]
            losses = losses.write(i, self._step(self._x[at], self._y[at]))
        return losses.stack()

    def losses(self, count):
        losses = self._many(tf.constant(self._next), tf.constant(count)).numpy().tolist()
        self._next = (self._next + count) % self._x.shape[0]
        return losses

    def run(self, steps):
        self.losses(steps)


class Fit(_Net):
    def __init__(self, case, data):
        super().__init__(case, data)
        self._epoch = tf.function(self._shuffled)

    def _shuffled(self):
        rows, batch = self._x.shape[0], self._case["batch"]
        order = tf.random.shuffle(tf.range(rows))
        total = tf.constant(0.0)
        for i in tf.range(rows // batch):
            at = order[i * batch : (i + 1) * batch]
            total += batch * self._step(tf.gather(self._x, at), tf.gather(self._y, at))
        tail = rows % batch
        if tail:
            at = order[rows - tail :]
            total += tail * self._step(tf.gather(self._x, at), tf.gather(self._y, at))
        return total / rows

    def losses(self, count):
        return [float(self._epoch()) for _ in range(self._case["epochs"])]

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    return Fit(case, data) if "epochs" in case else Run(case, data)


def version():
    return tf.__version__
