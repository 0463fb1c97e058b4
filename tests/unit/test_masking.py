"""What is shown of a value: bounded, in one line, secrets masked, whatever the value does."""

from __future__ import annotations

from typing import Any

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


def test_the_password_of_an_address_is_masked() -> None:
    text = bounded_repr(["postgres://me:hunter2@db/x?y=a@b", "http://example.org/@me"])
    assert "hunter2" not in text
    assert "@db/x?y=a@b" in text
    assert "http://example.org/@me" in text


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
