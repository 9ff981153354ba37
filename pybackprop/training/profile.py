"""Where the time of a training step goes: node by node, beside what this machine can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._cost import multiply_adds
from .loop import Batches, epoch_order
from .objective import model_dtype

if TYPE_CHECKING:
    from .fitdata import Data
    from .step import Compiled, TrainStep

_WARM = 3  # first steps, whose memory was never touched before
_LIMIT_SECONDS = 0.01


def job_flops(job: Any) -> float:
    """Floating-point operations of a node's pass if it is a matrix product, else 0: two for a multiply-add."""
    products = sum(job["wanted"][:2]) if job["backward"] else 1
    return 2.0 * products * multiply_adds(job["op"], job["inputs"], job["outputs"][0])


def update_traffic(rule: str, params: int, dtype: str) -> tuple[int, int]:
    """Bytes that one update reads and writes, and bytes of the memory it works on.

    Weights and states are read and written, gradients read: Adam moves 28 bytes a float32 parameter, of 16.
    """
    states, width = len(_core.rule_info(rule)["states"]), np.dtype(dtype).itemsize
    return params * width * (3 + 2 * states), params * width * (2 + states)


class Profile:
    """What :meth:`Trainer.profile` found; ``print`` shows it as a table.

    Times are averages over the threads, so that the rows of a step add up to the step; each is the median of all steps.

    Attributes:
        rows: dicts, in the order of a step: ``"name"``; ``"seconds"`` a step; ``"share"`` of the step; ``"gflops"`` of
            matrix products and ``"gbytes"`` of everything else, a second (None where nothing is counted); ``"limit"``,
            the share of what the machine did when the profile was taken (None where it has no single limit).
        seconds: of a step, the median.
        steps, threads: measured, and taking part.
        limits: ``{"gflops": …, "update gbytes": …}``: multiply-adds in registers, and a pass in place over as much
            memory as the update works on, of these threads.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> trainer = pb.Trainer(nn.Linear(4, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> profile = trainer.profile(np.ones((64, 4)), np.ones((64, 1)), steps=4)
        >>> profile.steps, [row["name"] for row in profile.rows][-1]
        (4, 'rest')
    """

    def __init__(
        self, rows: list[dict[str, Any]], seconds: float, steps: int, threads: int, limits: dict[str, float]
    ) -> None:
        self.rows, self.seconds, self.steps, self.threads, self.limits = rows, seconds, steps, threads, limits

    def __str__(self) -> str:
        width = max(len(row["name"]) for row in self.rows)
        lines = [
            f"step {_time(self.seconds)}, median of {self.steps} on {self.threads} "
            f"thread{'s' * (self.threads > 1)}; limits {self.limits['gflops']:.0f} GFLOP/s, "
            f"{self.limits['update gbytes']:.0f} GB/s for the update",
            f"{'':<{width}}  {'time':>8}  {'share':>5}  {'rate':>12}  of limit",
        ]
        for row in self.rows:
            rate = (
                f"{row['gflops']:.3g} GFLOP/s"
                if row["gflops"] is not None
                else f"{row['gbytes']:.3g} GB/s"
                if row["gbytes"] is not None
                else ""
            )
            limit = "" if row["limit"] is None else f"{row['limit']:.0%}"
            line = f"{row['name']:<{width}}  {_time(row['seconds']):>8}  {row['share']:>5.0%}  {rate:>12}  {limit:>8}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def profile_steps(
    step: TrainStep,
    data: Data,
    kinds: tuple[bool, ...],
    compiled: Compiled,
    rows: int,
    steps: int,
    keep: np.ndarray | None,
    seed: int,
) -> Profile:
    """Profile ``steps`` steps of ``step`` on ``rows`` rows each, with a learning rate of 0.

    Args:
        kinds: which arrays enter as integers.
        compiled: the program for so many rows.
        keep: the only rows to take; None for all.
        seed: of the order of rows.
    """
    batches = Batches(data, kinds, rows, model_dtype(step.model), keep, lambda n: compiled)
    try:
        batches.set_order(epoch_order(seed, 0, batches.rows))
        work, wait = [], []
        jobs: Sequence[Any] = ()
        warm = -(-_WARM // step.accumulate) * step.accumulate
        todo = -(-steps // step.accumulate) * step.accumulate + warm
        while todo > 0:
            # A rate of 0 costs the same and keeps the weights where they are, so that no profile ends in NaN.
            rates = np.zeros(min(todo, batches.full))
            jobs, worked, waited = step.stepper.profile(compiled.program, batches.capsule, rows, rates)
            work.append(worked)
            wait.append(waited)
            todo -= len(rates)
    finally:
        batches.close()
    return _summary(step, jobs, np.concatenate(work)[warm:], np.concatenate(wait)[warm:])


def _summary(step: TrainStep, jobs: Sequence[Any], work: np.ndarray, wait: np.ndarray) -> Profile:
    steps, threads, slots = work.shape
    # Of several batches an update, only the last has one: its time is spread over them.
    grouped = (-1, step.accumulate * threads, slots)
    work, wait = work.reshape(grouped).mean(axis=1), wait.reshape(grouped).mean(axis=1)
    total = float(np.median(work.sum(axis=1) + wait.sum(axis=1)))
    dtype = model_dtype(step.model)
    params = sum(math.prod(p.shape) for p in step.trained if not p.sparse)
    traffic, memory = update_traffic(step.optimizer.rule, params, dtype)
    limits = {
        "gflops": _core.measure_fma(threads, _LIMIT_SECONDS, dtype),
        "update gbytes": _core.MemorySpan(max(memory, 1)).rate(threads, _LIMIT_SECONDS),
    }
    rows = []

    def add(name: str, seconds: np.ndarray, flops: float = 0.0, moved: float = 0.0, limit: float = 0.0) -> None:
        median = float(np.median(seconds))
        rate = (flops or moved) / median * 1e-9 if median > 0 and (flops or moved) else None
        rows.append(
            {
                "name": name,
                "seconds": median,
                "share": median / total,
                "gflops": rate if flops else None,
                "gbytes": None if flops else rate,
                "limit": rate / limit if rate is not None and limit else None,
            }
        )

    items: dict[int, list[int]] = {}
    for slot, job in enumerate(jobs):
        items.setdefault(job["item"], []).append(slot)
    for slots in items.values():
        job = jobs[slots[0]]
        flops = job_flops(job)
        add(job["label"], work[:, slots].sum(axis=1), flops, job["bytes"], limits["gflops"] if flops else 0.0)
    feed, accumulate, update, rest = (work[:, len(jobs) + k] for k in range(4))
    if step.accumulate > 1:
        add("adding up gradients", accumulate)
    add(f"update ({step.optimizer.rule})", update, 0.0, traffic / step.accumulate, limits["update gbytes"])
    add("feeding", feed)
    add("waiting for other threads", wait.sum(axis=1))
    add("rest", rest)
    return Profile(rows, total, steps, threads, limits)
