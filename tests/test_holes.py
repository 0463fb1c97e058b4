"""The tables of holes and of RFC 3875's points name tests that exist, and leave no row without one."""

from __future__ import annotations

import re

import pytest

from tests.holes import HOLES, LATER, RFC3875_POINTS
from tests.test_specifications import docstrings, exists

ROWS = [*HOLES.items(), *RFC3875_POINTS.items()]
NOT_YET = ("AJP13", "uwsgi", "ASGI")
"""The protocols that are still to be built."""


@pytest.mark.parametrize(("row", "tests"), ROWS, ids=[name for name, _ in ROWS])
def test_a_row_has_tests_that_exist_or_waits(row: str, tests: tuple[str, ...]) -> None:
    assert [test for test in tests if not exists(test)] == []
    assert tests or row in LATER


@pytest.mark.parametrize("row", LATER)
def test_what_waits_waits_for_a_protocol_that_is_not_there(row: str) -> None:
    assert row in HOLES
    assert any(protocol in LATER[row] for protocol in NOT_YET)


@pytest.mark.parametrize("path", ["tests/test_cve.py", "tests/test_cve_cgi.py"])
def test_each_test_of_a_hole_is_in_the_table(path: str) -> None:
    named = {test for tests in [*HOLES.values(), *RFC3875_POINTS.values()] for test in tests}
    assert [name for name in docstrings(path) if f"{path}::{name}" not in named] == []


def test_a_test_that_is_named_after_a_hole_stands_in_its_row() -> None:
    for row, tests in HOLES.items():
        for test in tests:
            name = test.partition("::")[2]
            number = re.match(r"test_cve_(\d{4})_(\d+)_", name)
            if number and not row.startswith("no id"):
                identifier = f"CVE-{number[1]}-{number[2]}"
                known = identifier in row or re.search(rf"{identifier}\b", str(docstrings_of(test)))
                assert known, (row, test)


def docstrings_of(test: str) -> str:
    path, _, name = test.partition("::")
    return name + docstrings(path)[name]
