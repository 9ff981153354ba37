"""The cases of every op: each module here exports ``CASES`` and is found by being here."""

from __future__ import annotations

import importlib
import pkgutil

from .base import OpCase

__all__ = ["CASES", "OpCase"]


def _collect() -> list[OpCase]:
    cases: list[OpCase] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        if module != "base":
            cases += importlib.import_module(f"{__name__}.{module}").CASES
    names = [str(case) for case in cases]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"op cases share a name: {', '.join(repeated)}")
    return cases


CASES = _collect()
