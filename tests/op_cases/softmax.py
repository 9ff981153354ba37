"""Cases of csrc/ops/softmax.cpp."""

from __future__ import annotations

from .base import OpCase

FORMS = {
    "last": ((5, 10), -1),
    "wide": ((2, 77), 1),
    "sixteen": ((3, 16), -1),
    "one-class": ((4, 1), -1),
    "vector": ((19,), 0),
    "first": ((6, 21), 0),
    "middle": ((2, 5, 18), 1),
    "batch-last": ((2, 3, 7), -1),
    "images": ((2, 4, 3, 5), 1),
    "empty": ((0, 5), -1),
    "no-classes": ((3, 0), -1),
    "long-first": ((3, 131), 0),
}


def _inputs(shape):
    return lambda rng: [3 * rng.standard_normal(shape)]


def _torch(op):
    def run(x, dim=-1):
        return getattr(x, op)(dim)

    return run


CASES = [
    *(
        OpCase(op, name, _inputs(shape), {"dim": dim}, torch=_torch(op), rows=dim != 0)
        for op in ("softmax", "log_softmax")
        for name, (shape, dim) in FORMS.items()
    ),
    *(
        OpCase(
            op,
            "default",
            _inputs((3, 4)),
            torch=_torch(op),
            rows=True,
            sizes=lambda rng, n: [3 * rng.standard_normal((3, n))],
        )
        for op in ("softmax", "log_softmax")
    ),
    # Far apart: without subtracting the largest, exp overflows.
    *(
        OpCase(op, "large", lambda rng: [500 * rng.standard_normal((4, 9))], torch=_torch(op), rows=True)
        for op in ("softmax", "log_softmax")
    ),
    # The long rows of a vocabulary.
    *(OpCase(op, "vocabulary", _inputs((1, 4103)), torch=_torch(op), rows=True) for op in ("softmax", "log_softmax")),
]
