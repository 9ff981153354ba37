"""Every layer and every loss against PyTorch: values and gradients from the same weights.

Both sides compute in float32. Gradients are those of sum(out * d_out), d_out fixed and random, for inputs and
parameters.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pybackprop import _core, nn, ops  # noqa: E402
from pybackprop._trace import spec_of, trace  # noqa: E402

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # a few hundred roundings of numbers of size 1


def numbers(shape, seed=0, low=None):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return x if low is None else np.abs(x) + np.float32(low)


def labels(shape, classes, seed=1):
    return np.random.default_rng(seed).integers(0, classes, shape)


def run_ours(module, inputs, d_out, training=True):
    """Output, gradients of the float inputs, gradients of the parameters by name."""

    def objective(model, *args):
        out = model(*args)
        return (out * d_out).sum(), out

    traced = trace(objective, module, tuple(spec_of(x) for x in inputs), training=training)
    (loss, out), _ = traced.output_values()
    floats = [v for v, x in zip(traced.inputs, inputs, strict=True) if x.dtype.kind == "f"]
    params = list(traced.params)
    wrt = floats + [traced.params[name][1] for name in params]
    (got,), grads, _ = _core.Program(traced.graph, [out], loss=loss, wrt=wrt).run(tuple(inputs))
    return got, grads[: len(floats)], dict(zip(params, grads[len(floats) :], strict=True))


def run_theirs(module, inputs, d_out):
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    out = module(*tensors)
    out.backward(torch.as_tensor(d_out))
    floats = [t.grad.numpy() for t in tensors if t.requires_grad]
    return out.detach().numpy(), floats, {name: p.grad.numpy() for name, p in module.named_parameters()}


def check(ours, theirs, *inputs, training=True):
    theirs.train(training)
    values = {k: numbers(v.shape, seed=7 + i, low=0.1) if "var" in k else numbers(v.shape, seed=7 + i)
              for i, (k, v) in enumerate(theirs.state_dict().items()) if v.dtype.is_floating_point}  # fmt: skip
    theirs.load_state_dict({k: torch.tensor(v) for k, v in values.items()}, strict=False)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    shape = theirs(*[torch.tensor(x) for x in inputs]).shape
    theirs.load_state_dict({k: torch.tensor(v) for k, v in values.items()}, strict=False)
    d_out = numbers(tuple(shape), seed=3)
    a, b = run_ours(ours, inputs, d_out, training), run_theirs(theirs, inputs, d_out)
    np.testing.assert_allclose(a[0], b[0], **TOLERANCE)
    assert a[2].keys() == b[2].keys()
    for ours_d, theirs_d in zip([*a[1], *a[2].values()], [*b[1], *b[2].values()], strict=True):
        np.testing.assert_allclose(ours_d, theirs_d, **TOLERANCE)
    if not training:
        np.testing.assert_array_equal(ours(*inputs), a[0])


LAYERS = {
    "Linear": (lambda n: n.Linear(7, 5), numbers((6, 7))),
    "Linear-no-bias": (lambda n: n.Linear(33, 17, bias=False), numbers((3, 33))),
    "Linear-3d": (lambda n: n.Linear(4, 6), numbers((2, 3, 4))),
    "Linear-1d": (lambda n: n.Linear(4, 6), numbers((4,))),
    "ReLU": (lambda n: n.ReLU(), numbers((5, 19))),
    "ReLU6": (lambda n: n.ReLU6(), 4 * numbers((5, 19))),
    "LeakyReLU": (lambda n: n.LeakyReLU(0.2), numbers((5, 19))),
    "ELU": (lambda n: n.ELU(0.7), numbers((5, 19))),
    "GELU": (lambda n: n.GELU(), numbers((5, 19))),
    "GELU-tanh": (lambda n: n.GELU("tanh"), numbers((5, 19))),
    "SiLU": (lambda n: n.SiLU(), numbers((5, 19))),
    "Tanh": (lambda n: n.Tanh(), numbers((5, 19))),
    "Sigmoid": (lambda n: n.Sigmoid(), numbers((5, 19))),
    "Softplus": (lambda n: n.Softplus(2.0, 3.0), 3 * numbers((5, 19))),
    "Hardtanh": (lambda n: n.Hardtanh(-0.5, 0.8), numbers((5, 19))),
    "Mish": (lambda n: n.Mish(), numbers((5, 19))),
    "Softmax": (lambda n: n.Softmax(-1), numbers((5, 19))),
    "Softmax-dim": (lambda n: n.Softmax(1), numbers((5, 6, 4))),
    "LogSoftmax": (lambda n: n.LogSoftmax(-1), numbers((5, 19))),
    "LayerNorm": (lambda n: n.LayerNorm(19), numbers((5, 19))),
    "LayerNorm-2": (lambda n: n.LayerNorm((3, 6), eps=1e-3), numbers((5, 3, 6))),
    "LayerNorm-plain": (lambda n: n.LayerNorm(19, elementwise_affine=False), numbers((5, 19))),
    "LayerNorm-no-bias": (lambda n: n.LayerNorm(19, bias=False), numbers((5, 19))),
    "RMSNorm": (lambda n: n.RMSNorm(19), numbers((5, 19))),
    "RMSNorm-eps": (lambda n: n.RMSNorm((3, 6), eps=1e-3), numbers((5, 3, 6))),
    "BatchNorm1d": (lambda n: n.BatchNorm1d(19), numbers((9, 19))),
    "BatchNorm1d-3d": (lambda n: n.BatchNorm1d(6, momentum=0.3), numbers((5, 6, 7))),
    "BatchNorm1d-plain": (lambda n: n.BatchNorm1d(6, affine=False), numbers((9, 6))),
    "Flatten": (lambda n: n.Flatten(), numbers((5, 3, 6))),
    "Identity": (lambda n: n.Identity(), numbers((5, 3))),
    "Dropout-0": (lambda n: n.Dropout(0.0), numbers((5, 3))),
    "Embedding": (lambda n: n.Embedding(11, 5), labels((4, 3), 11)),
    "Embedding-padding": (lambda n: n.Embedding(11, 5, padding_idx=2), labels((40,), 11)),
    "Sequential": (lambda n: n.Sequential(n.Linear(7, 9), n.ReLU(), n.LayerNorm(9), n.Linear(9, 2)), numbers((6, 7))),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, training):
    make, x = LAYERS[name]
    check(make(nn), make(torch.nn), x, training=training)


def test_running_statistics_follow_torch():
    ours, theirs = nn.BatchNorm1d(6, momentum=0.3), torch.nn.BatchNorm1d(6, momentum=0.3)
    x = numbers((9, 6)) * 3 + 1
    theirs(torch.tensor(x))
    traced = trace(lambda m, x: m(x).sum(), ours, (spec_of(x),), training=True)
    loss = traced.outputs._value
    params = [traced.params[name] for name in traced.params]
    program = _core.Program(traced.graph, [loss], loss=loss, wrt=[v for _, v, _ in params])
    stepper = _core.Stepper("sgd", [p for p, _, _ in params], [0, 0], [{}])
    stepper.step(program, (x,), 0.0)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), err_msg=name, **TOLERANCE)
    run = ours.running_mean.numpy()
    ours(x, training=True)
    np.testing.assert_array_equal(ours.running_mean.numpy(), run)


def test_frozen_batch_norm_uses_running_statistics():
    ours, theirs = nn.BatchNorm1d(6, frozen=True), torch.nn.BatchNorm1d(6).eval()
    x = numbers((9, 6))
    np.testing.assert_allclose(ours(x, training=True), theirs(torch.tensor(x)).detach().numpy(), **TOLERANCE)


def test_sparse_embedding_gradient_is_rows():
    layer, ids = nn.Embedding(50, 3, sparse=True), np.array([7, 2, 7])
    _, _, grads = run_ours(layer, [ids], np.ones((3, 3), np.float32))
    rows, values = grads["weight"]
    np.testing.assert_array_equal(rows, [2, 7])
    np.testing.assert_array_equal(values, np.array([[1.0] * 3, [2.0] * 3]))


PROBABILITIES = ops.softmax(numbers((8, 5), seed=9))
PRED = numbers((8, 5))
# name: ours, theirs, prediction, target
LOSSES = {
    "MSE": (nn.MSELoss, torch.nn.MSELoss, {}, PRED, numbers((8, 5), 2)),
    "L1": (nn.L1Loss, torch.nn.L1Loss, {}, PRED, numbers((8, 5), 2)),
    "Huber": (nn.HuberLoss, torch.nn.HuberLoss, {"delta": 0.6}, PRED, numbers((8, 5), 2)),
    "BCE": (nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss, {}, PRED, PROBABILITIES),
    "Poisson": (nn.PoissonNLLLoss, torch.nn.PoissonNLLLoss, {}, PRED, numbers((8, 5), 2, 0.1) * 3),
    "Poisson-full": (nn.PoissonNLLLoss, torch.nn.PoissonNLLLoss, {"full": True}, PRED, numbers((8, 5), 2, 0.1) * 3),
    "Poisson-rate": (
        nn.PoissonNLLLoss, torch.nn.PoissonNLLLoss, {"log_input": False},
        numbers((8, 5), 0, 0.1), numbers((8, 5), 2, 0.1),
    ),
    "KL": (nn.KLDivLoss, torch.nn.KLDivLoss, {}, ops.log(PROBABILITIES), PROBABILITIES[::-1].copy()),
    "KL-log": (nn.KLDivLoss, torch.nn.KLDivLoss, {"log_target": True}, ops.log(PROBABILITIES), PRED),
    "CE": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {}, PRED, labels((8,), 5)),
    "CE-ignore": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"ignore_index": 3}, PRED, labels((8,), 5)),
    "CE-smooth": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"label_smoothing": 0.2}, PRED, labels((8,), 5)),
    "CE-weight": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"weight": numbers(5, 4, 0.1)}, PRED, labels(8, 5)),
    "CE-weight-smooth": (
        nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"weight": numbers(5, 4, 0.1), "label_smoothing": 0.1},
        PRED, labels(8, 5),
    ),
    "CE-probabilities": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {}, PRED, PROBABILITIES),
    "CE-places": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {}, numbers((3, 5, 4)), labels((3, 4), 5)),
    "CE-places-2": (
        nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"weight": numbers(5, 4, 0.1)},
        numbers((3, 5, 4, 2)), labels((3, 4, 2), 5),
    ),
    "CE-places-probabilities": (
        nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {},
        numbers((3, 5, 4)), ops.softmax(numbers((3, 5, 4), 8), 1),
    ),
    "NLL": (nn.NLLLoss, torch.nn.NLLLoss, {}, ops.log_softmax(PRED), labels((8,), 5)),
    "NLL-weight": (nn.NLLLoss, torch.nn.NLLLoss, {"weight": numbers(5, 4, 0.1)}, ops.log_softmax(PRED), labels(8, 5)),
}  # fmt: skip


REDUCED = [(name, r) for name in LOSSES for r in ("mean", "sum", "none")] + [("KL", "batchmean")]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch announces another meaning of kl_div's mean
@pytest.mark.parametrize(("name", "reduction"), REDUCED)
def test_loss(name, reduction):
    ours, theirs, options, pred, target = LOSSES[name]
    theirs_options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours, theirs = ours(**options, reduction=reduction), theirs(**theirs_options, reduction=reduction)
    x = torch.tensor(pred, requires_grad=True)
    want = theirs(x, torch.tensor(target))
    d_out = numbers(tuple(want.shape), seed=3)
    want.backward(torch.as_tensor(d_out))

    traced = trace(lambda m, p, t: _pair(m(p, t), d_out), ours, (spec_of(pred), spec_of(target)))
    (loss, out), _ = traced.output_values()
    program = _core.Program(traced.graph, [out], loss=loss, wrt=[traced.inputs[0]])
    (got,), (gradient,), _ = program.run((pred, target))
    np.testing.assert_allclose(got, want.detach().numpy(), **TOLERANCE)
    np.testing.assert_allclose(gradient, x.grad.numpy(), **TOLERANCE)
    np.testing.assert_allclose(ours(pred, target), got, rtol=1e-6)
    assert isinstance(ours(pred, target), float) == (reduction != "none")


def _pair(out, d_out):
    return (out * d_out).sum(), out


def test_pos_weight():
    weight, target = numbers(5, 4, 0.1), (PRED[::-1] > 0).astype(np.float32)
    want = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight))(torch.tensor(PRED), torch.tensor(target))
    np.testing.assert_allclose(nn.BCEWithLogitsLoss(pos_weight=weight)(PRED, target), want.item(), **TOLERANCE)
    want = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))(torch.tensor(PRED), torch.tensor(target))
    np.testing.assert_allclose(nn.BCEWithLogitsLoss(pos_weight=3.0)(PRED, target), want.item(), **TOLERANCE)


@pytest.mark.parametrize("name", [n for n in LOSSES if "weight" not in n and "places" not in n])
def test_integer_sample_weights_repeat_rows(name):
    ours, _, options, pred, target = LOSSES[name]
    times = np.array([2, 1, 0, 3, 1, 1, 0, 1])
    loss = ours(**options)
    np.testing.assert_allclose(
        loss(pred, target, times), loss(np.repeat(pred, times, 0), np.repeat(target, times, 0)), rtol=1e-5
    )


def test_sample_weights_of_places():
    pred, target = numbers((3, 5, 4)), labels((3, 4), 5)
    weight = np.array([2, 0, 1])
    loss = nn.CrossEntropyLoss()
    np.testing.assert_allclose(
        loss(pred, target, weight), loss(np.repeat(pred, weight, 0), np.repeat(target, weight, 0)), rtol=1e-5
    )


@pytest.mark.parametrize("gain", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains(gain):
    assert nn.init.calculate_gain(gain) == pytest.approx(torch.nn.init.calculate_gain(gain))


@pytest.mark.parametrize(
    "name", ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_"]
)
def test_initial_values_are_distributed_as_in_torch(name):
    shape = (300, 200)
    ours = getattr(nn.init, name)(nn.Parameter(np.zeros(shape))).numpy()
    theirs = getattr(torch.nn.init, name)(torch.empty(shape)).numpy()
    # 60000 draws: the standard error of a deviation is about 0.3 %.
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert abs(ours.mean()) < 0.02 * max(ours.std(), 1e-9)
    if name != "orthogonal_":
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.25)
