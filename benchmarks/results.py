"""Results as a file: JSON, one line for each list of numbers, so that a person can read it too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment

FOLDER = environment.HERE / "results"
FULL = FOLDER / "full.json"
"""What `make bench` writes, and what docs/speed.md is made from."""

QUICK = environment.BUILT / "quick.json"

KEPT = ("cpu_us", "rps", "p50_us", "p99_us", "client_us", "nginx_us", "resident", "proportional")
"""What is kept of a sample: a list for each, in the order of the rounds."""

_NUMBERS = re.compile(r"\[\s+([-0-9.e,\s]+?)\s+\]")


def columns(samples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Turn the rounds' samples into a list of numbers for each name."""
    names = [name for name in KEPT if name in samples[0]]
    return {name: [rounded(each[name]) for each in samples] for name in names}


def rounded(value: float) -> float:
    """Five digits, which is more than any of these figures is good for."""
    return int(value) if value == int(value) else float(f"{value:.5g}")


def read(path: Path) -> dict[str, Any]:
    """The results of an earlier run, or those of none."""
    if not path.exists():
        return {"conditions": {}, "sections": {}, "figures": {}}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    text = _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text)
    path.write_text(text + "\n")
