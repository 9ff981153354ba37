"""Hypothesis strategies for shapes and arrays, biased to where kernels break."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Nothing, one, round the widths of 4, 8 and 16 lanes, and odd.
EXTENTS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 65)

# Zeros of both signs, subnormals, the smallest normal, near 1, near the ends of exp's range, and huge.
SPECIALS = (
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1e-40,
    -1e-40,
    1.1754944e-38,
    -1.1754944e-38,
    1e-20,
    1.0,
    -1.0,
    0.99999994,
    1.0000001,
    20.0,
    -20.0,
    87.0,
    -87.0,
    88.5,
    -88.5,
    103.0,
    -104.0,
    1e4,
    -1e4,
    3e38,
    -3e38,
)


def extents(least: int = 0) -> st.SearchStrategy[int]:
    """One dimension."""
    return st.sampled_from([n for n in EXTENTS if n >= least])


def shapes(least: int = 0, max_rank: int = 3, min_rank: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    """A shape of dimensions of at least ``least``, at most about 2000 elements."""
    return (
        st.lists(extents(least), min_size=min_rank, max_size=max_rank)
        .map(tuple)
        .filter(lambda shape: np.prod(shape, dtype=int) <= 2000)
    )


def arrays(shape, dtype: str = "float32") -> st.SearchStrategy[np.ndarray]:
    """Finite floats in which special values are frequent."""
    ordinary = st.floats(-100, 100, width=32)
    return hnp.arrays(dtype, shape, elements=st.one_of(ordinary, st.sampled_from(np.float32(SPECIALS).tolist())))


def broadcastable(count: int) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """``count`` shapes that broadcast together."""
    return (
        hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=4, min_side=1, max_side=18)
        .filter(lambda s: np.prod(s.result_shape, dtype=int) <= 2000)
        .map(lambda s: s.input_shapes)
    )
