"""Pictures: what stands in them, and what cannot be drawn."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import pybackprop as pb
from pybackprop.plot import confusion_matrix, learning_curves
from pybackprop.plot.axes import learning_curve

pytest.importorskip("matplotlib")


def run(loss, val_loss=None, **metrics):
    made = pb.History()
    for i, value in enumerate(loss):
        logs = {name: values[i] for name, values in metrics.items()} | {"loss": value}
        made.record(i, logs if val_loss is None else logs | {"val_loss": val_loss[i]})
    return made


def lines(axes):
    """``{label: values}`` of the curves in a panel; matplotlib names those without a label ``_child…``."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


class TestLearningCurves:
    def test_loss_and_metrics_with_validation(self):
        history = run(
            [3.0, 2.0, 1.0], [3.0, 1.5, 2.0], accuracy=[0.1, 0.2, 0.3], val_accuracy=[0.2, 0.4, 0.3], mae=[1, 1, 1]
        )
        figure = learning_curves(history)
        assert titles(figure) == ["loss", "accuracy", "mae"]
        loss, accuracy, mae = map(lines, figure.axes)
        assert loss["training"] == [3.0, 2.0, 1.0] and loss["validation"] == [3.0, 1.5, 2.0]
        assert accuracy["training"] == [0.1, 0.2, 0.3] and accuracy["validation"] == [0.2, 0.4, 0.3]
        assert mae["training"] == [1, 1, 1] and "validation" not in mae
        assert loss["best epoch (2): 1.5"] == [1.5] and accuracy["at epoch 2: 0.4"] == [0.4]
        assert figure.axes[2].lines[1].get_xdata() == [2, 2]  # the line alone, where there is no validation
        assert all(axes.get_xlabel() == "epoch" and axes.get_legend() is not None for axes in figure.axes)
        assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3]

    def test_a_run_that_went_on_keeps_its_epochs(self):
        history = pb.History()
        for epoch in (7, 8):
            history.record(epoch, {"loss": 1.0})
        assert list(learning_curves(history).axes[0].lines[0].get_xdata()) == [8, 9]

    def test_the_choice_and_order_of_metrics(self):
        history = run([3.0, 2.0], accuracy=[0.1, 0.2], mae=[1, 1])
        assert titles(learning_curves(history, metrics=["mae", "val_loss"])) == ["mae", "loss"]
        assert titles(learning_curves(history, metrics="accuracy")) == ["accuracy"]
        with pytest.raises(ValueError, match="no metric 'auc' to plot; there are loss, accuracy, mae"):
            learning_curves(history, metrics=["auc"])
        with pytest.raises(ValueError, match="metrics must name at least one"):
            learning_curves(history, metrics=[])

    def test_a_long_fall_is_drawn_on_a_logarithmic_axis(self):
        def scale(*values):
            return learning_curves(run(values)).axes[0].get_yscale()

        assert scale(10.0, 1.0) == scale(1e3, math.nan, 1e-5) == "log"
        assert scale(9.0, 1.0) == scale(10.0, 0.0) == scale(10.0, -1.0) == scale(math.nan, math.nan) == "linear"
        accuracy = learning_curves(run([1.0, 1.0], accuracy=[0.01, 0.9]), metrics="accuracy")
        assert accuracy.axes[0].get_yscale() == "linear"

    def test_a_diverged_validation_has_no_best_epoch(self):
        panel = lines(learning_curves(run([1.0, 2.0], [math.nan, math.nan])).axes[0])
        assert not any("best" in label for label in panel)
        assert "best epoch (2): 1" in lines(learning_curves(run([1.0, 2.0], [math.nan, 1.0])).axes[0])

    def test_several_runs(self):
        runs = {"a": run([3.0, 2.0], [3.0, 1.0]), "b": {"loss": [5.0, 4.0, 3.0]}, "never begun": pb.History()}
        figure = learning_curves(runs)
        panel = figure.axes[0]
        assert lines(panel)["a"] == [3.0, 1.0] and lines(panel)["b"] == [5.0, 4.0, 3.0] and len(panel.lines) == 3
        dashed, solid, other = panel.lines[0], *[line for line in panel.lines if line.get_label() in "ab"][::-1]
        assert dashed.get_linestyle() == "--" and list(dashed.get_ydata()) == [3.0, 2.0]
        assert dashed.get_color() in (solid.get_color(), other.get_color()) and solid.get_color() != other.get_color()
        assert "dashed: training" in figure.get_supxlabel()
        assert learning_curves({"b": {"loss": [1.0]}}).get_supxlabel() == ""

    def test_what_cannot_be_drawn(self):
        with pytest.raises(ValueError, match="history is empty"):
            learning_curves(pb.History())
        with pytest.raises(ValueError, match="history is empty"):
            learning_curves({"a": pb.History()})
        with pytest.raises(TypeError, match="expects a History, its dict of lists, or a dict of those, got list"):
            learning_curves([1.0])
        with pytest.raises(ValueError, match="as many epochs as each other"):
            learning_curves({"loss": [1.0], "mae": [1.0, 2.0]})

    def test_the_ending_says_the_format(self, tmp_path):
        for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
            learning_curves(run([1.0, 2.0]), tmp_path / f"c.{ending}")
            assert (tmp_path / f"c.{ending}").read_bytes().startswith(start)

    def test_the_curve_of_the_command_line(self, tmp_path):
        path = tmp_path / "c.png"
        learning_curve(path, {"training rows": [1.0, 0.5], "validation rows": [1.0, 0.7]}, title="y", mark=2)
        assert path.read_bytes().startswith(b"\x89PNG")


def cells(figure):
    """``{(true, predicted): text}``."""
    return {tuple(int(p) for p in text.get_position()[::-1]): text.get_text() for text in figure.axes[0].texts}


def names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


class TestConfusionMatrix:
    def test_counts_and_shares_of_the_row(self):
        true, predicted = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1, 0]
        figure = confusion_matrix(true, predicted)
        assert cells(figure) == {(0, 0): "3\n75%", (0, 1): "1\n25%", (1, 1): "2\n100%", (2, 0): "1\n100%"}
        shares = figure.axes[0].images[0].get_array()
        assert shares.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
        assert figure.get_suptitle() == "accuracy 71.4% of 7 samples"
        assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("predicted", "true")
        assert names(figure) == ["0", "1", "2"]

    def test_scores_and_names(self, rng):
        scores = rng.normal(size=(50, 3)).astype(np.float32)
        scores[:5] = 1.0  # equals: the first
        true = rng.integers(0, 2, 50)  # class 2 never occurs
        figure = confusion_matrix(true, scores, names=["ant", "bee", "fly"], title="insects")
        assert names(figure) == ["ant", "bee", "fly"] and figure.get_suptitle() == "insects"
        assert cells(figure) == cells(confusion_matrix(true[:, None], scores.argmax(axis=1), names=["a", "b", "c"]))
        assert not any(row == 2 for row, _ in cells(figure))

    def test_labels_of_other_kinds(self):
        assert names(confusion_matrix(["b", "a"], np.array(["b", "c"], object))) == ["a", "b", "c"]
        assert names(confusion_matrix([True, False], [True, True])) == ["False", "True"]
        assert names(confusion_matrix([10, -3], [10, 7])) == ["-3", "7", "10"]
        assert names(confusion_matrix(["x" * 40], ["x" * 40])) == ["x" * 23 + "…"]

    @pytest.mark.parametrize("classes", [2, 14, 30, 40, 200])
    def test_many_classes_stay_within_a_page(self, tmp_path, classes):
        labels = np.arange(classes).repeat(1000 if classes < 50 else 1)
        figure = confusion_matrix(labels, labels, tmp_path / "c.png")
        assert max(figure.get_size_inches()) < 26
        assert len(cells(figure)) == (classes if classes <= 40 else 0)
        assert len(names(figure)) <= 60

    def test_text_fits_its_cell(self):
        labels = np.arange(30).repeat(10_000)
        figure = confusion_matrix(labels, labels)
        figure.canvas.draw()
        width = figure.axes[0].get_window_extent().width / 30
        assert all(text.get_window_extent().width < width for text in figure.axes[0].texts)

    def test_mistakes(self):
        for arguments, words in [
            (([], []), r"y_true must be labels of shape \(n,\), got shape \(0,\)"),
            (([[0, 1]], [0]), r"y_true must be labels of shape \(n,\), got shape \(1, 2\)"),
            (([0, 1], [0]), r"y_pred must be labels \(2,\) or scores \(2, K\), got shape \(1,\)"),
            (([0, 1], [[0.5], [0.5]]), "scores need two columns or more"),
            (([0, 2], [[0.5, 0.5], [0.5, 0.5]]), "y_true holds label 2, but the classes are 0 to 1"),
        ]:
            with pytest.raises(ValueError, match=words):
                confusion_matrix(*arguments)
        with pytest.raises(ValueError, match="3 names for scores of 2 classes"):
            confusion_matrix([0], [[0.5, 0.5]], names=["a", "b", "c"])
        with pytest.raises(ValueError, match="y_pred holds label -1, but the classes are 0 to 1"):
            confusion_matrix([0], [-1], names=["a", "b"])
        for arguments, words in [
            (([0.5], [0]), "y_true must hold integers or strings, got dtype float64"),
            (([0], [0.5]), "y_pred must hold integers or strings, got dtype float64"),
            ((["a"], [0]), "labels are of dtype <U1 in y_true, int64 in y_pred"),
            ((["a"], [[0.5, 0.5]]), "labels are of dtype <U1 in y_true"),
        ]:
            with pytest.raises(TypeError, match=words):
                confusion_matrix(*arguments)
        with pytest.raises(TypeError, match="strings name themselves"):
            confusion_matrix(["a"], ["a"], names=["a"])


@pytest.mark.parametrize("draw", [lambda: learning_curves(run([1.0])), lambda: confusion_matrix([0, 1], [0, 1])])
def test_no_global_state_and_a_word_without_matplotlib(draw, monkeypatch):
    before = "matplotlib.pyplot" in sys.modules
    draw()
    assert ("matplotlib.pyplot" in sys.modules) == before
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pictures need matplotlib: pip install "pybackprop\[plot\]"'):
        draw()
