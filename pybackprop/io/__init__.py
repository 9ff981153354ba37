"""Files: a model's parameters in the safetensors format.

A file is PyTorch's state dict with PyTorch's names and layouts, so that it loads into the PyTorch twin of a model as
it is, and the other way round.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .safetensors import load_file, save_file

if TYPE_CHECKING:
    from ..nn import Module

__all__ = ["load", "load_file", "save", "save_file"]


def save(model: "Module", path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's parameters and buffers to ``path`` in the safetensors format.

    The file is replaced atomically and holds ``model.state_dict()``; it cannot run code when it is loaded.

    Args:
        model: the module; its ``state_dict()`` gives names and arrays.
        path: the file to write, by custom ``*.safetensors``.
        metadata: text to keep beside the tensors, name to string.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import os, tempfile, pybackprop as pb
        >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
        >>> pb.save(pb.nn.Linear(3, 2), path)
        >>> pb.load(pb.nn.Linear(3, 2), path)
    """
    save_file(model.state_dict(), path, metadata)


def load(model: "Module", path: str | os.PathLike[str]) -> None:
    """Read parameters and buffers from ``path`` into ``model``: all of them, or none if anything does not fit.

    The names and shapes of the file must be exactly the model's. Floats of any width are cast to the model's dtype.

    Args:
        model: the module to write to.
        path: a file written by :func:`save`, or by another program with the same names and layouts.

    Raises:
        ValueError: the file is malformed, or a tensor is missing, unknown, or of another shape or kind; the sentence
            names the file and the first such tensor. The model is unchanged.
        OSError: the file cannot be read.

    >>> import os, tempfile, pybackprop as pb
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> one, two = pb.nn.Linear(2, 1), pb.nn.Linear(2, 1)
    >>> pb.save(one, path)
    >>> pb.load(two, path)
    >>> bool((one.weight.numpy() == two.weight.numpy()).all())
    True
    """
    path = os.fspath(path)
    tensors, _ = load_file(path)
    check_fit(model.state_dict(), tensors, path)
    model.load_state_dict(tensors)


def check_fit(expected: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], path: str) -> None:
    """Raise ValueError unless ``tensors`` has exactly the names, shapes and kinds (float or integer) ``expected``."""
    for name, own in expected.items():
        if name not in tensors:
            raise ValueError(f"{path} has no tensor {name!r}, which the model needs.")
        found = tensors[name]
        if found.shape != own.shape:
            raise ValueError(f"{path}: tensor {name!r} has the shape {found.shape}, but the model's is {own.shape}.")
        if (found.dtype.kind == "f") != (own.dtype.kind == "f"):
            raise ValueError(f"{path}: tensor {name!r} is {found.dtype}, but the model's is {own.dtype}.")
    for name in tensors:
        if name not in expected:
            raise ValueError(f"{path} has the tensor {name!r}, which the model does not know.")
