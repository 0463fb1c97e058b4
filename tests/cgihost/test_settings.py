"""`cgi:PATH?name=value`: what a command line can say about scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways.cgihost import CGIApplication, load
from gateways.errors import ConfigurationError
from gateways.loading import load as load_application
from tests.cgihost.calling import PRINT_ENVIRONMENT, call, write


def test_a_folder_is_an_application(tmp_path: Path) -> None:
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    app = load_application(f"cgi:{tmp_path}")
    assert isinstance(app, CGIApplication)
    assert call(app, "/env/x").variables["PATH_INFO"] == "/x"


def test_a_relative_path_outlives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "env", PRINT_ENVIRONMENT)
    monkeypatch.chdir(tmp_path)
    app = load_application("cgi:env")
    monkeypatch.chdir("/")
    assert call(app).code == 200


def test_every_setting_can_be_written(tmp_path: Path) -> None:
    text = (
        f"{tmp_path}?set=A=b=c%26d&set=E=&inherit=LANG&pass=SSL_*&pass=CGIT_CONFIG"
        "&interpreter=.py=/usr/bin/env python3&authorization=yes&indexed_query=on"
        "&follow_symlinks=no&index=a.cgi&index=b.cgi&document_root=/srv/www/"
        "&time_limit=0&idle_limit=1.5&grace=2&max_running=3"
    )
    settings = load(text).settings
    assert settings.set == {b"A": b"b=c&d", b"E": b""}
    assert settings.inherit == (b"LANG",)
    assert (set(settings.passed), settings.prefixes) == ({"CGIT_CONFIG"}, ("SSL_",))
    assert settings.interpreters == {b".py": [b"/usr/bin/env", b"python3"]}
    assert (settings.authorization, settings.indexed_query) == (True, True)
    assert not settings.follow_symlinks
    assert settings.index == (b"a.cgi", b"b.cgi")
    assert settings.document_root == b"/srv/www"
    assert settings.time_limit == float("inf")
    assert (settings.idle_limit, settings.grace, settings.max_running) == (1.5, 2.0, 3)


def test_a_question_mark_may_belong_to_the_name(tmp_path: Path) -> None:
    write(tmp_path, "what?set=A=b", PRINT_ENVIRONMENT)
    assert call(load(f"{tmp_path}/what?set=A=b")).code == 200


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("time_limt=3", "did you mean time_limit"),
        ("colour=red", "there are authorization"),
        ("time_limit=soon", "not a number"),
        ("max_running=0", "it is 1 or more"),
        ("idle_limit=-1", "it is 0 or more"),
        ("grace=nan", "it is 0 or more"),
        ("authorization=maybe", "yes or no"),
        ("set=A", "lacks its value"),
        ("set==b", "cannot be the name"),
        ("set=A=%00", "holds NUL"),
        ("interpreter=py=/usr/bin/python3", "with its dot"),
        ("interpreter=.py=python3", "no absolute path"),
        ("pass=P*", "too wide"),
        ("pass=SSL*", "too wide"),
        ("pass=HTTP_*", "reach a script anyway"),
        ("pass=GIT_*", "no variable that a request may set"),
    ],
)
def test_a_bad_setting_is_refused_with_the_remedy(tmp_path: Path, query: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load(f"{tmp_path}?{query}")


@pytest.mark.parametrize("text", ["cgi:", "cgi:?time_limit=1"])
def test_without_a_path_there_is_nothing_to_serve(text: str) -> None:
    with pytest.raises(ConfigurationError, match="names no script"):
        load_application(text)
