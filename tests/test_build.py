"""What was built: symbols per instruction set, the typed stub, the version, and that sdist and wheel work."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import pybackprop
from pybackprop import _core

ROOT = Path(__file__).parent.parent
PACKAGE = Path(pybackprop.__file__).parent


# Symbols


LEVELS = {"v2", "v3", "v4", "neon"}


def isa_objects() -> list[Path]:
    """Objects compiled per instruction set, in PYBACKPROP_BUILD_DIR or the clone's build/."""
    build = Path(os.environ.get("PYBACKPROP_BUILD_DIR", ROOT / "build"))
    return sorted(p for p in build.glob("**/*.o") if p.parent.name in LEVELS)


def test_each_isa_object_exports_one_symbol():
    objects = isa_objects()
    if not objects or shutil.which("nm") is None:
        pytest.skip("no build folder with object files, or no nm")
    # A weak or a second symbol could be picked by the linker for code that runs on a lesser CPU.
    for path in objects:
        lines = subprocess.run(
            ["nm", "--defined-only", "--extern-only", path], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        symbols = [line.split()[-2:] for line in lines if line.strip()]
        assert len(symbols) == 1 and symbols[0][0] in "DRB", f"{path.parent.name}/{path.name}: {symbols}"


# The stub


def stub_tree() -> ast.Module:
    return ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))


def arguments(args: ast.arguments) -> list[tuple[str, bool]]:
    """(name, has a default) of each argument, `self` left out."""
    positional = args.posonlyargs + args.args
    optional = len(positional) - len(args.defaults)
    found = [(a.arg, i >= optional) for i, a in enumerate(positional)]
    found += [(a.arg, d is not None) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    # pybind11 has no names for these two.
    found += [("*", False)] * (args.vararg is not None) + [("**", False)] * (args.kwarg is not None)
    return [a for a in found if a[0] != "self"]


def stub_members(body: list[ast.stmt]) -> dict[str, list[tuple[str, bool]] | None]:
    """Name -> arguments; None for properties and constants."""
    members: dict[str, list[tuple[str, bool]] | None] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(d) for d in node.decorator_list}
            is_property = any(d == "property" or d.endswith(".setter") for d in decorators)
            members[node.name] = None if is_property else arguments(node.args)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            members[node.target.id] = None
    return members


def bound_arguments(function) -> list[tuple[str, bool]]:
    """Arguments as pybind11 wrote them into the docstring's first line."""
    signature = re.match(r"(\w+)(\(.*\))(?: -> .*)?$", function.__doc__.splitlines()[0])
    assert signature, f"no signature in the docstring of {function.__name__}"
    # Defaults may print as <…>, which is no Python; only their presence counts.
    text = re.sub(r"<[^<>]*>", "None", signature[2])
    tree = ast.parse(f"def f{text}: ...")
    return arguments(tree.body[0].args)


def bound_members(owner) -> dict[str, list[tuple[str, bool]] | None]:
    members: dict[str, list[tuple[str, bool]] | None] = {}
    for name, value in vars(owner).items():
        if name.startswith("_") and name != "__init__":
            continue
        if inspect.isclass(value) or inspect.ismodule(value):
            continue
        # isroutine also sees pybind11's instancemethod.
        callable_member = inspect.isroutine(value) or type(value).__name__ == "instancemethod"
        members[name] = bound_arguments(value) if callable_member else None
    return members


def test_stub_equals_module():
    tree = stub_tree()
    # Classes with an underscore are the stub's own: shapes of dictionaries.
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")}
    bound = {name: c for name, c in vars(_core).items() if inspect.isclass(c) and not name.startswith("_")}
    assert set(classes) == set(bound)
    plain = {name: args for name, args in stub_members(tree.body).items() if not name.startswith("_")}
    assert plain == bound_members(_core)
    for name, node in classes.items():
        stub = {k: v for k, v in stub_members(node.body).items() if not k.startswith("_") or k == "__init__"}
        module = bound_members(bound[name])
        # A class without constructor inherits pybind11's, which only raises.
        if module.get("__init__") == [("*", False), ("**", False)]:
            del module["__init__"]
        assert stub == module, name


def test_package_is_typed():
    assert (PACKAGE / "py.typed").is_file() and (PACKAGE / "_core.pyi").is_file()


# Version and artefacts


def test_version_is_said_once():
    assert pybackprop.__version__ == importlib.metadata.version("pybackprop")


def test_numpy_is_the_only_dependency():
    hard = [r for r in importlib.metadata.requires("pybackprop") or [] if "extra ==" not in r]
    assert [re.match(r"[\w-]+", r)[0].lower() for r in hard] == ["numpy"]


def run(*command, **options) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=1500, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_sdist_and_wheel_work(tmp_path):
    """An sdist from the clone, a wheel from the sdist, the wheel in a fresh environment, XOR learned there."""
    pytest.importorskip("build")
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the clone is not beside the tests")
    run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT)
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "setup.py",
        "README.md",
        "csrc/core/op.h",
        "pybackprop/_core.pyi",
        "pybackprop/py.typed",
    }
    assert needed <= names
    assert wheel.stat().st_size < 5_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"pybackprop/_core.pyi", "pybackprop/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pybackprop"}
    assert [n for n in names if n.endswith((".cpp", ".h", ".pyx", ".c", ".o"))] == []
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", wheel)
    code = """
import numpy as np, pybackprop as pb
from pybackprop import nn, optim
x = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
y = np.array([0, 1, 1, 0])
model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.05), seed=0)
trainer.fit(x, y, epochs=200, batch_size=4, verbose=0)
print(trainer.predict(x).argmax(1).tolist())
"""
    assert run(python, "-c", code, cwd=tmp_path).strip() == "[0, 1, 1, 0]"
