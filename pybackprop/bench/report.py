"""Results as text: a line per case while measuring, a Markdown table, a comparison with earlier results."""

from typing import Any

from .peers import PEERS
from .timing import compare, show_time

__all__ = ["case_lines", "comparison", "startup_lines", "table"]


def case_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One case: a line per peer with its time, spread, examples per second, ratio to the first, share of the limit."""
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
        line = f"  {title:<17}{show_time(s['median']):>9} +- {spread:4.0%}"
        if row["peer"] == "limit":
            line += f"   of {row['gflops']:.4g} GFLOP/s and {row['gbytes']:.3g} GB/s"
        else:
            line += f"{row['examples_per_second']:>13,.0f} examples/s{s['median'] / first:>9.2f}x"
        if row["peer"] == "torch-compile":
            line += f" (after {row['prepare_seconds']:.0f} s to compile)"
        if "of_limit" in row:
            line += f"{row['of_limit']:>7.1%} of the limit"
        lines.append(line)
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


def table(results: dict[str, Any], threads_shown: list[int] | None = None, kind: str = "case") -> str:
    """The results as a Markdown table: time per step, and in brackets how many times ours that is.

    ``threads_shown``: only the rows of these thread counts; None for all. ``kind``: ``"fit"`` for whole fits.
    """
    rows = [row for row in results["rows"] if kind in row]
    rows = [row for row in rows if threads_shown is None or row["threads"] in threads_shown]
    ours = "ours" if kind == "case" else "ours-fit"
    peers = [name for name in PEERS if name != "limit" and any(r["peer"] == name and "seconds" in r for r in rows)]
    limited = any("of_limit" in row for row in rows)
    titles = ["network / batch / optimizer", "threads", "examples/s", *["of limit"] * limited]
    titles += [PEERS[name].title for name in peers]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for case, threads in dict.fromkeys((row[kind], row["threads"]) for row in rows):
        found = {row["peer"]: row for row in rows if (row[kind], row["threads"]) == (case, threads)}
        timed = {name: row["seconds"]["median"] for name, row in found.items() if "seconds" in row}
        cells = [case, str(threads), f"{found[ours]['examples_per_second']:,.0f}" if ours in timed else ""]
        if limited:
            cells.append(f"{found[ours]['of_limit']:.0%}" if "of_limit" in found.get(ours, {}) else "")
        for name in peers:
            cell = show_time(timed[name]) if name in timed else ""
            if name in timed and ours in timed and name != ours:
                ratio = timed[name] / timed[ours]
                cell += f" ({ratio:.0f}x)" if ratio >= 10 else f" ({ratio:.1f}x)"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """How each peer's time changed since earlier results; a difference inside the noise is called that."""

    def what(row: dict[str, Any]) -> Any:
        return next((row[kind] for kind in ("case", "fit", "kernel") if kind in row), None)

    former = {(what(r), r["threads"], r["peer"]): r for r in old["rows"] if "seconds" in r and what(r) is not None}
    lines = []
    for row in new["rows"]:
        before = former.get((what(row), row.get("threads"), row["peer"]))
        if before is None or "seconds" not in row:
            continue
        ratio, real = compare(before["seconds"], row["seconds"])
        verdict = ("slower" if ratio > 1 else "faster") if real else "within the noise"
        lines.append(f"  {what(row)}, {row['threads']} threads, {row['peer']}: {ratio:.2f}x the time, {verdict}")
    return lines
