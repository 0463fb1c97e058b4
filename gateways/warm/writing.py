"""`gateways warm APP -o FILE`: writes the CGI file, in C where a compiler is, else in Python."""

from __future__ import annotations

import os
import py_compile
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from gateways.errors import ConfigurationError
from gateways.warm import Plan

HERE = os.path.dirname(os.path.abspath(__file__))

FLAGS = ("-O2", "-Wall", "-Wextra")

COMPILERS = ("cc", "gcc", "clang")

MARK = "Written by gateways warm"
"""What every stub holds, so that it may be written anew."""

LARGEST_STUB = 16 * 1024 * 1024
"""How much of a file is looked through for the mark; a C stub is a tenth of a megabyte at most."""

LONGEST_FIRST_LINE = 127
"""What every Linux takes of a #! line."""


def write_stub(
    plan: Plan,
    path: str,
    *,
    python: bool = False,
    runtime_dir: str = "",
    flags: Sequence[str] = FLAGS,
    force: bool = False,
) -> str:
    """Write an executable CGI file to `path`; return which kind it is, and why.

    It takes the place of what was there in one step: of an older stub, with `force` of any file but
    the plan's own.  Raises ConfigurationError where it cannot be written.
    """
    _check_output(plan, path, force)
    folder = os.path.dirname(os.path.abspath(path))
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    try:
        descriptor, new = tempfile.mkstemp(".new", ".gateways-warm-", folder)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from error
    os.close(descriptor)
    try:
        if python:
            kind = "a Python stub, as was asked for"
        elif compiler is None:
            kind = f"a Python stub: there is no C compiler ({', '.join(COMPILERS)})"
        else:
            why = _compile(compiler, flags, _c_source(plan, runtime_dir), new)
            kind = f"a Python stub: {why}" if why else f"a C stub, compiled with {compiler}"
        if "Python" in kind.partition(":")[0]:
            with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(_python_source(plan, runtime_dir))
        os.chmod(new, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        os.rename(new, path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if os.path.lexists(new):
            os.unlink(new)
    return kind


def _check_output(plan: Plan, path: str, force: bool) -> None:
    """Refuse to write over what is no stub: the application's only copy, say."""
    inputs = {"the application": [plan.file], "a --touch-reload file": plan.touch,
              "the --crash-log": [plan.crash_log]}  # fmt: skip
    for what, files in inputs.items():
        if any(each and _is_same(path, each) for each in files):
            raise ConfigurationError(
                f"refusing to write {path}: it is {what}; give -o another name, such as app.cgi"
            )
    if not force and os.path.lexists(path) and not _is_stub(path):
        raise ConfigurationError(
            f"refusing to write {path}: it is there, and gateways warm has not written it; give -o"
            " another name, or say --force to replace it"
        )


def _is_same(one: str, other: str) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False  # one of them does not exist


def _is_stub(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return MARK.encode() in file.read(LARGEST_STUB)
    except OSError:
        return False


def _compile(compiler: str, flags: Sequence[str], source: str, output: str) -> str:
    """Compile; return why it failed, "" where it did not."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "stub.c")
        with open(file, "w", encoding="ascii") as settings:
            settings.write(source)
        command = [compiler, *flags, "-o", output, file]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [each for each in done.stderr.splitlines() if "error" in each] or [
            "it says nothing"
        ]
        return f"{compiler} failed: {lines[0].strip()[:200]}"
    return ""


def _c_source(plan: Plan, runtime_dir: str) -> str:
    from gateways.warm.stub import KEPT

    with open(os.path.join(HERE, "stub.c"), encoding="ascii") as file:
        program = file.read()
    return "".join(
        (
            "#define _GNU_SOURCE\n#include <stddef.h>\n",
            f'const char gateways_mark[] = "{MARK}";\n',
            f"#define NAME {_c_string(plan.name)}\n",
            f"#define FOLDER {_c_string(runtime_dir)}\n",
            f"#define APPLICATION_FILE {_c_string(plan.file)}\n",
            _c_array("DAEMON", plan.daemon),
            _c_array("PLAIN", plan.plain),
            _c_array("KEPT", [*KEPT, *plan.keep]),
            program,
        )
    )


def _c_array(name: str, values: Sequence[str]) -> str:
    return (
        f"static const char *const {name}[] = {{{', '.join([*map(_c_string, values), 'NULL'])}}};\n"
    )


def _c_string(text: str) -> str:
    """Return a string literal; whatever is no letter or digit is escaped, three digits always."""
    data = os.fsencode(text)
    if b"\0" in data:
        raise ConfigurationError(f"{text!r} holds a NUL, which no command line can carry")
    return '"' + "".join(
        chr(each) if chr(each).isalnum() and each < 128 else f"\\{each:03o}" for each in data
    ) + '"'  # fmt: skip


def _python_source(plan: Plan, runtime_dir: str) -> str:
    interpreter = plan.daemon[0]
    first = f"#!{interpreter} -IS"
    if len(os.fsencode(first)) > LONGEST_FIRST_LINE or " " in interpreter or "\n" in interpreter:
        raise ConfigurationError(
            f"no #! line can name the interpreter {interpreter!r} (it is too long, or has a space);"
            " use another, or install a C compiler"
        )
    try:
        # The web server's user may not write there; compiling it anew takes longer than a request.
        py_compile.compile(os.path.join(HERE, "stub.py"), doraise=True)
    except (OSError, py_compile.PyCompileError):
        print("gateways: cannot keep the stub's bytecode; it will be slower", file=sys.stderr)
    return (
        f"{first}\n"
        f"# {MARK} for {plan.plain[-1]!a}; write it anew rather than changing it.\n"
        "import posix\n"
        "import sys\n"
        f"sys.path.insert(0, {HERE!r})\n"
        "import stub\n"
        "del sys.path[0]\n"
        f"PLAIN = {plan.plain!r}\n"
        "def plain():\n"
        "    import os\n"
        "    os.execv(PLAIN[0], PLAIN)\n"
        # Nothing is buffered, and taking an interpreter down costs a millisecond.
        f"posix._exit(stub.run({plan.name!r}, {runtime_dir!r}, {plan.daemon!r}, {plan.file!r},"
        f" {plan.keep!r}, plain))\n"
    )
