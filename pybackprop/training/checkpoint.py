"""A Trainer as one safetensors file: arrays as tensors, the rest as JSON in the file's metadata."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io import check_fit, load_file, save_file

if TYPE_CHECKING:
    from .trainer import Trainer

_KEY = "pybackprop.checkpoint"
_VERSION = 1
_ARRAY = "$array"


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write the trainer's weights and state to ``path``."""
    tensors = {f"model.{name}": array for name, array in trainer.model.state_dict().items()}
    state = _pack(trainer.state(), "state", tensors)
    save_file(tensors, path, {_KEY: json.dumps({"version": _VERSION, "state": state})})


def load(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Read them again; all or nothing."""
    path = os.fspath(path)
    tensors, metadata = load_file(path)
    if _KEY not in metadata:
        raise ValueError(f"{path} is no checkpoint: it was not written by Trainer.save_checkpoint")
    content = json.loads(metadata[_KEY])
    if content["version"] != _VERSION:
        raise ValueError(f"{path} is a checkpoint of format {content['version']}, this version reads format {_VERSION}")
    weights = {name.removeprefix("model."): array for name, array in tensors.items() if name.startswith("model.")}
    before = trainer.model.state_dict()
    check_fit(before, weights, path)
    state = _unpack(content["state"], tensors)
    trainer.load_state(state)  # checks the optimizer before it changes anything
    trainer.model.load_state_dict(weights)


def _pack(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """JSON for a nest of dicts and lists; arrays go to ``tensors`` and leave their names."""
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {key: _pack(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds numbers, texts and arrays, but {name} is {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if list(value) == [_ARRAY]:
            return tensors[value[_ARRAY]]
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
