"""Whatever a file, a line or an answer holds: doctor tells something, and never breaks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import doctor
from gateways.doctor import answers, loglines, output, wire
from gateways.doctor.access import User
from gateways.errors import ConfigurationError
from tests.doctor.conftest import ME

SOMEBODY = User("somebody", 54321, 54321, frozenset())

PIECES = st.one_of(
    st.sampled_from(
        [
            *(b"#!", b"/bin/sh", b"/usr/bin/env", b" ", b"\t", b"\r\n", b"\n", b"\0", b"-S"),
            *(b"\xef\xbb\xbf", b"\x7fELF", b"\xff", b"Content-Type: a/b", b"print(", b"'", b"/"),
        ]
    ),
    st.binary(max_size=6),
)


@settings(max_examples=60)
@given(st.lists(PIECES, max_size=12).map(b"".join), st.sampled_from(["a.cgi", "a.fcgi", "a.pl"]))
def test_any_file(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        path.chmod(0o755)
        report = doctor.examine(str(path), user=ME)
        told = json.dumps(report.as_json())
        assert not any(c < " " or c == "\x7f" for c in told)
        before = report.findings
        again = doctor.examine(str(path), user=ME, fix=True)
        assert {each.code for each in again.findings} >= {each.code for each in before}


@given(st.text(max_size=60))
def test_any_thing(thing: str) -> None:
    try:
        kind = doctor.kinds.kind_of(thing)
    except ConfigurationError:
        return
    assert kind in ("script", "address", "url", "log")


@given(st.sampled_from(loglines.TABLE), st.text(max_size=30), st.integers(0, 300))
def test_any_line_of_a_log(kind: loglines.LogLine, text: str, where: int) -> None:
    line = kind.example[:where] + text + kind.example[where:]
    found = loglines.find(line)
    if found is not None:
        loglines.named_in(line, *found)


@given(st.lists(PIECES, max_size=8).map(b"".join), st.sampled_from(list(wire.SCHEMES)))
def test_any_answer(data: bytes, asked: str) -> None:
    wire.identify(data, asked)
    wire.excerpt(data)
    report = doctor.Report("script", "a.cgi", SOMEBODY)
    assert output.check_output("a.cgi", data, report) == (not report.findings)
    heard = answers.Heard("here", "/app/", 200, [("Location", data.decode("latin-1"))], data, data)
    answers.judge_application(heard, 0, 0, report)
    answers.judge_doubling(heard, "", report)
