"""Who may import whom, and what an import may cost.

The table is the design's arrow: errors and events at the ground, protocols that know nothing of
each other, the middle that knows no protocol, the edges on top.  It is read out of the source, so
that an import inside a function counts too, and then proven by importing in a fresh interpreter.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gateways"

GROUND = {"errors", "events"}
WIRE = GROUND | {"interface", "buffer", "response", "headparser"}
PROTOCOLS = {"document", "documentclient", "cgi", "fastcgi", "scgi"}
FAULTS = {"masking", "tracebacks"}
BELOW_THE_EDGES = (
    WIRE
    | PROTOCOLS
    | FAULTS
    | {"environ", "variables", "wsgi", "addresses", "loading", "ownership"}
)

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "events": set(),
    "interface": {"events"},
    "buffer": {"errors"},
    "response": GROUND,
    "headparser": GROUND | {"response"},
    "environ": GROUND,
    "variables": {"response"},
    # check_head judges what start_response was given
    "wsgi": GROUND | {"response", "debugpage"},
    "masking": set(),
    "ownership": set(),
    "tracebacks": {"errors", "masking"},
    "debugpage": {"errors", "masking", "tracebacks"},
    "document": GROUND | {"response"},
    "documentclient": GROUND | {"document", "headparser"},
    "cgi": WIRE | {"document", "documentclient"},
    "fastcgi": WIRE,
    "scgi": WIRE | {"document", "documentclient"},
    "addresses": {"errors"},
    "loading": {"errors", "tracebacks"},
    "pycgi": GROUND | {"response", "headparser", "server", "cgihost"},
    "server": BELOW_THE_EDGES,
    "client": BELOW_THE_EDGES - {"wsgi"},
    "cgihost": BELOW_THE_EDGES | {"server", "client"},
    "warm": BELOW_THE_EDGES | {"server"},
    "doctor": BELOW_THE_EDGES | {"client"},
    "testing": BELOW_THE_EDGES | {"server", "client"},
    "cli": BELOW_THE_EDGES | {"server", "client", "doctor", "warm", "__init__"},
    "__main__": {"cli"},
    "__init__": {"errors", "server"},
}
"""Unit → the units that it may import; a folder is one unit, and may import itself."""

FRONT_DOORS = {
    *(("fastcgi", "serve", "server"), ("scgi", "serve", "server"), ("cgi", "run", "server")),
    ("loading", "_load_cgi", "cgihost"),
    ("loading", "_python_script", "pycgi"),
}
"""The only functions below the edges that may import an edge, and which: people look for them there."""

EDGES = {"server", "client", "cgihost", "doctor", "pycgi", "warm", "testing", "cli", "__main__"}
PURE = {unit for unit in MAY_IMPORT if unit not in EDGES} - {
    *("addresses", "loading", "ownership", "__init__"),
    "debugpage",  # runs the reprs of the application's objects, for so long
}
"""Units that do no I/O, read no clock, no environment, and do not log."""

IMPURE = {
    "socket", "ssl", "select", "selectors", "threading", "_thread", "multiprocessing", "subprocess",
    "asyncio", "concurrent", "signal", "logging", "time", "datetime", "random", "secrets",
}  # fmt: skip

# The modules of a CGI request: each answer waits until they are imported.
CGI_PATH = [
    *("errors", "events", "buffer", "response", "environ", "wsgi"),
    *("document", "cgi", "server.cgi", "server.started", "loading"),
]


@dataclass(frozen=True)
class Import:
    """One module that a file imports, and the function in which it does so."""

    file: str
    line: int
    module: str
    function: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The unit that a file belongs to: its name, or the folder below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class _Imports(ast.NodeVisitor):
    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.found: list[Import] = []
        self.function = ""
        self.for_types = False
        self.visit(ast.parse(source))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.function = self.function, node.name
        self.generic_visit(node)
        self.function = outer

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
            self.for_types = True
            for statement in node.body:
                self.visit(statement)
            self.for_types = False
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            folder = self.path.parent.relative_to(PACKAGE.parent).parts
            parents = folder[: len(folder) - node.level + 1]
            base = ".".join([*parents, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = base.replace(".", "/") + "/" + alias.name
            is_module = (PACKAGE.parent / f"{inner}.py").exists() or (
                PACKAGE.parent / inner / "__init__.py"
            ).exists()
            self._add(node.lineno, f"{base}.{alias.name}" if is_module else base)

    def _add(self, line: int, module: str) -> None:
        file = str(self.path.relative_to(PACKAGE.parent))
        self.found.append(Import(file, line, module, self.function, self.for_types))


def imports_of(path: Path, source: str | None = None) -> list[Import]:
    """Everything a file imports, relative names resolved."""
    return _Imports(path, path.read_text() if source is None else source).found


def violations(path: Path, source: str | None = None) -> Iterator[str]:
    """Each import of a file that the table does not allow."""
    unit = unit_of(path)
    for found in imports_of(path, source):
        package, _, rest = found.module.partition(".")
        if package != "gateways":
            if unit in PURE and package in IMPURE:
                yield f"{found}, and {unit} is pure"
            continue
        target = rest.partition(".")[0] or "__init__"
        if target == unit or target in MAY_IMPORT[unit]:
            continue
        if (unit, found.function, target) in FRONT_DOORS:
            continue
        # A name needed for a type costs nothing and binds nothing; an edge is still too high.
        if found.for_types and target not in EDGES:
            continue
        yield f"{found}, and {unit} may import {sorted(MAY_IMPORT[unit])}"


def test_every_unit_is_in_the_table() -> None:
    assert {unit_of(path) for path in files()} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_the_table_allows(path: Path) -> None:
    assert list(violations(path)) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastcgi.py", "from gateways import scgi"),
        ("fastcgi.py", "from gateways.scgi import ServerConnection"),
        ("fastcgi.py", "from . import scgi"),
        ("fastcgi.py", "from .scgi import ServerConnection"),
        ("fastcgi.py", "def helper():\n    import gateways.server"),
        ("fastcgi.py", "def serve():\n    from gateways.client import connect"),
        ("scgi.py", "import socket"),
        ("scgi.py", "def late():\n    from select import poll"),
        ("environ.py", "if TYPE_CHECKING:\n    from gateways.server import Worker"),
        ("wsgi.py", "import gateways.cgi"),
        ("wsgi.py", "import logging"),
        ("server/worker.py", "from gateways import client"),
        ("server/worker.py", "from ..client import connect"),
        ("client/stream.py", "from gateways.wsgi import run"),
        ("cli/serve.py", "from gateways.testing import pair"),
        ("server/cgi.py", "import gateways"),
    ],
)
def test_planted_violations_are_found(file: str, source: str) -> None:
    assert len(list(violations(PACKAGE / file, source))) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastcgi.py", "def serve():\n    from gateways import server"),
        ("fastcgi.py", "from gateways.buffer import ReceiveBuffer\nfrom .events import Event"),
        ("errors.py", "if TYPE_CHECKING:\n    from gateways.events import Event"),
        ("server/worker.py", "from .cgi import run\nfrom .. import fastcgi\nimport socket"),
    ],
)
def test_what_the_design_allows_is_allowed(file: str, source: str) -> None:
    assert list(violations(PACKAGE / file, source)) == []


@pytest.mark.parametrize(
    "path",
    [path for path in files() if unit_of(path) in PURE],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_pure_module_reads_no_environment_and_opens_nothing(path: Path) -> None:
    touched = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    reached = {name for name in touched if name.startswith("os.")}
    assert not reached
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


# Proof by execution.


def loaded_after(statements: str, *options: str, cwd: Path = ROOT) -> set[str]:
    """The modules that a fresh interpreter loads for the statements, beyond those it has anyway.

    `options` are the interpreter's; with "-S" there is no site-packages folder, nor what site
    imports, of which every ordinary interpreter has os and io.
    """
    program = (
        "import sys, os, io, __future__\n"
        f"sys.path.insert(0, {str(cwd)!r})\n"
        "before = set(sys.modules)\n"
        f"{statements}\n"
        "sys.stderr.write('\\n' + ' '.join(sorted(set(sys.modules) - before)))"
    )
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-I", *options, "-c", program],
        env=variables,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.rpartition("\n")[2].split())


def foreign(modules: set[str]) -> set[str]:
    """Those that are neither the standard library's nor ours."""
    return {
        name
        for name in modules
        if name.partition(".")[0] not in sys.stdlib_module_names
        and name.partition(".")[0] != "gateways"
    }


@pytest.mark.parametrize("unit", sorted(PURE))
def test_importing_a_pure_module_loads_no_module_for_IO(unit: str) -> None:
    loaded = loaded_after(f"import gateways.{unit}", "-S")
    # typing's own imports in interface.py are the standard library's affair.
    assert not {name.partition(".")[0] for name in loaded} & IMPURE - {"_thread", "time"}


def test_importing_gateways_loads_no_module_for_IO() -> None:
    loaded = loaded_after("import gateways", "-S")
    assert not {name.partition(".")[0] for name in loaded} & IMPURE - {"_thread", "time"}


@pytest.mark.parametrize("module", CGI_PATH)
def test_the_CGI_path_imports_nothing_but_itself(module: str) -> None:
    assert beyond_itself(loaded_after(f"import gateways.{module}", "-S")) == set()


def beyond_itself(loaded: set[str]) -> set[str]:
    """What costs a file to be read: not this package, nor `gc`, which is compiled in."""
    return {name for name in loaded if name.partition(".")[0] != "gateways"} - {"gc"}


_ANSWER_ONE_REQUEST = """
import os
os.environb.clear()
os.environb.update({b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/", b"SERVER_NAME": b"a",
                    b"SERVER_PORT": b"80", b"SERVER_PROTOCOL": b"HTTP/1.1", b"QUERY_STRING": b""})
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read(10), b"hello"]
from gateways import cgi
cgi.run(application)
"""


def test_a_whole_CGI_request_imports_nothing_but_the_CGI_path() -> None:
    loaded = loaded_after(_ANSWER_ONE_REQUEST, "-S")
    assert beyond_itself(loaded) == set()
    heavy = {"re", "enum", "dataclasses", "typing", "traceback", "struct", "collections", "logging"}
    assert not loaded & heavy


def test_serving_needs_the_standard_library_alone() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files()
        if unit_of(path) not in {"cli", "testing", "__main__"}
    ]
    # Without -S a package that happens to be installed would be found, and be noticed here.
    assert foreign(loaded_after("\n".join(f"import {module}" for module in modules))) == set()


def test_a_daemon_of_one_process_has_in_memory_only_what_it_needs() -> None:
    serve = "from gateways.cli import plain\nfrom gateways.server import daemon"
    loaded = loaded_after(serve, "-S")
    # Each of these is between half a megabyte and three, in every process.
    unneeded = {"click", "rich", "tempfile", "ipaddress", "dataclasses", "difflib", "subprocess",
                "importlib.metadata", "gateways.server.master", "gateways.client"}  # fmt: skip
    assert not loaded & unneeded


def test_a_copied_folder_answers_where_nothing_is_installed(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "gateways", ignore=shutil.ignore_patterns("__pycache__"))
    loaded_after(_ANSWER_ONE_REQUEST, "-S", "-E", cwd=tmp_path)


def test_the_strategies_say_what_they_need() -> None:
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n"
        "    import gateways.testing.strategies\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert "gateways[testing]" in result.stdout


# Exceptions to the rules carry their reasons.

_EXCEPTION = re.compile(r"#\s*(?:type: ignore|noqa|pragma)\b")
_EXPLAINED = re.compile(
    r"#\s*(?:type: ignore\[[\w, -]+\]|noqa: [\w, ]+?|pragma: [\w ]+?)\s*(?:#|\(|-)\s*\w.+"
)


@pytest.mark.parametrize("folder", ["gateways", "tests", "samples", "benchmarks"])
def test_every_exception_to_a_rule_has_its_reason_beside_it(folder: str) -> None:
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if _EXCEPTION.search(line) and not _EXPLAINED.search(line) and path != Path(__file__)
    ]
    assert unexplained == []
