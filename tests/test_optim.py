"""Update rules against plain NumPy, parameter groups, schedules against their formulas, and the words of errors."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, nn, optim

STEPS = 25
SHAPES = {"0.weight": (5, 7), "0.bias": (5,), "1.weight": (33,), "1.scale": (1,)}


# Every rule once more, as its paper or PyTorch's page has it: float64, one array at a time.


def sgd(w, g, s, t, lr, momentum, dampening, nesterov, weight_decay):
    g = g + weight_decay * w
    if momentum == 0:
        return w - lr * g
    s["b"] = g if t == 1 else momentum * s["b"] + (1 - dampening) * g
    return w - lr * (g + momentum * s["b"] if nesterov else s["b"])


def _adam_step(g, s, t, beta1, beta2, eps, eps_hat):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    if eps_hat:
        return s["m"] / (1 - beta1**t) * np.sqrt(1 - beta2**t) / (np.sqrt(s["v"]) + eps)
    return s["m"] / (1 - beta1**t) / (np.sqrt(s["v"] / (1 - beta2**t)) + eps)


def adam(w, g, s, t, lr, beta1, beta2, eps, weight_decay, eps_hat):
    return w - lr * _adam_step(g + weight_decay * w, s, t, beta1, beta2, eps, eps_hat)


def adamw(w, g, s, t, lr, beta1, beta2, eps, weight_decay, eps_hat):
    return w - lr * weight_decay * w - lr * _adam_step(g, s, t, beta1, beta2, eps, eps_hat)


def rmsprop(w, g, s, t, lr, alpha, eps, momentum, centered, weight_decay):
    g = g + weight_decay * w
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
    s["a"] = alpha * s.get("a", 0) + (1 - alpha) * g
    d = g / (np.sqrt(s["v"] - s["a"] ** 2 if centered else s["v"]) + eps)
    s["b"] = momentum * s.get("b", 0) + d
    return w - lr * s["b"]


def adagrad(w, g, s, t, lr, lr_decay, eps, initial_accumulator_value, weight_decay):
    g = g + weight_decay * w
    s["v"] = s.get("v", initial_accumulator_value) + g * g
    return w - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["v"]) + eps)


def lion(w, g, s, t, lr, beta1, beta2, weight_decay):
    m = s.get("m", 0)
    s["m"] = beta2 * m + (1 - beta2) * g
    return w - lr * (np.sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)


RULES = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop, "adagrad": adagrad, "lion": lion}

OPTIMIZERS = [
    optim.SGD(lr=0.05),
    optim.SGD(lr=0.05, weight_decay=0.1),
    optim.SGD(lr=0.05, momentum=0.9),
    optim.SGD(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1),
    optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
    optim.Adam(lr=0.03),
    optim.Adam(lr=0.03, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
    optim.Adam(lr=0.03, betas=(0.0, 0.0)),
    optim.Adam(lr=0.03, eps=1e-3, eps_hat=True),
    optim.AdamW(lr=0.03),
    optim.AdamW(lr=0.03, eps=1e-3, eps_hat=True),
    optim.AdamW(lr=0.03, weight_decay=0.5),
    optim.AdamW(lr=0.03, weight_decay=0.0),
    optim.RMSprop(lr=0.02),
    optim.RMSprop(lr=0.02, momentum=0.8, weight_decay=0.1),
    optim.RMSprop(lr=0.02, centered=True, alpha=0.9, eps=1e-4),
    optim.RMSprop(lr=0.02, centered=True, momentum=0.8, alpha=0.9, eps=1e-4),
    optim.Adagrad(lr=0.1),
    optim.Adagrad(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3, eps=1e-6),
    optim.Lion(lr=0.01),
    optim.Lion(lr=0.01, betas=(0.8, 0.95), weight_decay=0.3),
]


class Bowl:
    """Parameters under the loss sum_p sum(a_p * (p - c_p)^2) of known gradient; a and c change every step."""

    def __init__(self, dtype="float64", *, isa=None, seed=0):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.values = {name: self.rng.standard_normal(shape) for name, shape in SHAPES.items()}
        self.params = [
            _core.Param(v.astype(dtype), layout="linear" if v.ndim == 2 else "dense") for v in self.values.values()
        ]
        graph = _core.Graph(dtype=dtype, training=True, isa=isa)
        wrt, loss = [], None
        for name, param in zip(SHAPES, self.params, strict=True):
            p = graph.param(param, name)
            wrt.append(p)
            (d,) = graph.node("sub", [p, graph.input(param.shape, False, "c")])
            (square,) = graph.node("mul", [d, d])
            (term,) = graph.node("sum", [graph.node("mul", [square, graph.input(param.shape, False, "a")])[0]])
            loss = term if loss is None else graph.node("add", [loss, term])[0]
        self.program = _core.Program(graph, [loss], loss=loss, wrt=wrt)

    def batch(self):
        """Fresh c and a, and their gradients at ``self.values``."""
        arrays = []
        for v in self.values.values():
            arrays += [self.rng.standard_normal(v.shape), self.rng.uniform(0.1, 1.0, v.shape)]
        gradients = [2 * a * (v - c) for v, c, a in zip(self.values.values(), arrays[::2], arrays[1::2], strict=True)]
        return tuple(a.astype(self.dtype) for a in arrays), gradients


def descend(bowl, stepper, rule, numbers, steps=STEPS, lr_of=lambda t: 0.0):
    """Run both, the reference on ``bowl.values`` with ``numbers[i]`` (``lr_scale`` included) for parameter i."""
    states = [{} for _ in SHAPES]
    for t in range(1, steps + 1):
        inputs, gradients = bowl.batch()
        lr = lr_of(t - 1)
        stepper.step(bowl.program, inputs, lr)
        for i, name in enumerate(SHAPES):
            own = dict(numbers[i])
            scale = own.pop("lr_scale", 1)
            bowl.values[name] = RULES[rule](bowl.values[name], gradients[i], states[i], t, lr * scale, **own)


def differences(bowl):
    return [
        np.abs(p.numpy() - v).max() / max(np.abs(v).max(), 1)
        for p, v in zip(bowl.params, bowl.values.values(), strict=True)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_trajectory_in_double(optimizer, isa):
    bowl = Bowl(isa=isa)
    stepper = _core.Stepper(optimizer.rule, bowl.params, [0] * 4, [optimizer.hyper], isa=isa)
    descend(bowl, stepper, optimizer.rule, [optimizer.hyper] * 4, lr_of=lambda t: optimizer.lr)
    assert max(differences(bowl)) < 1e-8
    assert stepper.steps == STEPS


# 25 float steps differ from double ones by rounding (some 1e-6 of the values); a rule that divides by a root that is
# nearly zero, as centered RMSprop does, multiplies it. Lion steps by the sign, which rounding could flip near
# zero: with these numbers it does not.
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_trajectory_in_float(optimizer, isa):
    bowl = Bowl("float32", isa=isa)
    stepper = _core.Stepper(optimizer.rule, bowl.params, [0] * 4, [optimizer.hyper], isa=isa)
    descend(bowl, stepper, optimizer.rule, [optimizer.hyper] * 4, lr_of=lambda t: optimizer.lr)
    assert max(differences(bowl)) < (2e-4 if getattr(optimizer, "centered", False) else 1e-5)


def test_levels_with_fma_have_equal_bits():
    levels = [level for level in ("x86-64-v3", "x86-64-v4") if level in _core.isa_names()]
    if len(levels) < 2:
        pytest.skip("needs AVX2 and AVX-512")
    for optimizer in OPTIMIZERS:
        results = []
        for level in levels:
            bowl = Bowl("float32", isa=level)
            stepper = _core.Stepper(optimizer.rule, bowl.params, [0] * 4, [optimizer.hyper], clip_norm=1.0, isa=level)
            for _ in range(5):
                stepper.step(bowl.program, bowl.batch()[0], optimizer.lr)
            results.append(b"".join(p.numpy().tobytes() for p in bowl.params))
        assert results[0] == results[1], repr(optimizer)


def descend_along(gradient, optimizer, level, lrs):
    """Weights after steps whose gradient is given: that of sum(gradient * w)."""
    param = _core.Param(np.linspace(-1, 1, gradient.size, dtype=np.float32))
    graph = _core.Graph(dtype="float32", training=True, isa=level)
    w = graph.param(param, "w")
    (loss,) = graph.node("sum", [graph.node("mul", [w, graph.input(gradient.shape, False, "g")])[0]])
    # The first output is watched and has to be finite; this loss need not be.
    program = _core.Program(graph, [graph.constant(np.float32(0))], loss=loss, wrt=[w])
    stepper = _core.Stepper(optimizer.rule, [param], [0], [optimizer.hyper], isa=level)
    for lr in lrs:
        stepper.step(program, (gradient,), lr)
    return param.numpy()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_long_spans_have_equal_bits_too(optimizer):
    """AVX-512 takes some roots another way in long spans: also of squares that are tiny, zero, huge or infinite."""
    rng = np.random.default_rng(1)
    gradient = rng.standard_normal(700).astype(np.float32)
    gradient[100:600] *= np.exp(rng.uniform(-60, 45, 500)).astype(np.float32)
    gradient[rng.integers(0, 700, 150)] = 0
    gradient[-48:] = 0
    lrs = [optimizer.lr, 0.0, optimizer.lr, optimizer.lr]
    with np.errstate(all="ignore"):
        for level in _core.isa_names():
            whole = descend_along(gradient, optimizer, level, lrs)
            assert np.isfinite(whole[:100]).all()
            if level == "x86-64-v3" and "x86-64-v4" in _core.isa_names():
                assert whole.tobytes() == descend_along(gradient, optimizer, "x86-64-v4", lrs).tobytes()


def test_groups_have_their_own_numbers():
    optimizer = optim.AdamW(
        lr=0.02,
        groups={
            optim.VECTORS: dict(weight_decay=0),
            "1.*": dict(lr_scale=3, betas=(0.5, 0.8)),
            "1.scale": dict(eps=1e-2, lr_scale=1),
        },
    )
    bowl = Bowl()
    groups, hyper, frozen = optimizer.resolve(dict(zip(SHAPES, bowl.params, strict=True)))
    assert frozen == frozenset()
    assert groups == [0, 1, 2, 3]
    assert hyper[0] == optimizer.hyper
    assert hyper[1] == {**optimizer.hyper, "weight_decay": 0}
    assert hyper[2] == {**hyper[1], "beta1": 0.5, "beta2": 0.8, "lr_scale": 3}
    assert hyper[3] == {**hyper[1], "beta1": 0.5, "beta2": 0.8, "eps": 1e-2}
    stepper = _core.Stepper("adamw", bowl.params, groups, hyper)
    descend(bowl, stepper, "adamw", [hyper[g] for g in groups], lr_of=lambda t: 0.02 / (1 + t))
    assert max(differences(bowl)) < 1e-8


def test_defaults_are_those_of_the_rules():
    for optimizer in (optim.SGD(), optim.Adam(), optim.AdamW(), optim.RMSprop(), optim.Adagrad(), optim.Lion()):
        info = _core.rule_info(optimizer.rule)
        assert dict(zip(info["hyper"], info["defaults"], strict=True)) == optimizer.hyper
    assert set(_core.rule_names()) == set(RULES)


# --- Optimizer objects


def _model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _loss(model, x, y):
    return ((model(x) - y) ** 2).mean()


@pytest.fixture
def batch(rng):
    return rng.standard_normal((8, 3)).astype(np.float32), rng.standard_normal((8, 2)).astype(np.float32)


def _moved(model, step, batch):
    before = {name: np.array(p) for name, p in model.named_parameters()}
    step(*batch)
    return {name: np.array(p) - before[name] for name, p in model.named_parameters()}


def test_a_changed_number_reaches_the_next_step(batch):
    model, optimizer = _model(), optim.SGD(lr=0.1)
    step = pb.TrainStep(_loss, model, optimizer)
    assert np.any(_moved(model, step, batch)["0.weight"])
    optimizer.lr = 0
    assert not np.any(_moved(model, step, batch)["0.weight"])
    optimizer.lr, optimizer.weight_decay = 1.0, 0.5
    before = {name: np.array(p) for name, p in model.named_parameters()}
    step.backward(*batch)
    gradients = step.grads()
    step.update()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p, before[name] - gradients[name] - 0.5 * before[name], rtol=1e-5, atol=1e-6)


def test_changed_groups_reach_the_next_step(batch):
    model, optimizer = _model(), optim.SGD(lr=0.1)
    step = pb.TrainStep(_loss, model, optimizer)
    step(*batch)
    optimizer.groups = {"0.*": dict(lr_scale=0), "*.bias": dict(frozen=True)}
    moved = _moved(model, step, batch)
    assert [name for name, d in moved.items() if np.any(d)] == ["2.weight"]


def test_frozen_parameters_have_no_gradient_and_no_state(batch):
    model = _model()
    step = pb.TrainStep(_loss, model, optim.Adam(lr=0.1, groups={"0.*": dict(frozen=True)}))
    moved = _moved(model, step, batch)
    assert [name for name, d in moved.items() if np.any(d)] == ["2.weight", "2.bias"]
    assert list(step.grads()) == ["2.weight", "2.bias"]
    assert list(step.state_dict()["state"]["exp_avg"]) == ["2.weight", "2.bias"]


def test_later_patterns_override_earlier_ones():
    optimizer = optim.Adam(groups={"*": dict(frozen=True, eps=0.1), "2.*": dict(frozen=False)})
    groups, hyper, frozen = optimizer.resolve(["0.weight", "2.weight"])
    assert frozen == {"0.weight"}
    assert hyper[groups[1]]["eps"] == 0.1


def test_one_group_without_groups():
    optimizer = optim.RMSprop()
    assert optimizer.resolve(["a", "b"]) == ([0, 0], [optimizer.hyper], frozenset())


def test_version_grows_with_every_change():
    optimizer = optim.SGD(momentum=0.5)
    seen = [optimizer.version]
    for name, value in [("lr", 0.5), ("momentum", 0.9), ("groups", {"*.bias": dict(weight_decay=1)})]:
        setattr(optimizer, name, value)
        seen.append(optimizer.version)
    assert seen == sorted(set(seen))
    with pytest.raises(TypeError):
        optimizer.groups["*.bias"]["weight_decay"] = 0


def test_copies_and_pickles():
    optimizer = optim.AdamW(lr=optim.Warmup(optim.CosineLR(0.1, 50), 5), groups={"*.bias": dict(weight_decay=0)})
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(other) == repr(optimizer)
        assert other.resolve(["0.bias"]) == optimizer.resolve(["0.bias"])
        other.lr = 0.5
    assert isinstance(optimizer.lr, optim.Warmup)


def test_repr_is_what_one_would_write():
    assert repr(optim.Adam()) == "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, eps_hat=False)"
    assert eval(repr(optim.SGD(0.5, groups={"*": dict(lr_scale=2.0)})), vars(optim)).groups["*"]["lr_scale"] == 2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optim.SGD(lr=-0.1), ValueError, r"SGD\(lr\) must be 0 or more, got -0.1."),
        (lambda: optim.SGD(lr=math.nan), ValueError, r"SGD\(lr\) must be 0 or more, got nan."),
        (lambda: optim.SGD(lr="fast"), TypeError, r"SGD\(lr\) must be a number, got str 'fast'."),
        (lambda: optim.SGD(lr=True), TypeError, "must be a number, got bool True"),
        (lambda: optim.SGD(nesterov=True), ValueError, "nesterov=True needs momentum above 0 and dampening 0, got"),
        (lambda: optim.SGD(nesterov=1), TypeError, "must be True or False, got 1"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), ValueError, r"Adam\(betas\)\[1\] must be in \[0, 1\), got 1.0."),
        (lambda: optim.Adam(betas=0.9), TypeError, r"must be two numbers \(beta1, beta2\), got 0.9"),
        (lambda: optim.AdamW(weight_decay=-1), ValueError, r"AdamW\(weight_decay\) must be 0 or more, got -1."),
        (lambda: optim.RMSprop(alpha=2), ValueError, r"RMSprop\(alpha\) must be in \[0, 1\], got 2."),
        (lambda: optim.Adagrad(eps=-1e-3), ValueError, r"Adagrad\(eps\) must be 0 or more"),
        (lambda: optim.Adam(groups=["*"]), TypeError, "must be a dict of patterns to dicts of options, got list"),
        (lambda: optim.Adam(groups={"*": 0.1}), TypeError, r"groups\['\*'\] must be a dict of options, got 0.1"),
        (
            lambda: optim.Adam(groups={"*": dict(momentum=0.9)}),
            ValueError,
            r"groups\['\*'\]: Adam has no option 'momentum'; a group takes betas, eps, weight_decay, eps_hat, lr_scale",
        ),
        (lambda: optim.Adam(groups={"*": dict(lr=0.1)}), ValueError, "no lr of its own; give lr_scale, a factor on lr"),
        (lambda: optim.Adam(groups={"*": dict(lr_scale=-1)}), ValueError, r"\['lr_scale'\] must be 0 or more, got -1"),
        (
            lambda: optim.Adam(groups={"*.biass": dict(eps=1)}).resolve(["0.weight", "0.bias"]),
            ValueError,
            r"groups: '\*.biass' matches no parameter; there are 0.weight, 0.bias.",
        ),
        (
            lambda: optim.SGD(momentum=0.9, groups={"0.*": dict(nesterov=True, momentum=0.0)}).resolve(["0.weight"]),
            ValueError,
            "nesterov=True needs momentum above 0 and dampening 0 for parameter 0.weight",
        ),
        (lambda: optim.SGD(groups={optim.VECTORS: {}}).resolve(["a"]), ValueError, "VECTORS needs shapes"),
        (lambda: setattr(optim.SGD(), "rate", 1), AttributeError, "SGD has no option 'rate'; it has lr, momentum"),
        (lambda: optim.StepLR(0.1, 0), ValueError, "step_size must be 1 or more, got 0"),
        (lambda: optim.StepLR(0.1, 5, by="batch"), ValueError, "by must be 'step' or 'epoch', got 'batch'"),
        (lambda: optim.CosineLR(0.1, min_lr=0.2), ValueError, r"min_lr must be in \[0, 0.1\], got 0.2"),
        (lambda: optim.CosineLR(0.1).values(0, 3), ValueError, "CosineLR needs the length of the run"),
        (lambda: optim.ExponentialLR(0.1, 0.9, by="epoch")(0), ValueError, "counts epochs, but the number of steps"),
        (lambda: optim.ReduceLROnPlateau(0.1, factor=1.0), ValueError, r"factor must be in \[0, 1\), got 1.0"),
        (
            lambda: optim.ReduceLROnPlateau(0.1, monitor="val_accuracy").epoch_end({"loss": 1.0}),
            ValueError,
            r"monitors 'val_accuracy', but the epoch's metrics are \['loss'\]",
        ),
        (
            lambda: optim.ReduceLROnPlateau(0.1).load_state_dict(
                {"current_lr": "1", "best": None, "bad_epochs": 0, "cooldown_left": 0}
            ),
            ValueError,
            "its state.current_lr is str, not a finite number",
        ),
        (lambda: optim.StepLR(0.1, 2).load_state_dict({"best": 1}), ValueError, r"keeps the state \[\], but the given"),
    ],
)
def test_errors(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_refused_value_changes_nothing():
    optimizer = optim.Adam(lr=0.1, betas=(0.8, 0.9))
    version = optimizer.version
    with pytest.raises(ValueError):
        optimizer.betas = (0.8, 1.5)
    assert (optimizer.betas, optimizer.version) == ((0.8, 0.9), version)


# --- Schedules


def test_step_exponential_and_cosine_formulas():
    t = np.arange(40)
    np.testing.assert_allclose(optim.StepLR(0.4, 7, 0.3).values(0, 40), 0.4 * 0.3 ** (t // 7), rtol=1e-13)
    np.testing.assert_allclose(optim.ExponentialLR(0.4, 0.9).values(0, 40), 0.4 * 0.9**t, rtol=1e-13)
    cosine = 0.1 + 0.3 * (1 + np.cos(np.pi * np.minimum(t, 30) / 30)) / 2
    np.testing.assert_allclose(optim.CosineLR(0.4, 30, 0.1).values(0, 40), cosine, rtol=1e-13)


def test_epochs_are_stairs_of_steps():
    schedule = optim.StepLR(1.0, 2, 0.5, by="epoch").bind(steps_per_epoch=3, total_steps=12)
    assert schedule.values(0, 13).tolist() == [1.0] * 6 + [0.5] * 6 + [0.25]
    cosine = optim.CosineLR(1.0, by="epoch").bind(5, 20)
    np.testing.assert_allclose(cosine.values(0, 20)[::5], [1, (1 + np.sqrt(0.5)) / 2, 0.5, (1 - np.sqrt(0.5)) / 2])


def test_a_length_from_the_run():
    assert optim.CosineLR(1.0).bind(10, 50)(50) == 0
    assert optim.CosineLR(1.0, 100).bind(10, 50)(50) == pytest.approx(0.5)
    one_cycle = optim.OneCycle(1.0).bind(10, 50)
    assert one_cycle.values(0, 50).argmax() == 14
    warm = optim.Warmup(optim.CosineLR(1.0), 10, start_factor=0).bind(10, 50)
    values = warm.values(0, 51)
    np.testing.assert_allclose(values[:11], np.linspace(0, 1, 11))
    np.testing.assert_allclose(values[10:], optim.CosineLR(1.0, 40).values(0, 41))


@pytest.mark.parametrize(
    "schedule",
    [
        optim.Constant(0.3),
        optim.StepLR(0.3, 4),
        optim.ExponentialLR(0.3, 0.8),
        optim.CosineLR(0.3, 20),
        optim.OneCycle(0.3, 20),
        optim.OneCycle(0.3, 20, three_phase=True, anneal_strategy="linear"),
        optim.OneCycle(0.3, 1),
        optim.OneCycle(0.3, 10, pct_start=0.1),
        optim.OneCycle(0.3, 10, pct_start=0.0),
        optim.OneCycle(0.3, 10, pct_start=1.0),
        optim.Warmup(optim.StepLR(0.3, 4), 6),
        optim.Warmup(0.3, 0),
        optim.ReduceLROnPlateau(0.3),
    ],
    ids=repr,
)
def test_blocks_equal_single_steps(schedule):
    whole = schedule.values(0, 30)
    assert whole.dtype == np.float64
    assert whole.shape == (30,)
    assert np.all(np.isfinite(whole))
    assert np.all((whole >= 0) & (whole <= 0.3 + 1e-15))
    assert [schedule(t) for t in range(30)] == whole.tolist()
    parts = [schedule.values(0, 5), schedule.values(5, 0), schedule.values(5, 25)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_plateau_reduces_and_rests():
    schedule = optim.ReduceLROnPlateau(1.0, factor=0.5, patience=1, cooldown=2, min_lr=0.2)
    seen = []
    for loss in [3, 2, 2, 2, 2, 2, 2, 2, math.nan, math.nan, math.nan, math.nan, math.nan, 1]:
        schedule.step(loss)
        seen.append(schedule.current_lr)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]
    assert schedule.values(7, 2).tolist() == [0.2, 0.2]


def test_plateau_resumes_from_its_state():
    metrics = [3, 2.9, 2.9, 2.9, 2.8, 2.8, 2.8, 2.8, 2.8]
    whole, first, second = (optim.Warmup(optim.ReduceLROnPlateau(1.0, patience=1, mode="max"), 0) for _ in range(3))
    for k, metric in enumerate(metrics):
        whole.epoch_end({"loss": metric})
        (first if k < 4 else second).epoch_end({"loss": metric})
        if k == 3:
            second.load_state_dict(first.state_dict())
    assert whole.state_dict() == second.state_dict()
    assert whole(0) == second(0) < 1


def test_plateau_prefers_the_validation_loss():
    schedule = optim.ReduceLROnPlateau(1.0)
    schedule.epoch_end({"loss": 5.0, "val_loss": 4.0})
    assert schedule.best == 4.0
    schedule.epoch_end({"loss": 3.0})
    assert schedule.best == 3.0


def test_a_schedule_drives_training(batch):
    # With lr 0 in the second half nothing moves any more.
    model = _model()
    step = pb.TrainStep(_loss, model, optim.SGD(lr=optim.StepLR(0.1, 2, gamma=0.0)))
    moved = [np.any(_moved(model, step, batch)["2.weight"]) for _ in range(4)]
    assert moved == [True, True, False, False]
