"""The shared suite through pairs in memory and through a CGI process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doors import CGIDoor, MemoryDoor, cgi_command, memory_doors
from tests.suite import ROWS, Row, cases, run_row
from tests.suite_app import application

MEMORY_DOORS = memory_doors(application, Path())


@pytest.mark.parametrize("door", MEMORY_DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize(("row", "validate"), cases())
def test_the_suite_in_memory(row: Row, validate: bool, door: MemoryDoor, tmp_path: Path) -> None:
    door.state = tmp_path
    run_row(row, door, validate=validate)


CHUNKED = [row for row in ROWS if any(request.chunked for request in row.requests)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_suite_as_CGI(row: Row, tmp_path: Path) -> None:
    run_row(row, CGIDoor("CGI process", cgi_command(), tmp_path))


@pytest.mark.parametrize("row", CHUNKED, ids=lambda row: row.name)
def test_the_suite_as_CGI_where_no_length_is_announced(row: Row, tmp_path: Path) -> None:
    run_row(row, CGIDoor("CGI process", cgi_command(), tmp_path, announced=False))
