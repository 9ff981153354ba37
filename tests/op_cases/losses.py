"""Cases of csrc/ops/losses.cpp: each loss with its reductions, weights and options, rows narrow and wide."""

from __future__ import annotations

import numpy as np

from .base import OpCase

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2, "batchmean": 3}
# One column in both spellings, columns of a vector's width and round it, rows wide enough for sums of their own (64 and
# up, 512 to a block), more dimensions, a scalar.
SHAPES = [(9,), (9, 1), (1, 1), (5, 3), (3, 16), (4, 17), (3, 64), (2, 131), (2, 1030), (2, 3, 5), ()]


def _apart(rng, t, *kinks):
    """x with |x - t| at least 0.05 from each kink, so that a difference quotient stays on one side."""
    d = rng.uniform(0.1, 3.0, np.shape(t))
    for kink in kinks:
        d = np.where(np.abs(d - kink) < 0.05, kink + 0.1, d)
    return np.asarray(t + d * rng.choice([-1.0, 1.0], np.shape(t)))


def _normal_pair(rng, shape):
    return [np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))]


def _l1_pair(rng, shape):
    t = rng.standard_normal(shape)
    return [_apart(rng, t), np.asarray(t)]


def _huber_pair(rng, shape):  # kinks of the derivative at delta: 1 and 0.5 are used
    t = rng.standard_normal(shape)
    return [_apart(rng, t, 0.5, 1.0), np.asarray(t)]


def _binary_pair(rng, shape):
    x, t = np.asarray(3 * rng.standard_normal(shape)), np.asarray(rng.uniform(0.0, 1.0, shape))
    return [x, t]


def _count_pair(rng, shape):  # targets away from 1, where Stirling's term begins
    return [np.asarray(rng.uniform(0.2, 2.0, shape)), np.asarray(rng.integers(0, 6, shape) + 0.25)]


def _distribution_pair(rng, shape):
    x, t = _normal_pair(rng, shape)
    return [np.asarray(-np.abs(x)), np.asarray(np.abs(t) + 0.05)]


def _log_distribution_pair(rng, shape):
    x, t = _normal_pair(rng, shape)
    return [np.asarray(-np.abs(x)), np.asarray(-np.abs(t))]


def _hinge_pair(rng, shape):  # the corner is at t * x = 1
    t = rng.choice([-1.0, 1.0], shape)
    margin = rng.uniform(-2.0, 3.0, shape)
    margin = np.where(np.abs(margin - 1) < 0.05, 1.2, margin)
    return [np.asarray(t * margin), np.asarray(t)]


def _functional():
    from torch.nn import functional

    return functional


def _mse(x, t):
    return _functional().mse_loss(x, t, reduction="none")


def _l1(x, t):
    return _functional().l1_loss(x, t, reduction="none")


def _huber(x, t, delta=1.0):
    return _functional().huber_loss(x, t, delta=delta, reduction="none")


def _bce(x, t, pos_weight=None):
    return _functional().binary_cross_entropy_with_logits(x, t, pos_weight=pos_weight, reduction="none")


def _poisson(x, t, log_input=1, full=0, eps=1e-8):
    return _functional().poisson_nll_loss(x, t, log_input=bool(log_input), full=bool(full), eps=eps, reduction="none")


def _kl(x, t, log_target=0):
    return _functional().kl_div(x, t, log_target=bool(log_target), reduction="none")


def _hinge(x, t):
    return (1 - t * x).clamp(min=0)


def _pinball(x, t, quantiles=(0.5,)):
    q = x.new_tensor([quantiles] if isinstance(quantiles, float) else quantiles)
    d = t.reshape(-1, 1) - x.reshape(-1, len(q))
    return (q * d).maximum((q - 1) * d).reshape(x.shape)


def _twin(elements):
    """Weights and reduction written out round an elementwise loss in PyTorch."""

    def run(x, t, *more, weighted=0, pos_weighted=0, reduction=1, **options):
        if pos_weighted:
            options["pos_weight"], *more = more
        losses = elements(x, t if "quantiles" in options else t.reshape(x.shape), **options)
        w = losses.new_ones(losses.shape[:1])
        if weighted:
            w = more[0].reshape(-1)
        losses = losses * w.reshape(-1, *[1] * (losses.dim() - 1)) if losses.dim() else losses
        if reduction == 0:
            return losses
        if reduction == 2:
            return losses.sum()
        width = losses.numel() / max(losses.shape[0], 1) if losses.dim() else 1
        return losses.sum() / (w.sum() * (1 if reduction == 3 else width))

    return run


def _target_wrt(op):
    return (0,) if op in ("hinge", "pinball") else (0, 1)


def _cases(op, pair, elements):
    """Every shape with the mean; the other reductions and sample weights on four of them."""
    common = {"torch": _twin(elements), "wrt": _target_wrt(op)}

    def case(name, inputs, attrs, **more):
        return OpCase(op, name, inputs, attrs, **common, **more)

    def plain(shape):
        return lambda rng: pair(rng, shape)

    def weighted(shape):
        return lambda rng: [*pair(rng, shape), rng.uniform(0.0, 2.0, shape[:1])]

    def text(shape):
        return "x".join(map(str, shape)) or "scalar"

    some = [(9,), (5, 3), (3, 17), (2, 131)]
    names = ["none", "sum"] + (["batchmean"] if op == "kl_div" else [])
    return [
        *(case(f"mean-{text(s)}", plain(s), {}) for s in SHAPES),
        *(
            case(f"{n}-{text(s)}", plain(s), {"reduction": REDUCTIONS[n]}, rows=n == "none", row_inputs=(0, 1))
            for n in names
            for s in some
        ),
        *(
            case(
                f"weighted-{n}-{text(s)}",
                weighted(s),
                {"reduction": REDUCTIONS[n], "weighted": 1},
                rows=n == "none",
                row_inputs=(0, 1, 2),
            )
            for n in [*names, "mean"]
            for s in [*some, (9, 1)]
        ),
        *(case(f"{n}-empty", plain((0, 4)), {"reduction": REDUCTIONS[n]}) for n in ("none", "sum")),
        OpCase(op, "tails", lambda rng: pair(rng, (2, 7)), **common, sizes=lambda rng, n: pair(rng, (2, n))),
    ]


def _option(op, pair, elements, tag, options):
    """An option on one narrow and one wide shape."""
    return [
        OpCase(
            op, f"{tag}-{w}", lambda rng, w=w: pair(rng, (4, w)), options, torch=_twin(elements), wrt=_target_wrt(op)
        )
        for w in (5, 70)
    ]


def _column_against_vector(op, pair, elements):
    def flat_target(rng):
        x, t = pair(rng, (6, 1))
        return [x, t.reshape(6)]

    def flat_prediction(rng):
        x, t = pair(rng, (6, 1))
        return [x.reshape(6), t]

    return [
        OpCase(op, name, inputs, torch=_twin(elements), wrt=_target_wrt(op))
        for name, inputs in [("flat-target", flat_target), ("flat-prediction", flat_prediction)]
    ]


def _pos_weighted(name, shape, period, **attrs):
    def inputs(rng):
        more = [rng.uniform(0.0, 2.0, shape[0])] if attrs.get("weighted") else []
        return [*_binary_pair(rng, shape), rng.uniform(0.2, 4.0, period), *more]

    return OpCase(
        "bce_with_logits", f"pos-weight-{name}", inputs, {"pos_weighted": 1, **attrs}, torch=_twin(_bce), wrt=(0, 1)
    )


def _quantiles(name, shape, target, quantiles, **attrs):
    def inputs(rng):
        t = rng.standard_normal(shape[0])
        x = _apart(rng, np.broadcast_to(t.reshape(-1, *[1] * (len(shape) - 1)), shape))
        more = [rng.uniform(0.0, 2.0, shape[0])] if attrs.get("weighted") else []
        return [x, t.reshape(target), *more]

    return OpCase("pinball", name, inputs, {"quantiles": quantiles, **attrs}, torch=_twin(_pinball), wrt=(0,))


# Far from zero the logits form must neither overflow nor lose the small tail.
_FAR = np.array([[-500.0, -90.0, -20.0, -1e-3], [0.0, 20.0, 90.0, 500.0]])

CASES = [
    *_cases("mse", _normal_pair, _mse),
    *_cases("l1", _l1_pair, _l1),
    *_cases("huber", _huber_pair, _huber),
    *_cases("bce_with_logits", _binary_pair, _bce),
    *_cases("poisson_nll", _count_pair, _poisson),
    *_cases("kl_div", _distribution_pair, _kl),
    *_cases("hinge", _hinge_pair, _hinge),
    *_column_against_vector("mse", _normal_pair, _mse),
    *_column_against_vector("bce_with_logits", _binary_pair, _bce),
    *_option("huber", _huber_pair, _huber, "delta", {"delta": 0.5}),
    *_option("poisson_nll", _count_pair, _poisson, "rate", {"log_input": 0}),
    *_option("poisson_nll", _count_pair, _poisson, "rate-full", {"log_input": 0, "full": 1, "eps": 1e-3}),
    *_option("poisson_nll", _count_pair, _poisson, "full", {"full": 1}),
    *_option("kl_div", _log_distribution_pair, _kl, "log-target", {"log_target": 1}),
    *_option("kl_div", _log_distribution_pair, _kl, "log-target-batchmean", {"log_target": 1, "reduction": 3}),
    # A probability of zero adds nothing; its derivative by the target is infinite, and left out.
    OpCase(
        "kl_div",
        "zero-target",
        lambda rng: [-rng.uniform(0, 2, (3, 4)), rng.integers(0, 2, (3, 4)) / 2.0],
        torch=_twin(_kl),
        wrt=(0,),
    ),
    OpCase("bce_with_logits", "far", lambda rng: [_FAR.copy(), np.zeros_like(_FAR)], torch=_twin(_bce)),
    OpCase(
        "bce_with_logits",
        "far-ones",
        lambda rng: [_FAR.copy(), np.ones_like(_FAR)],
        {"reduction": 0},
        torch=_twin(_bce),
    ),
    _pos_weighted("columns", (5, 3), 3),
    _pos_weighted("columns-weighted", (5, 3), 3, weighted=1),
    _pos_weighted("columns-none", (3, 17), 17, reduction=0, weighted=1),
    _pos_weighted("columns-wide", (3, 70), 70, reduction=2),
    _pos_weighted("columns-deep", (2, 30, 5), 5),
    _pos_weighted("one", (5, 3), 1),
    _pos_weighted("vector", (9,), 1, weighted=1),
    _quantiles("median", (9,), (9,), [0.5]),
    _quantiles("column", (9, 1), (9,), [0.9], weighted=1),
    _quantiles("column-none", (9, 1), (9, 1), [0.9], reduction=0, weighted=1),
    _quantiles("three", (7, 3), (7,), [0.1, 0.5, 0.9]),
    _quantiles("three-weighted", (7, 3), (7, 1), [0.1, 0.5, 0.9], weighted=1),
    _quantiles("three-none", (7, 3), (7, 1), [0.1, 0.5, 0.9], reduction=0, weighted=1),
    _quantiles("three-sum", (7, 3), (7, 1), [0.1, 0.5, 0.9], reduction=2),
    _quantiles("twenty", (4, 20), (4,), [k / 21 for k in range(1, 21)]),
    _quantiles("none-empty", (0, 3), (0,), [0.1, 0.5, 0.9], reduction=0),
]
