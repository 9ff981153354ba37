"""What matrix products are computed in, as Trainer and TrainStep are told, and whether this machine can."""

from __future__ import annotations

from typing import Any

from . import _core

PRECISIONS = ("float32", "bf16")


def check_precision(precision: Any, dtype: str, isa: str | None = None) -> str:
    """``precision``, if products can be computed in it.

    Args:
        precision: ``"float32"`` (products in the model's own dtype) or ``"bf16"``.
        dtype: the model's: ``"float32"`` or ``"float64"``.
        isa: an instruction set's name; None for the one in use.

    Raises:
        ValueError: another word, a float64 model, or a machine without half-width products.

    >>> check_precision("float32", "float64")
    'float32'
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
    if precision == "float32":
        return "float32"
    if dtype != "float32":
        raise ValueError(f"precision='bf16' needs a float32 model, but this one is {dtype}: leave one of the two out")
    if not _core.isa_has_bf16(isa):
        used = _core.isa_active() if isa is None else isa
        able = [name for name in _core.isa_names() if _core.isa_has_bf16(name)]
        hint = f"choose {able[-1]}" if able else "use precision='float32'"
        raise ValueError(
            f"precision='bf16' needs the CPU feature avx512_bf16 and the instruction set x86-64-v4, but "
            f"{used} is in use{'' if able else ' and the CPU lacks the feature'}: {hint}"
        )
    return "bf16"
