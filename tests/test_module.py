"""Module: the tree, state, copies, calls, and what it says about mistakes."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from pybackprop import Parameter, _core, manual_seed, nn, ops
from pybackprop._trace import Spec, flatten, spec_of, trace, unflatten


class Residual(nn.Module):
    def __init__(self, width):
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)
        self.scale = nn.Parameter(np.full((), 0.5))

    def forward(self, x):
        return x + self.scale * self.fc(self.norm(x)).relu()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Residual(8), nn.BatchNorm1d(8), nn.Linear(8, 3))


@pytest.fixture
def x(rng):
    return rng.normal(size=(6, 5)).astype(np.float32)


def module_of(forward, **attributes):
    """A Module with this forward."""
    made = type("Made", (nn.Module,), {"forward": forward})()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


# The tree and its state.


def test_names_are_in_pytorchs_order(model):
    assert list(model.state_dict()) == [
        "0.weight", "0.bias", "2.scale", "2.norm.weight", "2.norm.bias", "2.fc.weight", "2.fc.bias", "3.weight",
        "3.bias",        "3.running_mean", "3.running_var", "3.num_batches_tracked", "4.weight", "4.bias",
    ]  # fmt: skip
    assert [name for name, _ in model.named_parameters()] == [
        n for n in model.state_dict() if "running" not in n and "num" not in n
    ]
    assert [name for name, _ in model.named_buffers()] == ["3.running_mean", "3.running_var", "3.num_batches_tracked"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "2", "2.norm", "2.fc", "3", "4"]
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3", "4"]
    assert model.state_dict()["3.num_batches_tracked"].dtype == np.int64


def test_a_tied_parameter_is_one_parameter_with_two_names():
    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert list(tied.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    tied.a.weight = np.eye(4)
    np.testing.assert_array_equal(tied.b.weight, np.eye(4))


def test_a_shared_module_is_listed_twice_in_the_state():
    fc = nn.Linear(3, 3)
    model = nn.Sequential(fc, nn.ReLU(), fc)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(list(model.parameters())) == 2
    traced = trace(lambda m, x: m(x), model, (Spec((2, 3)),))
    assert list(traced.params) == ["0.weight", "0.bias"]
    assert list(traced.names) == ["0", "1", "0#2", "Sequential"]


def test_state_dict_gives_copies(model):
    state = model.state_dict()
    state["0.weight"][:] = 0
    assert model[0].weight.numpy().any()


def test_load_state_dict_is_all_or_nothing(model, x):
    before, want = model.state_dict(), model(x)
    state = {name: value + 1 for name, value in before.items()}
    cases = [
        ({n: v for n, v in state.items() if n != "2.scale"}, "'2.scale', which is missing"),
        ({**state, "extra": 1}, "'extra', which Sequential"),
        ({**state, "4.bias": np.ones(4)}, r"'4.bias' has shape \(3,\) in Sequential, and \(4,\) in the state"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            model.load_state_dict(bad)
    with pytest.raises(TypeError, match=r"'4\.bias' expects float32"):
        model.load_state_dict({**state, "4.bias": ["a"] * 3})
    with pytest.raises(TypeError, match="num_batches_tracked' expects int64"):
        model.load_state_dict({**state, "3.num_batches_tracked": 0.5})
    np.testing.assert_array_equal(model(x), want)
    other = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Residual(8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    other.load_state_dict(before)
    np.testing.assert_array_equal(other(x), want)


def test_load_state_dict_not_strict(model):
    missing, unexpected = model.load_state_dict({"0.bias": np.zeros(8), "extra": 1}, strict=False)
    assert "0.weight" in missing and unexpected == ["extra"]
    assert not model[0].bias.numpy().any()


# Writing and reading parameters.


def test_an_array_assigned_to_a_parameter_is_written_into_it():
    layer = nn.Linear(3, 2)
    weight = layer.weight
    version = _core.version()
    layer.weight = np.arange(6).reshape(2, 3)
    assert layer.weight is weight and _core.version() == version
    np.testing.assert_array_equal(np.asarray(layer.weight), np.arange(6).reshape(2, 3))
    layer.weight[0] = 7
    np.testing.assert_array_equal(layer.weight[0], [7, 7, 7])
    layer.weight *= 2
    assert layer.weight is weight and float(layer.weight[0, 0]) == 14
    with pytest.raises(ValueError, match=r"\[Linear\] weight has shape \(2, 3\), got values of shape \(3, 2\)"):
        layer.weight = np.zeros((3, 2))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_parameter_outside_of_a_trace_acts_as_an_array():
    p = nn.Parameter([1.0, 4.0])
    np.testing.assert_array_equal(p + 1, [2, 5])
    np.testing.assert_array_equal(np.ones(2) + p, [2, 5])
    np.testing.assert_array_equal(np.sqrt(p), [1, 2])
    np.testing.assert_array_equal(p.sum(), 5)
    assert np.sum(p) == 5 and np.mean(p, axis=0) == 2.5 and np.allclose(p, [1, 4]) and np.max(np.stack([p, p])) == 4
    assert len(p) == 2 and p.ndim == 1 and p.size == 2 and p.dtype == np.float32
    assert "Parameter" in repr(p) and float(p[1]) == 4
    assert nn.Parameter(np.zeros(2), dtype="float64").dtype == np.float64
    with pytest.raises(ValueError, match="float32 or float64"):
        nn.Parameter([1], dtype="int64")
    with pytest.raises(TypeError, match="expects float32 values"):
        nn.Parameter(["a"])


def test_buffers_are_kept_and_usable(x):
    layer = module_of(lambda self, x: (x - self.mean) * self.scale)
    layer.register_buffer("mean", x.mean(0))
    layer.scale = np.float64(2)  # a plain attribute: a constant
    np.testing.assert_allclose(layer(x), (x - x.mean(0)) * 2, rtol=1e-5, atol=1e-6)
    assert list(layer.state_dict()) == ["mean"]
    layer.mean = np.zeros(5)
    np.testing.assert_allclose(layer(x), x * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="register_buffer"):
        layer.register_buffer("a.b", 1)


def test_freeze_and_unfreeze(model):
    model.freeze()
    assert not any(p.trainable for p in model.parameters())
    traced = trace(lambda m, x: m(x), model, (Spec((6, 5)),))
    assert not any(trainable for _, _, trainable in traced.params.values())
    model.unfreeze()
    assert all(p.trainable for p in model.parameters())


def test_apply_visits_children_first(model):
    seen = []
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen[-1] == "Sequential" and seen[:2] == ["Linear", "ReLU"]


def test_astype_converts_in_place(model, x):
    single = model(x)
    assert model.astype("float64") is model
    assert model(x).dtype == np.float64 and model[3].num_batches_tracked.dtype == np.int64
    np.testing.assert_allclose(model(x), single, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="float32 or float64"):
        model.astype("int32")


# Copies.


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_independent_and_keep_ties(clone, model, x):
    want = model(x)
    twin = clone(model)
    np.testing.assert_array_equal(twin(x), want)
    twin[0].weight = np.zeros((8, 5))
    np.testing.assert_array_equal(model(x), want)
    assert not np.array_equal(twin(x), want)
    model[0].freeze()
    assert not clone(model)[0].weight.trainable
    tied = clone(Tied())
    assert tied.a.weight is tied.b.weight
    table = clone(nn.Embedding(5, 2, sparse=True))
    assert table.weight._param.sparse


def test_shallow_copy_shares_parameters(model):
    twin = copy.copy(model)
    assert twin[0] is model[0]
    twin.append(nn.ReLU())
    assert len(twin) == len(model) + 1


# Calls.


def test_rows_have_the_same_bits_in_every_batch(model, x):
    whole = model(x)
    for i in range(len(x)):
        np.testing.assert_array_equal(model(x[i : i + 1])[0], whole[i])
    np.testing.assert_array_equal(model(x[::-1])[::-1], whole)


def test_calls_accept_what_numpy_reads(model, x):
    want = model(x)
    np.testing.assert_array_equal(model(x.tolist()), want)
    np.testing.assert_array_equal(model(np.asfortranarray(x)), want)
    np.testing.assert_array_equal(model(x.astype(np.float64)), want)
    np.testing.assert_array_equal(model(x), want)
    assert nn.ReLU()(x.astype(np.float64)).dtype == np.float64
    assert nn.ReLU()(np.array([True])).dtype == np.float32


def test_several_inputs_and_outputs(x):
    def forward(self, pair, ids, *, scale=None, double=False):
        a, b = pair
        y = a + b if scale is None else (a + b) * scale["s"]
        return {"sum": y * 2 if double else y, "rest": (self.table(ids), [a])}

    layer = module_of(forward, table=nn.Embedding(4, 2))
    out = layer((x, x), np.array([3, 1]), scale={"s": 2.0}, double=True)
    np.testing.assert_allclose(out["sum"], 8 * x, rtol=1e-6)
    np.testing.assert_array_equal(out["rest"][0], layer.table.weight.numpy()[[3, 1]])
    np.testing.assert_array_equal(out["rest"][1][0], x)
    np.testing.assert_allclose(layer((x, x), np.array([0]))["sum"], 2 * x)
    with pytest.raises(ValueError, match="ids"):
        layer((x, x), np.array([4]))


def test_programs_are_kept_until_the_model_changes(model, x):
    model(x)
    programs = model._compiled()
    nn.Linear(2, 2)  # another model's attributes
    model[0].weight = np.zeros((8, 5))  # values, not structure
    model[2].__dict__["note"] = 1
    assert model._compiled() is programs
    for change in (
        lambda: setattr(model[2], "note", 2),
        lambda: setattr(model[2], "fc", nn.Linear(8, 8)),
        lambda: setattr(model[0].weight, "trainable", False),
        lambda: model.append(nn.ReLU()),
        lambda: delattr(model[2], "note"),
    ):
        programs = model._compiled()
        change()
        assert model._compiled() is not programs
    programs = model._compiled()
    model[2].fc = model[2].fc
    model[3].eps = model[3].eps
    assert model._compiled() is programs


def test_programs_are_bounded(x):
    layer = nn.ReLU()
    for n in range(100):
        layer(np.ones(n + 1))
    assert len(layer._compiled()._entries) <= 32


def test_dropout_acts_in_training_only():
    layer, ones = nn.Dropout(0.5), np.ones(1000, np.float32)
    np.testing.assert_array_equal(layer(ones), ones)
    dropped = layer(ones, training=True)
    assert set(dropped.tolist()) == {0.0, 2.0} and 400 < (dropped == 0).sum() < 600
    assert not np.array_equal(layer(ones, training=True), dropped)
    layer.p = 0.0
    np.testing.assert_array_equal(layer(ones, training=True), ones)
    layer.p = 1.0
    assert not layer(ones, training=True).any()
    twice = trace(lambda m, x: m(m(x)), nn.Dropout(0.5), (Spec((3,)),), training=True)
    assert twice.random_nodes == 2


def test_initial_weights_follow_the_seed():
    manual_seed(3)
    first = nn.Linear(4, 4).state_dict()
    manual_seed(3)
    second = nn.Linear(4, 4).state_dict()
    np.testing.assert_array_equal(first["weight"], second["weight"])
    for bad, error in ((-1, ValueError), (0.5, TypeError), (True, TypeError)):
        with pytest.raises(error):
            manual_seed(bad)


# Containers.


def test_sequential_edits(x):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    part = model[:2]
    assert isinstance(part, nn.Sequential) and part[0] is model[0] and model[-1] is model[2]
    model.insert(1, nn.LayerNorm(4))
    assert [type(m).__name__ for m in model] == ["Linear", "LayerNorm", "ReLU", "Linear"]
    del model[1]
    model[1] = nn.Tanh()
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"] and len(model) == 3
    assert model(x).shape == (6, 2)
    named = nn.Sequential(OrderedDict(first=nn.Linear(5, 4), act=nn.ReLU()))
    assert list(named.state_dict()) == ["first.weight", "first.bias"] and named.act is named[1]
    named.act = nn.Tanh()
    assert isinstance(named[1], nn.Tanh) and len(named) == 2
    np.testing.assert_array_equal(nn.Sequential()(x), x)
    with pytest.raises(TypeError, match="expects Modules, got function"):
        nn.Sequential(np.tanh if False else (lambda x: x))
    with pytest.raises(IndexError, match="out of range"):
        model[3]


def test_lists_and_dicts_of_modules(x):
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.heads["out"](x)

    model = module_of(forward, layers=nn.ModuleList(nn.Linear(5, 5) for _ in range(2)), heads=nn.ModuleDict())
    model.heads["out"] = nn.Linear(5, 1)
    assert list(model.state_dict())[-2:] == ["heads.out.weight", "heads.out.bias"]
    assert model(x).shape == (6, 1)
    assert "out" in model.heads and list(model.heads.keys()) == list(model.heads) == ["out"]
    with pytest.raises(TypeError, match="cannot be called"):
        model.layers(x)
    with pytest.raises(ValueError, match="without dots"):
        model.heads["a.b"] = nn.ReLU()


def test_repr_is_pytorchs(model):
    assert repr(model).splitlines()[:6] == [
        "Sequential(",
        "  (0): Linear(in_features=5, out_features=8, bias=True)",
        "  (1): ReLU()",
        "  (2): Residual(",
        "    (norm): LayerNorm((8,), eps=1e-05, elementwise_affine=True)",
        "    (fc): Linear(in_features=8, out_features=8, bias=True)",
    ]


# Traces.


def test_flatten_keeps_structure():
    structure = {"a": (1.5, [np.ones(2), None]), "b": [True, "x", [1.0, 2.0]]}
    leaves, tree = flatten(structure)
    assert len(leaves) == 3 and hash(tree) == hash(flatten(structure)[1])
    rebuilt = unflatten(tree, leaves)
    assert rebuilt["b"] == structure["b"] and rebuilt["a"][1][1] is None
    assert spec_of(np.zeros((2, 3), np.uint8)) == Spec((2, 3), True)
    assert spec_of([True]) == Spec((1,), False)
    with pytest.raises(TypeError, match="array of numbers"):
        spec_of(["a"])


def test_another_model_is_used_frozen(x):
    teacher, student = nn.Linear(5, 3), nn.Linear(5, 3)
    traced = trace(lambda m, x: (m(x) - teacher(x)).square().mean(), student, (spec_of(x),))
    assert list(traced.params) == ["weight", "bias"]
    values, _ = traced.output_values()
    program = _core.Program(traced.graph, values)
    first = program.run((x,))[0][0]
    teacher.load_state_dict(student.state_dict())
    assert program.run((x,))[0][0] == 0 < first


def _in_if(self, x):
    return x if x.sum() > 0 else -x


def _writes(self, x):
    x[0] = 1.0
    return x


def _keeps(self, x):
    self.h = x
    return x


MISTAKES = {
    "if": (_in_if, TypeError, r"\[Tensor\] Made: .*use ops.where"),
    "write": (_writes, TypeError, r"\[Tensor\] Made: .*cannot be written in place"),
    "attribute": (_keeps, TypeError, r"\[Made\] h: a Tensor cannot be kept in a Module"),
    "float": (lambda self, x: float(x), TypeError, "has no value while the model is being traced"),
    "index": (lambda self, x: [1, 2][x], TypeError, "has no value while the model is being traced"),
    "numpy": (lambda self, x: np.asarray(x), TypeError, "has no value while the model is being traced"),
    "ufunc": (lambda self, x: np.sin(x), TypeError, "NumPy's sin cannot be traced: use the functions"),
    "known ufunc": (lambda self, x: np.tanh(x), TypeError, "NumPy's tanh cannot be traced: use ops.tanh"),
    "numpy function": (lambda self, x: np.mean(x, axis=0), TypeError, "NumPy's mean cannot be traced: use ops.mean"),
    "numpy of parameter": (lambda self, x: x + np.sum(self.p), TypeError, "NumPy's sum cannot be traced: use ops.sum"),
    "nothing": (lambda self, x: None, TypeError, r"Made.forward returned None"),
    "string": (lambda self, x: {1}, TypeError, r"Made.forward must return Tensors"),
    "parameter value": (lambda self, x: x + np.asarray(self.p), TypeError, "a Parameter has no value"),
    "training": (lambda self, x: nn.Dropout()(x, training=True), ValueError, "outermost call"),
    "deepcopy": (lambda self, x: copy.deepcopy(x), TypeError, "cannot be copied"),
    "mask": (lambda self, x: x[np.ones(6, bool)], TypeError, "boolean mask"),
    "list of modules": (lambda self, x: self.plain[0](x), ValueError, r"Linear in Made: .*nn.ModuleList"),
    "too many indices": (lambda self, x: x[0, 0, 0], IndexError, "too many"),
    "operand": (lambda self, x: x + "a", TypeError, r"\[add\] Made: expects Tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_with_their_place(name, x):
    forward, error, message = MISTAKES[name]
    model = module_of(forward, p=nn.Parameter(np.ones(5)), plain=[nn.Linear(5, 5)])
    with pytest.raises(error, match=message):
        model(x)


def test_shape_mistakes_name_both_modules():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Residual(4))
    with pytest.raises(
        ValueError, match=r"^\[layer_norm\] Sequential\[2\].norm: expects an input whose shape ends in \(4,\)"
    ):
        model(np.ones((2, 5)))
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(
        ValueError, match=r"^\[linear\] Sequential\[2\]: weight expects 4 .* Sequential\[1\] \(relu\) gives 8"
    ):
        model(np.ones((2, 5)))
    with pytest.raises(TypeError, match="input 0 holds integers"):
        model(np.ones((2, 5), int))


def test_a_tensor_of_another_trace_is_refused(x):
    kept = []

    def forward(self, x):
        kept.append(x)
        return x + kept[0]

    model = module_of(forward)
    model(x)
    with pytest.raises(ValueError, match="Tensor of an earlier trace"):
        model(x[:2])
    with pytest.raises(ValueError, match="outside of the function"):
        ops.relu(kept[0])
    with pytest.raises(ValueError, match="outside of the function"):
        model(kept[0])
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(kept[0])


def test_forward_is_needed():
    with pytest.raises(TypeError, match="Module has no forward method"):
        nn.Module()(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 2), "in_features must be at least 1"),
        (lambda: nn.Dropout(1.5), "p must be from 0 to 1"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx must be one of 3 rows"),
        (lambda: nn.BatchNorm1d(3, momentum=2), "momentum must be from 0 to 1"),
        (lambda: nn.Hardtanh(1, 1), "min_val must be below max_val"),
        (lambda: nn.MSELoss("most"), "reduction must be one of mean, sum, none"),
        (lambda: nn.HuberLoss(delta=0), "delta must be positive"),
        (lambda: nn.PinballLoss((0.1, 1.0)), "quantiles must lie between 0 and 1"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "label_smoothing must be from 0 to 1"),
        (lambda: nn.init.xavier_normal_(nn.Parameter([1.0])), "at least 2 dimensions"),
        (lambda: nn.init.calculate_gain("step"), "nonlinearity must be one of"),
        (lambda: nn.init.trunc_normal_(nn.Parameter([1.0]), a=20, b=30), "more than 6 standard deviations"),
        (lambda: nn.init.kaiming_normal_(nn.Parameter([[1.0]]), mode="fan"), "mode must be"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="must be an integer"):
        nn.Linear(2.0, 2)


# Initial values.


def test_initial_values():
    p = nn.Parameter(np.zeros((40, 30)))
    assert nn.init.constant_(p, 3.0) is p and (p.numpy() == 3).all()
    assert (nn.init.ones_(p).numpy() == 1).all() and not nn.init.zeros_(p).numpy().any()
    q = nn.init.orthogonal_(p, gain=2.0).numpy()
    np.testing.assert_allclose(q.T @ q, 4 * np.eye(30), atol=1e-5)
    values = nn.init.trunc_normal_(p, a=-0.5, b=0.5).numpy()
    assert np.abs(values).max() <= 0.5
    with pytest.raises(TypeError, match="expects a Parameter"):
        nn.init.zeros_(np.zeros(3))


# Losses on arrays.


def test_losses_without_a_pytorch_twin():
    pinball = nn.PinballLoss((0.1, 0.9))
    pred, target = np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([2.0, 1.0])
    error = target[:, None] - pred
    want = np.maximum(np.array([0.1, 0.9]) * error, (np.array([0.1, 0.9]) - 1) * error)
    assert pinball(pred, target) == pytest.approx(want.mean())
    weight = np.array([3.0, 1.0])
    assert pinball(pred, target, weight) == pytest.approx((weight * want.mean(1)).sum() / 4)
    assert nn.PinballLoss(0.5, "sum")(np.zeros(2), target) == pytest.approx(1.5)
    assert nn.HingeLoss()([0.5, -2.0], [1, -1]) == pytest.approx(0.25)


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss, nn.HingeLoss])
def test_targets_are_never_broadcast(loss):
    pred, target = np.ones((4, 1)), np.zeros(4)
    assert loss()(pred, target) == loss()(pred[:, 0], target[:, None])
    with pytest.raises(ValueError, match="expects a target of"):
        loss()(np.ones((4, 4)), target)


def test_parameter_is_exported():
    assert Parameter is nn.Parameter
