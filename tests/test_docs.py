"""The documentation does what it says.

In README.md and docs/, below each heading that has a block of `console` commands:

- the commands run, one after the other, in a copy of the project; a line `$ command &` stays
  running and is waited for until it answers at the addresses that the command names;
- what they print is compared with the lines below them, where `…` stands for anything: alone on a
  line for any lines, in a line for any characters;
- a block in another language whose first line is a comment with a file's name, such as
  `# daemon.py`, is written to that file first;
- a block of nginx's language is given to an nginx, if there is one;
- the ports are changed for free ones, everywhere.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from gateways.cgihost import settings
from gateways.pycgi.settings import Settings as PythonSettings
from gateways.server.options import BY_NAME
from tests.docs_tables import PAGE, default, options_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGES.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
DEADLINE = 30.0

# What is tried elsewhere, and where.
ELSEWHERE = {
    "make demo": "tests/test_demo.py",
    "make test": "this is part of it",
    "make test-offline": "a part of make test",
    "make lint": "a part of make test",
    "make venv": "make test begins with it",
    "make docs": "test_the_page_of_options_is_current",
    "make bench-quick": "tests/test_benchmarks.py, smaller: a minute that is not disturbed is rare here",
}
# What fetches packages; it runs where the build machine runs the tests.
NETWORK = re.compile(r"\bpip install\b")


class Block(NamedTuple):
    language: str
    text: str


class Section(NamedTuple):
    """What stands between two headings."""

    page: str
    heading: str
    blocks: list[Block]

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command with the lines it is said to print."""
        found: list[tuple[str, list[str]]] = []
        for block in self.blocks:
            if block.language == "console":
                for line in block.text.splitlines():
                    if line.startswith("$ "):
                        found.append((line[2:], []))
                    else:
                        found[-1][1].append(line)
        return found

    def has(self, language: str) -> bool:
        return any(block.language == language for block in self.blocks)


def sections() -> Iterator[Section]:
    for path in PAGES:
        heading = path.name
        blocks: list[Block] = []
        for match in re.finditer(
            r"^(?:#+ (?P<heading>[^\n]+)|```(?P<language>\w*)\n(?P<text>.*?)^```)$",
            path.read_text(),
            re.MULTILINE | re.DOTALL,
        ):
            if match["heading"] is None:
                blocks.append(Block(match["language"], match["text"]))
                continue
            yield Section(path.name, heading, blocks)
            heading, blocks = match["heading"], []
        yield Section(path.name, heading, blocks)


def params() -> list[object]:
    return [
        pytest.param(
            section,
            id=f"{section.page}, {section.heading}",
            marks=[pytest.mark.interop] if section.has("nginx") else [],
        )
        for section in sections()
        if section.commands
    ]


@pytest.fixture
def project(short_path: Path) -> Path:
    """A copy of what the documentation speaks of."""
    folder = short_path / "gateways"
    ignore = shutil.ignore_patterns("__pycache__", "instance")
    for name in ("gateways", "samples", "nginx", "apache"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.parametrize("section", params())
def test_the_commands_do_what_the_page_says(section: Section, project: Path) -> None:
    if section.has("nginx") and shutil.which("nginx", path=search_path()) is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is not installed")
        pytest.skip("nginx is not installed")  # only a machine of somebody's own may lack it
    lacks = [path for path in named_programs(section) if not Path(path).exists()]
    if lacks and os.environ.get("CI"):
        pytest.fail(f"missing: {', '.join(lacks)}")
    if lacks:
        pytest.skip(f"missing: {', '.join(lacks)}")  # as above
    fetches = any(NETWORK.search(command) for command, _ in section.commands)
    if fetches and not os.environ.get("CI"):
        pytest.skip("it fetches packages, so it runs where CI is set")
    ports = free_ports(section)
    with ExitStack() as stack:
        written = write_files(section, project, ports)
        for command, expected in section.commands:
            command = moved(command, ports)
            if command in ELSEWHERE:
                continue
            if command.endswith("&"):
                # A daemon's addresses are named by its command, or by the file that it runs.
                named = command + "".join(written[each] for each in written if each in command)
                stack.enter_context(running(command.removesuffix("&"), project, named))
                if section.has("nginx"):
                    stack.enter_context(nginx(section, project, ports))
                continue
            expect(command, [moved(line, ports) for line in expected], project)


def named_programs(section: Section) -> list[str]:
    """The distribution's programs that the commands name by their paths."""
    return [
        path
        for command, _ in section.commands
        for path in re.findall(r"/usr/(?:lib|share)/[\w./-]+", command)
    ]


def search_path() -> str:
    """The interpreter's scripts first; nginx lies where an ordinary user does not look."""
    scripts = Path(sys.executable).parent
    return f"{scripts}:{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"


def environment(project: Path) -> dict[str, str]:
    # A reader's pytest is not run with assertions off, as the one around this may be.
    ours = ("PYTHONPATH", "PYTHONOPTIMIZE")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PATH": search_path(), "GUESTBOOK_DATABASE": str(project / "book.sqlite3")}


def free_ports(section: Section) -> dict[str, str]:
    """A free port for each that the section names, all different."""
    text = "\n".join(block.text for block in section.blocks)
    named = sorted(set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d{4,5})", text)))
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in named]
        return {port: str(each.getsockname()[1]) for port, each in zip(named, held, strict=True)}


def moved(text: str, ports: dict[str, str]) -> str:
    return re.sub(r"(?<=:)\d{4,5}\b", lambda match: ports.get(match[0], match[0]), text)


def write_files(section: Section, project: Path, ports: dict[str, str]) -> dict[str, str]:
    """Write the files that the section shows; return what stands in them."""
    written = {}
    for block in section.blocks:
        named = re.match(r"# ([\w.-]+\.\w+)\n", block.text)
        if named and block.language not in ("console", "nginx"):
            written[named[1]] = moved(block.text, ports)
            (project / named[1]).write_text(written[named[1]])
    return written


@contextmanager
def running(command: str, project: Path, named: str) -> Iterator[None]:
    """A command in the background, once something answers at every address that `named` holds."""
    log = project / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=project,
            env=environment(project),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        for where in re.findall(r"127\.0\.0\.1:(\d+)", named):
            await_connection(int(where), process, log)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(DEADLINE)


@contextmanager
def nginx(section: Section, project: Path, ports: dict[str, str]) -> Iterator[None]:
    """An nginx of our own with the section's `server` block, and Debian's parameter files."""
    (block,) = (block for block in section.blocks if block.language == "nginx")
    folder = project / "nginx-try"
    folder.mkdir()
    for parameters in Path("/etc/nginx").glob("*_params"):
        shutil.copy(parameters, folder)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{moved(block.text, ports)}}}\n"
    )
    command = f"nginx -p {folder} -c {folder}/nginx.conf -e stderr"
    with running(command, project, moved(block.text, ports)):
        yield


def await_connection(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def expect(command: str, expected: list[str], project: Path) -> None:
    """Run a command to its end, and compare what it prints."""
    found = subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )
    log = project / "log"
    said = f"$ {command}\n{found.stdout}" + (log.read_text() if log.exists() else "")
    assert found.returncode == 0, said
    while expected and not expected[-1]:
        expected = expected[:-1]
    if expected:
        assert matches(found.stdout, expected), said + "\nexpected:\n" + "\n".join(expected)


def matches(output: str, expected: list[str]) -> bool:
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"[ \t]*\n"
        for line in expected
    )
    return re.fullmatch(pattern, output.rstrip() + "\n") is not None


def test_what_is_compared_loosely_is_still_compared() -> None:
    assert matches("a\nb\nc\n", ["a", "…", "c"])
    assert matches("Date: now\n", ["Date: …"])
    assert not matches("a\nb\n", ["a"])
    assert not matches("Date: now\n", ["Time: …"])


def test_the_page_of_options_is_current() -> None:
    assert PAGE.read_text() == options_page(), "run: make docs"


def table_rows(page: str) -> list[list[str]]:
    """The cells of every row of the page's tables."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]


def test_the_limits_are_told_with_their_defaults() -> None:
    told = {
        row[1].strip("`").removeprefix("--").replace("-", "_"): row[2]
        for row in table_rows("limits.md")
        if len(row) > 1 and row[1].startswith("`--")
    }
    assert told == {name: default(BY_NAME[name]) for name in told}
    limits = {name for name, option in BY_NAME.items() if option.section == "Limits"}
    assert limits <= told.keys()


def test_every_setting_of_scripts_is_in_the_one_table_with_its_default() -> None:
    rows = [row for row in table_rows("cgi-scripts.md") if len(row) == 5 and "`" in row[0]]
    for which, table, kind in (
        ("`cgi:`", settings.OF_EXECUTABLES, settings.Settings),
        ("`pycgi:`", settings.OF_PYTHON, PythonSettings),
    ):
        told = {
            row[0].strip("`").partition("=")[0]: row for row in rows if row[2] in ("both", which)
        }
        assert told.keys() == table.keys()
        defaults = {**inspect.signature(settings.ScriptSettings).parameters}
        defaults |= inspect.signature(kind).parameters
        for name, row in told.items():
            found = defaults.get(name)
            if found is not None and type(found.default) in (int, float):
                assert row[4] == f"{found.default:g}", name
            if found is not None and type(found.default) is bool:
                assert row[4] == ("yes" if found.default else "no"), name


def words_in_the_code() -> str:
    """Every string in the server's code and in what it calls, with … where values are put in."""
    found = []
    for path in (ROOT / "gateways").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    each.value if isinstance(each, ast.Constant) else "…" for each in node.values
                )
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(\.\d)?[dsg]", "…", node.value))
    # This one is put together: the master says it of the program, and the template of the application.
    found.append("the application has left threads running: …")
    return "\n".join(found)


@pytest.mark.parametrize("page", ["limits.md", "trouble.md", "running.md"])
def test_log_lines_that_are_quoted_are_those_of_the_code(page: str) -> None:
    text = words_in_the_code()
    # A quotation has a value left out; so has one command.
    for quoted in re.findall(r"`([a-z…][^`]*)`", (ROOT / "docs" / page).read_text()):
        if "…" not in quoted or quoted.startswith("gateways "):
            continue
        for piece in quoted.split("…"):
            assert piece.strip(" :,") in text, (
                f"{page} quotes {quoted!r}, of which {piece!r} is not in the code"
            )


def test_every_command_of_the_makefile_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for command in re.findall(r"`(?:\$ )?make ([\w-]+)`|^\$ make ([\w-]+)", page.read_text()):
            assert (command[0] or command[1]) in targets, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_no_link_is_dead(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue  # the network is not asked: these are only the specifications' own pages
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


def anchors(file: Path) -> set[str]:
    """The anchors that code hosts give to headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_files_named_in_the_text_are_there() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:gateways|tests|samples|nginx|apache|docs)/[a-z_./-]*)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
