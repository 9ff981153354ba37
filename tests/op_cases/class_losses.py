"""Cases of csrc/ops/class_losses.cpp. Up to 32 classes lanes are rows, above a row is summed in blocks of 1024."""

from __future__ import annotations

import numpy as np

from .base import OpCase

NAMES = ["none", "mean", "sum"]
SHAPES = [(1, 1), (1, 2), (5, 3), (16, 10), (33, 10), (17, 32), (5, 33), (3, 65), (2, 1024), (2, 2500)]


def _labels(rng, n, classes, ignored=(), index=-100):
    labels = rng.integers(0, classes, n)
    labels[list(ignored)] = index
    return labels


def _functional():
    from torch.nn import functional

    return functional


def _twin(op):
    """PyTorch's own reductions, except for sample weights, which it lacks: those are written out."""

    def run(x, target, *more, class_weighted=0, weighted=0, reduction=1, ignore_index=-100, label_smoothing=0.0):
        more = list(more)
        class_weight = more.pop(0) if class_weighted else None
        options = {"weight": class_weight}
        labels = not target.is_floating_point()
        if labels:
            options["ignore_index"], target = ignore_index, target.reshape(-1)
        if op == "cross_entropy":
            options["label_smoothing"] = label_smoothing
        loss = getattr(_functional(), "nll_loss" if op == "nll" else op)
        if not weighted:
            return loss(x, target, reduction=NAMES[reduction], **options)
        w = more[0].reshape(-1)
        losses = w * loss(x, target, reduction="none", **options)
        if reduction != 1:
            return losses if reduction == 0 else losses.sum()
        if labels:
            kept = target != ignore_index
            w = w * kept * (1 if class_weight is None else class_weight[target.clamp(min=0)])
        return losses.sum() / w.sum()

    return run


def _case(op, name, shape, *, ignored=(), index=-100, probabilities=False, column=False, x=None, sizes=None, **attrs):
    rows, classes = shape

    def make(rng, classes):
        logits = 2 * rng.standard_normal((rows, classes)) if x is None else np.array(x)
        if op == "nll":
            logits = -np.abs(logits)
        if probabilities:
            target = rng.uniform(0.01, 1.0, (rows, classes))
            target /= target.sum(1, keepdims=True)
        else:
            target = _labels(rng, rows, classes, ignored, index)
            target = target.reshape(-1, 1) if column else target
        arrays = [logits, target]
        if attrs.get("class_weighted"):
            arrays.append(rng.uniform(0.2, 3.0, classes))
        if attrs.get("weighted"):
            arrays.append(rng.uniform(0.1, 2.0, rows))
        return arrays

    none = attrs.get("reduction") == 0
    cut = tuple(
        i
        for i in range(2 + bool(attrs.get("weighted")) + bool(attrs.get("class_weighted")))
        if not (attrs.get("class_weighted") and i == 2)
    )
    return OpCase(
        op,
        name,
        lambda rng: make(rng, classes),
        attrs,
        wrt=(0, 1) if probabilities else (0,),
        torch=_twin(op),
        rows=none,
        row_inputs=cut,
        sizes=make if sizes else None,
    )


def _both(op):
    """What cross_entropy and nll share."""
    narrow, wide = (9, 5), (4, 70)
    return [
        *(_case(op, f"mean-{n}x{c}", (n, c)) for n, c in SHAPES),
        *(_case(op, f"{NAMES[r]}-{n}x{c}", (n, c), reduction=r) for r in (0, 2) for n, c in (narrow, wide)),
        *(
            _case(op, f"{kind}-{NAMES[r]}-{n}x{c}", (n, c), reduction=r, ignored=(1, 3), **flags)
            for kind, flags in [
                ("ignored", {}),
                ("class-weight", {"class_weighted": 1}),
                ("weight", {"weighted": 1}),
                ("both-weights", {"class_weighted": 1, "weighted": 1}),
            ]
            for r in range(3)
            for n, c in (narrow, wide)
        ),
        _case(op, "other-index", narrow, ignored=(0, 8), index=7, ignore_index=7),
        _case(op, "class-ignored", narrow, ignore_index=2),
        _case(op, "column", narrow, column=True),
        _case(op, "none-no-rows", (0, 4), reduction=0),
        _case(op, "sum-no-rows", (0, 40), reduction=2),
        _case(op, "tails", (3, 7), sizes=True),
    ]


# Far apart: without subtracting the largest, exp overflows.
_FAR = [[400.0, 360.0, -400.0], [-540.0, -500.0, -545.0], [300.0, -300.0, 262.0]]

CASES = [
    *_both("cross_entropy"),
    *_both("nll"),
    *(
        _case(
            "cross_entropy",
            f"smooth-{kind}{NAMES[r]}-{n}x{c}",
            (n, c),
            reduction=r,
            ignored=(1,),
            label_smoothing=0.1,
            **flags,
        )
        for kind, flags in [
            ("", {}),
            ("class-weight-", {"class_weighted": 1}),
            ("both-", {"class_weighted": 1, "weighted": 1}),
        ]
        for r in range(3)
        for n, c in [(9, 5), (4, 70)]
    ),
    *(
        _case(
            "cross_entropy", f"probabilities-{kind}{NAMES[r]}-{n}x{c}", (n, c), reduction=r, probabilities=True, **flags
        )
        for kind, flags in [
            ("", {}),
            ("class-weight-", {"class_weighted": 1}),
            ("weight-", {"weighted": 1}),
            ("smooth-", {"label_smoothing": 0.2, "class_weighted": 1}),
        ]
        for r in range(3)
        for n, c in [(9, 5), (4, 70)]
    ),
    _case("cross_entropy", "probabilities-tails", (3, 7), probabilities=True, sizes=True),
    _case("cross_entropy", "smooth-tails", (3, 7), label_smoothing=0.1, class_weighted=1, sizes=True),
    _case("cross_entropy", "smooth-all", (5, 4), label_smoothing=1.0),
    _case("cross_entropy", "far", (3, 3), x=_FAR, reduction=0),
]
