"""What a scenario found out: figures, and where they are over their bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MIB = 1 << 20

Figure = float | int | str


@dataclass
class Report:
    """The figures of one scenario, and what is wrong with them."""

    name: str
    protocol: str
    threads: int
    figures: dict[str, Figure] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, name: str, value: Figure) -> None:
        """Keep a figure that has no bound."""
        if isinstance(value, float):
            value = round(value, 4) if math.isfinite(value) else "never"
        self.figures[name] = value

    def most(self, name: str, value: float, bound: float) -> None:
        """Keep a figure that must not be above `bound`."""
        self.note(name, value)
        if value > bound:
            self.failures.append(f"{name} is {value:.6g}, at most {bound:.6g} is allowed")

    def least(self, name: str, value: float, bound: float) -> None:
        """Keep a figure that must not be below `bound`."""
        self.note(name, value)
        if value < bound:
            self.failures.append(f"{name} is {value:.6g}, at least {bound:.6g} is needed")

    def exactly(self, name: str, value: int, due: int) -> None:
        """Keep a figure that must be `due`."""
        self.note(name, value)
        if value != due:
            self.failures.append(f"{name}: {value}, must be {due}")

    def check(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong unless it `holds`."""
        if not holds:
            self.failures.append(otherwise)

    def told(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "scenario": self.name,
            "protocol": self.protocol,
            "threads": self.threads,
            "figures": self.figures,
            "failures": self.failures,
        }
