"""What ``import pybackprop`` does to a process: next to nothing."""

from __future__ import annotations

import os

import pytest
from child import printed, python

OPTIONAL = (
    *("sklearn", "pandas", "pyarrow", "matplotlib", "tqdm", "tensorboardX", "IPython", "ipywidgets"),
    *("torch", "jax", "scipy", "threadpoolctl"),
)

BARE = f"""
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np, pybackprop as pb
from pybackprop import nn, optim
"""  # a Python where NumPy is all there is

PARTS = {  # what needs a package, and the extra that brings it
    "__import__('pybackprop.sklearn')": "ImportError: pybackprop.sklearn needs scikit-learn 1.6 or newer: pip install ",
    "pb.plot.learning_curves(pb.History())": "ValueError: the history is empty",  # what can be said without, is
    "pb.plot.learning_curves({'loss': [1.0]})": 'ImportError: pictures need matplotlib: pip install "pybackprop[plot]"',
    "pb.plot.confusion_matrix([0, 1], [0, 1])": 'ImportError: pictures need matplotlib: pip install "pybackprop[plot]"',
    "history.plot()": 'ImportError: pictures need matplotlib: pip install "pybackprop[plot]"',
    "history.to_frame()": 'ImportError: History.to_frame needs pandas: pip install "pybackprop[table]"',
    "pb.callbacks.TensorBoard()": 'ImportError: TensorBoard needs tensorboardX: pip install "pybackprop[tensorboard]"',
}


def test_import_prints_nothing_and_warns_of_nothing():
    done = python("-c", "import warnings; warnings.simplefilter('error'); import pybackprop")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc")
def test_import_starts_no_thread():
    # NumPy's BLAS may start its own, so they are counted from there.
    count = "len(os.listdir('/proc/self/task'))"
    code = f"import os, numpy; n = {count}; import pybackprop; print({count} - n)"
    assert printed(code) == "0"


def test_import_pulls_in_no_optional_package():
    code = f"import sys, pybackprop; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    assert printed(code) == "[]"


def test_works_where_no_optional_package_is_installed():
    code = f"""{BARE}
x = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
y = np.float32([[0], [1], [1], [0]])
model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
trainer = pb.Trainer(model, loss=nn.BCEWithLogitsLoss(), optimizer=optim.Adam(lr=0.05), seed=0)
history = trainer.fit(x, y, epochs=200, batch_size=4, callbacks=[pb.callbacks.ReduceLROnPlateau("loss")], verbose=1)
assert history.history["loss"][-1] < 0.1, history.history["loss"][-1]
assert (np.sign(trainer.predict(x)) == 2 * y - 1).all()
assert "200" in repr(history) and "65 parameters" in str(model.summary())
print("learned")
"""
    lines = printed(code).splitlines()
    assert lines[0].startswith("epoch 1/200  loss") and lines[-2].startswith("epoch 200/200") and lines[-1] == "learned"


def test_each_part_says_which_extra_it_needs():
    code = f"""{BARE}
history = pb.History()
history.record(0, {{"loss": 1.0}})
for part in {list(PARTS)!r}:
    try:
        eval(part)
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
    said = dict(zip(PARTS, printed(code).splitlines(), strict=True))
    assert {part: said[part].startswith(words) for part, words in PARTS.items()} == dict.fromkeys(PARTS, True), said


@pytest.mark.parametrize(("command", "extra"), [("demo", "demo"), ("train t.csv --target y", "table")])
def test_each_command_says_which_extra_it_needs(command, extra, tmp_path):
    code = f"""{BARE}
import os
from pybackprop import cli
os.chdir({str(tmp_path)!r})
with open("t.csv", "w") as file:
    file.write("a,y\\n" + "".join(f"{{i}},{{i}}\\n" for i in range(40)))
print(cli.main({command.split()!r}))
"""
    done = python("-c", code)
    assert done.returncode == 0 and done.stdout.split()[-1] == "2", done.stderr
    assert done.stderr.count("\n") == 1 and f"pip install 'pybackprop[{extra}]'" in done.stderr.replace('"', "'")


def test_floating_point_mode_is_left_alone():
    # Subnormals survive the import, a step on this thread, and work done by a team.
    code = """
import numpy as np
tiny = np.float32(1e-40)
import pybackprop as pb
from pybackprop import _core
graph = _core.Graph()
v = graph.input((4096, 64))
(y,) = graph.node("exp", [v])
(s,) = graph.node("sum", [y])
_core.Program(graph, [s], loss=s, wrt=[v], threads=2).run((np.zeros((4096, 64), "float32"),))
assert tiny * np.float32(0.5) > 0, "results are flushed to zero"
assert np.array([1e-40], "float32") * np.array([1.0], "float32") > 0, "operands are taken as zero"
print("subnormal")
"""
    assert printed(code) == "subnormal"


SUBNORMAL = """
import threading
import numpy as np, pybackprop as pb
from pybackprop import nn, ops, optim

def kept(where):
    one = np.array([1.0], "float32")
    assert np.float32(1e-40) * np.float32(0.5) > 0, "results are flushed to zero " + where
    assert np.array([1e-40], "float32") * one > 0, "operands are taken as zero " + where
    print(where)

class Op(pb.Function):
    fails = False
    def shape(self, x):
        return x
    def forward(self, x):
        kept("in an op")
        if self.fails:
            raise KeyError
        return x
    def backward(self, inputs, outputs, d_outputs):
        kept("in its gradient")
        return d_outputs[0]

X, y = np.ones((2048, 64), "float32"), np.zeros(2048, "int64")
op = Op()
with pb.num_threads(2):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    step = pb.TrainStep(lambda m, x, y: ops.cross_entropy(op(m(x)), y), model, optim.SGD(lr=1e-3))
    step(X, y)
    kept("after a step")
    op.fails = True
    try:
        step(X, y)
    except KeyError:
        kept("after an exception in an op")
    trainer = pb.Trainer(nn.Linear(64, 3), loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=1e-3))
    trainer.fit(X, y, batch_size=256, verbose=0, callbacks=[pb.callbacks.LambdaCallback(
        on_train_chunk_end=lambda batches, logs: kept("in a callback"))])
    threads = [threading.Thread(target=lambda: (trainer.predict(X), kept("in another thread"))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    kept("at the end")
"""


def test_subnormals_are_flushed_only_inside_a_run():
    seen = printed(SUBNORMAL).splitlines()
    assert seen[:5] == ["in an op", "in its gradient", "after a step", "in an op", "after an exception in an op"]
    assert seen[-3:] == ["in another thread", "in another thread", "at the end"] and "in a callback" in seen


def test_isa_can_be_chosen_by_environment():
    names = printed("from pybackprop import _core; print(*_core.isa_names())").split()
    for name in names:
        assert printed("from pybackprop import _core; print(_core.isa_active())", PYBACKPROP_ISA=name) == name


def test_unknown_isa_is_one_sentence():
    done = python("-c", "import pybackprop; pybackprop.show_config()", PYBACKPROP_ISA="mmx")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert 'PYBACKPROP_ISA asks for "mmx", but this CPU and build offer' in last
