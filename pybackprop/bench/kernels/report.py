"""Kernels as text: lines while measuring, and a Markdown table."""

from typing import Any

from ..timing import show_time

__all__ = ["kernel_lines", "kernel_table"]

_TITLES = {"ours": "pybackprop", "torch": "PyTorch", "jax": "JAX"}


def _rate(row: dict[str, Any]) -> str:
    if "gflops" in row:
        return f"{row['gflops']:.4g} GFLOP/s"
    if "ns_per_element" in row:
        return f"{row['ns_per_element']:.3g} ns/element"
    return f"{row['gbytes']:.3g} GB/s"


def kernel_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One kernel: a line for each library with its time, spread, rate, share of the limit, and ratio to the first."""
    first = next((row["seconds"]["median"] for row in rows if "seconds" in row), None)
    lines = []
    for row in rows:
        title = _TITLES[row["peer"]]
        if "seconds" not in row:
            if "wrong" in row:
                lines.append(f"  {title:<12} not timed: {row['wrong']}")
            continue
        s = row["seconds"]
        share = f"{row['of_limit']:6.1%} of the limit" if "of_limit" in row else ""
        peak = f" ({row['peak']:.4g})" if "peak" in row else ""
        lines.append(
            f"  {title:<12}{show_time(s['median']):>9} +- {(s['q3'] - s['q1']) / s['median']:4.0%}{_rate(row):>20}"
            f"  {share}{s['median'] / first:>9.2f}x{peak}"
        )
    return lines


def kernel_table(rows: list[dict[str, Any]]) -> str:
    """The results as a Markdown table: ours with its share of the limit, and how many times as long the others take."""
    rows = [row for row in rows if "kernel" in row]
    peers = [name for name in _TITLES if any(row["peer"] == name and "seconds" in row for row in rows)]
    lines = [
        "| kernel | threads | pybackprop | of limit | limit | " + " | ".join(_TITLES[n] for n in peers[1:]) + " |",
        "|---|---|---|---|---|" + "---|" * len(peers[1:]),
    ]
    for kernel, threads in dict.fromkeys((row["kernel"], row["threads"]) for row in rows):
        found = {row["peer"]: row for row in rows if (row["kernel"], row["threads"]) == (kernel, threads)}
        ours = found.get("ours", {})
        if "seconds" not in ours:
            continue
        unit = "GFLOP/s" if "gflops" in ours else "GB/s"
        cells = [
            kernel,
            str(threads),
            f"{show_time(ours['seconds']['median'])}, {_rate(ours)}",
            f"{ours['of_limit']:.0%}",
            f"{ours['peak']:.4g} {unit}",
        ]
        for name in peers[1:]:
            s = found.get(name, {}).get("seconds")
            cells.append("" if s is None else f"{s['median'] / ours['seconds']['median']:.2f}x")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
