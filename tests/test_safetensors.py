"""The safetensors reader and writer: round trips, determinism, atomic replacement, and every malformed file refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pybackprop as pb
from pybackprop import nn
from pybackprop.io import atomic, load_file, save_file

DTYPES = ["float16", "float32", "float64", "complex64", "bool"]
DTYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def file_of(tmp_path, header, data=b"", length=None):
    """A file with the given header (text, bytes, or a JSON value) and data."""
    if not isinstance(header, bytes):
        header = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "f.safetensors"
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    return path


def tensor(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@given(
    st.dictionaries(
        st.text().filter(lambda name: name != "__metadata__"),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        ),
        max_size=6,
    ),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_round_trip_keeps_names_dtypes_shapes_bits_and_metadata(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("round") / "f.safetensors"
    save_file(tensors, path, metadata)
    loaded, text = load_file(path)
    assert text == metadata
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()


def test_memory_order_and_byte_order_do_not_reach_the_file(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    variants = [array, np.asfortranarray(array), array.astype(">f4"), np.repeat(array, 2, axis=1)[:, ::2]]
    files = []
    for i, variant in enumerate(variants):
        save_file({"x": variant}, tmp_path / str(i))
        files.append((tmp_path / str(i)).read_bytes())
    assert len(set(files)) == 1
    assert files[0].endswith(array.astype("<f4").tobytes())


def test_file_is_deterministic_aligned_and_ordered(tmp_path):
    tensors = {"b": np.zeros(3, "f4"), "z": np.zeros(1, "i1"), "a": np.zeros(1, "f4"), "y": np.zeros((), "f8")}
    save_file(tensors, tmp_path / "1", {"k": "v", "j": "w"})
    save_file(dict(reversed(tensors.items())), tmp_path / "2", {"j": "w", "k": "v"})
    raw = (tmp_path / "1").read_bytes()
    assert raw == (tmp_path / "2").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    assert list(header) == ["__metadata__", "y", "a", "b", "z"]
    assert header["y"] == {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}


def test_bfloat16_is_read_as_float32(tmp_path):
    values = np.array([1.0, -2.5, 0.0, np.inf], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    loaded, _ = load_file(file_of(tmp_path, {"x": tensor((4,), (0, 8), "BF16")}, raw))
    assert loaded["x"].dtype == np.float32
    np.testing.assert_array_equal(loaded["x"], values)


def nested(depth):
    return '{"x":' * depth + "1" + "}" * depth


MALFORMED = {
    "header not an object": (b"[]", b"", "does not begin with '{'"),
    "leading space": (b" {}", b"", "does not begin with '{'"),
    "not JSON": (b"{x}", b"", "not JSON"),
    "text after the object": (b"{}{}", b"", "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not UTF-8"),
    "lone surrogate": (b'{"\\ud800": 1}', b"", "not Unicode text"),
    "deep": (nested(100_000), b"", "nested too deeply"),
    "deep list": (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "nested too deeply"),
    "NaN": ('{"x": NaN}', b"", "holds NaN"),
    "digits": ('{"x": %s}' % ("9" * 10_000), b"", "number of 10000 digits"),
    "duplicate": ('{"x": 1, "x": 2}', b"", "'x' twice"),
    "duplicate field": ('{"x": {"dtype": "F32", "dtype": "F32"}}', b"", "'dtype' twice"),
    "duplicate metadata": ('{"__metadata__": {"a": "1", "a": "2"}}', b"", "'a' twice"),
    "metadata not an object": ({"__metadata__": ["a"]}, b"", "__metadata__ is a list"),
    "metadata number": ({"__metadata__": {"a": 1}}, b"", "'a' is a number, not a string"),
    "metadata null": ({"__metadata__": {"a": None}}, b"", "'a' is null, not a string"),
    "entry a list": ({"x": []}, b"", "exactly dtype, shape and data_offsets"),
    "entry lacks a field": ({"x": {"dtype": "F32", "shape": [2]}}, b"", "exactly dtype, shape and data_offsets"),
    "entry with more": ({"x": tensor() | {"more": 1}}, bytes(8), "exactly dtype, shape and data_offsets"),
    "unknown dtype": ({"x": tensor(dtype="F7")}, bytes(8), "dtype 'F7'"),
    "dtype a number": ({"x": tensor(dtype=3)}, bytes(8), "dtype 3"),
    "dtype a list": ({"x": tensor(dtype=["F32"])}, bytes(8), r"dtype \['F32'\]"),
    "negative size": ({"x": tensor((-2,))}, bytes(8), "not a list of integers >= 0"),
    "boolean size": ({"x": tensor((True,), (0, 4))}, bytes(4), "not a list of integers >= 0"),
    "float size": ({"x": tensor((2.0,))}, bytes(8), "not a list of integers >= 0"),
    "shape an object": ({"x": tensor() | {"shape": {}}}, bytes(8), "not a list of integers >= 0"),
    "too many dimensions": ({"x": tensor((1,) * 65, (0, 4))}, bytes(4), "65 dimensions"),
    "shape overflow": ({"x": tensor((2**31, 2**31, 4))}, bytes(8), "overflows"),
    "overflow to the right size": ({"x": tensor((2**32, 2**32 + 1), (0, 2**34))}, b"", "overflows"),
    "overflow beside zero": ({"x": tensor((2**62, 0, 8), (0, 0))}, b"", "overflows"),
    "one offset": ({"x": tensor((2,), (0,))}, bytes(8), "two integers >= 0"),
    "boolean offset": ({"x": tensor((2,), (False, 8))}, bytes(8), "two integers >= 0"),
    "negative offset": ({"x": tensor((2,), (-8, 0))}, bytes(8), "two integers >= 0"),
    "offsets reversed": ({"x": tensor((2,), (8, 0))}, bytes(8), "spans -8 bytes"),
    "size differs from shape": ({"x": tensor((3,), (0, 8))}, bytes(8), "spans 8 bytes, but F32 of shape .3. takes 12"),
    "out of range": ({"x": tensor((4,), (0, 16))}, bytes(8), "ends at byte 16 of a data part of 8"),
    "huge and out of range": ({"x": tensor((2**40,), (0, 2**42))}, bytes(8), "ends at byte"),
    "hole at the start": ({"x": tensor((2,), (4, 12))}, bytes(12), "bytes 0 to 4"),
    "hole": ({"x": tensor(), "y": tensor((1,), (12, 16))}, bytes(16), "bytes 8 to 12, before tensor 'y'"),
    "overlap": ({"x": tensor(), "y": tensor((2,), (4, 12))}, bytes(12), "'y' begins at byte 4, inside"),
    "same bytes twice": ({"x": tensor(), "y": tensor()}, bytes(8), "begins at byte 0, inside"),
    "trailing bytes": ({"x": tensor()}, bytes(9), "1 bytes follow"),
    "data without tensors": ({}, bytes(1), "1 bytes follow"),
    "boolean byte": ({"x": tensor((2,), (0, 2), "BOOL")}, b"\1\2", "other than 0 and 1"),
}


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_in_one_sentence(tmp_path, case):
    header, data, words = case
    path = file_of(tmp_path, header, data)
    with pytest.raises(ValueError, match=words) as info:
        load_file(path)
    assert str(info.value).startswith(f"{path} is not a valid safetensors file: ")
    assert str(info.value).endswith(".") and "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "0 bytes"),
        (bytes(7), "7 bytes"),
        ((100_000_001).to_bytes(8, "little") + b"{}", "above the limit"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "above the limit"),
        ((50).to_bytes(8, "little") + b"{}", "only 2 bytes follow"),
        ((0).to_bytes(8, "little"), "does not begin with"),
    ],
)
def test_header_length_is_checked_first(tmp_path, raw, words):
    path = tmp_path / "f"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=words):
        load_file(path)


def test_legal_oddities_are_read(tmp_path):
    header = json.dumps({"e": tensor((0, 3), (0, 0)), "s": tensor((), (0, 4)), "f": tensor((0,), (4, 4))})
    loaded, metadata = load_file(file_of(tmp_path, header + " " * 5, np.float32(7).tobytes()))
    assert metadata == {}
    assert {name: array.shape for name, array in loaded.items()} == {"e": (0, 3), "s": (), "f": (0,)}
    assert loaded["s"] == 7
    assert load_file(file_of(tmp_path, {})) == ({}, {})


def test_every_truncation_and_every_changed_length_byte_is_refused(tmp_path):
    save_file({"x": np.arange(3, dtype="f4"), "y": np.ones((2, 2))}, tmp_path / "whole", {"k": "v"})
    raw = (tmp_path / "whole").read_bytes()
    path = tmp_path / "part"
    for cut in range(len(raw)):
        path.write_bytes(raw[:cut])
        with pytest.raises(ValueError, match="not a valid safetensors file"):
            load_file(path)
    for byte in range(8):
        path.write_bytes(raw[:byte] + bytes([raw[byte] ^ 0x81]) + raw[byte + 1 :])
        with pytest.raises(ValueError, match="not a valid safetensors file"):
            load_file(path)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("noise") / "f"
    path.write_bytes(len(noise).to_bytes(8, "little") + b"{" + noise)
    try:
        load_file(path)
    except ValueError as error:
        assert "not a valid safetensors file" in str(error)


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "words"),
    [
        ({1: np.zeros(1)}, None, TypeError, "names are strings, not int"),
        ({"x": np.array(["a"])}, None, TypeError, "'x' has the dtype <U1"),
        ({"x": np.array([object()])}, None, TypeError, "'x' has the dtype object"),
        ({"x": np.zeros(1, "f8").astype("g")}, None, TypeError, "'x' has the dtype"),
        ({"__metadata__": np.zeros(1)}, None, ValueError, "'__metadata__'"),
        ({"x": np.zeros(1)}, {"k": 1}, TypeError, "'k' has 1"),
        ({"\ud800": np.zeros(1)}, None, ValueError, "not Unicode text"),
    ],
)
def test_what_cannot_be_saved_leaves_the_file_as_it_was(tmp_path, tensors, metadata, error, words):
    path = tmp_path / "f"
    path.write_bytes(b"before")
    with pytest.raises(error, match=words):
        save_file(tensors, path, metadata)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["f"]


def test_a_failed_write_keeps_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    save_file({"x": np.zeros(2)}, path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_file({"x": np.ones(2)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
def test_the_file_has_ordinary_permissions_and_a_link_stays_one(tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "f")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "link").symlink_to("f")
    save_file({"x": np.ones(1)}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_file(tmp_path / "f")[0]["x"] == 1


KILL = """
import sys, numpy as np
from pybackprop.io import save_file
print("go", flush=True)
value = 0
while True:
    value += 1
    save_file({"x": np.full(200_000, value, np.float32)}, sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "f"
    rng = np.random.default_rng(0)
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-P", "-c", KILL, str(path)], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(rng.uniform(0.05, 0.3))
            child.kill()
        if path.exists():
            x = load_file(path)[0]["x"]
            assert x.shape == (200_000,) and (x == x[0]).all()


def mlp(width=5):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_a_model_survives_save_and_load(tmp_path):
    model, other = mlp(), mlp()
    pb.save(model, tmp_path / "m.safetensors", {"note": "text"})
    before = other.state_dict()
    assert any((before[name] != value).any() for name, value in model.state_dict().items())
    pb.load(other, tmp_path / "m.safetensors")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
    assert load_file(tmp_path / "m.safetensors")[1] == {"note": "text"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("3.bias"), "has no tensor '3.bias', which the model needs"),
        (lambda d: d.update(extra=np.zeros(1)), "has the tensor 'extra', which the model does not know"),
        (
            lambda d: d.update({"0.weight": np.zeros((3, 5))}),
            r"'0.weight' has the shape \(3, 5\), but the model's is \(5, 3\)",
        ),
        (lambda d: d.update({"3.weight": np.zeros((2, 5), int)}), "'3.weight' is int64, but the model's is float32"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, change, words):
    path = tmp_path / "m.safetensors"
    state = dict(mlp().state_dict())
    change(state)
    save_file(state, path)
    model = mlp()
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=words) as info:
        pb.load(model, path)
    assert str(path) in str(info.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(before[name], value)
