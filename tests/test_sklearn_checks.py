"""scikit-learn's own checks of what an estimator is."""

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

from pybackprop.sklearn import (
    MLPClassifier,
    MLPRegressor,
    NetClassifier,
    NetRegressor,
    TabularClassifier,
    TabularRegressor,
)

pytestmark = pytest.mark.filterwarnings("ignore")

_BATCHES = "rows of weight 0 move the others into other batches of 32, and float32 rounds"


def _expected_failures(estimator):
    if isinstance(estimator, (NetClassifier, NetRegressor)):
        return {"check_sample_weight_equivalence_on_dense_data": _BATCHES}
    return {}


@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPClassifier(max_iter=100, solver="lbfgs"),
        MLPRegressor(max_iter=100),
        MLPRegressor(max_iter=100, solver="lbfgs"),
        NetClassifier(),
        NetRegressor(),
        TabularClassifier(members=1, epochs=60),
        TabularRegressor(members=1, epochs=60),
    ],
    expected_failed_checks=_expected_failures,
)
def test_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        NetClassifier(batch_size=200, dtype="float64"),
        NetRegressor(batch_size=200, dtype="float64"),
        MLPRegressor(max_iter=100, solver="sgd", tol=1e-2, random_state=42),
    ],
    ids=str,
)
def test_weights_are_repetitions_where_a_batch_holds_all(estimator):
    check_sample_weight_equivalence_on_dense_data(type(estimator).__name__, estimator)
