"""Benchmarks: training steps, whole fits and single kernels of pybackprop beside whatever rivals are installed.

Each peer runs in a process of its own, with its thread count set before import, from the same starting weights on the
same batches; it is timed only after its first losses agree with those of the others. Rounds are interleaved, and the
medians of many short samples are reported with their spread. ``pybackprop bench`` runs a few cases; a clone's
``python -m benchmarks`` runs them all.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import _core
from .cases import QUICK, Case, FitCase
from .crowded import crowded_lines, run_crowded
from .kernels import KERNEL_PEERS, Kernel, kernel_lines, kernel_table, run_kernels
from .peers import PEERS
from .report import case_lines, comparison, startup_lines, table
from .runner import Settings, run_case
from .startup import run_startup
from .timing import machine

__all__ = ["QUICK", "Case", "FitCase", "Kernel", "add_arguments", "run"]

GROUPS = ("steps", "fits", "kernels", "threads", "start")
_SLOW = ("torch-compile",)  # compiles for half a minute a case: left out by --quick
_NOT_IN_FITS = ("ours", "limit", "torch-compile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``pybackprop bench`` and ``python -m benchmarks``."""
    parser.add_argument(
        "names", nargs="*", help=f"groups ({', '.join(GROUPS)}), or cases whose name begins so; default: everything"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--compare", metavar="FILE", help="compare with earlier results")
    parser.add_argument("--table", metavar="FILE", help="print results as Markdown tables (of --threads) and stop")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="samples of each peer (default: 15, quick: 5)")
    parser.add_argument("--threads", help="thread counts, comma separated (default: 1 and all CPUs)")
    parser.add_argument("--peers", help=f"comma separated, of {', '.join(PEERS)}")


def run(
    options: argparse.Namespace,
    steps: Sequence[Case],
    fits: Sequence[FitCase] = (),
    kernels: Sequence[Kernel] = (),
    crowded: Sequence[Case] = (),
) -> int:
    """Measure what the options name; returns the exit code (1 if a peer's results were wrong)."""
    if options.table:
        print(_tables(_read(options.table), options))
        return 0
    old = _read(options.compare) if options.compare else None
    default = [name for name in PEERS if not (options.quick and name in _SLOW)]
    peers = options.peers.split(",") if options.peers else default
    for name in peers:
        if name not in PEERS:
            raise ValueError(f"--peers: {name!r} is not one of {', '.join(PEERS)}.")
    here = machine()
    threads = _counts(options.threads) if options.threads else sorted({1, here["cpus"]})
    chosen = _chosen(options.names, {"steps": steps, "fits": fits, "kernels": kernels, "threads": crowded})
    settings = Settings(rounds=5, seconds=0.03) if options.quick else Settings()
    if options.rounds is not None:
        if options.rounds < 1:
            raise ValueError(f"--rounds must be at least 1, got {options.rounds}.")
        settings = dataclasses.replace(settings, rounds=options.rounds)
    here["gflops"] = [_core.measure_fma(count, 0.05) for count in threads]
    peaks = ", ".join(f"{p:.4g} GFLOP/s on {n}" for n, p in zip(threads, here["gflops"], strict=True))
    print(f"{here['cpu']}, {here['cpus']} CPUs, load {here['load']}; Python {here['python']}; multiply-adds {peaks}")
    rows: list[dict[str, Any]] = []

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    def show(lines: list[str]) -> None:
        print("\n".join(lines), flush=True)

    def show_kernel(found: list[dict[str, Any]]) -> None:
        show([f"{found[0]['kernel']}, {_threads(found[0]['threads'])}", *kernel_lines(found)])

    for case in [*chosen["steps"], *chosen["fits"]]:
        taking_part = [name for name in peers if not isinstance(case, FitCase) or name not in _NOT_IN_FITS]
        for count in threads:
            print(f"{case.name}, {_threads(count)}", flush=True)
            measured = run_case(case, count, taking_part, settings, say)
            show(case_lines(measured))
            rows += measured
    if chosen["kernels"]:
        taking_part = [name for name in KERNEL_PEERS if name in peers]
        for count in threads:
            rows += run_kernels(
                chosen["kernels"], count, taking_part, settings.rounds, settings.seconds / 2, show_kernel
            )
    for case in chosen["threads"]:
        print(f"{case.name}, one of two CPUs busy", flush=True)
        measured = run_crowded(case, [name for name in peers if name in ("ours", "ours-fit", "torch")], settings)
        show(crowded_lines(measured))
        rows += measured
    if not options.names or "start" in options.names:
        measured = run_startup(3 if options.quick else 7, peers)
        show(["start", *startup_lines(measured)])
        rows += measured
    results = {"machine": here, "settings": vars(settings), "rows": rows}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
    if old is not None:
        show([f"compared with {os.path.basename(options.compare)}", *comparison(old, results)])
    return int(any("wrong" in row for row in rows))


def _chosen(names: Sequence[str], groups: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The cases of each group that the names mean; all of them if there are no names."""
    prefixes = tuple(name for name in names if name not in GROUPS)
    chosen = {
        group: [case for case in cases if not names or group in names or (prefixes and case.name.startswith(prefixes))]
        for group, cases in groups.items()
    }
    if prefixes:
        chosen["threads"] = chosen["threads"] if "threads" in names else []  # their cases bear the names of steps
    for prefix in prefixes:
        if not any(case.name.startswith(prefix) for cases in groups.values() for case in cases):
            known = ", ".join(dict.fromkeys(case.name for cases in groups.values() for case in cases))
            raise ValueError(f"No case begins with {prefix!r}; there are {known}.")
    return chosen


def _tables(results: dict[str, Any], options: argparse.Namespace) -> str:
    """The tables of the groups that were measured and, if groups are named, are among them."""
    counts = _counts(options.threads) if options.threads else None
    rows = [row for row in results["rows"] if counts is None or row.get("threads") in counts]
    found = {
        "steps": lambda: table(results, counts),
        "fits": lambda: table(results, counts, "fit"),
        "kernels": lambda: kernel_table(rows),
    }
    keys = {"steps": "case", "fits": "fit", "kernels": "kernel"}
    wanted = [g for g in found if not options.names or g in options.names]
    return "\n\n".join(found[group]() for group in wanted if any(keys[group] in row for row in rows))


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


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
