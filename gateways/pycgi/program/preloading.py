"""What a script imports from outside its folder, loaded before processes are forked."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from contextlib import suppress
from importlib.machinery import all_suffixes

from .script import Script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_OURSELVES = os.path.dirname(__file__) + os.sep


def preload(script: Script, without: set[str]) -> str:
    """Import what the script imports from outside its folder, but for the modules in `without`.

    Returns the name of one after which no process may be forked, since it started a thread,
    printed something or imported from the folder; an empty string where all is well.
    """
    # What is printed is looked for behind descriptor 1, since a module may keep sys.stdout.
    reader, writer = os.pipe()
    null = os.dup(1)
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    os.dup2(writer, 1)
    show = warnings.showwarning
    warnings.showwarning = lambda *_, **__: None  # that cgi is deprecated, for one
    try:
        for name, names in imports_of(script):
            if name.partition(".")[0] in without:
                continue
            with suppress(BaseException):  # the script will meet it, or has a way around it
                __import__(name, fromlist=names)
            if _has_come(reader) or _threads() > 1 or _has_neighbours(script.library):
                return name.partition(".")[0]
        return ""
    finally:
        warnings.showwarning = show
        os.dup2(null, 1)
        for each in (reader, writer, null):
            os.close(each)


def _has_come(reader: int) -> bool:
    with suppress(Exception):
        sys.stdout.flush()
    try:
        return bool(os.read(reader, 1))
    except BlockingIOError:
        return False


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        threading: Any = sys.modules.get("threading")
        return threading.active_count() if threading is not None else 1


def _has_neighbours(folder: str) -> bool:
    paths = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return any(is_below(folder, path) for path in paths)


def is_below(folder: str, path: object) -> bool:
    """Whether a module's file is the folder's own, and not of an environment that lies in it."""
    if not isinstance(path, str) or not path.startswith(folder + os.sep):
        return False
    if path.startswith((_OURSELVES, _LIBRARY)):
        return False
    own = sys.prefix + os.sep
    return not (own.startswith(folder + os.sep) and path.startswith(own))


def imports_of(script: Script) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules, and the names out of each, that the script and its neighbours import.

    Neighbours are the modules of its folder.  They are read, not run: what they do when they are
    imported may depend on the request.
    """
    seen: set[str] = set()
    pending = [("", script.path, script.source)]
    while pending:
        package, path, source = pending.pop()
        for name, names in _top_imports(source, path, package):
            for each in (name, *(f"{name}.{inner}" for inner in names)):
                found = _neighbour(script.library, each)
                if found and found not in seen:
                    seen.add(found)
                    is_package = os.path.basename(found) == "__init__.py"
                    inside = each if is_package else each.rpartition(".")[0]
                    with suppress(OSError), open(found, "rb") as file:
                        pending.append((inside, found, file.read()))
            if not _is_of_folder(script.library, name):
                yield name, names


def _top_imports(source: bytes, path: str, package: str) -> list[tuple[str, list[str]]]:
    try:
        bodies: list[Any] = [ast.parse(source, path)]
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[str, list[str]]] = []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)
    while bodies:
        for node in ast.iter_child_nodes(bodies.pop(0)):
            if isinstance(node, ast.Import):
                found += [(alias.name, []) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = package.split(".")
                    parents = parents[: len(parents) - node.level + 1]
                    base = ".".join([*parents, *([base] if base else [])])
                if base and base != "__future__":
                    found.append((base, [each.name for each in node.names if each.name != "*"]))
            elif not isinstance(node, functions):
                bodies.append(node)  # the arms of try, if and with
    return found


def _neighbour(folder: str, name: str) -> str:
    """Return the file of the folder that the module `name` is, or an empty string."""
    stem = os.path.join(folder, *name.split("."))
    for path in (os.path.join(stem, "__init__.py"), stem + ".py"):
        if os.path.isfile(path):
            return path
    return ""


def _is_of_folder(folder: str, name: str) -> bool:
    stem = os.path.join(folder, name.partition(".")[0])
    if os.path.isdir(stem):
        return True
    return any(os.path.exists(stem + suffix) for suffix in all_suffixes())
