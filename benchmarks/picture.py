"""The picture: CPU per hello request of each server, as bars, in SVG.

    python3 -m benchmarks picture [RESULTS.json]

Bars begin at nought and have one scale.  What would be longer than the picture is wide runs off its
edge, with its number on it.  The thin line over a bar's end goes from the lower to the upper
quartile of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from benchmarks import results
from benchmarks.contenders import parse

WIDTH = 880
LABELS = 300
"""Where the bars begin."""
RIGHT = 40
LEGEND = {True: 190, False: 240}
"""The width of an entry of the legend, for kept connections or not."""
ROW = 24
TOP = 92
EDGE = WIDTH - RIGHT

OURS = {True: "#1b6e4b", False: "#7fbf9f"}
THEIRS = {True: "#4b5d78", False: "#aab6c8"}
"""Kept or not → the colour of a bar."""

STYLE = """\
text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1d2733 }
.title { font-size: 18px; font-weight: 600 } .small { font-size: 11.5px; fill: #56616e }
.ours { font-weight: 600 } .inside { fill: #fff } .grid { stroke: #dde2e8 }
.whisker { stroke: #1d2733; stroke-width: 1.2 }"""


class Bar(NamedTuple):
    """A contender's median, and the quartiles of its rounds, in microseconds."""

    name: str
    median: float
    low: float
    high: float


def bars(found: dict[str, Any]) -> str:
    """The whole picture, of results with a section `hello`."""
    section = found["sections"]["hello"]
    rows = sorted(
        (_bar(name, taken["cpu_us"]) for name, taken in section["samples"].items()),
        key=lambda bar: bar.median,
    )
    most = _scale(rows)
    height = TOP + ROW * len(rows) + 58
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="CPU per request of each server">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
        '<text class="title" x="20" y="34">Processor time for one small request</text>',
        '<text class="small" x="20" y="54">Microseconds of CPU per request, user and kernel, of the whole server; shorter is better.</text>',
        *_legend(),
        *_grid(most, height - 54),
    ]
    for number, bar in enumerate(rows):
        parts += _row(bar, TOP + ROW * number, most)
    parts += [
        f'<text class="small" x="20" y="{height - 14}">{escape(_foot(found, section))}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(name: str, values: Sequence[float]) -> Bar:
    if len(values) < 2:
        return Bar(name, values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Bar(name, median, low, high)


def _scale(rows: Sequence[Bar]) -> float:
    """The value at the right edge: the fast ones are to be told apart."""
    ours = [bar.high for bar in rows if bar.name.startswith("gateways-")]
    uwsgi = [bar.high for bar in rows if bar.name.startswith("uwsgi-")]
    return 1.6 * max([*ours, *uwsgi], default=max(bar.high for bar in rows))


def _x(value: float, most: float) -> float:
    return LABELS + min(value / most, 1) * (EDGE - LABELS)


def _legend() -> list[str]:
    parts, x = [], 20
    for colours, who in ((OURS, "gateways"), (THEIRS, "others")):
        for keep, kind in ((True, "connection kept"), (False, "a connection per request")):
            parts.append(f'<rect x="{x}" y="65" width="11" height="11" fill="{colours[keep]}"/>')
            parts.append(f'<text class="small" x="{x + 16}" y="75">{who}, {kind}</text>')
            x += LEGEND[keep]
    return parts


def _grid(most: float, bottom: float) -> list[str]:
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if most / each <= 8)
    parts = []
    for each in range(0, int(most) + 1, step):
        x = _x(each, most)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        parts.append(
            f'<text class="small" x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{each}</text>'
        )
    return parts


def _row(bar: Bar, y: float, most: float) -> list[str]:
    contender = parse(bar.name)
    ours = bar.name.startswith("gateways-")
    colour = (OURS if ours else THEIRS)[contender.keep]
    end, middle = _x(bar.median, most), y + 14
    weight = ' class="ours"' if ours else ""
    parts = [
        f'<text{weight} x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(contender.label)}</text>',
    ]
    if bar.median > most:
        # An arrow: this bar goes on.
        points = f"{LABELS},{y + 2} {EDGE},{y + 2} {EDGE + 12},{y + 9.5} {EDGE},{y + 17} {LABELS},{y + 17}"
        parts.append(f'<polygon points="{points}" fill="{colour}"/>')
        text = ' class="inside"' if contender.keep else ""
        parts.append(
            f'<text{text} x="{EDGE - 4}" y="{middle}" text-anchor="end">{bar.median:.0f} →</text>'
        )
        return parts
    parts.append(
        f'<rect x="{LABELS}" y="{y + 2}" width="{end - LABELS:.1f}" height="15" fill="{colour}"/>'
    )
    low, high = _x(bar.low, most), _x(bar.high, most)
    parts.append(
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 9.5}" y2="{y + 9.5}"/>'
    )
    parts.append(f'<text{weight} x="{max(end, high) + 7:.1f}" y="{middle}">{bar.median:.1f}</text>')
    return parts


def _foot(found: dict[str, Any], section: dict[str, Any]) -> str:
    versions = found["conditions"].get("versions", {})
    python = found["conditions"].get("python", "Python").split(" (")[0]
    return (
        f"{python}, {found['conditions'].get('machine', '')}; uWSGI {versions.get('uwsgi', '')}; "
        f"unix socket, median of {section['rounds']} rounds, {section['date'][:10]}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="?", default=results.FULL)


def main(options: argparse.Namespace) -> None:
    drawing = options.results.with_suffix(".svg")
    drawing.write_text(bars(results.read(options.results)))
    print(drawing)
