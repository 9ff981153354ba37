"""Reading and writing the safetensors file format, with NumPy alone.

A file is an 8-byte little-endian header length, a JSON header, and the raw bytes of the tensors::

    {"__metadata__": {"key": "text"}, "0.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}}

Format: https://github.com/safetensors/safetensors#format. The reader refuses everything that the format does not
allow before it allocates memory for a tensor: a file either describes each of its bytes exactly once or is not read.
Nothing in a file is ever executed. The writer is deterministic and atomic: the same tensors give the same bytes, and
``path`` holds either the old file or the whole new one, whenever the process or the machine stops.
"""

import itertools
import json
import math
import os
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np

from .atomic import write_atomically

__all__ = ["load_file", "save_file"]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_BYTES = 2**63 - 1  # what NumPy can address
_MAX_DIMS = 64  # NumPy's limit
_ALIGN = 8  # the header is padded with spaces, so that tensor data starts on such a boundary

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "C64": np.dtype("<c8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
# NumPy has no bfloat16: it is read as the float32 of the same value (the upper half of its bits) and never written.
_STORED: dict[str, np.dtype[Any]] = {**_DTYPES, "BF16": np.dtype("<u2")}


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def save_file(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to exactly ``path`` in the safetensors format.

    Tensors are stored in C order, little endian, by falling item size and then by name, so that each is aligned. The
    bytes go to a temporary file in the same folder, which is synchronised to disk and then renamed: an interrupted
    save leaves the former file as it was.

    Args:
        tensors: name to array (any shape; bool, integers of 8 to 64 bits, float16/32/64, complex64).
        path: the file to write; a file that is there is replaced.
        metadata: text to keep beside the tensors, name to string.

    Raises:
        TypeError: a name or metadata value is not a string, or a dtype has no counterpart in the format.
        ValueError: a tensor is called ``__metadata__``, or the header exceeds the format's 100 MB.
        OSError: the file cannot be written.

    Example:
        >>> import numpy as np, os, tempfile
        >>> from pybackprop.io import load_file, save_file
        >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
        >>> save_file({"x": np.arange(3, dtype="float32")}, path, {"step": "7"})
        >>> load_file(path)
        ({'x': array([0., 1., 2.], dtype=float32)}, {'step': '7'})
    """
    path = os.fspath(path)
    arrays = {name: _storable(name, value, path) for name, value in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header = _header(arrays, order, metadata, path)
    raw = (arrays[name].reshape(-1).view(np.uint8) for name in order if arrays[name].size)
    write_atomically(path, itertools.chain([header], raw))


def load_file(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: ``(tensors, metadata)``.

    Args:
        path: the file.

    Returns:
        The arrays by name, in the order in which they are stored (each owns its memory; bfloat16 comes as the float32
        of the same value), and the metadata, empty if there is none.

    Raises:
        ValueError: the file is not exactly what the format allows; the sentence names the file and the fault.
        OSError: the file cannot be opened or read.

    >>> import os, tempfile, numpy as np
    >>> from pybackprop.io import load_file, save_file
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> save_file({"a": np.arange(3)}, path)
    >>> load_file(path)
    ({'a': array([0, 1, 2])}, {})
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        entries, metadata = _parse(file, size, path)
        return {entry.name: _read(file, entry, path) for entry in entries}, metadata


def _fault(path: str, what: str) -> ValueError:
    return ValueError(f"{path} is not a valid safetensors file: {what}.")


def _read(file: BufferedReader, entry: _Entry, path: str) -> np.ndarray:
    array = np.empty(entry.shape, _STORED[entry.dtype])
    raw = array.reshape(-1).view(np.uint8).data
    if entry.end > entry.begin and file.readinto(raw) != entry.end - entry.begin:
        raise _fault(path, f"it ends inside tensor {entry.name!r}")
    if entry.dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if entry.dtype == "BOOL" and array.size and array.view(np.uint8).max() > 1:
        raise _fault(path, f"tensor {entry.name!r} is boolean but holds a byte other than 0 and 1")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _parse(file: BufferedReader, size: int, path: str) -> tuple[list[_Entry], dict[str, str]]:
    """Check the whole header against the file's size; nothing is allocated but the header itself."""
    if size < 8:
        raise _fault(path, f"it has {size} bytes, and the header length alone takes 8")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise _fault(path, f"the header length is {length}, above the limit of {MAX_HEADER_BYTES}")
    if length > size - 8:
        raise _fault(path, f"the header length is {length}, but only {size - 8} bytes follow")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise _fault(path, "the header does not begin with '{'")
    header = _decode(text, path)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    entries = [_entry(name, info, path) for name, info in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_cover(entries, size - 8 - length, path)
    return entries, metadata


def _decode(text: bytes, path: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise _fault(path, f"the header has the key {key!r} twice")
            key.encode()  # a lone surrogate, which JSON escapes can spell, is not text
            result[key] = value
        return result

    def refuse(constant: str) -> None:
        raise _fault(path, f"the header holds {constant}")

    def whole(digits: str) -> int:
        if len(digits) > 20:  # above any size; Python's own limit would be a less helpful error
            raise _fault(path, f"the header holds a number of {len(digits)} digits")
        return int(digits)

    try:
        header = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _fault(path, f"the header is not UTF-8 at byte {error.start}") from None
    try:
        return json.loads(header, object_pairs_hook=unique, parse_int=whole, parse_constant=refuse)
    except RecursionError:
        raise _fault(path, "the header is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _fault(path, f"the header is not JSON at character {error.pos}: {error.msg}") from None
    except UnicodeEncodeError:
        raise _fault(path, "the header has a name that is not Unicode text") from None


def _metadata(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _fault(path, f"__metadata__ is {_json_kind(value)}, not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise _fault(path, f"the metadata {key!r} is {_json_kind(text)}, not a string")
    return value


def _entry(name: str, info: Any, path: str) -> _Entry:
    """One tensor's description, with every field's type and range checked."""
    where = f"tensor {name!r}"
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise _fault(path, f"{where} is not described by exactly dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise _fault(path, f"{where} has the dtype {dtype!r}, which NumPy cannot hold")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise _fault(path, f"{where} has a shape that is not a list of integers >= 0")
    if len(shape) > _MAX_DIMS:
        raise _fault(path, f"{where} has {len(shape)} dimensions, above NumPy's {_MAX_DIMS}")
    itemsize = _STORED[dtype].itemsize
    # Sizes of zero are left out of this product, because NumPy computes the strides of an empty array as well.
    if math.prod((n for n in shape if n), start=itemsize) > _MAX_BYTES:
        raise _fault(path, f"{where} has the shape {shape}, whose size in bytes overflows")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise _fault(path, f"{where} has data_offsets that are not two integers >= 0")
    begin, end = offsets
    nbytes = math.prod(shape) * itemsize
    if end - begin != nbytes:
        raise _fault(path, f"{where} spans {end - begin} bytes, but {dtype} of shape {shape} takes {nbytes}")
    return _Entry(name, dtype, tuple(shape), begin, end)


def _check_cover(entries: list[_Entry], size: int, path: str) -> None:
    """Each byte of the data part must belong to exactly one tensor."""
    end = 0
    for entry in entries:
        if entry.end > size:
            raise _fault(path, f"tensor {entry.name!r} ends at byte {entry.end} of a data part of {size}")
        if entry.begin > end:
            raise _fault(path, f"bytes {end} to {entry.begin}, before tensor {entry.name!r}, belong to no tensor")
        if entry.begin < end:
            raise _fault(path, f"tensor {entry.name!r} begins at byte {entry.begin}, inside the tensor before it")
        end = entry.end
    if end != size:
        raise _fault(path, f"{size - end} bytes follow the last tensor")


def _json_kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(
        type(value), "a number"
    )


def _storable(name: Any, value: Any, path: str) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"Saving {path}: tensor names are strings, not {type(name).__name__} ({name!r}).")
    if name == "__metadata__":
        raise ValueError(f"Saving {path}: no tensor can be called '__metadata__', which the format keeps for itself.")
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES:
        raise TypeError(f"Saving {path}: tensor {name!r} has the dtype {array.dtype}, which the format cannot hold.")
    return np.asarray(array, dtype=dtype, order="C")


def _header(arrays: dict[str, np.ndarray], order: list[str], metadata: Mapping[str, str] | None, path: str) -> bytes:
    header: dict[str, Any] = {}
    if metadata:
        for key, text in metadata.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise TypeError(f"Saving {path}: metadata is string to string, but {key!r} has {text!r}.")
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    try:
        encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"Saving {path}: a name or metadata string is not Unicode text.") from None
    encoded += b" " * (-len(encoded) % _ALIGN)
    if len(encoded) > MAX_HEADER_BYTES:
        raise ValueError(f"Saving {path}: names and metadata take {len(encoded)} bytes of at most {MAX_HEADER_BYTES}.")
    return len(encoded).to_bytes(8, "little") + encoded
