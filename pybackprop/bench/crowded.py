"""Two threads when another process keeps one of their CPUs busy: what that costs beside one thread on a free CPU."""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .cases import Case
from .peers import PEERS
from .runner import Settings, calibrate, workers
from .timing import show_time, summary

__all__ = ["crowded_lines", "run_crowded"]

_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.getppid() == int(sys.argv[2]):
    for _ in range(10_000_000):
        pass
"""


@contextlib.contextmanager
def busy_cpu(cpu: int) -> Iterator[None]:
    """A process that does nothing but keep this CPU busy."""
    spinner = subprocess.Popen([sys.executable, "-c", _SPIN, str(cpu), str(os.getpid())], stdout=subprocess.PIPE)
    try:
        assert spinner.stdout is not None
        spinner.stdout.readline()
        yield
    finally:
        spinner.kill()
        spinner.communicate()


def run_crowded(case: Case, peers: Sequence[str], settings: Settings) -> list[dict[str, Any]]:
    """A row per peer: seconds of a step on one thread, held to a free CPU, and on two threads, one on a busy one.

    ``ratio`` is the median over the rounds of two threads / one; 1 is what may be hoped for.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return [{"crowded": case.name, "peer": name, "absent": "this needs two CPUs"} for name in peers]
    free, busy, *_ = sorted(os.sched_getaffinity(0))
    rows = []
    for name in peers:
        row: dict[str, Any] = {"crowded": case.name, "peer": name}
        rows.append(row)
        with workers(case, [(name, 1, free), (name, 2, None)], settings) as pair:
            first = [worker.ready() for worker in pair]
            if "absent" in first[0]:
                row["absent"] = first[0]["absent"]
                continue
            with busy_cpu(busy):
                steps = calibrate(pair[0], first[0]["epoch_steps"], settings.seconds)
                taken: list[list[float]] = [[], []]
                for _ in range(settings.rounds):
                    for samples, worker in zip(taken, pair, strict=True):
                        samples.append(worker.run(steps)["seconds"] / steps)
        row["one"], row["two"] = summary(taken[0]), summary(taken[1])
        row["ratio"] = statistics.median(b / a for a, b in zip(*taken, strict=True))
    return rows


def crowded_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line per peer: both times and their ratio."""
    lines = []
    for row in rows:
        title = PEERS[row["peer"]].title
        if "ratio" in row:
            one, two = (show_time(row[n]["median"]) for n in ("one", "two"))
            lines.append(f"  {title:<17}one thread {one:>8}, two threads {two:>8}: {row['ratio']:.2f}x")
        else:
            lines.append(f"  {title:<17}not timed: {row['absent']}")
    return lines
