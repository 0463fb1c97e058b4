"""What is shown of a value: bounded, in one line, secrets masked, whatever the value does."""

from __future__ import annotations

import os
from argparse import Namespace
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from wsgiref.headers import Headers

import pytest

from gateways.masking import MASK, MAX_VALUE, bounded_repr, is_secret, printable, shown


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db_password", "PASSWD", "passphrase", "client_secret", "SECRET_KEY"),
        *("token", "accessToken", "csrf_token", "HTTP_AUTHORIZATION", "Proxy-Authorization"),
        *("HTTP_COOKIE", "cookies", "session", "sessionid", "api_key", "apikey", "X-API-Key"),
        *("key", "private_key", "privateKey", "AWS_ACCESS_KEY_ID", "HTTP_X_API_KEY", "pw", "pwd"),
        *("credentials", "signature", "jwt", "PHP_AUTH_PW", b"password", "dbPassword"),
    ],
)
def test_these_are_names_of_secrets(name: object) -> None:
    assert is_secret(name)
    assert shown(name, "hunter2") == MASK


@pytest.mark.parametrize(
    "name",
    [
        *("REQUEST_METHOD", "PATH_INFO", "HTTP_HOST", "keyboard", "monkey", "author", "spinner"),
        "SERVER_SIGNATURE",
        *("environ", "self", "PWD", "REMOTE_USER", "HTTP_ACCEPT", "compass_needle", "", None, 5),
    ],
)
def test_these_are_not(name: object) -> None:
    assert not is_secret(name)
    assert shown(name, "hunter2") == "'hunter2'"


def test_secrets_inside_of_dicts_are_masked() -> None:
    form = {"who": "ada", "password": "hunter2", "more": [{"api_key": "hunter2"}]}
    text = bounded_repr(form)
    assert "hunter2" not in text
    assert "'who': 'ada'" in text


class Login(NamedTuple):
    who: str
    password: str


@dataclass
class Account:
    who: str
    password: str
    tokens: list[str]


class Described:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(who="ada", password="hunter2"),
        defaultdict(str, who="ada", password="hunter2"),
        MappingProxyType({"who": "ada", "password": "hunter2"}),
        UserDict(who="ada", password="hunter2"),
        [("who", "ada"), ("Authorization", "Bearer hunter2")],
        [["who", "ada"], [b"Cookie", b"hunter2"]],
        {"who": "ada", "password": "hunter2"}.items(),
        deque([("who", "ada"), ("password", "hunter2")]),
        UserList([("who", "ada"), ("password", "hunter2")]),
        Headers([("who", "ada"), ("Authorization", "Bearer hunter2")]),
        Namespace(who="ada", password="hunter2"),
        SimpleNamespace(who="ada", password="hunter2"),
        Login("ada", "hunter2"),
        Account("ada", "hunter2", ["a, hunter2", "hunter2"]),
        Described("<Request ada Authorization: Bearer hunter2>"),
        Described("ada host=db password=hunter2 port=5"),
        Described("Client(ada, api_key=Key(['a', 'hunter2'], x=\"it's hunter2\"))"),
        Described("ada {'token': 'hunter2', 'x': 5}"),
        Described("ada " + "x" * 380 + " password='hunter2'"),
        Described("ada password='" + "x" * 1980 + "hunter2'"),
        Described("ada " + "x" * 385 + " postgres://me:hunter2@db"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_secrets_inside_of_other_objects_are_masked(value: object) -> None:
    for each in (value, [value], {"x": value}):
        text = bounded_repr(each)
        assert "hunter2" not in text
        assert "ada" in text


def test_the_process_environment_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    text = bounded_repr(os.environ)
    assert "hunter2" not in text
    assert "'HOME': '/home/ada'" in text


def test_cookies_show_their_names() -> None:
    text = bounded_repr(SimpleCookie("cart=hunter2"))
    assert "cart" in text
    assert "hunter2" not in text


def test_what_stands_beside_a_secret_is_shown() -> None:
    assert bounded_repr(Described("X(password='a', b=5)")) == f"X(password={MASK}, b=5)"
    assert bounded_repr(Described("X(keyboard='a', b=5)")) == "X(keyboard='a', b=5)"
    assert bounded_repr(("token", "a")) == f"('token', {MASK})"
    assert bounded_repr(("token", "a", "b")) == "('token', 'a', 'b')"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://me:hunter2@db/x?y=a@b", "postgres://•••@db/x?y=a@b"),
        ("http://example.org/@me", "http://example.org/@me"),
        ("http://example.org:8000/x?mail=a@b", "http://example.org:8000/x?mail=a@b"),
        ("http://[::1]/x?mail=a@b", "http://[::1]/x?mail=a@b"),
        ("p://me:hun/ter2@db", "p://•••@db"),
        ("p://me:hun?ter2@db and a@b", "p://•••@db and a@b"),
        ("p://me:hun#ter2@db", "p://•••@db"),
        ("p://me:hunter2@a p://me:hunter2@b", "p://•••@a p://•••@b"),
    ],
)
def test_the_password_of_an_address_is_masked(text: str, expected: str) -> None:
    assert bounded_repr(text) == f"'{expected}'"
    assert bounded_repr([text]) == f"['{expected}']"
    assert bounded_repr(Described(text)) == expected


@pytest.mark.parametrize("before", [0, 380, 388, 1985, 1990, 1992, 1993, 1995, 1999])
@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hunter2" * 500, "123456" * 500])
def test_an_address_is_masked_wherever_the_text_is_cut(before: int, password: str) -> None:
    address = "x" * before + f"p://me:{password}@db"
    for value in (address, address.encode(), [address], Described(address), {"x": address}):
        text = bounded_repr(value)
        assert "hun" not in text
        assert "123" not in text.partition("…")[0].replace(f"… ({len(address):,}", "")


class Name(str):
    __slots__ = ()

    def __getitem__(self, key: object) -> str:
        raise RuntimeError("no")

    __eq__ = __iter__ = decode = __getitem__  # type: ignore[assignment]  # whatever may be asked
    __hash__ = str.__hash__


def test_a_name_that_is_no_plain_text_is_survived() -> None:
    assert shown(Name("path"), "a value") == "'a value'"
    assert shown(Name("password"), "a value") == MASK
    assert "a value" not in bounded_repr({Name("password"): "a value"})


class Lazy:
    """As an ORM's query: its length is a question to the database."""

    def __len__(self) -> int:
        raise AssertionError("the length was asked for")

    def __iter__(self) -> Iterator[object]:
        raise AssertionError("it was read")

    def __repr__(self) -> str:
        return "<Lazy [1, 2, … remaining truncated]>"


def test_an_object_that_is_lazy_stays_so() -> None:
    assert bounded_repr(Lazy()) == "<Lazy [1, 2, … remaining truncated]>"
    assert bounded_repr(range(10**9)) == "range(0, 1000000000)"


def test_of_what_is_long_the_beginning_or_the_number_is_told() -> None:
    assert bounded_repr(deque(range(300_000))).endswith("11, … 299,988 more])")
    assert bounded_repr("x" * 10_000_000).endswith("… (10,000,000 in all)")


class Counted:
    count = 0

    def __repr__(self) -> str:
        Counted.count += 1
        return "x" * 400


def test_no_more_is_made_than_can_be_shown() -> None:
    Counted.count = 0
    bounded_repr([[[Counted()] * 12] * 12] * 12)
    assert Counted.count < 12


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class NotText:
    def __repr__(self) -> str:
        return 5  # type: ignore[return-value]  # the fault that is tried


class Huge:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class Deep:
    def __repr__(self) -> str:
        return f"<{self!r}>"


def recursive() -> list[Any]:
    values: list[Any] = []
    values += [values, {"again": values}]
    return values


@pytest.mark.parametrize(
    "value",
    [
        Raises(ValueError("no")),
        Raises(SystemExit(3)),
        Raises(MemoryError()),
        NotText(),
        Deep(),
        Huge(),
        recursive(),
        "x" * 10_000_000,
        b"\0" * 1_000_000,
        list(range(1_000_000)),
        dict.fromkeys(range(100_000), "x" * 1000),
        {("a" * 500, index): ["b" * 500] * 500 for index in range(100)},
        1 << 1_000_000,
        type("N" * 100_000, (), {"__repr__": lambda self: 1 / 0})(),
    ],
    ids=lambda value: type(value).__name__[:20],
)
def test_nothing_makes_it_long_or_makes_it_raise(value: object) -> None:
    text = bounded_repr(value)
    assert text
    assert len(text) < MAX_VALUE + 50
    assert text.isprintable()


def test_what_raises_is_said() -> None:
    assert bounded_repr(Raises(ValueError())) == "<Raises, whose repr raised ValueError>"
    assert bounded_repr([1, Raises(ValueError()), 3]).endswith("ValueError>, 3]")


def test_what_is_left_out_is_counted() -> None:
    assert bounded_repr(list(range(100))).endswith("11, … 88 more]")


def test_control_characters_are_escaped() -> None:
    class Terminal:
        def __repr__(self) -> str:
            return "\x1b[2J\n\u202e\udc80"

    assert bounded_repr(Terminal()) == "\\x1b[2J\\x0a\\u202e\\udc80"
    assert printable("a\nb\x1b", "\n") == "a\nb\\x1b"
