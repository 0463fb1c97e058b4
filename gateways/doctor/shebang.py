"""The first line of a script, as Linux reads it (execve(2))."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from gateways.doctor import access, paths
from gateways.doctor.findings import Finding, Report, command, shown
from gateways.doctor.mending import BOM

MAX_LINE = 255
"""Bytes of the line that Linux reads; it cuts off what follows."""

SERVERS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH as systemd and init scripts give it to web servers."""

_BY_SUFFIX = {
    ".py": "python3", ".fcgi": "python3", ".pl": "perl", ".sh": "sh", ".rb": "ruby", ".php": "php-cgi",
}  # fmt: skip


@dataclass(slots=True)
class Shebang:
    """What is run, and for `env` the program that it looks up; empty where that is not known."""

    interpreter: str = ""
    program: str = ""

    @property
    def is_python(self) -> bool:
        """Whether the script is Python's."""
        name = os.path.basename(self.program or self.interpreter)
        return re.match(r"(python|pypy)[\d.]*$", name) is not None


def read(path: str, data: bytes, report: Report) -> Shebang:
    """Find what is wrong with the first line; return what it names, as far as that is usable."""
    data = data.removeprefix(BOM)
    line = data.partition(b"\n")[0]
    if not line.startswith(b"#!"):
        report.add(_none(path, data))
        return Shebang()
    if len(line) > MAX_LINE:
        report.add(
            Finding(
                "shebang-too-long",
                path,
                f"the #! line is {len(line)} bytes long",
                f"Linux reads {MAX_LINE} and cuts off the rest",
                advice="a shorter path to the interpreter: a symbolic link, or a virtual environment"
                " nearer to the root",
            )
        )
        return Shebang()
    # Linux cuts blanks at the end off; a carriage return stays, and the line ends are told of alone.
    text = line[2:].rstrip(b"\r").strip(b" \t").decode("utf-8", "surrogateescape")
    interpreter, _, argument = text.replace("\t", " ").partition(" ")
    argument = argument.strip()
    if not interpreter:
        report.add(
            Finding(
                "shebang-empty",
                path,
                "the #! line names no interpreter",
                "Linux does not know what to start the script with (Exec format error)",
                _first_line(path, f"#!{_guess(path, data)}"),
            )
        )
        return Shebang()
    if not interpreter.startswith("/"):
        report.add(
            Finding(
                "shebang-without-path",
                path,
                f'the #! line names "{shown(interpreter)}" without a path',
                "Linux does not search PATH for it, but the folder that it happens to be in",
                _first_line(path, f"#!{_found(interpreter)} {argument}".rstrip()),
            )
        )
        return Shebang()
    found = Shebang(interpreter)
    if os.path.basename(interpreter) == "env":
        found.program = _after_env(argument)
    if not _check_interpreter(path, interpreter, argument, report):
        return Shebang()
    if os.path.basename(interpreter) == "env":
        _check_env(path, interpreter, argument, found, report)
    return found


def _none(path: str, data: bytes) -> Finding:
    lines = data.split(b"\n", 20)[:20]
    later = next((n for n, line in enumerate(lines, 1) if line.strip().startswith(b"#!")), 0)
    if later:
        seen = f"the #! is on line {later}, or has blanks before it"
        commands: tuple[str, ...] = (
            f"sed -i -e '1,{later}{{/^[[:space:]]*$/d;s/^[[:space:]]*#!/#!/}}' {shlex.quote(path)}",
        )
    else:
        seen = f'there is no #! line; the file begins with "{shown(lines[0], 40)}"'
        commands = (f"sed -i '1i #!{_guess(path, data)}' {shlex.quote(path)}",)
    return Finding(
        "no-shebang",
        path,
        seen,
        "#! and the interpreter have to be the very first bytes, or Linux does not know what to"
        " start the script with (Exec format error)",
        commands,
    )


def _guess(path: str, data: bytes) -> str:
    name = _BY_SUFFIX.get(os.path.splitext(path)[1], "")
    if not name:
        name = "python3" if re.search(rb"^(import|from) \w+|^def \w+\(", data, re.M) else "sh"
    return _found(name)


def _found(name: str) -> str:
    """Return where an interpreter of that name is, or of that name without its version."""
    base = os.path.basename(name)
    for each in (base, re.sub(r"[\d.]+$", "", base) + "3" if "python" in base else base):
        found = shutil.which(each, path=SERVERS_PATH) or shutil.which(each)
        if found:
            return found
    return f"/usr/bin/{base}"


def _first_line(path: str, line: str) -> tuple[str, ...]:
    escaped = re.sub(r"([|\\&])", r"\\\1", line)
    return (f"sed -i {shlex.quote(f'1s|.*|{escaped}|')} {shlex.quote(path)}",)


def _check_interpreter(path: str, interpreter: str, argument: str, report: Report) -> bool:
    if "\0" in interpreter or not os.path.exists(interpreter):
        better = _found(interpreter)
        report.add(
            Finding(
                "interpreter-missing",
                path,
                f'the #! line names "{shown(interpreter)}", and there is no such file',
                "Linux says of the script itself that there is no such file, and the web server repeats it",
                _first_line(path, f"#!{better} {argument}".rstrip())
                if os.path.exists(better)
                else (),
                "" if os.path.exists(better) else f"install {os.path.basename(interpreter)}",
            )
        )
        return False
    if not os.path.isfile(interpreter) or not os.stat(interpreter).st_mode & 0o111:
        what = "a folder" if os.path.isdir(interpreter) else "not executable"
        report.add(
            Finding(
                "interpreter-not-executable",
                path,
                f'the #! line names "{shown(interpreter)}", which is {what}',
                "Linux cannot start it (Permission denied)",
                () if what == "a folder" else (command("chmod", "a+x", interpreter),),
                "name the interpreter in it" if what == "a folder" else "",
            )
        )
        return False
    _check_reach(path, interpreter, report)
    return True


def _check_reach(path: str, interpreter: str, report: Report) -> None:
    paths.check_folders(interpreter, report)
    paths.check_access(
        interpreter,
        access.EXECUTE,
        report,
        "interpreter-barred",
        f"the web server cannot start the interpreter of {path}",
    )


def _after_env(argument: str) -> str:
    """Return the program that env is to look up."""
    if argument.startswith("-S"):
        words = argument[2:].split()
        return next((word for word in words if "=" not in word and word[:1] != "-"), "")
    return argument


def _check_env(path: str, env: str, argument: str, found: Shebang, report: Report) -> None:
    program = found.program
    if " " in program:
        report.add(
            Finding(
                "env-arguments",
                path,
                f'the #! line gives env one argument, "{shown(program)}"',
                "Linux passes all that follows env as one word, so it looks for a program with a blank"
                " in its name",
                _first_line(path, f"#!{env} -S {program}"),
            )
        )
        found.program = program.split()[0]
        return
    where = shutil.which(program, path=SERVERS_PATH)
    if where is not None:
        _check_reach(path, where, report)
        found.interpreter = where
        return
    found.interpreter = ""
    mine = shutil.which(program) if program else None
    if mine is None:
        better = _found(program)
        report.add(
            Finding(
                "env-missing",
                path,
                f'env finds no program "{shown(program)}"',
                "there is none on PATH (exit status 127)",
                _first_line(path, f"#!{better}") if program and os.path.exists(better) else (),
                "" if program and os.path.exists(better) else f"install {program or 'it'}",
            )
        )
        return
    found.interpreter = mine
    report.add(
        Finding(
            "env-elsewhere",
            path,
            f'env finds "{program}" at {mine} here, but web servers have PATH={SERVERS_PATH}',
            "there it finds nothing (exit status 127), although the script runs by hand",
            _first_line(path, f"#!{mine}"),
        )
    )
    _check_reach(path, mine, report)
