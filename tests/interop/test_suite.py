"""Every row of the shared suite through every web server, with the configurations of this project."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.doors import BY_NAME, DOORS, WebServerDoor
from tests.interop.impossible import IMPOSSIBLE, Impossible, impossible
from tests.suite import Row, cases, row_named, run_row

Open = Callable[[WebServerDoor], WebServerDoor]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name, scope="session")
@pytest.mark.parametrize(("row", "validate"), cases())
def test_the_suite(row: Row, validate: bool, door: WebServerDoor, opened: Open) -> None:
    if impossible(row.name, door.name):
        return  # test_what_is_impossible_fails has it
    run_row(row, opened(door), validate=validate)


@pytest.mark.parametrize("entry", IMPOSSIBLE, ids=lambda entry: f"{entry.row}-{entry.door}")
def test_what_is_impossible_fails(entry: Impossible, opened: Open) -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        run_row(row_named(entry.row), opened(BY_NAME[entry.door]))
