"""Half-width products: exact against operands rounded in NumPy, the same bits whatever the split, and what refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from op_cases.base import OpCase
from op_program import OpProgram, same_bits

import pybackprop as pb
from pybackprop import _core, nn, optim

HAVE = [name for name in _core.isa_names() if _core.isa_has_bf16(name)]
needs_bf16 = pytest.mark.skipif(
    not _core.isa_has_bf16(), reason="the CPU, or the instruction set in use, lacks avx512_bf16"
)


def half(a: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, to nearest even; as float64. Subnormal numbers become zero."""
    a = np.asarray(a, np.float32)
    bits = a.view(np.uint32)
    kept = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.abs(a) < np.finfo(np.float32).tiny, 0, kept.view(np.float32)).astype(np.float64)


def assert_product(got: np.ndarray, a: np.ndarray, b: np.ndarray, plus: np.ndarray | float = 0.0) -> None:
    """``got`` is a @ b + plus, of rounded operands.

    The product of two bfloat16 numbers is exact in float32. What is left are the k additions of a chain, each off by at
    most 2**-24 of its partial sum, which is at most sum |a b|; one more for each block of k, and for what is added.
    """
    a, b = half(a), half(b)
    wanted, size = a @ b + plus, np.abs(a) @ np.abs(b) + np.abs(plus)
    additions = a.shape[-1] + a.shape[-1] // 512 + 3
    assert got.shape == wanted.shape
    assert (np.abs(got - wanted) <= 1.01 * additions * 2.0**-24 * size + 1e-38).all()


def linear_case(rows: int, n_in: int, n_out: int, bias: bool = True) -> OpCase:
    def inputs(rng):
        arrays = [rng.standard_normal((rows, n_in)), rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out)]
        return arrays if bias else arrays[:2]

    return OpCase("linear", "half", inputs, attrs={"bf16": 1})


# One row, odd k in each of the three passes, lengths round vectors, panels and tiles, several blocks of k (1024) and of
# rows (256), and nothing at all.
SIZES = [
    (1, 1, 1),
    (1, 40, 65),
    (2, 3, 5),
    (5, 7, 3),
    (13, 16, 16),
    (15, 33, 31),
    (29, 32, 32),
    (64, 100, 10),
    (77, 129, 67),
    (300, 50, 47),
    (33, 1100, 70),
    (40, 70, 1100),
    (2100, 20, 18),
    (0, 4, 3),
    (3, 0, 5),
    (3, 5, 0),
]


@needs_bf16
class TestProducts:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_linear(self, size, rng):
        case = linear_case(*size)
        arrays = case.inputs(rng)
        program = OpProgram(case, arrays, dtype="float32")
        directions = program.directions(rng)
        (y,), _, (dx, dw, db) = program.run(arrays, directions)
        (x, w, b), d = arrays, directions[0]
        assert_product(y, x, w.T, b)
        assert_product(dx, d, w)
        assert_product(dw, d.T, x)
        np.testing.assert_allclose(db, d.sum(0), rtol=1e-5, atol=1e-5 * max(1, size[0]) ** 0.5)

    @pytest.mark.parametrize("size", [(5, 7, 3), (64, 100, 10), (15, 33, 31), (77, 129, 67)], ids=str)
    def test_stored_weight_and_absorbed_function(self, size, rng):
        """A layer's weight is stored transposed and padded; relu is done by the linear op."""
        rows, n_in, n_out = size
        model = nn.Sequential(nn.Linear(n_in, n_in), nn.Linear(n_in, n_out), nn.ReLU())
        x, d = rng.standard_normal((2, rows, max(n_in, n_out))).astype(np.float32)
        x, d = x[:, :n_in], d[:, :n_out]
        step = pb.TrainStep(lambda m, x, d: (m(x) * d).sum(), model, optim.SGD(lr=0.1), precision="bf16")
        step.backward(x, d)
        gradients = step.grads()
        (w0, b0), (w1, b1) = [(layer.weight.numpy(), layer.bias.numpy()) for layer in (model[0], model[1])]
        h = (half(x) @ half(w0).T + b0).astype(np.float32)  # rounded otherwise in its last place: not compared to bits
        z = half(h) @ half(w1).T + b1
        dz = np.where(z > 0, d, 0).astype(np.float32)
        near = (np.abs(z) < 1e-3).any(0)  # where rounding may decide about relu
        wanted = half(dz).T @ half(h)
        scale = np.abs(half(dz)).T @ np.abs(half(h))
        assert (np.abs(gradients["1.weight"] - wanted) <= 2.0**-8 * scale + 1e-6)[~near].all()
        dh = half(dz) @ half(w1)
        assert np.abs(gradients["0.weight"] - half(dh).T @ half(x)).max() <= 2.0**-6 * np.abs(dh).T.dot(np.abs(x)).max()

    @pytest.mark.parametrize("ta", [0, 1])
    @pytest.mark.parametrize("tb", [0, 1])
    @pytest.mark.parametrize(
        "shapes",
        [((5, 7), (7, 3)), ((1, 33), (33, 1)), ((2, 3, 9, 31), (2, 3, 31, 20)), ((3, 40, 17), (17, 50))],
        ids=str,
    )
    def test_matmul(self, shapes, ta, tb, rng):
        def stored(shape, turned):
            return (*shape[:-2], shape[-1], shape[-2]) if turned else shape

        def plain(array, turned):
            return np.swapaxes(array, -1, -2) if turned else array

        given = [stored(shape, turned) for shape, turned in zip(shapes, (ta, tb), strict=True)]
        case = OpCase(
            "matmul",
            "half",
            lambda rng: [rng.standard_normal(s) for s in given],
            attrs={"bf16": 1, "transpose_a": ta, "transpose_b": tb},
        )
        arrays = case.inputs(rng)
        program = OpProgram(case, arrays, dtype="float32")
        directions = program.directions(rng)
        (y,), _, (da, db) = program.run(arrays, directions)
        a, b, d = plain(arrays[0], ta), plain(arrays[1], tb), directions[0]
        assert_product(y, a, b)
        assert_product(plain(da, ta), d, np.swapaxes(b, -1, -2))
        if a.ndim == b.ndim:
            assert_product(plain(db, tb), np.swapaxes(a, -1, -2), d)
        else:  # one b for all of a's matrices: its gradient is one product over all their rows
            assert_product(plain(db, tb), a.reshape(-1, a.shape[-1]).T, d.reshape(-1, d.shape[-1]))

    def test_special_values(self):
        def product(x, w):
            case = linear_case(*np.shape(x), np.shape(w)[0], bias=False)
            arrays = [np.array(x), np.array(w)]
            return OpProgram(case, arrays, dtype="float32", gradient=False).run(arrays)[0][0]

        assert np.isnan(product([[1.0, np.nan, 2.0]], [[1.0, 0.0, 1.0]]))
        assert product([[np.inf, 1.0]], [[2.0, 1.0]]) == np.inf
        assert product([[3.4e38]], [[1.0]]) == np.inf  # beyond the largest bfloat16, 3.39e38
        assert product([[1e-39]], [[1.0]]) == 0  # subnormal
        assert product([[1 + 2.0**-8]], [[1.0]]) == 1  # a tie goes to even
        assert product([[1 + 3 * 2.0**-8]], [[1.0]]) == 1 + 2.0**-6
        # The last column of an odd k and the columns beside a matrix are not multiplied by what lies behind them.
        assert np.isfinite(product(np.ones((3, 17)), np.ones((17, 17)))).all()


@needs_bf16
class TestBits:
    @pytest.mark.parametrize("size", [(64, 100, 10), (77, 129, 67), (300, 50, 47), (33, 1100, 70)], ids=str)
    def test_any_number_of_threads(self, size, threads, rng):
        case = linear_case(*size)
        arrays = case.inputs(rng)
        one = OpProgram(case, arrays, dtype="float32", threads=1)
        many = OpProgram(case, arrays, dtype="float32", threads=threads)
        directions = one.directions(rng)
        (y1,), _, g1 = one.run(arrays, directions)
        (y2,), _, g2 = many.run(arrays, directions)
        assert same_bits(y1, y2)
        assert all(same_bits(a, b) for a, b in zip(g1, g2, strict=True))

    def test_a_row_is_the_same_in_any_batch(self, rng):
        model = nn.Sequential(nn.Linear(1050, 40), nn.GELU(), nn.Linear(40, 3))
        trainer = pb.Trainer(model, nn.MSELoss(), optimizer=optim.SGD(lr=0.1), precision="bf16")
        X = rng.standard_normal((300, 1050)).astype(np.float32)
        whole = trainer.predict(X)
        for rows in (1, 7, 64):
            assert same_bits(whole, trainer.predict(X, batch_size=rows))

    @pytest.mark.parametrize("precision", ["float32", "bf16"])
    def test_training_repeats(self, precision, threads, rng):
        X, y = rng.standard_normal((96, 20)).astype(np.float32), rng.integers(0, 3, 96)

        def run(n):
            pb.manual_seed(0)
            model = nn.Sequential(nn.Linear(20, 48), nn.Tanh(), nn.Linear(48, 3))
            trainer = pb.Trainer(
                model, nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.01), precision=precision, threads=n
            )
            trainer.fit(X, y, epochs=2, verbose=0)
            return [a.tobytes() for a in model.state_dict().values()]

        assert run(threads) == run(1)


def trainer(model=None, **options):
    model = nn.Linear(4, 2) if model is None else model
    return pb.Trainer(model, nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=3e-3), metrics=["accuracy"], **options)


@needs_bf16
class TestTrainer:
    def test_learns_as_well_as_float32(self):
        datasets = pytest.importorskip("sklearn.datasets")
        X, y = datasets.load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(X))
        X, y = X[order] / 16, y[order]
        accuracy = {}
        for precision in ("float32", "bf16"):
            pb.manual_seed(0)
            t = trainer(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), precision=precision)
            t.fit(X[:1400], y[:1400], epochs=20, verbose=0)
            accuracy[precision] = t.evaluate(X[1400:], y[1400:])["accuracy"]
        assert accuracy["bf16"] > 0.95
        assert accuracy["bf16"] > accuracy["float32"] - 0.01

    def test_covers_the_trainer_and_not_the_model(self, rng):
        model = nn.Linear(50, 4)
        X, y = rng.standard_normal((30, 50)).astype(np.float32), rng.integers(0, 4, 30)
        narrow, wide = trainer(model, precision="bf16"), trainer(model)
        assert narrow.precision == "bf16"
        assert_product(narrow.predict(X), X, model.weight.numpy().T, model.bias.numpy())
        assert not same_bits(narrow.predict(X), wide.predict(X))
        assert same_bits(model(X), wide.predict(X))
        assert narrow.evaluate(X, y)["loss"] != wide.evaluate(X, y)["loss"]
        assert narrow.evaluate(X, y)["loss"] == pytest.approx(wide.evaluate(X, y)["loss"], rel=1e-2)

    def test_parameters_and_files_are_float32(self, rng, tmp_path):
        X, y = rng.standard_normal((32, 4)).astype(np.float32), rng.integers(0, 2, 32)
        t = trainer(precision="bf16")
        t.fit(X, y, epochs=1, verbose=0)
        assert {a.dtype for a in t.model.state_dict().values()} == {np.dtype(np.float32)}
        t.save_checkpoint(tmp_path / "run.safetensors")
        other = trainer()
        other.load_checkpoint(tmp_path / "run.safetensors")  # the weights serve any precision ...
        assert same_bits(other.model(X), t.model(X))
        with pytest.raises(ValueError, match="other precision: it had bf16, now it has float32"):
            other.fit(X, y, epochs=2, verbose=0)  # ... an exact resume does not
        same = trainer(precision="bf16")
        same.load_checkpoint(tmp_path / "run.safetensors")
        same.fit(X, y, epochs=2, verbose=0)
        t.fit(X, y, epochs=1, verbose=0)
        assert same.epoch == 2

    def test_a_model_made_double_later(self):
        t = trainer(precision="bf16")
        t.model.astype("float64")
        with pytest.raises(ValueError, match="needs a float32 model, but this one is float64"):
            t.step(np.ones((2, 4)), np.array([0, 1]))

    def test_gradcheck_stays_double(self, rng):
        model = nn.Linear(4, 2)
        assert pb.gradcheck(lambda m, x: (m(x) ** 2).mean(), model, rng.standard_normal((3, 4))).ok


class TestRefuses:
    @pytest.mark.parametrize("precision", ["half", "bfloat16", None, 16])
    def test_other_words(self, precision):
        with pytest.raises(ValueError, match="must be one of 'float32', 'bf16', got"):
            trainer(precision=precision)
        with pytest.raises(ValueError, match="must be one of 'float32', 'bf16', got"):
            pb.TrainStep(lambda m, x: m(x).mean(), nn.Linear(4, 2), optim.SGD(lr=0.1), precision=precision)

    def test_double(self):
        model = nn.Linear(4, 2)
        with pytest.raises(ValueError, match="precision='bf16' needs a float32 model, but this one is float64"):
            trainer(model, precision="bf16", dtype="float64")
        assert model.weight.dtype == np.float32
        with pytest.raises(ValueError, match="needs a float32 model"):
            trainer(nn.Linear(4, 2).astype("float64"), precision="bf16")

    def test_a_cpu_without_it(self, monkeypatch):
        monkeypatch.setattr(_core, "isa_has_bf16", lambda name=None: False)
        with pytest.raises(ValueError, match=r"needs the CPU feature avx512_bf16 .* use precision='float32'"):
            trainer(precision="bf16")

    @pytest.mark.parametrize("isa", [name for name in _core.isa_names() if name not in HAVE])
    def test_an_instruction_set_without_it(self, isa):
        with pytest.raises(ValueError, match=f"needs the CPU feature avx512_bf16 .*{isa} is in use"):
            pb.TrainStep(lambda m, x: m(x).mean(), nn.Linear(4, 2), optim.SGD(lr=0.1), precision="bf16", isa=isa)
        case = linear_case(2, 3, 4)
        with pytest.raises(ValueError, match="half-width products need float32"):
            OpProgram(case, case.inputs(np.random.default_rng(0)), dtype="float32", isa=isa)

    def test_a_forced_instruction_set(self):
        lowest = _core.isa_names()[0]
        if lowest in HAVE:
            pytest.skip("every instruction set here has it")
        code = (
            "import pybackprop as pb\nfrom pybackprop import nn, optim\npb.show_config()\n"
            "pb.Trainer(nn.Linear(2, 1), nn.MSELoss(), optimizer=optim.SGD(lr=0.1), precision='bf16')"
        )
        env = {**os.environ, "PYBACKPROP_ISA": lowest}
        done = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
        assert "bf16 products    not available" in done.stdout
        assert done.stderr.splitlines()[-1].startswith("ValueError: precision='bf16' needs the CPU feature avx512_bf16")

    @needs_bf16
    def test_a_double_graph(self):
        case = linear_case(2, 3, 4)
        with pytest.raises(ValueError, match="half-width products need float32"):
            OpProgram(case, case.inputs(np.random.default_rng(0)), dtype="float64")
