"""Examples in docstrings run, in every module of the package; and what a user meets has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path

import pytest

import pybackprop

# Not imported here: it loads other frameworks, and __main__ is the command.
WITHOUT = ("pybackprop.bench", "pybackprop.__main__")
NEEDS = {
    "pybackprop.plot.confusion": ("matplotlib",),
    "pybackprop.plot.curves": ("matplotlib",),
    "pybackprop.tabular": ("pandas",),
    "pybackprop.training.history": ("matplotlib", "pandas"),
    "pybackprop.training.tensorboard": ("tensorboardX",),
}
PUBLIC = (
    *("pybackprop", "pybackprop.nn", "pybackprop.nn.init", "pybackprop.ops", "pybackprop.optim", "pybackprop.plot"),
    *("pybackprop.io", "pybackprop.training", "pybackprop.training.callbacks"),
)


def modules():
    walked = pkgutil.walk_packages(pybackprop.__path__, "pybackprop.")
    return ["pybackprop", *(info.name for info in walked if not info.name.startswith(WITHOUT))]


@pytest.mark.parametrize("name", modules())
def test_examples_run(name, tmp_path, monkeypatch):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # what an example writes stays there
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_no_example_is_left_out():
    folder = Path(pybackprop.__file__).parent / "bench"
    assert (
        folder.is_dir() and [path for path in folder.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")] == []
    )


def public():
    names = [(module, name) for module in map(importlib.import_module, PUBLIC) for name in module.__all__]
    found = {f"{module.__name__}.{name}": getattr(module, name) for module, name in names}
    return [pytest.param(value, id=name) for name, value in found.items() if callable(value)]


@pytest.mark.parametrize("value", public())
def test_what_a_user_meets_has_an_example(value):
    texts = [inspect.getdoc(value)]
    if inspect.isclass(value):
        texts += [inspect.getdoc(member) for member in vars(value).values()]
    assert any(">>>" in (text or "") for text in texts)
