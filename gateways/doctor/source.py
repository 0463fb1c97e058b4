"""Python source, looked at and never executed: its syntax, and the modules that it imports.

The interpreter that the script names does the looking, since it knows its own grammar and where
its own modules are; but only where nobody else than root and whoever runs doctor could have changed
it.  Root never looks with its own rights, but with those of the web server's user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from gateways.doctor import access, files
from gateways.doctor.findings import Finding, Report, command, shown

_NOBODY = 65534

# Python 3 from 3.4 on.  The script's folder is never on sys.path here: whatever this program itself
# imports, then or later (linecache for a warning), would be taken from there and executed.
_LOOK = r"""
import ast, encodings.idna, importlib.machinery, json, linecache, site, stringprep, sys, warnings
warnings.simplefilter("ignore")
asked = json.loads(sys.argv[1])
source = sys.stdin.buffer.read()
told = {"version": list(sys.version_info[:3]), "missing": [], "relative": [], "path_changed": False}
told["errors"] = []
path = asked["folders"]
if asked["user_site"]:
    path.append(site.getusersitepackages())
seen = set()

def find(name):
    for finder in sys.meta_path:
        if finder is importlib.machinery.PathFinder:
            spec = finder.find_spec(name, path + sys.path)
        else:
            # The built-in and frozen modules, and those that site-packages has installed.
            spec = getattr(finder, "find_spec", lambda *_: None)(name, None)
        if spec:
            return spec

def is_sys_path(node):
    return isinstance(node, ast.Attribute) and node.attr == "path" and getattr(node.value, "id", "") == "sys"

def text_of(call):
    last = call.args[-1] if call.args else None
    return getattr(last, "value", getattr(last, "s", None))

def changes(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if is_sys_path(node.func.value) and node.func.attr in ("insert", "append"):
                if isinstance(text_of(node), str):
                    path.append(text_of(node))
                    continue
                return True
            if is_sys_path(node.func.value) or node.func.attr == "addsitedir":
                return True
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("exec", "addsitedir"):
            return True
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            for target in getattr(node, "targets", None) or [node.target]:
                if is_sys_path(getattr(target, "value", None)) or is_sys_path(target):
                    return True
    return False

def imports(body):
    for node in body:
        if isinstance(node, ast.Import):
            for each in node.names:
                yield node.lineno, each.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, ""
            else:
                yield node.lineno, node.module.partition(".")[0]
        elif isinstance(node, ast.If) and "__name__" in ast.dump(node.test):
            for each in imports(node.body):
                yield each

def parse(file, source):
    try:
        # All of it is compiled: some syntax errors are found after the tree is made.
        compile(source, file, "exec", 0, True)
        return compile(source, file, "exec", ast.PyCF_ONLY_AST, True)
    except (SyntaxError, ValueError) as error:
        message = getattr(error, "msg", None) or str(error)
        text = (getattr(error, "text", None) or "").strip()
        told["errors"].append([file, getattr(error, "lineno", None) or 0, message, text])

def look(file, tree, is_script):
    for line, name in imports(tree.body):
        if not name:
            if is_script:
                told["relative"].append(line)
            continue
        try:
            spec = name == "__main__" or find(name)
        except (ImportError, ValueError):
            spec = None
        if not spec:
            told["missing"].append([file, line, name])
            continue
        origin = getattr(spec, "origin", None) or ""
        # The user's own modules are looked at as well; libraries are left alone.
        if origin.startswith(asked["folders"][0] + "/") and origin.endswith(".py"):
            if origin in seen or "site-packages" in origin:
                continue
            seen.add(origin)
            try:
                with open(origin, "rb") as opened:
                    inner = parse(origin, opened.read(asked["limit"]))
            except OSError:
                continue
            if inner is not None:
                look(origin, inner, False)

tree = parse(asked["path"], source)
if tree is not None:
    told["path_changed"] = changes(tree)
    look(asked["path"], tree, True)
print(json.dumps(told))
"""

_GONE = {
    (3, 12): ("asynchat", "asyncore", "distutils", "imp", "smtpd"),
    (3, 13): (
        "aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "mailcap", "msilib", "nis",
        "nntplib", "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib",
    ),
}  # fmt: skip
_GONE_SINCE = {name: version for version, names in _GONE.items() for name in names}

_PYTHON_2 = {
    "ConfigParser", "Cookie", "HTMLParser", "Queue", "StringIO", "cPickle", "cStringIO", "commands",
    "cookielib", "httplib", "md5", "urllib2", "urlparse",
}  # fmt: skip

# What a module is called where it is downloaded; a name that is only guessed may be somebody's trap.
_PACKAGES = {
    "bottle": "bottle", "bs4": "beautifulsoup4", "dateutil": "python-dateutil", "django": "Django",
    "docutils": "docutils", "flask": "Flask", "flup": "flup",
    "jinja2": "Jinja2", "lxml": "lxml", "markdown": "Markdown", "MySQLdb": "mysqlclient",
    "numpy": "numpy", "PIL": "pillow", "psycopg2": "psycopg2", "pygments": "Pygments",
    "requests": "requests", "sqlalchemy": "SQLAlchemy", "werkzeug": "Werkzeug", "yaml": "PyYAML",
}  # fmt: skip


def check(path: str, data: bytes, interpreter: str, report: Report) -> None:
    """Find syntax errors and modules that are not there."""
    told = _look(path, data, interpreter or sys.executable, report)
    if told is None:
        return
    for file, line, message, text in told["errors"]:
        report.add(_syntax_error(file, line, message, text, told["version"]))
    if told["relative"]:
        report.add(
            Finding(
                "relative-import",
                path,
                f"line {told['relative'][0]} imports with a leading dot",
                "a script belongs to no package, so there is nothing that the dot could mean",
                advice="write the import without the dot; the script's own folder is searched first",
            )
        )
    for file, line, name in told["missing"]:
        _judge_missing(file, line, name, told, interpreter or sys.executable, report)
    report.checked.append("imports")


def _look(path: str, data: bytes, interpreter: str, report: Report) -> dict[str, Any] | None:
    is_root = os.geteuid() == 0
    why = _why_not(interpreter, report)
    if why:
        report.notes.append(f"{path}: its syntax and imports were not looked at: {why}")
        return None
    asked = {
        "path": path,
        "folders": [os.path.dirname(os.path.abspath(path))],
        # The user's own site-packages count only where the script will run as that user.
        "user_site": not is_root and report.user.uid == os.geteuid(),
        "limit": files.MAX_SOURCE,
    }
    try:
        done = subprocess.run(
            [interpreter, "-I", "-B", "-c", _LOOK, json.dumps(asked)],
            input=data,
            capture_output=True,
            timeout=20,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            check=False,
            **rights_of(report.user),
        )
        told: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        report.notes.append(
            f"{path}: its syntax and imports were not looked at: {interpreter} did not do it"
            + (
                f" as the user {report.user.name}; run doctor as the file's owner"
                if is_root
                else ""
            )
        )
        return None
    report.checked.append(f"syntax (Python {'.'.join(map(str, told['version'][:2]))})")
    return told


def _why_not(interpreter: str, report: Report) -> str:
    """Return why the interpreter is not to be run here, or "" where it may be."""
    if os.geteuid() == 0 and report.user.uid == 0:
        return (
            "run as root, doctor does that with the rights of the web server's user alone; run it as"
            " the file's owner, or name another user with --user"
        )
    if interpreter == sys.executable:
        return ""  # It is running already.
    try:
        part = files.changeable(interpreter)
        how = access.described(part) if part else ""
    except OSError as error:
        return f"{interpreter} could not be judged ({error.strerror})"
    if part:
        return (
            f"{interpreter} was not run, since others than root and whoever runs doctor can change"
            f" {part} ({how})"
        )
    return ""


def rights_of(user: access.User) -> dict[str, Any]:
    """Return the arguments for subprocess that give root's child the user's rights."""
    if os.geteuid() != 0 or user.uid == 0:
        return {}
    uid, gid = (user.uid, user.gid) if user.uid > 0 else (_NOBODY, _NOBODY)
    return {"user": uid, "group": gid, "extra_groups": sorted(user.groups)}


def _syntax_error(path: str, line: int, message: str, text: str, version: list[int]) -> Finding:
    text = shown(text, 60)
    old = "Missing parentheses" in message or text.startswith(("print ", "except "))
    return Finding(
        "syntax-error",
        path,
        f"line {line} of {path}: {shown(message)}" + (f": {text}" if text else ""),
        f"Python {version[0]}.{version[1]} cannot compile it, so the script ends before it has said"
        " anything" + ("; this looks like Python 2" if old else ""),
        (command("python3", "-m", "py_compile", path),),
        "mend that line" + (", or convert the script to Python 3" if old else ""),
    )


def _judge_missing(
    path: str, line: int, name: str, told: dict[str, Any], interpreter: str, report: Report
) -> None:
    version = tuple(told["version"][:2])
    since = _GONE_SINCE.get(name)
    if name in ("cgi", "cgitb") and since is not None and version >= since:
        report.add(
            Finding(
                "legacy-cgi",
                path,
                f"line {line} imports {name}, which Python {version[0]}.{version[1]} no longer has",
                "the modules cgi and cgitb left the standard library in Python 3.13",
                (command(interpreter, "-m", "pip", "install", "legacy-cgi"),),
            )
        )
        return
    if told["path_changed"]:
        report.notes.append(
            f"{path}: line {line} imports {name}, which was not found; but the script changes"
            " sys.path in a way that only running it tells"
        )
        return
    if since is not None and version >= since:
        why = f"it left the standard library in Python {since[0]}.{since[1]}"
        advice = "replace it, or name an older interpreter in the #! line"
    elif name in _PYTHON_2:
        why = "that is the name of a module of Python 2"
        advice = "convert the script to Python 3"
    else:
        why = f"{interpreter} finds no such module, as the user {report.user.name}"
        advice = ""
    report.add(
        Finding(
            "module-missing",
            f"{path}, {name}",
            f"line {line} of {path} imports {name}, which is not there",
            f"{why}; the script ends with a traceback before it has said anything",
            (command(interpreter, "-m", "pip", "install", _PACKAGES[name]),)
            if not advice and name in _PACKAGES
            else (),
            advice
            or "a module of your own belongs in the script's folder; where it is installed in a virtual"
            " environment, name that environment's python in the #! line",
        )
    )
