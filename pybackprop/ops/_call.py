"""How the functions of ``ops`` are called: into the graph while tracing, otherwise on arrays as a small program."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from .. import _core
from .._cache import LRU
from .._tensor import Operators, Tensor
from .._tracer import Tracer, current, prefix

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Face:
    """A function of ``ops``: which arguments are arrays, and which of these may hold integers."""

    name: str
    body: Callable[..., Any]
    operands: tuple[str, ...]
    integers: tuple[str, ...]
    training: bool  # whether it is run as in training unless its `training` argument says otherwise
    random: bool

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.body)


class Entry(NamedTuple):
    program: _core.Program
    tree: Any  # structure of the output
    floats: tuple[int, ...]  # which inputs are differentiated


_programs: LRU[Entry] = LRU(512, 64 * 2**20, lambda e: e.program.arena_bytes)
_faces: dict[str, Face] = {}


def op(
    *operands: str, integers: tuple[str, ...] = (), training: bool = False, random: bool = False
) -> Callable[[F], F]:
    """Declares a function of ``ops``, whose body is written for Tensors.

    Args:
        operands: names of the arguments that are arrays; ``"*tensors"`` is a sequence of arrays.
        integers: the operands in which integers stay integers.
        training, random: how it is run on arrays.
    """

    def declare(body: F) -> F:
        name = body.__name__
        face = Face(name, body, operands, integers, training, random)
        _faces[name] = face

        @functools.wraps(body)
        def call(*args: Any, **kwargs: Any) -> Any:
            if current() is not None:
                return body(*args, **kwargs)
            return _run(face, args, kwargs)[0]

        return cast(F, call)

    return declare


def vjp(name: str, *arrays: Any, d_out: Any = None, **attrs: Any) -> tuple[Any, tuple[Any, ...]]:
    """Value of an op and the product of its derivative's transpose with ``d_out``: one step of backpropagation.

    Args:
        name: a function of ``ops``, e.g. ``"relu"``.
        arrays: its array arguments, in order; all else is given by keyword.
        d_out: gradient of the output, of the output's shape (a sequence of them for several outputs); None stands for
            ones.
        attrs: the function's keyword arguments.

    Returns:
        ``(output, gradients)``, one gradient for each array given, None for integers.

    Raises:
        ValueError: unknown name, shapes that do not fit, or a ``d_out`` of another shape than the output.

    >>> import numpy as np
    >>> from pybackprop import ops
    >>> y, (dx,) = ops.vjp("relu", np.array([-1.0, 2.0]), d_out=np.array([10.0, 10.0]))
    >>> y, dx
    (array([0., 2.]), array([ 0., 10.]))
    """
    face = _faces.get(name)
    if face is None:
        raise ValueError(
            f"[vjp] there is no op {name!r}: it is one of {', '.join(sorted(n for n in _faces if n[0] != '_'))}"
        )
    return _run(face, arrays, attrs, gradients=True, d_out=d_out)


def _run(
    face: Face, args: tuple[Any, ...], kwargs: dict[str, Any], gradients: bool = False, d_out: Any = None
) -> tuple[Any, tuple[Any, ...]]:
    from .. import random
    from .._trace import flatten, unflatten

    given = face.signature.bind(*args, **kwargs).arguments
    raw: list[Any] = []
    structure: dict[str, Any] = {}
    integer: list[bool] = []
    for operand in face.operands:
        name = operand.lstrip("*")
        if name not in given:
            continue
        value = given.pop(name)
        items = list(value) if operand[0] == "*" else [value]
        raw += [x for x in items if x is not None]
        integer += [name in face.integers for x in items if x is not None]
        marks = tuple(None if x is None else 0 for x in items)
        structure[name] = marks if operand[0] == "*" else marks[0]
    dtype = _dtype(raw)
    arrays = [_array(face.name, x, dtype, keep) for x, keep in zip(raw, integer, strict=True)]
    floats = tuple(i for i, a in enumerate(arrays) if a.dtype.kind == "f")
    d_outs = _given_gradients(d_out, dtype)
    if gradients:
        structure["d_outs"] = (0,) * len(d_outs)
    arrays += d_outs
    training = given.get("training")
    training = face.training if training is None else bool(training)
    static = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in given.items()}
    tree = flatten(structure)[1]
    shapes = tuple((a.shape, a.dtype.kind) for a in arrays)
    key = (face.name, tree, shapes, dtype, training, gradients, repr(static))
    entry = _programs.get(key)
    if entry is None:
        entry = _build(face, tree, arrays, static, dtype, training, floats if gradients else None)
        _programs.put(key, entry)
    seed = random.draw_seed() if face.random else 0
    results, grads, _ = entry.program.run(tuple(arrays), seed, 0)
    output = unflatten(entry.tree, [r[()] if r.ndim == 0 else r for r in results])
    if not gradients:
        return output, ()
    by_input = dict(zip(entry.floats, grads, strict=True))
    return output, tuple(by_input.get(i) for i in range(len(raw)))


def _build(
    face: Face,
    tree: Any,
    arrays: list[np.ndarray],
    static: dict[str, Any],
    dtype: str,
    training: bool,
    wrt: tuple[int, ...] | None,
) -> Entry:
    from .._trace import Spec, trace, unflatten

    def compute(operands: dict[str, Any]) -> Any:
        d_outs = operands.pop("d_outs", None)
        output = face.body(**operands, **static)
        return output if d_outs is None else (output, _weighted_sum(face.name, output, d_outs))

    specs = (unflatten(tree, [Spec(a.shape, a.dtype.kind == "i") for a in arrays]),)
    traced = trace(compute, None, specs, dtype=dtype, training=training, place="")
    values, out_tree = traced.output_values()
    if wrt is None:
        return Entry(_core.Program(traced.graph, values), out_tree, ())
    program = _core.Program(traced.graph, values[:-1], values[-1], [traced.inputs[i] for i in wrt])
    return Entry(program, out_tree[1][0], wrt)


def _weighted_sum(name: str, output: Any, d_outs: list[Tensor]) -> Tensor:
    """The scalar whose gradient with respect to the output is ``d_outs``."""
    from .._trace import flatten

    outputs = flatten(output)[0]
    if d_outs and [d.shape for d in d_outs] != [y.shape for y in outputs]:
        raise ValueError(
            f"[vjp] d_out must have the shape of the output of {name}, {[y.shape for y in outputs]}, "
            f"got {[d.shape for d in d_outs]}"
        )
    terms = [node("mul", y, d) for y, d in zip(outputs, d_outs, strict=True)] if d_outs else outputs
    sums = [node("sum", term) for term in terms]
    return cast(Tensor, functools.reduce(lambda a, b: node("add", a, b), sums))


def _given_gradients(d_out: Any, dtype: str) -> list[np.ndarray]:
    if d_out is None:
        return []
    several = isinstance(d_out, (tuple, list)) and any(isinstance(d, (np.ndarray, Operators)) for d in d_out)
    return [_array("vjp", d, dtype, False) for d in (d_out if several else [d_out])]


def _dtype(values: list[Any]) -> str:
    """float64 if some array is; Python numbers and lists leave it at float32."""
    return "float64" if any(getattr(x, "dtype", None) == np.float64 for x in values) else "float32"


def _array(name: str, x: Any, dtype: str, keep_integers: bool) -> np.ndarray:
    if isinstance(x, Tensor):
        raise ValueError(
            f"[{name}] a Tensor is used outside of the function it was made in: return values from forward instead"
        )
    array = np.asarray(x)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise TypeError(f"[{name}] expects arrays of numbers, got one of dtype {array.dtype}")
    return np.asarray(array, np.int64 if keep_integers and kind in "iu" else dtype, order="C")


# For the bodies, which run only while tracing.


def tracer() -> Tracer:
    """The current trace."""
    found = current()
    assert found is not None
    return found


def products() -> dict[str, int]:
    """Options of a node that multiplies matrices: the precision that the trace asks for."""
    return {"bf16": 1} if tracer().precision == "bf16" else {}


def node(name: str, *inputs: Any, **attrs: Any) -> Any:
    """Adds a node of the core op ``name``."""
    return tracer().node(name, list(inputs), **attrs)


def lift(x: Any, name: str, integer: bool = False) -> Tensor:
    """``x`` as a Tensor, so that it has a shape."""
    return tracer().lift(x, name, integer)


def one_dim(name: str, dim: Any, ndim: int) -> int:
    """A dimension counted from the front."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)):
        raise TypeError(f"{prefix(name)}dim must be an integer, got {dim!r}")
    if not -ndim <= dim < ndim:
        raise ValueError(f"{prefix(name)}dim {dim} is out of range for {ndim} dimensions")
    return int(dim) % ndim


def many_dims(name: str, dim: Any, axis: Any, ndim: int) -> list[int]:
    """Dimensions counted from the front, ascending; all of them for None and ``()``."""
    if axis is not None:
        if dim is not None:
            raise ValueError(f"{prefix(name)}dim and axis are two names for one argument: give one of them")
        dim = axis
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return list(range(ndim))
    dims = [one_dim(name, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else [dim])]
    if len(set(dims)) < len(dims):
        raise ValueError(f"{prefix(name)}dim {dim} names a dimension twice")
    return sorted(dims)


def shape_arg(name: str, shape: Any) -> list[int]:
    """A shape given as an integer or a sequence of them."""
    if isinstance(shape, (int, np.integer)):
        return [int(shape)]
    if not isinstance(shape, (tuple, list, np.ndarray)) or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise TypeError(f"{prefix(name)}a shape is a tuple of integers, got {shape!r}")
    return [int(n) for n in shape]
