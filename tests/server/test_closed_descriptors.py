"""A CGI request whose web server has closed some of the three standard descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.test_crashlog import CGI, ROOT

SOURCE = """
print("printed while it is loaded")
made = open("made", "w")

def application(environ, start_response):
    print("printed in a request")
    made.write("written")
    made.close()
    start_response("200 OK", [])
    return [b"the answer"]
"""


@pytest.mark.parametrize("closed", ["1>&-", "0<&- 1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_the_request_is_answered_as_far_as_that_goes(tmp_path: Path, closed: str) -> None:
    (tmp_path / "app.py").write_text(SOURCE)
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m gateways cgi app.py {closed}', sys.executable],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **CGI},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    # Nothing that is printed goes into a file that took the place of stdout, nor into the answer.
    assert (tmp_path / "made").read_text() == "written"
    assert "Traceback" not in result.stderr
    assert ("the answer" in result.stdout) == ("1>" not in closed)
    assert "printed" not in result.stdout
    assert ("printed while it is loaded" in result.stderr) == ("2>" not in closed)
    assert ("printed in a request" in result.stderr) == ("2>" not in closed)
