"""A Trainer as one safetensors file: arrays as tensors, the rest as JSON in the file's metadata."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .._form import COUNT, FLOAT, Each, Maybe, Optional, fault
from ..io import check_fit, load_file, save_file

if TYPE_CHECKING:
    from .trainer import Trainer

_KEY = "pybackprop.checkpoint"
_VERSION = 1
_ARRAY = "$array"

# What Trainer.state gives. Optional entries: older files lack them.
_STATE = {
    "optimizer": {
        "rule": str,
        "steps": COUNT,
        "seed": COUNT,
        "lr": (FLOAT, dict),
        "lr_factor": Optional(FLOAT),
        "state": Each(Each(np.ndarray)),
    },
    "epoch": COUNT,
    "cut": Maybe({"position": COUNT, "results": np.ndarray, "rows": np.ndarray}),
    "seed": COUNT,
    "run": dict,
    "history": {
        "history": Each([float, int]),
        "epoch": [COUNT],
        "params": dict,
        "skipped": Optional(COUNT),
        "restored": Optional(COUNT),
    },
    "callbacks": [list],
}


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
    state = _state(metadata[_KEY], tensors, path)
    weights = {name.removeprefix("model."): array for name, array in tensors.items() if name.startswith("model.")}
    check_fit(trainer.model.state_dict(), weights, path)
    trainer.load_state(state)  # whatever does not fit is found before anything changes
    trainer.model.load_state_dict(weights)


def _state(text: str, tensors: dict[str, np.ndarray], path: str) -> dict[str, Any]:
    """The state in a file, with every type that the trainer relies on."""
    try:
        content = json.loads(text)
        version = content["version"] if isinstance(content, dict) and "version" in content else None
        if version != _VERSION:
            raise ValueError(
                f"{path} is a checkpoint of format {version!r}, and this version of pybackprop reads format {_VERSION}"
            )
        state = _unpack(content.get("state"), tensors)
    except (json.JSONDecodeError, RecursionError, KeyError) as error:
        what = f"there is no tensor {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is a damaged checkpoint: {what}") from None
    wrong = fault(state, _STATE, "state") or _disagreement(state)
    if wrong:
        raise ValueError(f"{path} is a damaged checkpoint: {wrong}")
    return state


def _disagreement(state: dict[str, Any]) -> str | None:
    """What contradicts itself in a state whose types are right."""
    cut, history, run = state["cut"], state["history"], state["run"]
    if run:
        wrong = fault({name: run.get(name) for name in ("start", "first_step")}, Each(COUNT), "state.run")
        if wrong:
            return wrong
    if cut is not None:
        for name in ("results", "rows"):
            if cut[name].dtype != np.float64:
                return f"state.cut.{name} is {cut[name].dtype}, not float64"
        if cut["rows"].shape != (cut["position"],) or cut["results"].shape[:1] != (cut["position"],):
            return f"state.cut has not one entry for each of {cut['position']} batches"
        if not cut["position"]:
            return "state.cut has no batch"
    for name, values in history["history"].items():
        if len(values) != len(history["epoch"]):
            return f"state.history has {len(values)} values of {name!r} for {len(history['epoch'])} epochs"
    for entry in state["callbacks"]:
        if len(entry) != 2 or not isinstance(entry[0], str) or not isinstance(entry[1], dict):
            return "state.callbacks is not a list of names and states"
    return None


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
        if list(value) == [_ARRAY] and isinstance(value[_ARRAY], str):
            return tensors[value[_ARRAY]]
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
