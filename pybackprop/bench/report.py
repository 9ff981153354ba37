"""Results as text: a line per case while measuring, a Markdown table, a comparison with earlier results."""

from typing import Any

from .peers import PEERS
from .timing import compare

__all__ = ["case_lines", "comparison", "startup_lines", "table"]


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms"


def case_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One case: a line per peer with its time, spread, examples per second, and its ratio to the first."""
    first = next((row["seconds"]["median"] for row in rows if "seconds" in row), None)
    lines = []
    for row in rows:
        title = PEERS[row["peer"]].title
        if "seconds" not in row:
            if "wrong" in row:
                lines.append(f"  {title:<17} not timed: {row['wrong']}")
            continue
        s = row["seconds"]
        spread = (s["q3"] - s["q1"]) / s["median"]
        lines.append(
            f"  {title:<17}{_time(s['median']):>9} +- {spread:4.0%}{row['examples_per_second']:>13,.0f} examples/s"
            f"{s['median'] / first:>9.2f}x"
        )
    return lines


def startup_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Import times beyond NumPy and the wheel's size, a line each."""
    lines = []
    for row in rows:
        if row["start"] == "import":
            lines.append(
                f"  import {PEERS[row['peer']].title:<14} {row['seconds']['median'] * 1e3:7.1f} ms beyond NumPy, "
                f"{row['threads_started']} threads started"
            )
        else:
            lines.append(f"  wheel  {PEERS[row['peer']].title:<14} {row['bytes'] / 1e6:7.2f} MB")
    return lines


def table(results: dict[str, Any], threads_shown: list[int] | None = None) -> str:
    """The results as a Markdown table: time per step, and in brackets how many times ours that is.

    ``threads_shown``: only the rows of these thread counts; None for all.
    """
    rows = [row for row in results["rows"] if "case" in row]
    rows = [row for row in rows if threads_shown is None or row["threads"] in threads_shown]
    peers = [name for name in PEERS if any(row["peer"] == name and "seconds" in row for row in rows)]
    lines = [
        "| network / batch / optimizer | threads | examples/s | " + " | ".join(PEERS[n].title for n in peers) + " |",
        "|---|---|---|" + "---|" * len(peers),
    ]
    for case, threads in dict.fromkeys((row["case"], row["threads"]) for row in rows):
        found = {row["peer"]: row for row in rows if (row["case"], row["threads"]) == (case, threads)}
        timed = {name: row["seconds"]["median"] for name, row in found.items() if "seconds" in row}
        cells = []
        for name in peers:
            cell = _time(timed[name]) if name in timed else ""
            if name in timed and "ours" in timed and name != "ours":
                ratio = timed[name] / timed["ours"]
                cell += f" ({ratio:.0f}x)" if ratio >= 10 else f" ({ratio:.1f}x)"
            cells.append(cell)
        rate = f"{found['ours']['examples_per_second']:,.0f}" if "ours" in timed else ""
        lines.append(f"| {case} | {threads} | {rate} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """How each peer's time changed since earlier results; a difference inside the noise is called that."""
    former = {(r.get("case"), r.get("threads"), r["peer"]): r for r in old["rows"] if "seconds" in r and "case" in r}
    lines = []
    for row in new["rows"]:
        before = former.get((row.get("case"), row.get("threads"), row["peer"]))
        if before is None or "seconds" not in row:
            continue
        ratio, real = compare(before["seconds"], row["seconds"])
        verdict = ("slower" if ratio > 1 else "faster") if real else "within the noise"
        lines.append(f"  {row['case']}, {row['threads']} threads, {row['peer']}: {ratio:.2f}x the time, {verdict}")
    return lines
