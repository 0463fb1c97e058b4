"""What gateways is to reach, and whether it does.  Nothing fails by it: the answer is a table.

What counts is not the measured ratio but the upper end of its 95 % interval.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks import bodies, cgi_python, cgi_scripts, cgi_startup, cgi_warm, memory, sleeper
from benchmarks.contenders import parse
from benchmarks.ratios import Ratio, interval, paired


class Target(NamedTuple):
    """CPU per request of `ours` in a section is at most `limit` times that of `theirs`."""

    text: str
    section: str
    ours: str
    theirs: str
    limit: float


class Verdict(NamedTuple):
    """A row of the table; `met` by the measured value, and `surely` by the interval's end."""

    text: str
    target: str
    measured: str
    end: str
    met: bool
    surely: bool

    @property
    def word(self) -> str:
        if self.surely:
            return "met"
        return "met, not surely" if self.met else "MISSED"


KEPT, KEPT_8 = "gateways-fcgi-keep", "gateways-fcgi-keep-t8"
UWSGI_FCGI, UWSGI_OWN = "uwsgi-fcgi-close", "uwsgi-uwsgi-close"

TARGETS = (
    Target("hello kept, 1 thread, to uWSGI's FastCGI", "hello", KEPT, UWSGI_FCGI, 0.75),
    Target("hello kept, 1 thread, to uWSGI's own protocol", "hello", KEPT, UWSGI_OWN, 0.95),
    Target(
        "hello kept, 8 threads, to uWSGI's FastCGI, 8", "hello", KEPT_8, UWSGI_FCGI + "-t8", 0.80
    ),
    Target(
        "hello kept, 8 threads, to its own protocol, 8", "hello", KEPT_8, UWSGI_OWN + "-t8", 1.0
    ),
    Target("hello kept, 8 threads, to uWSGI's FastCGI, 1", "hello", KEPT_8, UWSGI_FCGI, 0.80),
    Target("hello kept, 8 threads, to its own protocol, 1", "hello", KEPT_8, UWSGI_OWN, 1.0),
    Target(
        "hello, a connection each, to uWSGI's FastCGI",
        "hello",
        "gateways-fcgi-close",
        UWSGI_FCGI,
        1.0,
    ),
    Target(
        "hello, SCGI, to uWSGI's SCGI", "hello", "gateways-scgi-close", "uwsgi-scgi-close", 0.85
    ),
    Target("Flask page behind nginx, to uWSGI's FastCGI", "nginx-flask", KEPT, UWSGI_FCGI, 1.05),
    Target("Flask page behind nginx, to its own protocol", "nginx-flask", KEPT, UWSGI_OWN, 1.05),
    Target("64 KiB echoed, to uWSGI's FastCGI", "echo", KEPT, UWSGI_FCGI, 1.3),
    Target("64 KiB echoed, to its own protocol", "echo", KEPT, UWSGI_OWN, 1.3),
    Target("1 MiB answer, to uWSGI's FastCGI", "big", KEPT, UWSGI_FCGI, 1.0),
    Target("1 MiB answer, to its own protocol", "big", KEPT, UWSGI_OWN, 1.0),
)

NAMED = frozenset(parse(name).server for target in TARGETS for name in (target.ours, target.theirs))
"""The servers that the targets speak of."""

BODY_MILLISECONDS = 60
LINEAR = 1.5
"""A MiB of a 20 MiB body may cost so many times one of a 2.5 MiB body: caches are finite."""
RESIDENT_MIB = 15
GROWTH_MIB = 0.5
IDLE_RATIO = 2
SLEEPER_SHARE = 0.9
CGI_MILLISECONDS = 1.5
WARM_MILLISECONDS = {cgi_warm.IN_C: 1.5, cgi_warm.IN_PYTHON: 10}
FCGIWRAP_RATIO = 1.5
APACHE_TIMES = {cgi_python.FORK: 5, cgi_python.IN_PROCESS: 20}

HEAD = (
    "CPU per request, unless said otherwise",
    "target",
    "measured",
    "end of interval",
    "verdict",
)


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """A row for each target whose figures are there."""
    found = [row for target in TARGETS if (row := _paired(target, results["sections"]))]
    figures = results["figures"]
    if "bodies" in figures:
        found += _bodies(figures["bodies"]["found"])
    if "memory" in figures:
        found += _memory(figures["memory"]["found"])
    if "idle" in figures:
        found += _idle(figures["idle"]["found"])
    if "sleeper" in figures:
        found += _sleeper(figures["sleeper"]["found"])
    for name, judge in CGI.items():
        if name in figures:
            found += judge(figures[name]["found"])
    return found


def rows(found: list[Verdict]) -> list[list[str]]:
    return [[each.text, each.target, each.measured, each.end, each.word] for each in found]


def _paired(target: Target, sections: dict[str, Any]) -> Verdict | None:
    samples = sections.get(target.section, {}).get("samples", {})
    if not {target.ours, target.theirs} <= samples.keys():
        return None
    ratio = paired(samples[target.ours]["cpu_us"], samples[target.theirs]["cpu_us"])
    return _at_most(target.text, ratio, target.limit, "{:.2f}")


def _at_most(text: str, value: Ratio, limit: float, form: str) -> Verdict:
    measured, end = form.format(value.median), form.format(value.high)
    met = value.median <= limit, value.high <= limit
    return Verdict(text, f"≤ {form.format(limit)}", measured, end, *met)


def _bodies(found: dict[str, Any]) -> list[Verdict]:
    sizes = found.get(KEPT)
    if not sizes:
        return []
    cpu = interval(sizes[str(bodies.SIZES[-1])])
    growth = bodies.growth(sizes)
    return [
        _at_most("20 MiB echoed, ms", cpu, BODY_MILLISECONDS, "{:.1f}"),
        _at_most("its cost per MiB to that of 2.5 MiB", growth, LINEAR, "{:.2f}"),
    ]


def _memory(found: dict[str, Any]) -> list[Verdict]:
    told = []
    for name, looks in found.items():
        mib = [look["largest"] / memory.MEBIBYTE for look in looks]
        what = f"{name}, resident MiB"
        told.append(_exact(f"{what}, at its largest", max(mib), RESIDENT_MIB))
        # The first requests fill buffers and caches; from there on it is to stay as it is.
        told.append(
            _exact(
                f"{what} gained, {looks[1]['requests']:,} to {looks[-1]['requests']:,}",
                mib[-1] - mib[1],
                GROWTH_MIB,
            )
        )
        for key in ("threads", "descriptors"):
            gained = looks[-1][key] - looks[1][key]
            told.append(_exact(f"{name}, {key} gained meanwhile", gained, 0))
    return told


def _exact(text: str, value: float, limit: float) -> Verdict:
    shown = f"{value:.1f}" if isinstance(value, float) else str(value)
    return Verdict(text, f"≤ {limit:g}", shown, "", value <= limit, value <= limit)


def _idle(found: dict[str, Any]) -> list[Verdict]:
    return [
        _at_most(
            f"{name}, p50 beside 1,000 {state} to unloaded",
            paired(states[state]["p50_us"], states["unloaded"]["p50_us"]),
            IDLE_RATIO,
            "{:.2f}",
        )
        for name, states in found.items()
        for state in ("kept", "silent")
    ]


def _sleeper(found: dict[str, Any]) -> list[Verdict]:
    told = []
    for name in found:
        if not name.startswith("gateways-"):
            continue
        share = interval([rate / sleeper.POSSIBLE for rate in found[name]["rps"]])
        measured, end = f"{share.median:.1%}", f"{share.low:.1%}"
        what = f"{name}, sleeps: share of {sleeper.POSSIBLE:,.0f} requests/s"
        met = share.median >= SLEEPER_SHARE, share.low >= SLEEPER_SHARE
        told.append(Verdict(what, f"≥ {SLEEPER_SHARE:.0%}", measured, end, *met))
    return told


def _cgi_startup(found: dict[str, Any]) -> list[Verdict]:
    above = interval(cgi_startup.above(found, cgi_startup.RUN))
    what = f"{cgi_startup.RUN} above a bare interpreter, ms"
    return [_at_most(what, above, CGI_MILLISECONDS, "{:.2f}")]


def _cgi_warm(found: dict[str, Any]) -> list[Verdict]:
    return [
        _at_most(
            f"warm CGI through {cgi_warm.KINDS[kind][0]}, in all, ms",
            interval(cgi_warm.in_all(columns)),
            WARM_MILLISECONDS[kind],
            "{:.2f}",
        )
        for kind, columns in found.items()
    ]


def _cgi_scripts(found: dict[str, Any]) -> list[Verdict]:
    hosts = found["hosts"]
    if cgi_scripts.FCGIWRAP not in hosts:
        return []
    ratio = paired(hosts[cgi_scripts.CGIHOST]["over"], hosts[cgi_scripts.FCGIWRAP]["over"])
    return [_at_most("cgi: over the script's own, to fcgiwrap", ratio, FCGIWRAP_RATIO, "{:.2f}")]


def _cgi_python(found: dict[str, Any]) -> list[Verdict]:
    if cgi_python.APACHE not in found:
        return []
    told = []
    for host, least in APACHE_TIMES.items():
        times = paired(found[host], found[cgi_python.APACHE])
        text = f"requests/s of pycgi+{host}: to Apache's mod_cgid"
        met = times.median >= least, times.low >= least
        ends = f"{times.median:.1f}", f"{times.low:.1f}"
        told.append(Verdict(text, f"≥ {least}", *ends, *met))
    return told


CGI = {
    "cgi-startup": _cgi_startup,
    "cgi-warm": _cgi_warm,
    "cgi-scripts": _cgi_scripts,
    "cgi-python": _cgi_python,
}
"""Figure → what makes its rows."""
