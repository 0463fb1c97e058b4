"""APP strings: from what the user wrote to a WSGI callable.

    package.module:attribute      package.module:factory()
    path/app.py    path/app.wsgi    path/app.fcgi    each with an optional :attribute
    cgi:PATH       cgi:PATH?setting=value            a CGI script, or a folder of them
    pycgi:PATH     pycgi+inprocess:PATH?setting=value   a Python CGI script, kept warm

A text with a slash in it is always a file; so is one that ends in .py, .wsgi or .fcgi, but for
`mysite.wsgi:application`, which is Django's module when no such file is there.  Without an
attribute a file's `application` is taken, then its `app`.  The folder of the file goes first on
sys.path, as Python does for a script, and then the current folder; for a module only the latter.

What goes wrong is told in one line with the remedy.  Where the user's own code raised, the error
also carries the traceback without our frames and importlib's.  `gateways cgi` comes through
here for each request, so nothing is imported until it is needed.
"""

from __future__ import annotations

import os
import sys

from gateways.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, ModuleType, TracebackType
    from typing import Any

FILE_SUFFIXES = (".py", ".wsgi", ".fcgi")
DEFAULT_ATTRIBUTES = ("application", "app")

_ADDRESS_SCHEMES = ("fcgi", "scgi", "ajp", "uwsgi", "http")
_CO_VARARGS = 0x04
_CO_COROUTINE = 0x80


class ApplicationImportError(ConfigurationError):
    """The user's own code raised while it was imported, or its factory while it was called.

    `traceback_text` is the traceback cut to their frames; it ends with a line end.  The original
    exception is the `__cause__`.
    """

    def __init__(self, message: str, traceback_text: str) -> None:
        super().__init__(message)
        self.traceback_text = traceback_text


def load(text: str) -> Callable[..., Any]:
    """Import the application that `text` names and return the callable.

    Raises ConfigurationError where there is no such thing or it is no WSGI application, and
    ApplicationImportError where importing it raised.
    """
    if text.startswith("cgi:"):
        return _load_cgi(text)
    script = _python_script(text)
    if script is not None:
        return script
    _refuse_other_kinds(text)
    target, attribute = _split(text)
    if _is_file(target, attribute):
        module = _import_file(target)
    else:
        module = _import_module(text, target, attribute)
    name, call = _attribute_and_call(text, target, attribute or _default_attribute(module, target))
    found = _look_up(module, target, name)
    if call:
        found = _call_factory(found, target, name)
    return _check_callable(found, f"{target}:{name}", "()" if call else "")


def unloadable(error: ConfigurationError) -> Callable[..., Any]:
    """Return an application that fails each request with `error`, which `load` raised.

    So a fault while loading is answered, logged and shown as any other fault is.
    """
    fault = error.__cause__ or error
    traceback = fault.__traceback__ if fault is error.__cause__ else None

    def application(environ: dict[str, Any], start_response: object) -> None:
        # Otherwise each request would make its traceback longer.
        raise fault.with_traceback(traceback)

    return application


def _load_cgi(text: str) -> Callable[..., Any]:
    from gateways.cgihost import load as load_scripts

    return load_scripts(text.removeprefix("cgi:"))


def import_name(application: object) -> str:
    """Return how a log names the application: an APP string as written, a callable by its place."""
    if isinstance(application, str):
        return application
    name = getattr(application, "__qualname__", None)
    if name is None:
        name = f"{type(application).__qualname__} object"
    module = getattr(application, "__module__", None) or type(application).__module__
    return f"{module}:{name}"


def _python_script(text: str) -> Callable[..., Any] | None:
    scheme, _, path = text.partition(":")
    kind, _, mode = scheme.partition("+")
    if kind != "pycgi":
        return None
    if not path:
        raise ConfigurationError(
            f'"{text}" names no script; write for example "pycgi:cgi-bin/form.py"'
        )
    # What stands after a "?" are settings, unless that is how the file is called.
    _check_file(path if os.path.exists(path) else path.partition("?")[0])
    from gateways.pycgi import load as load_script

    return load_script(path, mode or "fork")


def _refuse_other_kinds(text: str) -> None:
    if not text:
        raise ConfigurationError('no application is named; write for example "app.py:application"')
    scheme, _, rest = text.partition(":")
    protocol, plus, kind = scheme.partition("+")
    if protocol in _ADDRESS_SCHEMES and (
        rest.startswith("//") or (plus and kind in ("unix", "fd"))
    ):
        raise ConfigurationError(
            f'"{text}" is an address, and forwarding to it comes in a later release; until then'
            f" serve gateways.client.ProxyApplication({text!r}) from a module of your own"
        )


def _split(text: str) -> tuple[str, str]:
    """Return what is before the attribute's colon, and the attribute or an empty string."""
    target, colon, attribute = text.rpartition(":")
    # A file's name may itself hold a colon.
    if not colon or "/" in attribute or os.path.isfile(text):
        return text, ""
    if not target:
        raise ConfigurationError(
            f'"{text}" names no module or file before its colon; write for example'
            f' "app.py:application"'
        )
    if not attribute:
        raise ConfigurationError(
            f'"{text}" ends with a colon; write the name of the callable after it,'
            f' as in "{target}:application"'
        )
    return target, attribute


def _is_file(target: str, attribute: str) -> bool:
    if "/" in target or os.path.isfile(target):
        return True
    if target.endswith((".wsgi", ".fcgi")):
        # "mysite.wsgi:application" is how Django's documentation writes the module.
        return not attribute or not _looks_like_module(target)
    return target.endswith(".py")


def _looks_like_module(target: str) -> bool:
    return all(part.isidentifier() for part in target.split("."))


def _import_module(text: str, name: str, attribute: str) -> ModuleType:
    is_package = os.path.isfile(os.path.join(name, "__init__.py"))
    if os.path.isdir(name) and not ((attribute or is_package) and _looks_like_module(name)):
        raise _is_folder(name)
    if not _looks_like_module(name):
        raise ConfigurationError(
            f'"{name}" is neither a file here nor the name of a module;'
            f' write "package.module:attribute", or "path/app.py" for a file{_file_of(name)}'
        )
    if not attribute:
        raise ConfigurationError(
            f'"{text}" does not say which callable; write "{text}:application" for a module,'
            f' or "path/app.py" for a file{_file_of(name)}'
        )
    _put_first_on_path(os.getcwd())
    try:
        __import__(name)
        return sys.modules[name]
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _no_such_module(name, error.name) from None
        raise _import_failure(error, name) from error
    except (Exception, SystemExit) as error:
        raise _import_failure(error, name) from error


def _file_of(name: str) -> str:
    """Return words about the file that `name` may stand for, or an empty string."""
    file = next((name + suffix for suffix in FILE_SUFFIXES if os.path.isfile(name + suffix)), "")
    return f'; there is a file "{file}"' if file else ""


def _is_folder(path: str) -> ConfigurationError:
    inside = [os.path.join(path, base) for base in ("wsgi.py", "app.py")]
    example = next(filter(os.path.isfile, inside), inside[-1])
    return ConfigurationError(
        f'"{path}" is a folder, not a file; name the file in it that holds the application,'
        f' such as "{example}"'
    )


def _no_such_module(name: str, missing: str) -> ConfigurationError:
    file = f"{name}.py"
    if os.path.isfile(file):
        hint = f'there is a file "{file}": write "{file}"'
    else:
        hint = f"looked in {os.getcwd()} and in what {sys.executable} has installed"
    part = "" if missing == name else f' (it begins with "{missing}", which is not there)'
    return ConfigurationError(f'there is no module "{name}"{part}; {hint}')


def _import_file(path: str) -> ModuleType:
    _check_file(path)
    folder, base = os.path.split(os.path.abspath(path))
    _put_first_on_path(folder)
    _put_current_folder_after(folder)
    # importlib.util would do the next five lines, but importing it costs ten times as much.
    from importlib.machinery import ModuleSpec, SourceFileLoader

    full = os.path.join(folder, base)
    name = _module_name(full)
    loader = SourceFileLoader(name, full)
    module = type(sys)(name)
    module.__spec__ = ModuleSpec(name, loader, origin=full)
    module.__spec__.has_location = True
    module.__loader__, module.__file__ = loader, full
    sys.modules[name] = module
    try:
        exec(_code(full), module.__dict__)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        hint = _package_hint(path) if "relative import" in str(error) else ""
        raise _import_failure(error, path, hint) from error
    return module


def _check_file(path: str) -> None:
    try:
        # A named pipe would wait for its writer.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        raise ConfigurationError(
            f'there is no permission to read "{path}"; give it to the user that this runs as'
        ) from None
    except (OSError, ValueError):
        if not os.path.exists(path):
            raise _no_such_file(path) from None
    if os.path.isdir(path):
        raise _is_folder(path)
    if not os.path.isfile(path):
        raise ConfigurationError(f'"{path}" is not a file; name a file that holds the application')


def _no_such_file(path: str) -> ConfigurationError:
    stem, suffix = os.path.splitext(path)
    if "/" not in path and suffix in (".wsgi", ".fcgi"):
        return ConfigurationError(
            f'there is no file "{path}" in {os.getcwd()}; if the module is meant,'
            f' write "{path}:application"'
        )
    for other in FILE_SUFFIXES:
        if other != suffix and os.path.isfile(stem + other):
            return ConfigurationError(f'there is no file "{path}"; there is "{stem + other}"')
    where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
    return ConfigurationError(f'there is no file "{path}"{where}; check the path')


def _code(path: str) -> CodeType:
    """Return the compiled file.

    Only a .py file goes through the bytecode cache: "app.fcgi" and "app.py" of one folder would
    share one cache file.
    """
    from importlib.machinery import SourceFileLoader

    loader = SourceFileLoader("application", path)
    if path.endswith(".py"):
        code = loader.get_code("application")
        assert code is not None
        return code
    return loader.source_to_code(loader.get_data(path), path)


def _module_name(path: str) -> str:
    """Return the name under which the file's neighbours would import it, if it is importable.

    So `from app import db` in a neighbour of app.py gives the module that is being served and not
    a second copy.  "app.wsgi" that says `from app import application` must not find itself, and
    gets a name that nobody imports.
    """
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix == ".py" and stem.isidentifier() and stem not in sys.modules:
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        specs = (finder.find_spec(stem, None) for finder in finders)
        found = next((spec for spec in specs if spec is not None), None)
        if found is not None and found.origin == path:
            return stem
    # A dot would make it a submodule of a package that is not there.
    return "_gateways_" + os.path.basename(path).replace(".", "_")


def _put_first_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _put_current_folder_after(folder: str) -> None:
    """Let a file in a package import that package, as Django's wsgi.py does."""
    try:
        current = os.getcwd()
    except OSError:
        return  # It has been removed; a file with an absolute path does not need it.
    if current not in sys.path:
        sys.path.insert(sys.path.index(folder) + 1, current)


def _default_attribute(module: ModuleType, target: str) -> str:
    for name in DEFAULT_ATTRIBUTES:
        if hasattr(module, name):
            return name
    candidates = _callables(module)
    hint = f"it has {', '.join(candidates[:5])}: write " if candidates else "write "
    raise ConfigurationError(
        f'"{target}" has neither "application" nor "app";'
        f' {hint}"{target}:{candidates[0] if candidates else "NAME"}"'
    )


def _callables(module: ModuleType) -> list[str]:
    """Return the names of what the module itself defines and could be meant."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]


def _attribute_and_call(text: str, target: str, attribute: str) -> tuple[str, bool]:
    name, parenthesis, rest = attribute.partition("(")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(
            f'"{attribute}" in "{text}" is not the name of an attribute;'
            f' write for example "{target}:application"'
        )
    if parenthesis and rest != ")":
        raise ConfigurationError(
            f'"{attribute}" in "{text}" has arguments, and a factory is called without any;'
            f" write a function of your own that passes them"
        )
    return name, bool(parenthesis)


def _look_up(module: ModuleType, target: str, name: str) -> object:
    found: object = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise _no_such_attribute(found, target, name, part) from None
        except Exception as error:
            raise _import_failure(error, f"{target}:{name}") from error
    return found


def _no_such_attribute(holder: object, target: str, name: str, part: str) -> ConfigurationError:
    from difflib import get_close_matches

    near = get_close_matches(part, _names(holder), 3, 0.5)
    if near:
        written = [".".join([*name.split(".")[: name.split(".").index(part)], n]) for n in near]
        hint = "did you mean " + " or ".join(f'"{target}:{one}"' for one in written) + "?"
    else:
        hint = "check the name"
    return ConfigurationError(f'"{target}" has no attribute "{name}"; {hint}')


def _names(holder: object) -> Iterable[str]:
    return [name for name in dir(holder) if not name.startswith("_")]


def _call_factory(factory: object, target: str, name: str) -> object:
    if not callable(factory):
        raise ConfigurationError(
            f'"{target}:{name}" is {_a(factory)} and cannot be called; write "{target}:{name}"'
            f" without the parentheses, or name a factory"
        )
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _import_failure(error, f"{target}:{name}()") from error


def _check_callable(found: object, name: str, parentheses: str) -> Callable[..., Any]:
    written = name + parentheses
    if not callable(found):
        raise ConfigurationError(
            f'"{written}" is {_a(found)}, not a WSGI application;'
            f" name something that takes (environ, start_response)"
        )
    code = _code_of(found)
    if _is_asgi(code):
        raise ConfigurationError(
            f'"{written}" is an ASGI application, which is not supported yet;'
            f" name a WSGI application"
        )
    # A method's first argument is given already, and others hide what they take.
    if isinstance(found, type(_check_callable)) and _takes_too_few(found.__code__):
        raise ConfigurationError(
            f'"{written}" cannot be called with (environ, start_response), so it looks like a'
            f" factory; {_factory_remedy(found, name, parentheses)}"
        )
    return found


def _factory_remedy(found: Any, name: str, parentheses: str) -> str:
    if parentheses:
        return "return the application from it"
    if found.__code__.co_argcount > len(found.__defaults__ or ()):
        return "write a function without arguments that returns what it makes, and name that"
    return f'write "{name}()"'


def _code_of(found: object) -> CodeType | None:
    """Return the code that a call of `found` runs, where that can be told without running it."""
    for _ in range(10):
        if getattr(found, "func", None) is not None and type(found).__name__ == "partial":
            found = found.func  # type: ignore[attr-defined]  # the line above looked
        else:
            break
    code = getattr(found, "__code__", None)
    if code is None and not isinstance(found, type):
        method = getattr(type(found), "__call__", None)  # noqa: B004  # the method itself is wanted
        code = getattr(method, "__code__", None)
    return code


def _is_asgi(code: CodeType | None) -> bool:
    if code is None:
        return False
    if code.co_flags & _CO_COROUTINE:
        return True
    names = [n for n in code.co_varnames[: code.co_argcount] if n not in ("self", "cls")]
    return names == ["scope", "receive", "send"]


def _takes_too_few(code: CodeType) -> bool:
    return code.co_argcount < 2 and not code.co_flags & _CO_VARARGS


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _package_hint(path: str) -> str:
    """Return how to name a file as a module of its package, so that relative imports work."""
    module = os.path.splitext(os.path.normpath(path))[0].replace("/", ".")
    where = "write"
    if "." not in module or not _looks_like_module(module):
        folder, base = os.path.split(os.path.abspath(path))
        above, package = os.path.split(folder)
        module = f"{package}.{os.path.splitext(base)[0]}"
        where = f"go to {above} and write"
    return f'; a file is no part of a package: {where} "{module}:application"'


def _import_failure(error: BaseException, what: str, hint: str = "") -> ApplicationImportError:
    """Make the error that shows the user's own traceback and names the fault in a line."""
    from gateways import tracebacks  # here: it costs milliseconds

    _cut_chain(error)
    text = f"{tracebacks.whole_traceback(error)}\n"
    summary = tracebacks.summary(error)
    if isinstance(error, ModuleNotFoundError):
        summary += f"; install it for {sys.executable}, or use the environment that has it"
    verb = "calling" if what.endswith("()") else "importing"
    return ApplicationImportError(f'{verb} "{what}" raised {summary}{hint}', text)


def _cut_chain(error: BaseException) -> None:
    """Take our frames and importlib's out of the traceback, and out of those it was raised from."""
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = _cut(link.__traceback__)
            links += [link.__cause__, link.__context__]


def _cut(traceback: TracebackType | None) -> TracebackType | None:
    from types import TracebackType

    kept = []
    while traceback is not None:
        if not _is_ours(traceback.tb_frame.f_code.co_filename):
            kept.append(traceback)
        traceback = traceback.tb_next
    rest = None
    for frame in reversed(kept):
        rest = TracebackType(rest, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return rest


def _is_ours(filename: str) -> bool:
    if filename == __file__ or filename.startswith("<frozen importlib"):
        return True
    return os.path.basename(os.path.dirname(filename)) == "importlib"
