from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.errors import ConfigurationError
from gateways.loading import ApplicationImportError, import_name, load

APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"application"]

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"app"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what a test imports is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    # The finders remember folders for a second's time, and every test writes new ones.
    monkeypatch.setattr(sys, "path_importer_cache", {})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def answer(application: object) -> bytes:
    assert callable(application)
    return b"".join(application({}, lambda status, headers: None))


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    assert not isinstance(caught.value, ApplicationImportError)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_module_and_attribute_are_found_in_the_current_folder(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "web.py").write_text(APPLICATION)
    assert answer(load("shop.web:app")) == b"app"


def test_an_attribute_may_be_dotted(folder: Path) -> None:
    (folder / "shop.py").write_text(
        "class holder:\n    @staticmethod\n    def wsgi(environ, start_response):\n        return [b'dotted']\n"
    )
    assert answer(load("shop:holder.wsgi")) == b"dotted"


@pytest.mark.parametrize("name", ["app.py", "app.wsgi", "app.fcgi"])
def test_a_file_without_an_attribute_gives_application_before_app(folder: Path, name: str) -> None:
    (folder / name).write_text(APPLICATION)
    assert answer(load(name)) == b"application"
    assert answer(load(f"{folder}/{name}:app")) == b"app"


def test_a_file_without_application_gives_app(folder: Path) -> None:
    (folder / "site.wsgi").write_text(APPLICATION.replace("application(", "other("))
    assert answer(load("site.wsgi")) == b"app"


def test_a_file_of_any_name_is_meant_by_a_slash(folder: Path) -> None:
    (folder / "dispatch").write_text(APPLICATION)
    assert answer(load("./dispatch")) == b"application"


def test_a_file_whose_name_holds_a_colon_can_be_loaded(folder: Path) -> None:
    (folder / "a:b.py").write_text(APPLICATION)
    assert answer(load("a:b.py")) == b"application"
    assert answer(load("a:b.py:app")) == b"app"


def test_django_s_module_is_found_where_no_file_has_its_name(folder: Path) -> None:
    (folder / "mysite").mkdir()
    (folder / "mysite" / "wsgi.py").write_text(APPLICATION)
    assert answer(load("mysite.wsgi:application")) == b"application"


def test_a_file_is_found_before_the_module_of_the_same_name(folder: Path) -> None:
    (folder / "mysite").mkdir()
    (folder / "mysite" / "wsgi.py").write_text(APPLICATION)
    (folder / "mysite.wsgi").write_text(APPLICATION.replace('b"app', 'b"file app'))
    assert answer(load("mysite.wsgi:application")) == b"file application"


def test_a_file_imports_its_neighbours(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "greetings.py").write_text("hello = b'hello'\n")
    (folder / "deep" / "site.py").write_text(
        "from greetings import hello\ndef app(environ, start_response):\n    return [hello]\n"
    )
    assert answer(load("deep/site.py")) == b"hello"


def test_a_file_imports_its_own_package_from_the_current_folder(folder: Path) -> None:
    (folder / "mysite").mkdir()
    (folder / "mysite" / "settings.py").write_text("hello = b'settings'\n")
    (folder / "mysite" / "wsgi.py").write_text(
        "from mysite.settings import hello\n"
        "def application(environ, start_response):\n    return [hello]\n"
    )
    assert answer(load("mysite/wsgi.py")) == b"settings"


def test_a_file_s_neighbours_come_before_the_current_folder_s(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "greetings.py").write_text("hello = b'far'\n")
    (folder / "deep" / "greetings.py").write_text("hello = b'near'\n")
    (folder / "deep" / "site.py").write_text(
        "from greetings import hello\ndef app(environ, start_response):\n    return [hello]\n"
    )
    assert answer(load("deep/site.py")) == b"near"


def test_a_file_is_loaded_though_the_current_folder_is_gone(folder: Path) -> None:
    (folder / "gone").mkdir()
    (folder / "app.py").write_text(APPLICATION)
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert answer(load(f"{folder}/app.py")) == b"application"


def test_a_relative_import_in_a_file_says_how_to_name_the_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "wsgi.py").write_text("from . import models\n")
    with pytest.raises(ApplicationImportError, match=r'write "shop\.wsgi:application"'):
        load("shop/wsgi.py")
    monkeypatch.chdir(folder / "shop")
    with pytest.raises(ApplicationImportError) as caught:
        load("wsgi.py")
    assert f'go to {folder} and write "shop.wsgi:application"' in str(caught.value)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Be an ordinary user in the block: root may read everything."""
    former = os.geteuid()
    if former == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(former)


def test_a_file_that_may_not_be_read_is_not_called_missing(folder: Path) -> None:
    (folder / "app.py").write_text(APPLICATION)
    (folder / "closed").mkdir()
    (folder / "closed" / "app.py").write_text(APPLICATION)
    (folder / "app.py").chmod(0)
    (folder / "closed").chmod(0)
    folder.chmod(0o755)
    try:
        with without_privileges():
            for path in ("app.py", "closed/app.py"):
                assert f'there is no permission to read "{path}"' in refusal(path)
    finally:
        (folder / "closed").chmod(0o700)


def test_methods_and_callables_that_hide_what_they_take_are_no_factories(folder: Path) -> None:
    (folder / "shop.py").write_text(
        "class App:\n"
        "    def __call__(self, environ, start_response): return [b'object']\n"
        "    def any(*everything): return [b'method']\n"
        "app = App()\n"
        "method = app.any\n"
        "def wrapped(*arguments): return [b'wrapped']\n"
        "def eager(environ, start_response=None): return [b'eager']\n"
    )
    for name in ("app", "method", "wrapped", "eager"):
        assert answer(load(f"shop:{name}")) in (b"object", b"method", b"wrapped", b"eager")


def test_a_wsgi_file_may_import_the_module_of_its_own_name(folder: Path) -> None:
    (folder / "shop.py").write_text(APPLICATION)
    (folder / "shop.wsgi").write_text("from shop import app as application\n")
    assert answer(load("shop.wsgi")) == b"app"


def test_a_neighbour_that_imports_the_file_gets_the_same_module(folder: Path) -> None:
    (folder / "shop.py").write_text("stock = []\nimport models\n" + APPLICATION)
    (folder / "models.py").write_text("import shop\nshop.stock.append(1)\n")
    load("shop.py")
    assert sys.modules["shop"].stock == [1]


def test_a_file_named_as_a_loaded_module_leaves_that_module_alone(folder: Path) -> None:
    import json

    (folder / "json.py").write_text(APPLICATION)
    assert answer(load("json.py")) == b"application"
    assert sys.modules["json"] is json


def test_a_fcgi_file_and_a_py_file_do_not_share_bytecode(folder: Path) -> None:
    (folder / "app.py").write_text(APPLICATION)
    (folder / "app.fcgi").write_text(APPLICATION.replace('b"app', 'b"FCG'))
    assert answer(load("app.py")) == b"application"
    assert answer(load("app.fcgi")) == b"FCGlication"


def test_a_factory_is_called(folder: Path) -> None:
    (folder / "shop.py").write_text(
        "def create_app():\n    return lambda environ, start_response: [b'made']\n"
    )
    assert answer(load("shop:create_app()")) == b"made"
    assert answer(load("shop.py:create_app()")) == b"made"


def test_a_class_whose_instances_answer_is_an_application(folder: Path) -> None:
    (folder / "shop.py").write_text(
        "class App:\n    def __init__(self, environ, start_response): pass\n"
        "    def __iter__(self): yield b'class'\n"
    )
    assert answer(load("shop:App")) == b"class"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no application is named"),
        ("nowhere:app", 'no module "nowhere"'),
        ("json.nowhere:app", 'no module "json.nowhere"'),
        ("nowhere.web:app", 'begins with "nowhere", which is not there'),
        ("shop", 'write "shop:application" for a module, or "path/app.py" for a file'),
        ("shop", 'there is a file "shop.py"'),
        (":application", 'names no module or file before its colon; write for example "app.py:'),
        (":", "names no module or file before its colon"),
        (
            ".",
            'is a folder, not a file; name the file in it that holds the application, such as "./',
        ),
        (".:application", '"./app.py"'),
        ("folder", '"folder/app.py"'),
        ("folder/", '"folder/app.py"'),
        ("project", '"project/wsgi.py"'),
        ("package", 'write "package:application"'),
        ("shop:", '"shop:application"'),
        ("no-module:app", "nor the name of a module"),
        ("nowhere.py", 'no file "nowhere.py"'),
        ("nowhere.wsgi", '"nowhere.wsgi:application"'),
        ("shop.wsgi", '"shop.wsgi:application"'),
        ("./shop.fcgi", 'there is "./shop.py"'),
        ("./folder", "not a file"),
        ("shop:aplication", '"shop:application"'),
        ("shop:holder.ap", '"shop:holder.app"'),
        ("shop:zzz", "check the name"),
        ("shop:not a name", "not the name of an attribute"),
        ("shop:number", "is an int, not a WSGI application"),
        ("shop:create_app(1)", "has arguments"),
        ("shop:number()", "cannot be called"),
        ("shop:create_app", 'write "shop:create_app()"'),
        ("shop:create_configured", 'write "shop:create_configured()"'),
        ("shop:create_from", "write a function without arguments"),
        ("shop:create_useless()", "return the application from it"),
        ("shop:asgi", "is an ASGI application, which is not supported yet"),
        ("shop:asgi_object", "is an ASGI application, which is not supported yet"),
        ("shop:asgi_sync", "is an ASGI application, which is not supported yet"),
        ("shop:asgi_partial", "is an ASGI application, which is not supported yet"),
        ("empty.py", '"empty.py:NAME"'),
        ("named.py", 'it has serve_it: write "named.py:serve_it"'),
        ("cgi:printenv.cgi", "there is no script"),
        ("pycgi:form.py", "there is no file"),
        ("fcgi://127.0.0.1:9000", "later release"),
        ("scgi+unix:/run/app.sock", "later release"),
    ],
)
def test_what_names_no_application_is_refused_in_one_line_with_the_remedy(
    folder: Path, text: str, words: str
) -> None:
    (folder / "folder").mkdir()
    (folder / "project").mkdir()
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text(APPLICATION)
    (folder / "project" / "wsgi.py").write_text(APPLICATION)
    (folder / "empty.py").write_text("from json import dumps\n")
    (folder / "named.py").write_text("def serve_it(environ, start_response): pass\n")
    (folder / "shop.py").write_text(
        APPLICATION + "import functools\n"
        "number = 1\n"
        "def create_app(): return application\n"
        "def create_configured(config=None): return application\n"
        "def create_from(config): return application\n"
        "def create_useless(): return create_app\n"
        "class holder:\n    app = application\n"
        "async def asgi(scope, receive, send): pass\n"
        "class Asgi:\n    async def __call__(self, scope, receive, send): pass\n"
        "asgi_object = Asgi()\n"
        "def asgi_sync(scope, receive, send): pass\n"
        "asgi_partial = functools.partial(asgi)\n"
    )
    assert words in refusal(text)


def test_a_module_forgotten_as_a_file_is_suggested(folder: Path) -> None:
    (folder / "my-app.py").write_text(APPLICATION)
    assert '"path/app.py" for a file' in refusal("my-app:application")


BROKEN = """
def wrong():
    raise ValueError("no database")

wrong()
"""


@pytest.mark.parametrize("text", ["broken:app", "broken.py"])
def test_an_import_that_raises_shows_the_user_s_frames_and_no_others(
    folder: Path, text: str
) -> None:
    (folder / "broken.py").write_text(BROKEN)
    with pytest.raises(ApplicationImportError) as caught:
        load(text)
    assert "ValueError: no database" in str(caught.value)
    assert "\n" not in str(caught.value)
    shown = caught.value.traceback_text
    assert shown.count("  File ") == 2
    assert "in wrong" in shown
    assert "loading.py" not in shown
    assert "importlib" not in shown
    assert isinstance(caught.value.__cause__, ValueError)


def test_frames_of_the_errors_behind_an_error_are_cut_too(folder: Path) -> None:
    (folder / "broken.py").write_text(
        "try:\n    import missing_thing\nexcept ImportError as error:\n    raise RuntimeError('no') from error\n"
    )
    (folder / "outer.py").write_text("import broken\n")
    with pytest.raises(ApplicationImportError) as caught:
        load("outer.py")
    shown = caught.value.traceback_text
    assert "missing_thing" in shown
    assert "importlib" not in shown
    assert shown.count("  File ") == 3


def test_a_missing_dependency_names_the_interpreter_to_install_it_for(folder: Path) -> None:
    (folder / "shop.py").write_text("import missing_thing\n")
    with pytest.raises(ApplicationImportError, match="No module named 'missing_thing'") as caught:
        load("shop:app")
    assert sys.executable in str(caught.value)


def test_a_syntax_error_shows_the_line(folder: Path) -> None:
    (folder / "broken.py").write_text("def app(environ, start_response:\n")
    with pytest.raises(ApplicationImportError, match="SyntaxError") as caught:
        load("broken.py")
    assert "def app(environ, start_response:" in caught.value.traceback_text


def test_a_script_that_exits_while_it_is_imported_does_not_end_the_caller(folder: Path) -> None:
    (folder / "broken.py").write_text("import sys\nsys.exit('usage: broken')\n")
    with pytest.raises(ApplicationImportError, match="SystemExit: usage: broken"):
        load("broken:app")


def test_a_factory_that_raises_shows_the_user_s_frames(folder: Path) -> None:
    (folder / "shop.py").write_text("def create_app():\n    return 1 / 0\n")
    with pytest.raises(ApplicationImportError, match=r'calling "shop\.py:create_app') as caught:
        load("shop.py:create_app()")
    assert caught.value.traceback_text.count("  File ") == 1


def test_a_failed_import_of_a_file_leaves_no_module_behind(folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN)
    with pytest.raises(ApplicationImportError):
        load("broken.py")
    assert "broken" not in sys.modules


def test_a_very_deep_recursion_is_reported(folder: Path) -> None:
    (folder / "broken.py").write_text("def f(): f()\nf()\n")
    with pytest.raises(ApplicationImportError, match="RecursionError"):
        load("broken.py")


def test_a_log_names_an_application_by_what_was_written_or_where_it_is_defined() -> None:
    assert import_name("shop.web:app") == "shop.web:app"
    assert import_name(import_name) == "gateways.loading:import_name"
    assert import_name(Path("x")).endswith("Path object")
