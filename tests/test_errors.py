"""The words users meet: one sentence that says where, what was expected and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, nn, optim


def says(kind: type[Exception], text: str):
    """Expect exactly this message."""
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def contains(kind: type[Exception], *parts: str):
    """Expect a message of one line that holds these parts in order."""
    return pytest.raises(kind, match=r"\A" + "".join(f"[^\n]*{re.escape(part)}" for part in parts) + r"[^\n]*\Z")


# The graph


def test_shape_mismatch_says_where():
    graph = _core.Graph()
    x = graph.input((4, 8), False, "x")
    w1, w2 = (graph.param(_core.Param(np.zeros((16, n), "float32")), "weight") for n in (8, 8))
    (h,) = graph.node("linear", [x, w1], "Sequential[0]")
    (h,) = graph.node("relu", [h], "Sequential[1]")
    with says(ValueError, "[linear] Sequential[2]: weight expects 8 input columns, but Sequential[1] (relu) gives 16"):
        graph.node("linear", [h, w2], "Sequential[2]")


def test_failed_node_leaves_the_graph_usable():
    graph = _core.Graph()
    x = graph.input((4, 8))
    nodes = graph.count_nodes()
    with pytest.raises(ValueError):
        graph.node("sum", [x], dims=[5])
    assert graph.count_nodes() == nodes
    outputs, _, _ = _core.Program(graph, list(graph.node("sum", [x]))).run((np.ones((4, 8), "float32"),))
    assert outputs[0] == 32


def test_unknown_op_lists_the_known():
    graph = _core.Graph()
    with contains(ValueError, 'there is no op called "relux"; the ops are', "relu"):
        graph.node("relux", [graph.input((2,))])


def test_unknown_option_lists_the_known():
    graph = _core.Graph()
    with says(ValueError, "[leaky_relu] Model.act: unknown option slope; it has negative_slope"):
        graph.node("leaky_relu", [graph.input((2,))], "Model.act", slope=0.1)


def test_wrong_type_of_option():
    graph = _core.Graph()
    x = graph.input((2, 2))
    with contains(TypeError, "[softmax]", "option dim expects an integer"):
        graph.node("softmax", [x], dim=0.5)
    with contains(TypeError, "[leaky_relu]", "option negative_slope expects a number, got a list"):
        graph.node("leaky_relu", [x], negative_slope=[1, 2])


def test_integers_where_floats_are_expected():
    graph = _core.Graph()
    ids = graph.input((2,), True, "ids")
    with says(TypeError, "[relu] Model: expects floating-point numbers, but ids holds integers"):
        graph.node("relu", [ids], "Model")


def test_floats_where_labels_are_expected():
    graph = _core.Graph()
    logits, labels = graph.input((4, 3), False, "logits"), graph.input((4,), False, "labels")
    log_probs = graph.node("log_softmax", [logits])[0]
    with contains(TypeError, "[nll]", "expects integer labels, but labels holds floating-point numbers"):
        graph.node("nll", [log_probs, labels])


def test_parameter_of_other_dtype():
    graph = _core.Graph(dtype="float32")
    with contains(TypeError, "parameter weight is float64, but the program computes in float32", "astype"):
        graph.param(_core.Param(np.zeros((2, 2))), "weight")


def test_rank_is_bounded():
    graph = _core.Graph()
    with contains(ValueError, "8 dimensions"):
        graph.input((1,) * 9)
    x, ids = graph.input((1,) * 6), graph.constant(np.zeros((1,) * 6, "int64"))
    with contains(ValueError, "[gather]", "8 dimensions"):
        graph.node("gather", [x, ids])
    with contains(ValueError, "[reshape]", "8 "):
        graph.node("reshape", [x], shape=[1] * 9)


def test_value_of_another_graph():
    graph = _core.Graph()
    with says(ValueError, "there is no value 7 in this graph"):
        graph.node("relu", [7])


def test_unknown_isa():
    with contains(ValueError, 'isa asks for "mmx", but this CPU and build offer', _core.isa_names()[0]):
        _core.Graph(isa="mmx")


# Programs


def test_loss_must_be_a_scalar():
    graph = _core.Graph()
    x = graph.input((4, 2), False, "x")
    (y,) = graph.node("tanh", [x], "Model")
    with says(
        ValueError, "the loss must be a scalar, but Model (tanh) has shape (4, 2): reduce it with .mean() or .sum()"
    ):
        _core.Program(graph, [y], loss=y, wrt=[x])


def test_loss_that_depends_on_nothing():
    graph = _core.Graph()
    x = graph.input((4,), False, "x")
    (y,) = graph.node("greater", [x, x], "Model")
    (loss,) = graph.node("sum", [y])
    with contains(
        ValueError,
        "the loss does not depend on anything it should be differentiated by",
        "Model (greater) has no gradient",
    ):
        _core.Program(graph, [loss], loss=loss, wrt=[x])


def labels_program():
    graph = _core.Graph()
    logits, labels = graph.input((4, 3), False, "logits"), graph.input((4,), True, "labels")
    (loss,) = graph.node("cross_entropy", [logits, labels], "Model.loss")
    return _core.Program(graph, [loss], loss=loss, wrt=[logits])


def test_labels_out_of_range():
    program, logits = labels_program(), np.zeros((4, 3), "float32")
    for bad in (3, -1, 2**40):
        with contains(ValueError, "labels", "0 to 2", str(bad)):
            program.run((logits, np.array([0, 1, bad, 2])))
    program.run((logits, np.array([0, 1, -100, 2])))  # ignore_index


def test_inputs_of_a_run():
    program, logits, labels = labels_program(), np.zeros((4, 3), "float32"), np.zeros(4, "int64")
    with contains(ValueError, "2", "1"):
        program.run((logits,))
    with contains(ValueError, "logits", "(4, 3)", "(5, 3)"):
        program.run((np.zeros((5, 3), "float32"), labels))
    with contains(TypeError, "labels", "integer"):
        program.run((logits, np.zeros(4, "float32")))
    with contains(TypeError, "logits"):
        program.run((np.zeros((4, 3), "complex64"), labels))
    # Layout is no error: a transposed or strided array is read as what it holds.
    wide = np.arange(12, dtype="float32").reshape(3, 4).T
    assert program.run((wide, labels))[0][0] == program.run((wide.copy(), labels))[0][0]


def test_param_of_another_shape():
    param = _core.Param(np.ones((2, 3), "float32"))
    with contains(ValueError, "(2, 3)", "(3, 2)"):
        param.assign(np.zeros((3, 2), "float32"))
    assert (param.numpy() == 1).all()


def test_unknown_rule_and_hyper_parameter():
    param = _core.Param(np.ones(3, "float32"))
    with contains(ValueError, 'there is no update rule called "adamm"; the rules are', "adam"):
        _core.Stepper("adamm", [param], [0], [{}])
    with contains(ValueError, "momentun"):
        _core.Stepper("sgd", [param], [0], [{"momentun": 0.9}])


# Models


class Branches(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        if self.fc(x).sum() > 0:
            return x
        return -x


class Writes(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        y = self.fc(x)
        y[0] = 0
        return y


class Converts(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return np.tanh(self.fc(x))


X = np.zeros((4, 3), "float32")


def test_truth_value_of_a_tensor():
    with contains((TypeError, ValueError), "truth value", "where"):
        Branches()(X)


def test_in_place_write_to_a_tensor():
    with contains((TypeError, ValueError), "in place"):
        Writes()(X)


def test_numpy_function_on_a_tensor():
    with contains((TypeError, ValueError), "NumPy"):
        Converts()(X)


def test_layer_mismatch_names_both_layers():
    model = nn.Sequential(nn.Linear(3, 128), nn.ReLU(), nn.Linear(64, 2))
    with contains(
        ValueError, "[linear] Sequential[2]: weight expects 64 input columns, but Sequential[1] (relu) gives 128"
    ):
        model(X)


def snapshot(trainer):
    return {name: value.copy() for name, value in trainer.model.state_dict().items()}


def unchanged(trainer, before):
    after = trainer.model.state_dict()
    return all(np.array_equal(before[name], after[name]) for name in before)


@pytest.fixture
def classifier():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    return pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.1), seed=0)


GOOD = np.linspace(-1, 1, 30, dtype="float32").reshape(10, 3)
LABELS = np.arange(10) % 2


@pytest.mark.parametrize(
    ("x", "y", "kind", "parts"),
    [
        (GOOD[:, :2], LABELS, ValueError, ("3 input columns", "2")),
        (GOOD, LABELS[:9], ValueError, ("y has 9 rows", "X has 10")),
        (GOOD, LABELS + 1, ValueError, ("labels", "0 to 1", "2")),
        (np.where(GOOD > 0.9, np.nan, GOOD), LABELS, ValueError, ("NaN",)),
        (np.where(GOOD > 0.9, np.inf, GOOD), LABELS, ValueError, ("inf",)),
        (GOOD[:0], LABELS[:0], ValueError, ("X has no rows",)),
        (GOOD.astype(str), LABELS, TypeError, ("X",)),
        (GOOD.astype(complex), LABELS, TypeError, ("complex",)),
    ],
    ids=["columns", "rows", "labels", "nan", "inf", "empty", "strings", "complex"],
)
def test_bad_data_changes_nothing(classifier, x, y, kind, parts):
    classifier.fit(GOOD, LABELS, epochs=1, batch_size=5, verbose=0)
    before = snapshot(classifier)
    with pytest.raises(kind, match=r"(?i)\A" + "".join(f"[^\n]*{re.escape(part)}" for part in parts) + r"[^\n]*\Z"):
        classifier.fit(x, y, epochs=1, batch_size=5, verbose=0)
    assert unchanged(classifier, before)
    classifier.fit(GOOD, LABELS, epochs=1, batch_size=5, verbose=0)


def test_one_step_with_bad_labels_changes_nothing(classifier):
    classifier.step(GOOD, LABELS)
    before = snapshot(classifier)
    with contains(ValueError, "labels", "0 to 1", "5"):
        classifier.step(GOOD, LABELS + 5)
    assert unchanged(classifier, before)


def test_unknown_option_names(classifier):
    with pytest.raises(TypeError, match="epocs"):
        classifier.fit(GOOD, LABELS, epocs=3)
    with pytest.raises(TypeError, match="momentun"):
        optim.SGD(lr=0.1, momentun=0.9)
    with pytest.raises(ValueError, match="accuracyy"):
        pb.Trainer(classifier.model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(), metrics=["accuracyy"])


def test_group_pattern_that_matches_nothing():
    model = nn.Sequential(nn.Linear(3, 2))
    with contains(ValueError, "*.wieght"):
        pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.Adam(groups={"*.wieght": {"frozen": True}})).fit(
            GOOD, np.zeros((10, 2), "float32"), verbose=0
        )


def test_second_derivatives_are_refused():
    model = nn.Linear(3, 1)

    def objective(model, x):
        _, grads = pb.value_and_grad(lambda m, x: m(x).sum(), model)(x)
        return grads["weight"].sum()

    with contains((TypeError, ValueError), "deriv"):
        pb.value_and_grad(objective, model)(X)
