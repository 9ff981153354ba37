"""Op cases as a file that ``replay.cpp`` reads: what goes in, and what has to come out.

Little endian; integers and reals have 8 bytes, a text is its length and its UTF-8 bytes, an array its rank, its extents
and its elements as reals (or integers). The file is ``pbpcase1``, the number of cases, and for each

    id, op, bytes of a float, training, rtol, atol          rtol < 0 asks for equal bits
    attributes: number; name, kind, value                   0 integer, 1 real, 2 integers, 3 reals (with their number)
    inputs: number; role, differentiated, array             0 fed, 1 fed integers, 2 parameter, 3 sparse parameter
    directions: number; output, array                       the loss is the sum of output * direction
    outputs: number; output, array
    gradients: number; array                                dense, in the order of the differentiated inputs
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from op_cases import CASES, OpCase
from op_program import OpProgram, case_rng, cast

TAILS = (1, 3, 8, 15, 16, 17, 33, 65)


def _integers(out: BinaryIO, *values: int) -> None:
    out.write(struct.pack(f"<{len(values)}q", *values))


def _text(out: BinaryIO, text: str) -> None:
    _integers(out, len(text.encode()))
    out.write(text.encode())


def _array(out: BinaryIO, array: np.ndarray) -> None:
    _integers(out, array.ndim, *array.shape)
    out.write(np.ascontiguousarray(array, "<f8" if array.dtype.kind == "f" else "<i8").tobytes())


def _attribute(out: BinaryIO, name: str, value: object) -> None:
    _text(out, name)
    if isinstance(value, (bool, int, np.integer)):
        _integers(out, 0, int(value))
    elif isinstance(value, float):
        _integers(out, 1)
        out.write(struct.pack("<d", value))
    else:
        items = list(value)  # type: ignore[call-overload]
        real = any(isinstance(item, float) for item in items)
        _integers(out, 3 if real else 2, len(items))
        out.write(struct.pack(f"<{len(items)}{'d' if real else 'q'}", *items))


def _case(out: BinaryIO, case: OpCase, arrays: list[np.ndarray], dtype: str, isa: str | None) -> None:
    """With ``isa`` its own float results are wanted, bit by bit; without, those of double, within the case's bounds."""
    arrays = cast(arrays, dtype)
    program = OpProgram(case, arrays, dtype=dtype if isa else "float64", isa=isa, gradient=case.grad)
    directions = cast(program.directions(case_rng(case)), dtype) if case.grad else []
    outputs, _, gradients = program.run(arrays, directions if case.grad else None)
    # float32 twice: the bounds are those of float32 against double, and NEON's and SSE's sums are in another order.
    bounds = (-1.0, 0.0) if isa else (8 * case.f32_rtol, 8 * case.f32_atol)

    _text(out, f"{case} {dtype} {[a.shape for a in arrays]}")
    _text(out, case.op)
    _integers(out, np.dtype(dtype).itemsize, case.training)
    out.write(struct.pack("<2d", *bounds))
    _integers(out, len(case.attrs))
    for name, value in case.attrs.items():
        _attribute(out, name, value)
    wrt = case.differentiated(arrays) if case.grad else ()
    _integers(out, len(arrays))
    for i, array in enumerate(arrays):
        role = (3 if case.attrs.get("sparse", 0) else 2) if i in case.param else int(array.dtype.kind != "f")
        _integers(out, role, i in wrt)
        _array(out, array)
    _integers(out, len(directions))
    for k, direction in zip(case.outputs, directions, strict=False):
        _integers(out, k)
        _array(out, direction)
    floats = [k for k, output in enumerate(outputs) if output.dtype.kind == "f"]
    _integers(out, len(floats))
    for k in floats:
        _integers(out, k)
        _array(out, outputs[k].astype("float64"))
    _integers(out, len(gradients))
    for gradient in gradients:
        _array(out, gradient.astype("float64"))


def _all() -> Iterator[tuple[OpCase, list[np.ndarray]]]:
    for case in CASES:
        yield case, case.inputs(case_rng(case))
        for n in TAILS if case.sizes else ():
            yield case, case.sizes(case_rng(case), n)


def write(path: Path, dtype: str = "float32", isa: str | None = None) -> int:
    """Write every case; returns how many there are."""
    everything = list(_all())
    with open(path, "wb") as out:
        out.write(b"pbpcase1")
        _integers(out, len(everything))
        for case, arrays in everything:
            _case(out, case, arrays, dtype, isa)
    return len(everything)
