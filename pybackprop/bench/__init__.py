"""Benchmarks: training steps of pybackprop, pure NumPy and whatever rivals are installed, measured side by side.

Each peer runs in a process of its own, with its thread count set before import, from the same starting weights on the
same batches; it is timed only after its first losses agree with those of the others. Rounds are interleaved, and the
medians of many short samples are reported with their spread. ``pybackprop bench`` runs a few cases; a clone's
``python -m benchmarks`` runs them all.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from .cases import QUICK, Case
from .peers import PEERS
from .report import case_lines, comparison, startup_lines, table
from .runner import Settings, run_case
from .startup import run_startup
from .timing import machine

__all__ = ["QUICK", "Case", "add_arguments", "run"]

DEFAULT_PEERS = [name for name in PEERS if name != "torch-compile"]  # it compiles for minutes: only on request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``pybackprop bench`` and ``python -m benchmarks``."""
    parser.add_argument("names", nargs="*", help="cases whose name begins so, or 'start' (import time and size)")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--compare", metavar="FILE", help="compare with earlier results")
    parser.add_argument("--table", metavar="FILE", help="print results as a Markdown table (of --threads) and stop")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--threads", help="thread counts, comma separated (default: 1 and all CPUs)")
    parser.add_argument("--peers", help=f"comma separated, of {', '.join(PEERS)}")


def run(options: argparse.Namespace, cases: Sequence[Case]) -> int:
    """Measure what the options name; returns the exit code (1 if a peer's losses were wrong)."""
    if options.table:
        print(table(_read(options.table), _counts(options.threads) if options.threads else None))
        return 0
    old = _read(options.compare) if options.compare else None
    peers = options.peers.split(",") if options.peers else DEFAULT_PEERS
    for name in peers:
        if name not in PEERS:
            raise ValueError(f"--peers: {name!r} is not one of {', '.join(PEERS)}.")
    here = machine()
    threads = _counts(options.threads) if options.threads else sorted({1, here["cpus"]})
    names = options.names or ["", "start"]
    chosen = [case for case in cases if any(case.name.startswith(name) for name in names)]
    if not chosen and "start" not in names:
        raise ValueError(f"No case begins with {names[0]!r}; there are {', '.join(case.name for case in cases)}.")
    settings = Settings(rounds=5, seconds=0.03) if options.quick else Settings()
    print(f"{here['cpu']}, {here['cpus']} CPUs, load {here['load']}; Python {here['python']}")
    rows: list[dict[str, Any]] = []
    for case in chosen:
        for count in threads:
            print(f"{case.name}, {count} thread{'s' * (count > 1)}", flush=True)
            measured = run_case(case, count, peers, settings, lambda text: print(text, file=sys.stderr))
            print("\n".join(case_lines(measured)), flush=True)
            rows += measured
    if "start" in names:
        measured = run_startup(3 if options.quick else 7)
        print("\n".join(["start", *startup_lines(measured)]))
        rows += measured
    results = {"machine": here, "settings": vars(settings), "rows": rows}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
    if old is not None:
        print("\n".join([f"compared with {os.path.basename(options.compare)}", *comparison(old, results)]))
    return int(any("wrong" in row for row in rows))


def _counts(text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) > 0 for part in text.split(",")):
        raise ValueError(f"--threads: expected positive numbers separated by commas, got {text!r}.")
    return [int(part) for part in text.split(",")]


def _read(path: str) -> dict[str, Any]:
    with open(path) as file:
        results = json.load(file)
    if not isinstance(results, dict) or "rows" not in results:
        raise ValueError(f"{path} holds no benchmark results.")
    return results
