"""Run:  python -m tests.doctor.pages      (or  make docs)

Writes the table of log lines into docs/doctor.md from the one list of them,
`gateways.doctor.loglines.TABLE`.  tests/doctor/test_command.py fails when the page is not what this
makes.
"""

from __future__ import annotations

import ast
from pathlib import Path

from gateways.doctor.loglines import TABLE

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "doctor.md"
MARK = "<!-- Made from gateways/doctor/loglines.py by make docs; change it there. -->\n"


def page() -> str:
    """The whole page: what is written by hand, and the tables behind the mark."""
    return PAGE.read_text().partition(MARK)[0] + MARK + tables()


def tables() -> str:
    """A table for each server."""
    parts = []
    for server in dict.fromkeys(kind.server for kind in TABLE):
        parts.append(f"\n### {server}\n\n| line | why | what to do |\n|---|---|---|\n")
        parts += [
            f"| {escaped(f'`{kind.words}`')} | {escaped(kind.why)} | {escaped(kind.mend)} |\n"
            for kind in TABLE
            if kind.server == server
        ]
    return "".join(parts)


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def codes_in_the_code() -> set[str]:
    """Every code that a finding may have, but for those of the log lines."""
    return {code for codes in codes_by_file().values() for code in codes}


def codes_by_file() -> dict[str, set[str]]:
    """The files of doctor that hold codes of findings, and which."""
    by_file: dict[str, set[str]] = {}
    for path in (ROOT / "gateways" / "doctor").glob("*.py"):
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            # check_access is told the code of what it finds.
            place = {"Finding": 0, "paths.check_access": 3}.get(name)
            if place is not None:
                found |= texts_of(node.args[place])
        if path.name == "paths.py":
            found.add("folder-barred")
        if found:
            by_file[path.name] = found
    return by_file


def texts_of(node: ast.expr) -> set[str]:
    """The string that an expression is, or the strings that it chooses between."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.IfExp):
        return texts_of(node.body) | texts_of(node.orelse)
    return set()


if __name__ == "__main__":
    PAGE.write_text(page())
