"""`gateways serve` without click reads what click reads, and leaves it what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateways.cli import plain
from gateways.cli.serve import command
from gateways.server.options import OPTIONS, Option

ROOT = Path(__file__).parent.parent

VALUES = st.sampled_from(
    ["1", "0", "-1", "0660", "660", "1.5", "two", "", " 3", "1_0", "0o17", "yes", "Off", "maybe",
     "log", "info", "INFO", "10.0.0.0/8", "a b", "/app", "=", "--", "-"]
)  # fmt: skip


def flags_of(option: Option) -> list[str]:
    """Return the ways in which an option is written, right and nearly right."""
    flag = "--" + option.name.replace("_", "-")
    return [flag, flag + "=", "--no-" + flag[2:], "--" + option.name, flag[:-1]]


WORDS = st.one_of(
    st.sampled_from([flag for option in OPTIONS for flag in flags_of(option)]),
    st.sampled_from(["app.py", "a:b", "-b", "-b:9000", "--bind", "--bind=x", "--help", "-h", "--", "-x"]),
    VALUES,
)  # fmt: skip

LINES = st.lists(WORDS, max_size=6).map(lambda words: ["app.py", *words])

NAMES = [f"GATEWAYS_{option.name.upper()}" for option in OPTIONS]
ENVIRONMENTS = st.dictionaries(
    st.sampled_from([*NAMES, "GATEWAYS_BIND", "GATEWAYS_SERVICE_HOST", "GATEWAYS_threads", "HOME"]),
    VALUES,
    max_size=3,
)


def read_by_click(
    arguments: list[str], environ: dict[str, str]
) -> tuple[str, tuple[str, ...], dict[str, Any]] | None:
    """Return what click makes of it, None when it complains or shows the help."""
    try:
        with mock.patch.dict(os.environ, environ, clear=True):
            context = command.make_context("serve", list(arguments))
    except (click.ClickException, click.exceptions.Exit):
        return None
    found = {name: value for name, value in context.params.items() if value not in (None, ())}
    return found.pop("application"), found.pop("bind", ()), found


@given(LINES, ENVIRONMENTS)
@example(["--threads", "1", "app.py", "-b", "x", "--bind=y", "-bz", "--no-remote-user"], {})
@example(["app.py", "--lazy", "--no-lazy", "--debug", "--socket-mode=660"], {})
@example(["app.py", "--threads", "3"], {"GATEWAYS_THREADS": "two"})
@example(["app.py", "--allow", "c"], {"GATEWAYS_ALLOW": "a  b", "GATEWAYS_REMOTE_USER": " No"})
@example(["app.py"], {"GATEWAYS_NO_DEBUG": "1"})
def test_it_reads_what_click_reads(arguments: list[str], environ: dict[str, str]) -> None:
    with mock.patch("click.echo"):  # of the help
        expected = read_by_click(arguments, environ)
    found = plain.read(arguments, environ)
    assert found is None or found == expected


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_it_reads_every_option(option: Option) -> None:
    flag = "--" + option.name.replace("_", "-")
    text = {"int": "7", "float": "1.5", "mode": "640", "str": "x"}.get(option.kind, "")
    text = option.choices[0] if option.choices else text
    line = ["app.py", flag, *([text] if text else [])]
    found = plain.read(line, {})
    assert found is not None
    assert found == read_by_click(line, {})
    name = f"GATEWAYS_{option.name.upper()}"
    from_environment = plain.read(["app.py"], {name: text or "yes"})
    assert from_environment == read_by_click(["app.py"], {name: text or "yes"})
    assert from_environment == found


@pytest.mark.parametrize(
    "line",
    [["app.py", "--help"], ["app.py", "--threds", "1"], [], ["a", "b"], ["a", "--threads"]],
    ids=" ".join,
)
def test_it_leaves_the_rest_to_click(line: list[str]) -> None:
    assert plain.read(line, {}) is None


def test_a_daemon_does_without_what_it_does_not_need(tmp_path: Path) -> None:
    """Each of these is a megabyte or more in each process of every daemon."""
    (tmp_path / "app.py").write_text(
        "import sys\n"
        "heavy = {'click', 'rich', 'typing', 'inspect', 'tempfile', 'ipaddress', 'difflib', 'platform',\n"
        "         'importlib.metadata', 'subprocess', 'asyncio', 'gateways.server.master'}\n"
        "raise SystemExit(f'loaded: {sorted(heavy & sys.modules.keys())}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "gateways", "serve", "app.py", "-b", str(tmp_path / "s")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "SystemExit: loaded: []" in done.stderr
