"""The functional face of the ops: arguments, dtypes, indexing, vjp, examples in docstrings."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from pybackprop import _core, nn, ops

A = np.arange(24.0).reshape(2, 3, 4)


def test_every_op_of_the_core_has_a_function():
    assert set(_core.op_names()) <= set(ops.__all__)


@pytest.mark.parametrize("name", ops.__all__)
def test_every_function_is_documented(name):
    doc = inspect.getdoc(getattr(ops, name))
    assert doc and ">>>" in doc
    assert sorted(ops.__all__) == ops.__all__


def test_dtypes():
    assert ops.relu([1.0]).dtype == np.float32
    assert ops.relu(np.array([1.0])).dtype == np.float64
    assert ops.relu(np.array([1], np.int32)).dtype == np.float32
    assert ops.add(np.ones(2, np.float32), np.ones(2)).dtype == np.float64
    assert ops.add(np.ones(2, np.float32), 1.5).dtype == np.float32
    assert ops.reshape(np.array([[1, 2]]), (2,)).dtype == np.int64
    assert isinstance(ops.sum(A), np.float64)
    with pytest.raises(TypeError, match=r"\[add\] expects arrays of numbers"):
        ops.add(A, "a")


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "logsumexp"])
def test_reductions_take_numpys_names(name):
    f = getattr(ops, name)
    for dim in (None, 0, -1, (0, 2), (1,)):
        for keep in (False, True):
            want = f(A, dim, keep)
            np.testing.assert_array_equal(f(A, axis=dim, keepdims=keep), want)
            assert want.shape == np.sum(A, axis=dim, keepdims=keep).shape
            np.testing.assert_array_equal(getattr(nn.Parameter(A, dtype="float64"), name)(dim, keep), want)
    np.testing.assert_array_equal(f(A, ()), f(A))
    with pytest.raises(ValueError, match="out of range"):
        f(A, 3)
    with pytest.raises(ValueError, match="two names"):
        f(A, 0, axis=1)
    with pytest.raises(ValueError, match="twice"):
        f(A, (0, -3))
    with pytest.raises(TypeError, match="integer"):
        f(A, 0.5)


@pytest.mark.parametrize(
    ("shape_a", "shape_b"),
    [((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
     ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((4, 1, 2, 3), (5, 3, 2)), ((0, 3), (3, 2)), ((2, 0), (0, 3))],
)  # fmt: skip
def test_matmul_is_numpys(shape_a, shape_b, rng):
    a, b = rng.normal(size=shape_a), rng.normal(size=shape_b)
    np.testing.assert_allclose(ops.matmul(a, b), a @ b, rtol=1e-12, atol=1e-12)
    assert ops.matmul(a, b).shape == (a @ b).shape


def test_matmul_refuses_scalars():
    with pytest.raises(ValueError, match="operands with dimensions"):
        ops.matmul(A, 1.0)


KEYS = [
    0, -1, np.int64(1), slice(None), slice(1), slice(None, None, -1), ..., None, (0, 1), (0, 1, 2), (..., 0), (0, ...),
    (slice(None), slice(1, 3)), (slice(None), slice(3, 1)), (slice(None), -1, slice(None, None, 2)), (None, 0),
    (..., None),    (slice(None), None, 1), (slice(5, 9),), (slice(None), slice(None), slice(10, None, -3)), (),
    np.array([1, 0, 1]), [0, -1], np.array([[0], [1]]), (np.array([1, 1]), 0), (np.array([0, 1]), slice(None), -1),
    np.array([], int),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_numpys(key):
    np.testing.assert_array_equal(ops.getitem(A, key), A[key])


@pytest.mark.parametrize(
    ("key", "error"),
    [(2, IndexError), ((0, 0, 0, 0), IndexError), ((..., 0, ...), IndexError), ("a", TypeError), (True, TypeError),
     (1.0, TypeError), (np.array([True, False]), TypeError), (np.array([0.5]), TypeError),
     ((0, np.array([1])), TypeError),     ([2], ValueError)],
)  # fmt: skip
def test_wrong_indices(key, error):
    with pytest.raises(error):
        ops.getitem(A, key)


def test_shapes():
    np.testing.assert_array_equal(ops.permute(A, (2, 0, 1)), A.transpose(2, 0, 1))
    np.testing.assert_array_equal(ops.transpose(A, 0, -1), A.swapaxes(0, 2))
    np.testing.assert_array_equal(ops.flatten(A), A.reshape(-1))
    np.testing.assert_array_equal(ops.flatten(A, 1), A.reshape(2, -1))
    np.testing.assert_array_equal(ops.squeeze(A[:, None, :1]), A[:, 0])
    assert ops.squeeze(np.ones((1, 2, 1)), 0).shape == (2, 1)
    assert ops.unsqueeze(A, 1).shape == (2, 1, 3, 4)
    np.testing.assert_array_equal(ops.concat([A, A[:, :1]], dim=1), np.concatenate([A, A[:, :1]], 1))
    np.testing.assert_array_equal(ops.stack((A, A), -1), np.stack((A, A), -1))
    np.testing.assert_array_equal(ops.broadcast_to(A[:, :1], (2, 3, 4)), np.broadcast_to(A[:, :1], (2, 3, 4)))
    for ours, numpys in zip(ops.split(A, 2, dim=2), np.split(A, 2, 2), strict=True):
        np.testing.assert_array_equal(ours, numpys)
    assert [p.shape[1] for p in ops.split(A, 2, dim=1)] == [2, 1]
    np.testing.assert_array_equal(ops.slice(A, [None, 2, -3], [None, 0, None], [1, -1, 2]), A[:, 2:0:-1, -3::2])
    for bad in (
        lambda: ops.permute(A, (0, 0, 1)),
        lambda: ops.flatten(A, 2, 0),
        lambda: ops.split(A, [1, 1], dim=2),
        lambda: ops.split(A, 0),
        lambda: ops.stack([A, A[:1]]),
        lambda: ops.reshape(A, (5, -1)),
        lambda: ops.slice(A, [0], [1]),
        lambda: ops.concat([]),
    ):
        with pytest.raises(ValueError, match=r"^\["):
            bad()
    with pytest.raises(TypeError, match="tuple of integers"):
        ops.reshape(A, (2.0, -1))


def test_gather_and_pick():
    x, ids = A.reshape(6, 4), np.array([[5, 0], [5, 2]])
    y, (dx, none) = ops.vjp("gather", x, ids)
    np.testing.assert_array_equal(y, x[ids])
    np.testing.assert_array_equal(dx[:, 0], [1, 0, 1, 0, 0, 2])
    assert none is None
    actions = np.array([3, 0, 1, 2, 3, 0])
    y, (dx, _) = ops.vjp("pick", x, actions)
    np.testing.assert_array_equal(y, x[np.arange(6), actions])
    np.testing.assert_array_equal(dx, np.eye(4)[actions])
    with pytest.raises(ValueError, match="must be from 0 to 5, got 6"):
        ops.gather(x, [6])
    with pytest.raises(TypeError, match="integer"):
        ops.gather(x, [0.5])
    with pytest.raises(ValueError, match="from 0 to 3"):
        ops.pick(x, actions + 1)


def test_vjp():
    d = np.array([1.0, 2.0])
    y, grads = ops.vjp("mul", np.array([3.0, 4.0]), 2.0, d_out=d)
    np.testing.assert_array_equal(y, [6, 8])
    np.testing.assert_array_equal(grads[0], 2 * d)
    assert grads[1] == 11
    y, grads = ops.vjp("concat", [np.ones(2), np.zeros(1)], d_out=np.arange(3.0))
    np.testing.assert_array_equal(np.concatenate(grads), np.arange(3.0))
    parts, (dx,) = ops.vjp("split", np.ones(3), sizes=[1, 2], d_out=[np.array([5.0]), np.array([6.0, 7.0])])
    assert [p.shape for p in parts] == [(1,), (2,)]
    np.testing.assert_array_equal(dx, [5, 6, 7])
    y, (dx, dw, db) = ops.vjp("linear", np.ones((2, 3)), np.ones((4, 3)), np.zeros(4))
    assert (dx.shape, dw.shape, db.shape) == ((2, 3), (4, 3), (4,))
    assert ops.vjp("relu", [1.0])[1][0].dtype == np.float32
    with pytest.raises(ValueError, match="d_out must have the shape of the output of relu"):
        ops.vjp("relu", d, d_out=np.ones(3))
    with pytest.raises(ValueError, match="no op 'rely'"):
        ops.vjp("rely", d)
    with pytest.raises(TypeError):
        ops.vjp("relu", d, slope=1)


def test_random_and_training_options():
    ones = np.ones(200, np.float32)
    assert set(ops.dropout(ones).tolist()) == {0.0, 2.0}
    np.testing.assert_array_equal(ops.dropout(ones, training=False), ones)
    x = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(ops.batch_norm(x, [0.0], [1.0], training=True, eps=0), [[-1], [1]], rtol=1e-12)
    np.testing.assert_allclose(ops.batch_norm(x, [0.0], [1.0], eps=0), x, rtol=1e-12)
    model = type("M", (nn.Module,), {"forward": lambda self, x: ops.dropout(x, training=True)})()
    with pytest.raises(ValueError, match="training=True needs a training program"):
        model(ones)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.gelu(A, "fast"), "approximate"),
        (lambda: ops.clip(A, 2, 1), "min must not be above max"),
        (lambda: ops.layer_norm(A, 3), r"ends in \(3,\)"),
        (lambda: ops.layer_norm(A, 4, bias=np.ones(4)), "needs a weight"),
        (lambda: ops.batch_norm(A[0], np.ones(4), np.ones(4), np.ones(4)), "both weight and bias"),
        (lambda: ops.dropout(A, 2), "p must be from 0 to 1"),
        (lambda: ops.mse(A, A, reduction="most"), "reduction must be one of none, mean, sum"),
        (lambda: ops.cross_entropy(A, [[0, 1], [1, 2]]), "expects a target of shape"),
        (lambda: ops.cross_entropy(A[0], [4, 0, 0]), "labels must be from 0 to 3"),
        (lambda: ops.softmax(A, 3), "out of range"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_programs_are_kept_by_options_too():
    x = np.array([-1.0, 1.0])
    assert ops.leaky_relu(x, 0.5)[0] == -0.5
    assert ops.leaky_relu(x, 0.25)[0] == -0.25
    assert ops.pow(x, 2)[0] == 1
    np.testing.assert_array_equal(ops.pinball(x, x * 0, quantiles=[0.5], reduction="none"), [0.5, 0.5])
