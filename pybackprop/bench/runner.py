"""Runs the peers of one case side by side: check that they compute the same, then time them in turns."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .cases import Case
from .peers import PEERS, Peer, peer_file
from .timing import cpu_flags, summary

__all__ = ["Settings", "run_case"]

_LOSS_RTOL = 1e-3  # float32 sums in other orders; Adam's first steps divide small differences by small gradients
_WORKER = os.path.join(os.path.dirname(__file__), "worker.py")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to measure: rounds (one sample of each peer), and seconds per sample."""

    rounds: int = 15
    seconds: float = 0.1
    check_epochs: int = 2


class _Worker:
    """A peer's process. It is stopped while others are measured, so that its spinning threads do not disturb them."""

    def __init__(self, name: str, case: Case, threads: int, settings: Settings, data_path: str) -> None:
        self.name = name
        peer = PEERS[name]
        spec = dataclasses.asdict(case) | {
            "threads": threads,
            "check_steps": settings.check_epochs * case.batches,
            "warm_steps": 2,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", _WORKER, peer_file(peer), peer.variant, json.dumps(spec), data_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(peer, threads),
        )

    def ready(self) -> dict[str, Any]:
        """Its first answer: losses, version, and the unit of its steps; or why it does not take part."""
        return self._answer()

    def run(self, steps: int) -> float:
        """Seconds for so many steps."""
        self._signal("SIGCONT")
        assert self._process.stdin is not None
        self._process.stdin.write(f"run {steps}\n")
        self._process.stdin.flush()
        seconds = self._answer()
        self._signal("SIGSTOP")
        return seconds

    def close(self) -> None:
        self._signal("SIGCONT")
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            return {"absent": (errors.strip().splitlines() or ["it ended without a word"])[-1]}
        return json.loads(line)

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))


def _environment(peer: Peer, threads: int) -> dict[str, str]:
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYBACKPROP_NUM_THREADS")
    environment = os.environ | dict.fromkeys(counts, str(threads))
    if peer.blas == "best":
        environment |= _best_blas(threads)
    return environment


_BLAS_PROBE = """
import time, numpy as np
a = np.ones((512, 512), np.float32); c = a @ a; best = 1e9
for _ in range(20):
    start = time.perf_counter(); np.matmul(a, a, out=c); best = min(best, time.perf_counter() - start)
print(best)
"""
_best: dict[int, dict[str, str]] = {}


def _best_blas(threads: int) -> dict[str, str]:
    """The setting with which NumPy's OpenBLAS multiplies fastest here: its own choice, or AVX-512 or AVX2 kernels.

    OpenBLAS goes by CPU models: older releases take AVX2 kernels on AMD CPUs whose AVX-512 is faster.
    """
    if threads not in _best:
        choices: list[dict[str, str]] = [{}]
        flags = cpu_flags()
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"} <= flags:
            choices.append({"OPENBLAS_CORETYPE": "SKYLAKEX"})
        if {"avx2", "fma"} <= flags:
            choices.append({"OPENBLAS_CORETYPE": "HASWELL"})
        seconds = []
        for choice in choices:
            environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)} | choice
            probe = [sys.executable, "-P", "-c", _BLAS_PROBE]
            seconds.append(float(subprocess.run(probe, env=environment, capture_output=True, check=True).stdout))
        fastest = int(np.argmin(seconds))
        _best[threads] = choices[fastest] if seconds[fastest] < 0.97 * seconds[0] else {}
    return _best[threads]


@contextlib.contextmanager
def _workers(case: Case, threads: int, peers: Sequence[str], settings: Settings) -> Iterator[list[_Worker]]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "case.npz")
        np.savez(path, **case.data())  # type: ignore[arg-type]
        workers: list[_Worker] = []
        try:
            for name in peers:
                workers.append(_Worker(name, case, threads, settings, path))
            yield workers
        finally:
            for worker in workers:
                worker.close()


def run_case(
    case: Case, threads: int, peers: Sequence[str], settings: Settings, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Time one step of each peer; one row per peer that is installed, can train this network, and computes its losses.

    Every row has ``case``, ``threads``, ``peer``, ``version``, ``seconds`` (median, q1, q3 of a step),
    ``examples_per_second``; a peer that does not take part has ``absent`` or ``wrong`` with the reason instead.
    """
    rows = []
    with _workers(case, threads, peers, settings) as workers:
        active = []
        reference: np.ndarray | None = None
        for worker in workers:
            first = worker.ready()
            row = {"case": case.name, "batch": case.batch, "threads": threads, "peer": worker.name}
            rows.append(row)
            if "absent" in first:
                row["absent"] = first["absent"]
                continue
            losses = np.asarray(first["losses"]).reshape(settings.check_epochs, -1).mean(axis=1)
            reference = losses if reference is None else reference
            row |= {"version": first["version"], "losses": losses.tolist()}
            wrong = _disagreement(losses, reference, PEERS[peers[0]].title)
            if wrong:
                row["wrong"] = wrong
                say(f"{case.name}: {PEERS[worker.name].title} is not timed: {wrong}")
                continue
            worker._signal("SIGSTOP")
            active.append((worker, row, first["epoch_steps"]))
        steps = {worker.name: _calibrate(worker, unit, settings.seconds) for worker, _, unit in active}
        samples: dict[str, list[float]] = {worker.name: [] for worker, _, _ in active}
        for _ in range(settings.rounds):
            for worker, _, _ in active:
                samples[worker.name].append(worker.run(steps[worker.name]) / steps[worker.name])
        for worker, row, _ in active:
            seconds = summary(samples[worker.name])
            row["seconds"] = seconds
            row["examples_per_second"] = case.batch / seconds["median"]
    return rows


def _disagreement(losses: np.ndarray, reference: np.ndarray, title: str) -> str:
    """Why these losses are not those of the reference, or nothing."""
    if not losses[-1] < losses[0]:
        return f"its loss does not fall: {losses[0]:.6g}, then {losses[-1]:.6g}"
    if not np.allclose(losses, reference, rtol=_LOSS_RTOL, atol=1e-6):
        return f"its losses are {losses.tolist()}, those of {title} {reference.tolist()}"
    return ""


def _calibrate(worker: _Worker, unit: int, seconds: float) -> int:
    """Steps that take about so many seconds, a multiple of the worker's unit."""
    steps = unit
    while True:
        taken = worker.run(steps)
        if taken > seconds / 4:
            return max(unit, round(steps * seconds / taken / unit) * unit)
        steps *= 4
