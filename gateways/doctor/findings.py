"""What an examination tells: findings, and what was looked at."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateways.doctor.access import User


@dataclass(slots=True)
class Finding:
    """A fault: what was seen, why it fails, and what mends it.

    `code` is the finding's name, the same in every release; `about` the path, address, URL or line
    that it concerns; `commands` are for a shell, `advice` is for where there is no command.
    `mend` does what is harmless and returns what it has done; `fixed` holds that afterwards.
    """

    code: str
    about: str
    seen: str
    why: str
    commands: tuple[str, ...] = ()
    advice: str = ""
    mend: Callable[[], str] | None = None
    fixed: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`."""
        return {
            "code": self.code,
            "about": self.about,
            "seen": self.seen,
            "why": self.why,
            "commands": list(self.commands),
            "advice": self.advice,
            "fixable": self.mend is not None,
            "fixed": self.fixed,
        }


@dataclass(slots=True)
class Report:
    """All that an examination found, in the order in which it looked.

    `kind` is "script", "application", "address", "url" or "log"; `checked` names what was looked
    at, `notes` are what the reader should know and is no fault.
    """

    kind: str
    about: str
    user: User
    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no finding is left that has not been mended."""
        return all(finding.fixed for finding in self.findings)

    def add(self, finding: Finding) -> None:
        """Add a finding, unless the same was found about the same thing before."""
        if not any((f.code, f.about) == (finding.code, finding.about) for f in self.findings):
            self.findings.append(finding)

    def has(self, *codes: str) -> bool:
        """Return whether one of these was found."""
        return any(finding.code in codes for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`."""
        return {
            "kind": self.kind,
            "about": self.about,
            "user": self.user.name,
            "healthy": self.healthy,
            "checked": self.checked,
            "notes": self.notes,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asked for beside the thing itself; `timeout` is seconds for each wait."""

    user: User
    run: bool = False
    timeout: float = 10.0
    script_name: str = ""


def command(*words: str) -> str:
    """Return words as a line for a shell."""
    return shlex.join(words)


def shown(data: bytes | str, limit: int = 120) -> str:
    """Return what came from outside so that no terminal obeys it, and not too much of it."""
    text = data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")
    cut = text[:limit]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(text) <= limit else f"{safe}…"
