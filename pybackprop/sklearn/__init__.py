"""Estimators for scikit-learn: its MLPs, several times faster and with what users asked for, and any Module as one.

``from pybackprop.sklearn import MLPClassifier`` in place of ``from sklearn.neural_network import MLPClassifier`` is the
only change a program needs: parameters, defaults, attributes, warnings and, from the same ``random_state``, the network
itself (to rounding) are scikit-learn's. `NetClassifier` and `NetRegressor` make an estimator of a Module of one's own.

>>> from sklearn.datasets import load_iris
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from pybackprop.sklearn import MLPClassifier
>>> X, y = load_iris(return_X_y=True)
>>> model = make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, random_state=0)).fit(X, y)
>>> bool(model.score(X, y) > 0.96)
True
"""

try:
    import sklearn
    from sklearn.utils.validation import validate_data  # noqa: F401  # the newest thing that is needed, of 1.6
except ImportError as error:
    raise ImportError(
        'pybackprop.sklearn needs scikit-learn 1.6 or newer: pip install "pybackprop[sklearn]"'
    ) from error

from .mlp_classifier import MLPClassifier
from .mlp_regressor import MLPRegressor
from .net import NetClassifier, NetRegressor
from .table import TabularClassifier, TabularRegressor

__all__ = [
    "MLPClassifier",
    "MLPRegressor",
    "NetClassifier",
    "NetRegressor",
    "TabularClassifier",
    "TabularRegressor",
]

del sklearn
