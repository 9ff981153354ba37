"""Checks what came out of a file against the form it must have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["COUNT", "FLOAT", "Each", "Maybe", "Optional", "fault"]

COUNT = "an integer from 0 to 2**63 - 1"
FLOAT = "a finite number"


class Each(NamedTuple):
    """A dict from any names to values of one form."""

    form: Any


class Maybe(NamedTuple):
    """The form, or None."""

    form: Any


class Optional(NamedTuple):
    """In a dict: the form, or no such entry."""

    form: Any


def fault(value: Any, form: Any, where: str) -> str | None:
    """What is wrong with ``value``, or None.

    Args:
        value: JSON, with arrays in it.
        form: a type; ``COUNT`` or ``FLOAT``; a tuple, one of whose forms it must have; a list of forms, one of which
            each item of a list must have; a dict of forms, for a dict with these names and no others; ``Each``,
            ``Maybe``, ``Optional``.
        where: what the value is called.
    """
    if isinstance(form, Maybe):
        return None if value is None else fault(value, form.form, where)
    if isinstance(form, tuple) and not isinstance(form, (Each, Optional)):
        faults = [fault(value, one, where) for one in form]
        return None if None in faults else faults[0]
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{where} is {_kind(value)}, not a list"
        return next((f for i, item in enumerate(value) if (f := fault(item, tuple(form), f"{where}[{i}]"))), None)
    if isinstance(form, (Each, dict)):
        if not isinstance(value, dict):
            return f"{where} is {_kind(value)}, not a dict"
        forms = form if isinstance(form, dict) else dict.fromkeys(value, form.form)
        return _entries(value, forms, where)
    if form is COUNT:
        right = type(value) is int and 0 <= value < 2**63
    elif form is FLOAT:
        right = type(value) in (int, float) and math.isfinite(value)
    else:
        right = type(value) is form
    wanted = form if isinstance(form, str) else form.__name__
    return None if right else f"{where} is {_kind(value)}, not {wanted}"


def _entries(value: Mapping[str, Any], forms: Mapping[str, Any], where: str) -> str | None:
    for name in value:
        if name not in forms:
            return f"{where} has an unknown entry {name!r}"
    for name, form in forms.items():
        if name not in value:
            if isinstance(form, Optional):
                continue
            return f"{where} has no entry {name!r}"
        wrong = fault(value[name], form.form if isinstance(form, Optional) else form, f"{where}.{name}")
        if wrong:
            return wrong
    return None


def _kind(value: Any) -> str:
    return (
        repr(value)
        if type(value) in (bool, float) or (type(value) is int and abs(value) < 2**80)
        else type(value).__name__
    )
