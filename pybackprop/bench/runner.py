"""Runs the peers of one case side by side: check that they compute the same, then time them in turns."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .cases import Case, FitCase
from .peers import PEERS, peer_file
from .process import Process, environment
from .timing import cpu_flags, summary

__all__ = ["Settings", "Worker", "calibrate", "run_case", "workers"]

_LEVEL_RTOL = 0.15, 0.4  # of the mean over all epochs and of the last one: orders of the rows differ
_LOSS_RTOL = 1e-3  # float32 sums in other orders; Adam's first steps divide small differences by small gradients
_WORKER = os.path.join(os.path.dirname(__file__), "worker.py")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to measure: rounds (one sample of each peer), and seconds per sample."""

    rounds: int = 15
    seconds: float = 0.1
    check_epochs: int = 2


class Worker:
    """A peer's process, ready to run its steps."""

    def __init__(
        self, name: str, case: Case, threads: int, settings: Settings, data_path: str, cpu: int | None = None
    ) -> None:
        self.name = name
        peer = PEERS[name]
        whole = isinstance(case, FitCase)
        spec = dataclasses.asdict(case) | {
            "threads": threads,
            "cpu": cpu,
            "check_steps": 1 if whole else settings.check_epochs * case.batches,
            "warm_steps": 0 if whole else 2,
        }
        extra = _best_blas(threads) if peer.blas == "best" else {}
        arguments = [_WORKER, peer_file(peer), peer.variant, json.dumps(spec), data_path]
        self._start = lambda: Process(arguments, environment(threads, extra))
        self._process: Process | None = None

    def ready(self) -> dict[str, Any]:
        """Starts it; its first answer: losses, version, and the unit of its steps; or why it does not take part.

        It is stopped then, so that peers prepare one after the other: two that spin would wait for each other.
        """
        self._process = self._start()
        first = self._process.answer()
        self._process.pause()
        return first

    def run(self, steps: int) -> dict[str, float]:
        """``{"seconds": for so many steps}``, and what else the peer has measured."""
        assert self._process is not None
        self._process.tell(f"run {steps}")
        answer = self._process.answer()
        self._process.pause()
        return answer if isinstance(answer, dict) else {"seconds": answer}

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.close()


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
            env = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)} | choice
            probe = [sys.executable, "-P", "-c", _BLAS_PROBE]
            seconds.append(float(subprocess.run(probe, env=env, capture_output=True, check=True).stdout))
        fastest = int(np.argmin(seconds))
        _best[threads] = choices[fastest] if seconds[fastest] < 0.97 * seconds[0] else {}
    return _best[threads]


@contextlib.contextmanager
def workers(case: Case, wanted: Sequence[tuple[str, int, int | None]], settings: Settings) -> Iterator[list[Worker]]:
    """Processes for (peer, threads, CPU for a single thread), ended on leaving."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "case.npz")
        np.savez(path, **case.data())  # type: ignore[arg-type]
        started: list[Worker] = []
        try:
            for name, threads, cpu in wanted:
                started.append(Worker(name, case, threads, settings, path, cpu))
            yield started
        finally:
            for worker in started:
                worker.close()


def run_case(
    case: Case, threads: int, peers: Sequence[str], settings: Settings, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Time one step of each peer, or one whole fit; one row per peer that is installed and computes the same losses.

    Every row has ``case`` (``fit`` for a :class:`FitCase`), ``threads``, ``peer``, ``version``, ``prepare_seconds`` (to
    compile and to compute the first losses), ``seconds`` (median, q1, q3 of a step or fit), ``examples_per_second``; if
    ``"limit"`` is among the peers, ``of_limit``, the median over the rounds of limit / seconds, and in the limit's own
    row ``gflops`` and ``gbytes``, the rates it stands on. A peer that does not take part has ``absent`` or ``wrong``
    with the reason instead.
    """
    whole = isinstance(case, FitCase)
    rows = []
    with workers(case, [(name, threads, None) for name in peers], settings) as started:
        active = []
        reference: np.ndarray | None = None
        for worker in started:
            first = worker.ready()
            row: dict[str, Any] = {"fit" if whole else "case": case.name, "batch": case.batch}
            row |= {"threads": threads, "peer": worker.name}
            rows.append(row)
            if "absent" in first:
                row["absent"] = first["absent"]
                continue
            row |= {"version": first["version"], "prepare_seconds": first["prepare_seconds"]}
            wrong = ""
            if first["losses"] is not None:  # the limit computes none
                epochs = case.epochs if isinstance(case, FitCase) else settings.check_epochs
                losses = np.asarray(first["losses"]).reshape(epochs, -1).mean(axis=1)
                reference = losses if reference is None else reference
                row["losses"] = losses.tolist()
                wrong = _disagreement(losses, reference, PEERS[peers[0]].title, whole)
            if wrong:
                row["wrong"] = wrong
                say(f"{case.name}: {PEERS[worker.name].title} is not timed: {wrong}")
                continue
            active.append((worker, row, first["epoch_steps"]))
        steps = {w.name: 1 if whole else calibrate(w, unit, settings.seconds) for w, _, unit in active}
        answers: dict[str, list[dict[str, float]]] = {worker.name: [] for worker, _, _ in active}
        for _ in range(min(settings.rounds, 5) if whole else settings.rounds):
            for worker, _, _ in active:
                answer = worker.run(steps[worker.name])
                answers[worker.name].append(answer | {"seconds": answer["seconds"] / steps[worker.name]})
        per_call = case.rows * case.epochs if isinstance(case, FitCase) else case.batch
        limits = [answer["seconds"] for answer in answers.get("limit", [])]
        for worker, row, _ in active:
            samples = [answer["seconds"] for answer in answers[worker.name]]
            row["seconds"] = summary(samples)
            row["examples_per_second"] = per_call / row["seconds"]["median"]
            if worker.name == "limit":
                for rate in ("gflops", "gbytes"):
                    row[rate] = statistics.median(answer[rate] for answer in answers["limit"])
            elif limits:
                row["of_limit"] = statistics.median(a / b for a, b in zip(limits, samples, strict=True))
    return rows


def _disagreement(losses: np.ndarray, reference: np.ndarray, title: str, whole: bool) -> str:
    """Why these losses are not those of the reference, or nothing. Of whole fits, the last epoch's level counts."""
    if not losses[-1] < losses[0]:
        return f"its loss does not fall: {losses[0]:.6g}, then {losses[-1]:.6g}"
    if whole:
        levels = np.array([losses.mean() / reference.mean(), losses[-1] / reference[-1]])
        same = bool((np.abs(levels - 1) <= _LEVEL_RTOL).all())
    else:
        same = np.allclose(losses, reference, rtol=_LOSS_RTOL, atol=1e-6)
    return "" if same else f"its losses are {losses.tolist()}, those of {title} {reference.tolist()}"


def calibrate(worker: Worker, unit: int, seconds: float) -> int:
    """Steps that take about so many seconds, a multiple of the worker's unit."""
    steps = unit
    while True:
        taken = worker.run(steps)["seconds"]
        if taken > seconds / 4:
            return max(unit, round(steps * seconds / taken / unit) * unit)
        steps *= 4
