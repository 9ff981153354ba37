"""Cases of csrc/ops/norms.cpp."""

from __future__ import annotations

from .base import OpCase


def _layer(shape, dims, affine):
    def make(rng):
        normal = shape[len(shape) - dims :]
        arrays = [1 + 2 * rng.standard_normal(shape)]
        arrays += [rng.standard_normal(normal) for _ in range(affine)]
        return arrays

    return make


def _torch_layer(x, weight=None, bias=None, eps=1e-5, dims=1):
    import torch

    return torch.nn.functional.layer_norm(x, x.shape[x.ndim - dims :], weight, bias, eps)


def _torch_rms(x, weight=None, eps=1e-5, dims=1):
    import torch

    return torch.nn.functional.rms_norm(x, x.shape[x.ndim - dims :], weight, eps)


ROWS = {
    "plain": ((5, 7), 1),
    "wide": ((3, 50), 1),
    "batch": ((2, 3, 17), 1),
    "two-dims": ((3, 4, 5), 2),
    "vector": ((19,), 1),
    "many-rows": ((21, 6), 1),
    "whole": ((3, 4), 2),
    "empty": ((0, 5), 1),
}


def _batch(shape, affine, running=True):
    channels = shape[1]

    def make(rng):
        arrays = [0.5 + 2 * rng.standard_normal(shape)]
        if affine:
            arrays += [rng.standard_normal(channels), rng.standard_normal(channels)]
        if running:
            arrays += [rng.standard_normal(channels), 0.5 + rng.random(channels)]
        return arrays

    return make


def _torch_batch(batch):
    def run(x, *rest, eps=1e-5, momentum=0.1, frozen=0, affine=0):
        import torch

        weight, bias = rest[:2] if affine else (None, None)
        running = [v.detach().clone() for v in rest[2 * affine :]]
        mean, var = running or (None, None)
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, batch, momentum, eps)
        return (y, mean, var) if batch and running else y

    return run


BATCHES = {
    "columns": (6, 5),
    "wide": (7, 70),
    "sixteen": (5, 16),
    "one-channel": (9, 1),
    "length": (4, 3, 19),
    "one-row": (1, 3, 8),
    "one-channel-length": (3, 1, 7),
    "length-one": (5, 4, 1),
}


def _batch_cases():
    for name, shape in BATCHES.items():
        for affine in (0, 1):
            wrt = (0, 1, 2) if affine else (0,)
            params = (3, 4) if affine else (1, 2)
            suffix = "-affine" if affine else ""
            for kind, attrs, training in (("", {}, True), ("-frozen", {"frozen": 1}, True), ("-inference", {}, False)):
                batch = training and not attrs
                yield OpCase(
                    "batch_norm",
                    name + suffix + kind,
                    _batch(shape, affine),
                    {"affine": affine, **attrs},
                    wrt=wrt,
                    param=params,
                    torch=_torch_batch(batch),
                    training=training,
                    rows=not batch,
                    f32_rtol=3e-5,
                )
    yield OpCase(
        "batch_norm",
        "without-running",
        _batch((6, 5), 1, False),
        {"affine": 1},
        torch=_torch_batch(True),
        f32_rtol=3e-5,
    )
    yield OpCase(
        "batch_norm",
        "options",
        _batch((6, 5), 1),
        {"affine": 1, "eps": 1e-3, "momentum": 0.3},
        wrt=(0, 1, 2),
        param=(3, 4),
        torch=_torch_batch(True),
        f32_rtol=3e-5,
    )
    # Several blocks of statistics.
    yield OpCase(
        "batch_norm",
        "blocks",
        _batch((260, 20), 1),
        {"affine": 1},
        wrt=(0, 1, 2),
        param=(3, 4),
        torch=_torch_batch(True),
        f32_rtol=3e-5,
    )
    yield OpCase(
        "batch_norm",
        "blocks-length",
        _batch((9, 7, 90), 0),
        {},
        wrt=(0,),
        param=(1, 2),
        torch=_torch_batch(True),
        f32_rtol=3e-5,
    )


CASES = [
    *(
        OpCase(
            "layer_norm",
            f"{name}-{affine}",
            _layer(shape, dims, affine),
            {"dims": dims},
            torch=_torch_layer,
            rows=dims < len(shape),
            f32_rtol=3e-5,
        )
        for name, (shape, dims) in ROWS.items()
        for affine in (0, 1, 2)
    ),
    *(
        OpCase(
            "rms_norm",
            f"{name}-{affine}",
            _layer(shape, dims, affine),
            {"dims": dims},
            torch=_torch_rms,
            rows=dims < len(shape),
            f32_rtol=3e-5,
        )
        for name, (shape, dims) in ROWS.items()
        for affine in (0, 1)
    ),
    OpCase(
        "layer_norm",
        "eps",
        _layer((4, 6), 1, 2),
        {"eps": 0.1},
        torch=_torch_layer,
        rows=True,
        sizes=lambda rng, n: _layer((3, n), 1, 2)(rng),
    ),
    OpCase(
        "rms_norm",
        "eps",
        _layer((4, 6), 1, 1),
        {"eps": 0.1},
        torch=_torch_rms,
        rows=True,
        sizes=lambda rng, n: _layer((3, n), 1, 1)(rng),
    ),
    *_batch_cases(),
]
