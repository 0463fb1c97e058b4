"""Tables of text: aligned for a terminal, or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def aligned(head: Row, rows: Sequence[Row]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[each]) for row in [head, *rows]) for each in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    )


def markdown(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
