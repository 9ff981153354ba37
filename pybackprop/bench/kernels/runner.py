"""Measures kernels in turns: a sample of ours with the limit beside it, a sample of each other library, again."""

import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..process import Process, environment
from ..timing import summary
from .cases import Kernel

__all__ = ["KERNEL_PEERS", "run_kernels"]

KERNEL_PEERS = {"ours": "pybackprop", "torch": "PyTorch", "jax": "JAX"}
_FOLDER = os.path.dirname(__file__)


def run_kernels(
    kernels: Sequence[Kernel],
    threads: int,
    peers: Sequence[str],
    rounds: int,
    seconds: float,
    say: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """A row for each kernel and library; ``say`` gets those of each kernel as they are done.

    Rows have ``kernel``, ``threads``, ``peer``, ``version``, ``seconds`` (median, q1, q3 of one call) and, if ours is
    among the peers, ``of_limit``: the median over the rounds of limit / seconds, both of the same round. Ours also has
    ``peak``: GFLOP/s of multiply-adds in registers, or GB/s of a pass in place over as much memory. A row's rate is its
    ``gflops`` or ``gbytes``, and ``ns_per_element`` where the shape is one number. A library that does not take part
    has ``absent`` or ``wrong`` with the reason instead.
    """
    rows: list[dict[str, Any]] = []
    worker = os.path.join(_FOLDER, "worker.py")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        processes = {
            name: Process([worker, os.path.join(_FOLDER, f"{name}.py"), str(threads)], environment(threads))
            for name in peers
        }
        for process in processes.values():
            stack.callback(process.close)
        for kernel in kernels:
            path = os.path.join(folder, "kernel.npz")
            data = kernel.data()
            np.savez(path, **data, **{f"e{k}": a for k, a in enumerate(kernel.expected(data))})  # type: ignore[arg-type]
            found = _run_kernel(kernel, threads, processes, path, rounds, seconds)
            say(found)
            rows += found
    return rows


def _run_kernel(
    kernel: Kernel, threads: int, processes: dict[str, Process], path: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    rows, active = [], {}
    for name, process in processes.items():
        process.tell(json.dumps({"kind": kernel.kind, "shape": kernel.shape, "data": path}))
        first = process.answer()
        row: dict[str, Any] = {"kernel": kernel.name, "threads": threads, "peer": name}
        rows.append(row)
        if "ready" in first:
            row["version"] = first["ready"]
            active[name] = (row, _calibrate(process, seconds))
        else:
            row |= first
        process.pause()

    def sample(name: str, count: int) -> dict[str, float]:
        processes[name].tell(json.dumps({"run": count}))
        answer = processes[name].answer()
        processes[name].pause()
        return answer

    samples: dict[str, list[float]] = {name: [] for name in active}
    shares: dict[str, list[float]] = {name: [] for name in active}
    peaks = []
    for _ in range(rounds):
        limit = None
        for name, (_, count) in active.items():
            taken = sample(name, count)
            limit = taken.get("limit", limit)
            samples[name].append(taken["seconds"])
            if limit is not None:
                shares[name].append(limit / taken["seconds"])
            if "peak" in taken:
                peaks.append(taken["peak"])
    for name, (row, _) in active.items():
        row["seconds"] = summary(samples[name])
        if kernel.flops:
            row["gflops"] = kernel.flops / row["seconds"]["median"] * 1e-9
        else:
            row["gbytes"] = kernel.traffic[0] / row["seconds"]["median"] * 1e-9
        if len(kernel.shape) == 1:
            row["ns_per_element"] = row["seconds"]["median"] / kernel.shape[0] * 1e9
        if shares[name]:
            row["of_limit"] = statistics.median(shares[name])
        if name == "ours":
            row["peak"] = statistics.median(peaks)
    return rows


def _calibrate(process: Process, seconds: float) -> int:
    count = 1
    while True:
        process.tell(json.dumps({"run": count}))
        taken = process.answer()["seconds"] * count
        if taken > seconds / 4 or count >= 1 << 16:
            return max(1, round(count * seconds / max(taken, 1e-9)))
        count *= 4
