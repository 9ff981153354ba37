"""scikit-learn's MLPClassifier or MLPRegressor: one ``partial_fit`` over all batches, which is its fastest road."""

import warnings

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor


class Run:
    """A run of n steps is n / batches epochs: the runner asks for whole epochs only."""

    whole_epochs = True

    def __init__(self, case, data):
        if case["loss"] == "mse" and case["layers"][-1] != 2:
            # Its squared error is halved and summed over outputs: the same step as the mean for two of them only.
            raise ValueError("scikit-learn's squared error is the mean squared error for two outputs only")
        self._classes = range(case["layers"][-1]) if case["loss"] == "cross_entropy" else None
        if self._classes and len(self._classes) < 3:
            raise ValueError("scikit-learn uses one logistic output for two classes, which is another network")
        estimator = MLPRegressor if self._classes is None else MLPClassifier
        self._batches = len(data["x"])
        self._x = data["x"].reshape(-1, *data["x"].shape[2:])
        self._y = data["y"].reshape(-1, *data["y"].shape[2:])
        self._net = estimator(
            hidden_layer_sizes=tuple(case["layers"][1:-1]),
            activation=case["activation"],
            solver=case["optimizer"],
            alpha=0.0,
            batch_size=case["batch"],
            learning_rate_init=case["lr"],
            momentum=0.0,
            nesterovs_momentum=False,
            shuffle=False,
        )
        self._epoch()  # creates the parameters; they and the optimizer's state are replaced now
        layers = range(len(case["layers"]) - 1)
        self._net.coefs_ = [data[f"w{k}"].T.copy() for k in layers]
        self._net.intercepts_ = [data[f"b{k}"].copy() for k in layers]
        del self._net._optimizer

    def losses(self, count):
        """The mean loss of each epoch."""
        scale = 2.0 if self._classes is None else 1.0
        return [scale * float(self._epoch()) for _ in range(count // self._batches)]

    def run(self, steps):
        for _ in range(steps // self._batches):
            self._epoch()

    def _epoch(self):
        if self._classes is None:
            self._net.partial_fit(self._x, self._y)
        else:
            self._net.partial_fit(self._x, self._y, classes=self._classes)
        return self._net.loss_


class Fit:
    """``fit`` with shuffling, for a fixed number of epochs from given weights."""

    def __init__(self, case, data):
        classes = range(case["layers"][-1]) if case["loss"] == "cross_entropy" else None
        estimator = MLPRegressor if classes is None else MLPClassifier
        self._scale = 2.0 if classes is None else 1.0  # its squared error is halved, to which Adam is indifferent
        if classes is None and (case["optimizer"] != "adam" or case["layers"][-1] != 1):
            raise ValueError("scikit-learn's halved squared error makes the same steps with Adam and one output only")
        self._x, self._y = data["x"], data["y"].ravel() if classes is None else data["y"]
        self._net = estimator(
            hidden_layer_sizes=tuple(case["layers"][1:-1]),
            activation=case["activation"],
            solver=case["optimizer"],
            alpha=0.0,
            batch_size=case["batch"],
            learning_rate_init=case["lr"],
            max_iter=case["epochs"],
            n_iter_no_change=np.inf,  # the count goes on through warm starts
            warm_start=True,
        )
        some = slice(0, 2 * case["batch"])
        if classes is None:  # creates the parameters, which are replaced now
            self._net.partial_fit(self._x[some], self._y[some])
        else:
            self._net.partial_fit(self._x[some], self._y[some], classes=classes)
        layers = range(len(case["layers"]) - 1)
        self._net.coefs_ = [data[f"w{k}"].T.copy() for k in layers]
        self._net.intercepts_ = [data[f"b{k}"].copy() for k in layers]
        del self._net._optimizer

    def losses(self, count):
        before = len(self._net.loss_curve_)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that so many epochs are too few for it
            self._net.fit(self._x, self._y)
        return [self._scale * float(loss) for loss in self._net.loss_curve_[before:]]

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    return Fit(case, data) if "epochs" in case else Run(case, data)


def version():
    return sklearn.__version__
