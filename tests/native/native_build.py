"""Compiles a program here with the core and the kernels of one instruction set, with the flags that setup.py has."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WANTED = {"V2", "V3", "V4", "LEVELS", "COMMON", "ARITHMETIC", "KERNEL"}


def flags(arm: bool) -> dict[str, Any]:
    """setup.py's lists of flags, as they are on an x86 or an ARM machine."""
    names: dict[str, Any] = {"ARM": arm}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _WANTED:
            exec(compile(ast.Module([node], []), "setup.py", "exec"), names)
    return names


def build(
    folder: Path,
    level: str,
    *,
    program: str = "replay",
    cxx: str = "g++",
    extra: Sequence[str] = (),
    link: Sequence[str] = (),
) -> Path:
    """``program``.cpp of this folder, compiled into ``folder``.

    ``level`` is ``"v2"``, ``"v3"``, ``"v4"`` or ``"neon"``.
    """
    f, csrc = flags(level == "neon"), ROOT / "csrc"
    once = [*f["COMMON"], *f["ARITHMETIC"], "-fopenmp", f"-I{csrc}", *extra, f"-DPBP_ONE_LEVEL={level}", "-w"]
    each = [*f["COMMON"], *f["KERNEL"], *f["LEVELS"][level], *extra, f"-DPBP_ISA={level}", "-w"]
    jobs = [(p, once) for p in [*(csrc / "core").glob("*.cpp"), ROOT / "tests" / "native" / f"{program}.cpp"]]
    kernels = [*(csrc / "ops").glob("*.cpp"), csrc / "optim" / "rules.cpp", csrc / "measure" / "limits.cpp"]
    jobs += [(p, each) for p in kernels]

    def compile_one(job: tuple[Path, list[str]]) -> str:
        source, options = job
        target = folder / f"{source.parent.name}-{source.stem}.o"
        subprocess.run([cxx, *options, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(compile_one, jobs))
    linked = folder / program
    subprocess.run([cxx, *extra, *objects, "-fopenmp", *link, "-o", str(linked)], check=True)
    return linked
