"""Feeders: rows gathered, cast and normalised exactly as NumPy would."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pybackprop.data import ArrayFeeder, PrefetchFeeder

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
FLOATS = ["float16", "float32", "float64"]


@pytest.mark.parametrize("target", ["float32", "float64", "int64"])
@pytest.mark.parametrize("source", INTEGERS + FLOATS)
def test_every_dtype_is_cast_as_numpy_casts(source, target, rng):
    if target == "int64" and source in FLOATS:
        with pytest.raises(TypeError, match="integers are wanted"):
            ArrayFeeder([np.zeros((2, 2), source)], [target])
        return
    array = (rng.normal(size=(37, 3, 5)) * 40).astype(source)
    order = rng.permutation(37)
    feeder = ArrayFeeder([array], [target])
    np.testing.assert_array_equal(feeder.take(4, 9)[0], array[4:13].astype(target))
    feeder.set_order(order)
    np.testing.assert_array_equal(feeder.take(30, 7)[0], array[order[30:]].astype(target))


def test_every_half_is_decoded():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    taken = ArrayFeeder([halves], ["float32"]).take(0, len(halves))[0]
    nan = np.isnan(halves)
    np.testing.assert_array_equal(taken[~nan].view(np.uint32), halves[~nan].astype(np.float32).view(np.uint32))
    assert np.isnan(taken[nan]).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, 3:9],
        lambda a: a[:, ::2],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[:, :0],
    ],
    ids=["rows", "reversed", "columns", "strided", "fortran", "big-endian", "broadcast", "no columns"],
)
def test_any_memory_layout(view, rng):
    array = view(rng.normal(size=(20, 11)).astype(np.float32))
    feeder = ArrayFeeder([array])
    feeder.set_order(order := rng.permutation(len(array)))
    np.testing.assert_array_equal(feeder.take(0, len(array))[0], array[order])


def test_memory_maps_and_read_only_arrays(tmp_path, rng):
    array = rng.normal(size=(50, 4)).astype(np.float32)
    array.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=(50, 4))
    np.testing.assert_array_equal(ArrayFeeder([mapped], ["float64"]).take(10, 40)[0], array[10:].astype(np.float64))


def test_several_arrays_share_one_order(rng):
    x, y = rng.normal(size=(9, 2)), np.arange(9)
    feeder = ArrayFeeder([x, y])
    feeder.set_order([8, 0, 8])
    assert len(feeder) == 3
    taken = feeder.take(0, 3)
    assert taken[1].tolist() == [8, 0, 8] and taken[1].dtype == np.int64
    np.testing.assert_array_equal(taken[0], x[[8, 0, 8]].astype(np.float32))
    feeder.set_order(None)
    assert len(feeder) == 9 and feeder.take(0, 9)[1].tolist() == list(range(9))


def test_normalisation_is_computed_in_double():
    times = 1.7e9 + np.arange(12.0).reshape(6, 2)  # float32 alone would lose every digit that matters
    mean, std = times.mean(0), np.array([2.0, 0.0])
    taken = ArrayFeeder([times], normalize={0: (mean, std)}).take(0, 6)[0]
    np.testing.assert_allclose(taken, (times - mean) / [2.0, 1.0], rtol=1e-7)
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    taken = ArrayFeeder([pixels], ["float32"], normalize={0: (127.5, 255.0)}).take(1, 2)[0]
    np.testing.assert_allclose(taken, (pixels[1:3] - 127.5) / 255.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ArrayFeeder([]), ValueError, "at least one array"),
        (lambda: ArrayFeeder([np.zeros(3), np.zeros(4)]), ValueError, "array 1 has shape"),
        (lambda: ArrayFeeder([np.zeros(3)], ["float16"]), TypeError, "float16"),
        (lambda: ArrayFeeder([np.zeros(3, complex)]), TypeError, "complex128"),
        (lambda: ArrayFeeder([np.zeros(3)], ["float32", "int64"]), ValueError, "1 arrays but 2 dtypes"),
        (lambda: ArrayFeeder([np.zeros((3, 2))], normalize={0: (np.zeros(3), 1.0)}), ValueError, "does not fit rows"),
        (lambda: ArrayFeeder([np.zeros(3)]).set_order([0, 3]), ValueError, "order holds row 3"),
        (lambda: ArrayFeeder([np.zeros(3)]).set_order([-1]), ValueError, "order holds row -1"),
        (lambda: ArrayFeeder([np.zeros(3)]).take(1, 3), IndexError, "of 3 rows"),
        (lambda: ArrayFeeder([np.zeros(3)]).take(-1, 2), IndexError, "of 3 rows"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_order_is_a_copy():
    order = np.array([2, 1, 0])
    feeder = ArrayFeeder([np.arange(3)])
    feeder.set_order(order)
    order[:] = 99
    assert feeder.take(0, 3)[0].tolist() == [2, 1, 0]


def test_a_capsule_keeps_its_feeder_and_arrays_alive():
    import gc
    import weakref

    feeder = ArrayFeeder([np.zeros((3, 2))])
    alive, capsule = weakref.ref(feeder), feeder.capsule()
    del feeder
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


class TestPrefetch:
    def feeders(self, rng, rows=500):
        x, y = rng.normal(size=(rows, 7)), rng.integers(0, 9, rows)
        plain = ArrayFeeder([x, y])
        return plain, PrefetchFeeder(ArrayFeeder([x, y]))

    def check(self, plain, ahead, batches):
        for first, rows in batches:
            for a, b in zip(plain.take(first, rows), ahead.take(first, rows), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_gives_the_same_rows(self, rng):
        plain, ahead = self.feeders(rng)
        for _ in range(3):
            order = rng.permutation(500)
            plain.set_order(order)
            ahead.set_order(order)
            self.check(plain, ahead, [(i, min(64, 500 - i)) for i in range(0, 500, 64)])

    def test_a_wrong_guess_costs_nothing_but_time(self, rng):
        plain, ahead = self.feeders(rng)
        self.check(plain, ahead, [(0, 10), (200, 10), (210, 30), (0, 500), (499, 1), (0, 1)])

    def test_orders_of_another_length(self, rng):
        plain, ahead = self.feeders(rng)
        self.check(plain, ahead, [(0, 100)])
        for order in ([5, 5, 5], rng.permutation(500)[:77]):
            plain.set_order(order)
            ahead.set_order(order)
            self.check(plain, ahead, [(0, 2), (2, 1)])
        with pytest.raises(IndexError):
            ahead.take(0, 78)

    def test_close_and_go_on(self, rng):
        plain, ahead = self.feeders(rng)
        self.check(plain, ahead, [(0, 100)])
        ahead.close()
        ahead.close()
        self.check(plain, ahead, [(100, 100), (200, 100)])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings(
        "ignore::DeprecationWarning"
    )  # Python warns of threads and fork; this is what is tested
    def test_a_forked_child_neither_hangs_nor_crashes(self, rng):
        plain, ahead = self.feeders(rng)
        self.check(plain, ahead, [(0, 100)])
        child = os.fork()
        if child == 0:
            try:
                self.check(plain, ahead, [(100, 100), (200, 100)])
                ahead.close()
                del ahead
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        self.check(plain, ahead, [(100, 100)])
