"""Results as tables."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import bodies, cgi, idle, memory, sleeper, targets
from benchmarks.contenders import parse
from benchmarks.ratios import Ratio, paired

MEBIBYTE = 1 << 20
REFERENCES = {"uwsgi-fcgi-close": "uWSGI FastCGI", "uwsgi-uwsgi-close": "uWSGI's own"}
"""The two that every contender is set beside: contender → its name in a head."""

Table = tuple[list[str], list[list[str]]]
"""The head, and the rows."""


def section_table(section: dict[str, Any]) -> Table:
    """One row for each contender, the cheapest first."""
    samples = section["samples"]
    behind_nginx = section["via"] == "nginx"
    head = [section["title"], "CPU µs"]
    head += [f"to {name}" for name in REFERENCES.values()]
    head += ["nginx µs"] if behind_nginx else []
    head += ["requests/s", "p50 µs", "p99 µs", "RSS MiB", "PSS MiB"]
    rows = []
    for name in sorted(samples, key=lambda name: statistics.median(samples[name]["cpu_us"])):
        column = {key: statistics.median(values) for key, values in samples[name].items()}
        row = [parse(name).label, significant(column["cpu_us"])]
        row += [_ratio(samples, name, reference) for reference in REFERENCES]
        row += [significant(column["nginx_us"])] if behind_nginx else []
        row += [f"{column[key]:,.0f}" for key in ("rps", "p50_us", "p99_us")]
        row += [f"{column[key] / MEBIBYTE:.1f}" for key in ("resident", "proportional")]
        rows.append(row)
    return head, rows


def significant(value: float) -> str:
    """Microseconds with as many digits as they deserve."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(samples: dict[str, Any], name: str, reference: str) -> str:
    if name == reference or reference not in samples:
        return "1" if name == reference else ""
    return shown(paired(samples[name]["cpu_us"], samples[reference]["cpu_us"]))


def shown(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def verdict_table(results: dict[str, Any]) -> Table:
    return list(targets.HEAD), targets.rows(targets.verdicts(results))


def figure_tables(figures: dict[str, Any]) -> dict[str, Table]:
    """Figure → its table, for those that were measured."""
    known = {"memory": memory, "idle": idle, "sleeper": sleeper, "bodies": bodies, **cgi.FIGURES}
    tables: dict[str, Table] = {
        name: (list(module.HEAD), module.rows(figures[name]["found"]))
        for name, module in known.items()
        if name in figures
    }
    if "instructions" in figures:
        counted = figures["instructions"]["found"]
        rows = [[parse(name).label, f"{count:,.0f}"] for name, count in counted.items()]
        tables["instructions"] = (["hello", "instructions per request"], rows)
    return tables
