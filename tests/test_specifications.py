"""The table of clauses names tests that exist, and leaves no clause without a test or a reason."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.specifications import PEP3333_SECTIONS, SPECIFICATIONS, Clause
from tests.suite import ROWS

ROOT = Path(__file__).resolve().parent.parent
OURS = "tests/test_clauses.py"
SUITE = "tests/suite.py"

CLAUSES = [(name, clause) for name, clauses in SPECIFICATIONS.items() for clause in clauses]
each_clause = pytest.mark.parametrize(
    ("specification", "clause"),
    CLAUSES,
    ids=[f"{name} {clause.section} {clause.rule[:40]}" for name, clause in CLAUSES],
)


@cache
def docstrings(path: str) -> dict[str, str]:
    """The tests in a file, in a class or not, and their docstrings; parametrised ones once."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    twice = [name for name, count in Counter(node.name for node in found).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has two tests of one name: {twice}")
    return {node.name: ast.get_docstring(node) or "" for node in found}


def exists(test: str) -> bool:
    path, _, name = test.partition("::")
    if path == SUITE:
        return name in {row.name for row in ROWS}
    return (ROOT / path).is_file() and name in docstrings(path)


@each_clause
def test_a_clause_names_tests_that_exist(specification: str, clause: Clause) -> None:
    assert [test for test in clause.tests if not exists(test)] == []
    assert len(set(clause.tests)) == len(clause.tests)


@each_clause
def test_a_clause_has_a_test_or_a_reason(specification: str, clause: Clause) -> None:
    assert clause.tests or clause.reason
    assert clause.rule.endswith(".")


@pytest.mark.parametrize("specification", SPECIFICATIONS)
def test_the_sections_are_in_order(specification: str) -> None:
    def place(clause: Clause) -> tuple[int, ...]:
        if specification == "PEP 3333":
            return (PEP3333_SECTIONS.index(clause.section),)
        return tuple(int(number) for number in clause.section.split("."))

    places = [place(clause) for clause in SPECIFICATIONS[specification]]
    assert places == sorted(places)


@pytest.mark.parametrize("specification", SPECIFICATIONS)
def test_no_clause_stands_twice(specification: str) -> None:
    counted = Counter((clause.section, clause.rule) for clause in SPECIFICATIONS[specification])
    assert [clause for clause, count in counted.items() if count > 1] == []


def test_every_section_of_pep_3333_has_a_clause() -> None:
    assert {clause.section for clause in SPECIFICATIONS["PEP 3333"]} == set(PEP3333_SECTIONS)


def test_every_test_of_a_clause_is_in_the_table_and_names_its_section() -> None:
    sections: dict[str, list[str]] = {}
    for _, clause in CLAUSES:
        for test in clause.tests:
            path, _, name = test.partition("::")
            if path == OURS:
                sections.setdefault(name, []).append(clause.section)
    found = docstrings(OURS)
    assert set(found) == set(sections)
    unnamed = {
        name: sections[name]
        for name, docstring in found.items()
        if not any(section in docstring for section in sections[name])
    }
    assert unnamed == {}
