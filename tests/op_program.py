"""A case of one op as a program: its outputs, and the gradients of sum(output * direction)."""

from __future__ import annotations

import zlib

import numpy as np
from op_cases import OpCase

from pybackprop import _core


def case_rng(case: OpCase) -> np.random.Generator:
    """The same numbers for a case in every test and every order of tests."""
    return np.random.default_rng(zlib.crc32(str(case).encode()))


def cast(arrays: list[np.ndarray], dtype: str) -> list[np.ndarray]:
    """Float arrays in ``dtype``, integer ones as they are."""
    return [np.asarray(a, dtype) if a.dtype.kind == "f" else a for a in arrays]


def dense(gradient, shape: tuple[int, ...]) -> np.ndarray:
    """A gradient as one array, also where it came as (rows, values)."""
    if not isinstance(gradient, tuple):
        return gradient
    rows, values = gradient
    full = np.zeros(shape, values.dtype)
    full[rows] = values
    return full


class OpProgram:
    """One op, planned for the shapes of ``arrays``.

    With ``gradient`` the program has the loss sum over ``case.outputs`` of sum(output * direction), whose gradient with
    respect to the case's inputs is the op's backward applied to the directions.
    """

    def __init__(
        self,
        case: OpCase,
        arrays: list[np.ndarray],
        *,
        dtype: str = "float64",
        isa: str | None = None,
        threads: int | None = None,
        gradient: bool = True,
        where: str = "case",
        guarded: bool = False,
    ):
        self.case, self.dtype = case, dtype
        graph = _core.Graph(dtype=dtype, training=case.training, isa=isa)
        self._wrt = case.differentiated(arrays) if gradient else ()
        self._shapes = [a.shape for a in arrays]
        self._params, self._fed, ids = {}, [], []
        for i, array in enumerate(cast(arrays, dtype)):
            if i in case.param:
                self._params[i] = _core.Param(array, sparse=bool(case.attrs.get("sparse", 0)))
                ids.append(graph.param(self._params[i], f"input {i}", i in self._wrt))
            else:
                self._fed.append(i)
                ids.append(graph.input(array.shape, array.dtype.kind != "f", f"input {i}"))
        outputs = graph.node(case.op, ids, where, **case.attrs)
        self.output_shapes = [graph.shape(v) for v in outputs]
        wanted = list(outputs)
        loss = None
        if gradient:
            for k in case.outputs:
                direction = graph.input(graph.shape(outputs[k]), False, f"direction {k}")
                (product,) = graph.node("mul", [outputs[k], direction])
                (term,) = graph.node("sum", [product])
                loss = term if loss is None else graph.node("add", [loss, term])[0]
            wanted.append(loss)
        self.program = _core.Program(
            graph, wanted, loss=loss, wrt=[ids[i] for i in self._wrt], threads=threads, guarded=guarded
        )
        self._forward = _core.Program(graph, [loss]) if gradient else None

    def directions(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Random gradients of the case's outputs."""
        return [np.asarray(rng.standard_normal(self.output_shapes[k])) for k in self.case.outputs]

    def run(self, arrays: list[np.ndarray], directions: list[np.ndarray] | None = None):
        """Outputs, loss (None without gradient) and dense gradients."""
        arrays = cast(arrays, self.dtype)
        for i, param in self._params.items():
            param.assign(arrays[i])
        fed = [arrays[i] for i in self._fed]
        if directions is not None:
            fed += cast(directions, self.dtype)
        outputs, gradients, _ = self.program.run(tuple(fed))
        gradients = [dense(g, self._shapes[i]) for i, g in zip(self._wrt, gradients, strict=True)]
        if directions is None:
            return outputs, None, gradients
        return outputs[:-1], float(outputs[-1]), gradients

    def differences(self, arrays: list[np.ndarray], directions: list[np.ndarray], i: int, step: np.ndarray) -> float:
        """Derivative of the loss along ``step`` in ``arrays[i]``, from four points at up to 2 steps. In double."""
        arrays = [np.array(a) for a in arrays]
        fed = (*(arrays[j] for j in self._fed), *directions)
        for j, param in self._params.items():
            param.assign(arrays[j])
        start, at = arrays[i].copy(), []
        for k in (-2, -1, 1, 2):
            np.add(start, k * step, out=arrays[i])
            if i in self._params:
                self._params[i].assign(arrays[i])
            at.append(float(self._forward.run(fed)[0][0]))
        return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / 12


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal shapes and equal bits: -0.0 differs from 0.0, a NaN equals itself."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def excess(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> float:
    """Largest |got - wanted| / (atol * scale + rtol * |wanted|): above 1 is out of bounds.

    ``scale`` is the largest magnitude of ``wanted``, at least 1: cancellation within one array is measured on the
    array. Infinities must agree in place and sign, NaNs in place.
    """
    got, wanted = np.asarray(got, "float64"), np.asarray(wanted, "float64")
    if got.shape != wanted.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    special = ~(np.isfinite(got) & np.isfinite(wanted))
    if not np.array_equal(got[special], wanted[special], equal_nan=True):
        return float("inf")
    got, wanted = got[~special], wanted[~special]
    if got.size == 0:
        return 0.0
    scale = max(1.0, float(np.abs(wanted).max()))
    return float((np.abs(got - wanted) / (atol * scale + rtol * np.abs(wanted))).max())
