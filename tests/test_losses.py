"""What losses do at the edges: nothing to average, ignored rows, infinite logits; and the words of their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pybackprop import _core


def evaluate(op, *arrays, dtype="float64", isa=None, wrt=(0,), where="loss", **attrs):
    """The op's output and, for a scalar one, its gradients with respect to the inputs ``wrt``."""
    graph = _core.Graph(dtype=dtype, training=True, isa=isa)
    arrays = [np.asarray(a) for a in arrays]
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a.astype(np.int64) for a in arrays]
    ids = [graph.input(a.shape, a.dtype.kind != "f", f"input {i}") for i, a in enumerate(arrays)]
    (loss,) = graph.node(op, ids, where, **attrs)
    scalar = graph.shape(loss) == ()
    program = _core.Program(graph, [loss], loss=loss if scalar else None, wrt=[ids[i] for i in wrt] if scalar else ())
    outputs, gradients, _ = program.run(tuple(arrays))
    return outputs[0], gradients


@pytest.mark.parametrize("op", ["cross_entropy", "nll"])
@pytest.mark.parametrize("classes", [4, 40])
def test_a_batch_of_ignored_labels(op, classes, isa):
    x = -np.ones((5, classes))
    loss, (gradient,) = evaluate(op, x, np.full(5, -100), isa=isa)
    assert math.isnan(loss)
    assert not gradient.any()
    assert evaluate(op, x, np.full(5, -100), isa=isa, reduction=2)[0] == 0
    assert not evaluate(op, x, np.full(5, -100), isa=isa, reduction=0)[0].any()


@pytest.mark.parametrize("width", [1, 5, 100])
def test_weights_that_sum_to_zero(width, isa):
    x = np.ones((4, width))
    assert math.isnan(evaluate("mse", x, 0 * x, np.zeros(4), weighted=1, isa=isa)[0])
    assert evaluate("mse", x, 0 * x, np.zeros(4), weighted=1, reduction=2, isa=isa)[0] == 0
    assert math.isnan(evaluate("cross_entropy", x, np.zeros(4, int), np.zeros(4), weighted=1, isa=isa)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes_ruled_out_by_minus_infinity(dtype, isa):
    # Also whole blocks of them in front of the others, and sums that would overflow or vanish.
    x = np.full((3, 2500), -np.inf)
    x[0, 2000:] = np.linspace(-400, -390, 500)
    x[1, :3] = [200, 201, 202]
    x[2, [0, 1100, 2300]] = [-1000, 1000, 999]
    labels = [2100, 1, 1100]
    loss, _ = evaluate("cross_entropy", x, labels, reduction=0, dtype=dtype, isa=isa)
    top = x.max(1)
    wanted = np.log(np.exp(x - top[:, None]).sum(1)) + top - x[range(3), labels]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5 if dtype == "float32" else 1e-12)
    _, (gradient,) = evaluate("cross_entropy", x, labels, reduction=2, dtype=dtype, isa=isa)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-6)
    small = np.array([[-np.inf, 1.0, 2.0], [0.0, -np.inf, -np.inf]])
    loss, _ = evaluate("cross_entropy", small, [2, 0], reduction=0, dtype=dtype, isa=isa)
    np.testing.assert_allclose(loss, [math.log1p(math.exp(-1)), 0], rtol=1e-6)


def test_large_logits_lose_no_digits(isa):
    # In float32 lse itself is known to 1e-3 only at 1e4; the loss and its gradient are differences, kept apart.
    for extra in (0, 40):
        x = np.array([[10000.0, 10000.5, 9999.0, *[9000.0] * extra]])
        loss, (gradient,) = evaluate("cross_entropy", x, [1], dtype="float32", isa=isa)
        p = np.exp(x - 10000)
        p /= p.sum()
        assert loss == pytest.approx(-math.log(p[0, 1]), rel=1e-6)
        np.testing.assert_allclose(gradient, p - (np.arange(3 + extra) == 1), rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 50])
def test_nan_reaches_the_loss(classes, isa):
    x = np.zeros((2, classes))
    x[1, 2] = np.nan
    loss, _ = evaluate("cross_entropy", x, [0, 0], reduction=0, isa=isa)
    assert loss[0] == pytest.approx(math.log(classes))
    assert math.isnan(loss[1])
    for op in ("mse", "l1", "huber", "bce_with_logits", "poisson_nll", "kl_div", "hinge"):
        target = np.ones_like(x)
        loss, (gradient,) = evaluate(op, x, target, isa=isa)
        assert math.isnan(loss), op
        if op not in ("kl_div", "hinge"):  # their derivatives do not read x, or a comparison of it
            assert math.isnan(gradient[1, 2]), op
            assert np.isnan(gradient).sum() == 1, op


def test_logits_form_keeps_the_tails(isa):
    x = np.array([-40.0, 40.0, -1000.0, 1000.0])
    loss, _ = evaluate("bce_with_logits", x, [0.0, 1.0, 1.0, 0.0], reduction=0, isa=isa)
    np.testing.assert_allclose(loss, [math.exp(-40), math.exp(-40), 1000, 1000], rtol=1e-12)
    _, (gradient,) = evaluate("bce_with_logits", x, [0.0, 1.0, 1.0, 0.0], reduction=2, isa=isa)
    np.testing.assert_allclose(gradient, [math.exp(-40), -math.exp(-40), -1, 1], rtol=1e-12)


def test_a_row_loss_does_not_depend_on_its_batch(isa, rng):
    for classes in (10, 32, 33, 2000):
        x = rng.standard_normal((37, classes)).astype(np.float32)
        labels = rng.integers(0, classes, 37)
        whole, _ = evaluate("cross_entropy", x, labels, dtype="float32", isa=isa, reduction=0)
        for rows in (slice(0, 1), slice(3, 19), slice(36, 37)):
            part, _ = evaluate("cross_entropy", x[rows], labels[rows], dtype="float32", isa=isa, reduction=0)
            assert part.tobytes() == whole[rows].tobytes()


@pytest.mark.parametrize(
    ("op", "arrays", "attrs", "words"),
    [
        (
            "mse",
            [np.ones((3, 2)), np.ones((3, 3))],
            {},
            r"\[mse\] loss: expects a target of the prediction's shape "
            r"\(3, 2\), but input 1 is \(3, 3\)",
        ),
        ("mse", [np.ones((3, 2)), np.ones(3)], {}, r"expects a target of the prediction's shape \(3, 2\), but"),
        ("mse", [np.ones((3, 1)), np.ones((1, 3))], {}, r"shape \(3, 1\), but input 1 is \(1, 3\)"),
        ("mse", [np.ones((0, 3)), np.ones((0, 3))], {}, r"has no mean over no elements, but input 0 is \(0, 3\)"),
        (
            "mse",
            [np.ones(3), np.ones(3), np.ones(2)],
            {"weighted": 1},
            r"one sample weight for each of 3 rows, but "
            r"input 2 is \(2,\)",
        ),
        ("mse", [np.ones(3), np.ones(3)], {"reduction": 3}, r"must be 0 \(none\), 1 \(mean\) or 2 \(sum\), got 3"),
        ("mse", [np.ones(3)], {}, "expects 2 inputs, got 1"),
        ("mse", [np.ones(3), np.ones(3)], {"pos_weighted": 1}, "has no pos_weight"),
        ("mse", [np.ones(3), np.ones(3)], {"detla": 1}, "detla"),
        ("huber", [np.ones(3), np.ones(3)], {"delta": 0.0}, "delta must be above 0, got 0"),
        (
            "bce_with_logits",
            [np.ones((3, 2)), np.ones((3, 2)), np.ones(3)],
            {"pos_weighted": 1},
            r"pos_weight expects one number or 2, one for each column, but input 2 is \(3,\)",
        ),
        (
            "pinball",
            [np.ones((3, 2)), np.ones(3)],
            {"quantiles": [0.5]},
            r"expects predictions \(rows, 1\), one column for each quantile, but input 0 is \(3, 2\)",
        ),
        (
            "pinball",
            [np.ones((3, 2)), np.ones((3, 2))],
            {"quantiles": [0.1, 0.9]},
            r"expects one target for each of 3 rows, but input 1 is \(3, 2\)",
        ),
        ("pinball", [np.ones(3), np.ones(3)], {"quantiles": [1.5]}, r"quantiles must be in \(0, 1\), got 1.5"),
        ("pinball", [np.ones(3), np.ones(3)], {}, "needs quantiles"),
        ("cross_entropy", [np.ones(3), np.ones(3, int)], {}, r"expects \(rows, classes\), but input 0 is \(3,\)"),
        ("cross_entropy", [np.ones((3, 4)), np.ones(2, int)], {}, r"one label for each of 3 rows, but input 1"),
        (
            "cross_entropy",
            [np.ones((3, 4)), np.ones(3)],
            {},
            r"integer labels \(3,\) or probabilities \(3, 4\), but "
            r"input 1 holds floating-point \(3,\)",
        ),
        ("cross_entropy", [np.ones((3, 4)), np.array([0, 4, 1])], {}, "labels.*4"),
        ("cross_entropy", [np.ones((3, 4)), np.array([0, -1, 1])], {}, "labels.*-1"),
        (
            "cross_entropy",
            [np.ones((3, 4)), np.ones(3, int), np.ones(3)],
            {"class_weighted": 1},
            r"one weight for each of 4 classes, but input 2 is \(3,\)",
        ),
        (
            "cross_entropy",
            [np.ones((3, 4)), np.ones(3, int)],
            {"label_smoothing": 1.5},
            r"label_smoothing must be in \[0, 1\], got 1.5",
        ),
        ("cross_entropy", [np.ones((0, 4)), np.ones(0, int)], {}, r"has no mean over no rows, but input 0 is \(0, 4\)"),
    ],
)
def test_errors(op, arrays, attrs, words):
    with pytest.raises(ValueError, match=words) as caught:
        evaluate(op, *arrays, **attrs)
    assert "\n" not in str(caught.value)


def test_integers_where_numbers_are_needed_are_a_type_error():
    with pytest.raises(TypeError, match=r"\[mse\] loss: expects floating-point numbers, but input 1 holds integers"):
        evaluate("mse", np.ones(3), np.ones(3, int))
    with pytest.raises(TypeError, match="integer labels"):
        evaluate("nll", np.ones((3, 2)), np.ones(3))


@pytest.mark.parametrize("classes", [33, 100, 2100])
@pytest.mark.parametrize("isa", _core.isa_names())
def test_kept_exponentials_change_no_bits(isa, classes):
    # A training graph keeps exp(x - maximum) for backward, any other works it out again.
    rng = np.random.default_rng(classes)
    x = rng.normal(scale=20, size=(37, classes)).astype(np.float32)
    x[3, 5:] = -np.inf
    x[4, 7] = np.nan
    labels = rng.integers(0, 5, 37)
    results = []
    for training in (True, False):
        graph = _core.Graph("float32", training, isa)
        inputs = [graph.input(x.shape), graph.input(labels.shape, True)]
        loss = graph.node("cross_entropy", inputs, reduction=2)[0]
        program = _core.Program(graph, [loss], loss=loss, wrt=[inputs[0]], threads=1)
        outputs, gradients = program.run((x, labels))[:2]
        results.append((np.array(outputs[0]), np.array(gradients[0])))
    for kept, again in zip(*results, strict=True):
        np.testing.assert_array_equal(kept, again)
    gradient = results[0][1]
    assert np.isnan(gradient[4]).all()
    assert (gradient[3, 5:] == 0).all()
    rest = np.delete(x, 4, axis=0).astype(np.float64)
    expected = np.exp(rest - rest.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    expected[np.arange(36), np.delete(labels, 4)] -= 1
    np.testing.assert_allclose(np.delete(gradient, 4, axis=0), expected, rtol=3e-6, atol=1e-7)
