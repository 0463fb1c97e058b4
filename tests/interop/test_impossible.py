"""The table of what is impossible names real rows and doors, once each, with their reasons."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.interop.doors import BY_NAME
from tests.interop.impossible import IMPOSSIBLE, Impossible
from tests.suite import row_named


@pytest.mark.parametrize("entry", IMPOSSIBLE, ids=lambda entry: f"{entry.row}-{entry.door}")
def test_an_entry_names_a_row_and_a_door_that_exist(entry: Impossible) -> None:
    assert row_named(entry.row).name == entry.row
    assert entry.door in BY_NAME
    assert re.match(r"§\d|unrecorded$", entry.where)
    assert entry.reason.endswith(".")


def test_no_entry_stands_twice() -> None:
    counted = Counter((entry.row, entry.door) for entry in IMPOSSIBLE)
    assert [key for key, times in counted.items() if times > 1] == []
