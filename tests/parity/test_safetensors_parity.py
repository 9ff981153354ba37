"""Files written here load into the PyTorch twin with the same outputs, and the other way round."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
reference = pytest.importorskip("safetensors.torch")

import pybackprop as pb  # noqa: E402  (after torch, so that its OpenMP runtime is the first one)
from pybackprop import nn  # noqa: E402
from pybackprop.io import load_file, save_file  # noqa: E402


def layers(nn):
    """The same network in either library: the layers with parameters or buffers."""
    return nn.Sequential(
        nn.Linear(7, 19), nn.BatchNorm1d(19), nn.GELU(), nn.LayerNorm(19), nn.Linear(19, 6, bias=False), nn.Tanh(),
        nn.Linear(6, 3),
    )  # fmt: skip


@pytest.fixture
def twins():
    ours, theirs = layers(nn), layers(torch.nn).eval()
    return ours, theirs


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(11, 7)).astype(np.float32)


def outputs(ours, theirs, x):
    with torch.no_grad():
        return ours(x), theirs(torch.from_numpy(x)).numpy()


def test_our_file_loads_into_the_twin(tmp_path, twins, x):
    ours, theirs = twins
    path = tmp_path / "m.safetensors"
    pb.save(ours, path)
    theirs.load_state_dict(reference.load_file(path), strict=True)
    a, b = outputs(ours, theirs, x)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_twins_file_loads_here(tmp_path, twins, x):
    ours, theirs = twins
    theirs.train()
    for _ in range(3):  # running statistics other than their first values
        theirs(torch.from_numpy(x) * 2 + 1)
    theirs.eval()
    path = tmp_path / "m.safetensors"
    reference.save_file(theirs.state_dict(), path)
    pb.load(ours, path)
    a, b = outputs(ours, theirs, x)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_state_dicts_have_the_same_names_order_and_shapes(twins):
    ours, theirs = twins
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in theirs.state_dict().items()
    ]


def test_both_writers_give_the_same_bytes(tmp_path):
    arrays = {"b": np.arange(6, dtype="f4").reshape(2, 3), "a": np.ones(2, "f4"), "z": np.ones(1, "f4")}
    save_file(arrays, tmp_path / "ours", {"k": "v"})
    reference.save_file({k: torch.from_numpy(v) for k, v in arrays.items()}, tmp_path / "theirs", {"k": "v"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]
)
def test_every_dtype_of_the_reference_writer_is_read(tmp_path, dtype):
    value = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    reference.save_file({"x": value, "e": value[:0].contiguous(), "s": value[0, 1].clone()}, tmp_path / "f")
    loaded, _ = load_file(tmp_path / "f")
    np.testing.assert_array_equal(loaded["x"], value.float().numpy())
    assert loaded["e"].shape == (0, 3) and loaded["s"].shape == ()
