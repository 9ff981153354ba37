"""The gradient of an embedding table: dense and row-sparse."""

from __future__ import annotations

import numpy as np
import pytest

from pybackprop import _core


def gradient(ids, table, dy, *, sparse, padding_idx=-1, dtype="float64", threads=None):
    """d sum(embedding(ids) * dy) / d table, as the program gives it."""
    graph = _core.Graph(dtype=dtype, training=True)
    i = graph.input(ids.shape, True, "ids")
    d = graph.input(dy.shape, False, "dy")
    w = graph.param(_core.Param(table.astype(dtype), sparse=sparse), "table", True)
    (y,) = graph.node("embedding", [i, w], padding_idx=padding_idx, sparse=int(sparse))
    (product,) = graph.node("mul", [y, d])
    (loss,) = graph.node("sum", [product])
    program = _core.Program(graph, [loss], loss=loss, wrt=[w], threads=threads)
    return program.run((ids, dy.astype(dtype)))[1][0]


def expected(ids, table, dy, padding_idx=-1):
    wanted = np.zeros_like(table)
    np.add.at(wanted, ids.reshape(-1), dy.reshape(-1, table.shape[1]))
    if padding_idx >= 0:
        wanted[padding_idx] = 0
    return wanted


@pytest.mark.parametrize(
    "n, rows", [(0, 5), (1, 1), (7, 3), (33, 4), (64, 64), (300, 20), (300, 100_000), (1000, 70_000)]
)
@pytest.mark.parametrize("padding_idx", [-1, 0])
def test_sparse_rows_are_distinct_and_ascending(rng, n, rows, padding_idx):
    table, ids, dy = rng.standard_normal((rows, 5)), rng.integers(0, rows, n), rng.standard_normal((n, 5))
    got_rows, values = gradient(ids, table, dy, sparse=True, padding_idx=padding_idx)
    wanted_rows = np.unique(ids[ids != padding_idx])
    assert np.array_equal(got_rows, wanted_rows)
    assert np.allclose(values, expected(ids, table, dy, padding_idx)[wanted_rows], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("padding_idx", [-1, 2])
def test_dense_equals_sparse_bit_for_bit(rng, threads, padding_idx):
    # Both add a row's gradients in the order of their positions.
    table, ids, dy = rng.standard_normal((13, 37)), rng.integers(0, 13, (40, 3)), rng.standard_normal((40, 3, 37))
    dense = gradient(ids, table, dy, sparse=False, padding_idx=padding_idx, dtype="float32", threads=threads)
    rows, values = gradient(ids, table, dy, sparse=True, padding_idx=padding_idx, dtype="float32", threads=threads)
    full = np.zeros_like(dense)
    full[rows] = values
    assert dense.tobytes() == full.tobytes()
    in_order = np.zeros_like(dense)
    for i, row in zip(ids.reshape(-1), dy.reshape(-1, 37).astype("float32"), strict=True):
        in_order[i] += row
    if padding_idx >= 0:
        in_order[padding_idx] = 0
    assert np.array_equal(dense, in_order)


def test_table_used_twice(rng, threads):
    table, dy = rng.standard_normal((6, 17)), rng.standard_normal((5, 17))
    a, b = rng.integers(0, 6, 5), rng.integers(0, 6, 5)
    graph = _core.Graph(dtype="float64", training=True)
    ids = [graph.input((5,), True, "a"), graph.input((5,), True, "b")]
    d = graph.input(dy.shape, False, "dy")
    w = graph.param(_core.Param(table), "table", True)
    parts = [graph.node("embedding", [ids[0], w])[0], graph.node("gather", [w, ids[1]])[0]]
    (both,) = graph.node("sub", parts)
    (product,) = graph.node("mul", [both, d])
    (loss,) = graph.node("sum", [product])
    program = _core.Program(graph, [loss], loss=loss, wrt=[w], threads=threads)
    got = program.run((a, b, dy))[1][0]
    assert np.allclose(got, expected(a, table, dy) - expected(b, table, dy), rtol=1e-13, atol=1e-13)


def test_ids_are_checked(rng):
    table, dy = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
    for bad in (4, -1):
        with pytest.raises(ValueError, match="ids"):
            gradient(np.array([0, bad, 1]), table, dy, sparse=False)
