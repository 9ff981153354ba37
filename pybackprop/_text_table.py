"""Tables to read, as text and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table with lines above and below it.

    Attributes:
        head: names of the columns.
        rows: a text for each cell.
        numbers: columns to align at the right.
        above, below: lines around it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Iterable[int] = ()
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        right = set(self.numbers)

        def line(cells: Sequence[str]) -> str:
            aligned = (
                c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join(aligned).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        end = [rule, *self.below] if self.below else []
        return "\n".join([*self.above, line(self.head), rule, *map(line, self.rows), *end])

    def html(self) -> str:
        """For a notebook; spaces at the beginning of a cell indent it."""
        from html import escape  # with a table of all named characters, which an import of the package can do without

        right = set(self.numbers)

        def row(cells: Sequence[str], tag: str) -> str:
            made = []
            for i, cell in enumerate(cells):
                indent = len(cell) - len(cell.lstrip())
                style = f"text-align: {'right' if i in right else 'left'}"
                style += f"; padding-left: {indent / 2 + 0.5:g}em" if indent else ""
                made.append(f'<{tag} style="{style}">{escape(cell.strip())}</{tag}>')
            return f"<tr>{''.join(made)}</tr>"

        def lines(texts: Sequence[str]) -> str:
            return "".join(f"<div>{escape(text)}</div>" for text in texts)

        body = "".join(row(cells, "td") for cells in self.rows)
        table = f"<table><thead>{row(self.head, 'th')}</thead><tbody>{body}</tbody></table>"
        return f"<div>{lines(self.above)}{table}{lines(self.below)}</div>"


def size(count: float) -> str:
    """A number of bytes with a binary unit: ``"268 B"``, ``"1.50 MiB"``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
