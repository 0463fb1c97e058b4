"""What may be shown of a value in a debug page or a crash log: bounded, escaped, and no secrets.

A value is a secret by the name that it stands under (`password`, `HTTP_COOKIE`), also inside of
mappings, pairs and whatever has the name in its repr, and so is what stands between `://` and `@`
of an address.  Names are all that is looked at: a secret under another name, in a message or in a
query, is shown.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, MappingView, Sequence, Set
from itertools import islice
from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MASK = "•••••• (not shown: its name looks like a secret's)"

MAX_VALUE = 400
"""Characters of one value."""

MAX_NAME = 80
MAX_ITEMS = 12
MAX_DEPTH = 3

MAX_LOOKED_AT = 2000
"""Characters of one value in which secrets are looked for, before it is cut to MAX_VALUE."""

_PARTS = (
    *("passw", "passphrase", "passcode", "secret", "token", "credential", "authorization"),
    *("cookie", "session", "apikey", "privatekey", "signature", "csrf", "xsrf", "jwt"),
)
"""A name that holds one of these, without its underscores and dashes, is a secret's."""

_WORDS = frozenset({"key", "keys", "pw", "pwd", "pass", "auth", "salt", "otp", "pin", "sid", "dsn"})
"""A name of which one word is one of these is a secret's."""

# The shell's word for the working directory, and Apache's line below its error pages.
_NO_SECRETS = frozenset({"PWD", "SERVER_SIGNATURE"})


def is_secret(name: object) -> bool:
    """Whether the value of something that is called `name` is not for strangers' eyes."""
    # A subclass may do what it likes: only what the built-in types say is asked.
    any_name: Any = name
    if issubclass(type(name), bytes):
        text = bytes.__getitem__(any_name, slice(200)).decode("latin-1")
    elif issubclass(type(name), str):
        text = str.__getitem__(any_name, slice(200))
    else:
        return False
    if text in _NO_SECRETS:
        return False
    spaced = "".join(each.lower() if each.isalnum() else " " for each in _words(text))
    joined = spaced.replace(" ", "")
    return any(part in joined for part in _PARTS) or not _WORDS.isdisjoint(spaced.split())


def _words(name: str) -> str:
    """Put a space where camelCase begins a word."""
    return "".join(
        f" {each}" if each.isupper() and before.islower() else each
        for before, each in zip(" " + name, name, strict=False)
    )


def shown(name: object, value: object) -> str:
    """Return what may be shown of `value`, which stands under `name`, in one line; it raises nothing."""
    return MASK if is_secret(name) else bounded_repr(value)


def bounded_repr(value: object) -> str:
    """Return the repr, at most about MAX_VALUE characters, of any value at all, in one line."""
    text = printable(_Repr().of(value, MAX_DEPTH))
    # What stands at the end of a cut text is no reason to cut it once more.
    return text if len(text) < MAX_VALUE + 40 else cut(text, MAX_VALUE)


def cut(text: str, most: int) -> str:
    """Return `text`, its end replaced by words about its length where it is longer than `most`."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text):,} characters)"


def printable(text: str, but: str = "") -> str:
    """Return `text` without characters that could start a new line or move a terminal's cursor.

    Those in `but` stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in but else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


_TEXTS = (str, bytes, bytearray)
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}
_LISTED = (list, tuple, set, frozenset, deque, Sequence, Set, MappingView)
_COOKIES = ("cookie", "morsel")


class _Repr:
    """One value's repr, which stops once there is more than could be shown of it."""

    def __init__(self) -> None:
        self.left = MAX_LOOKED_AT

    def of(self, value: object, depth: int) -> str:
        kind = type(value)
        try:
            text = self._of(kind, value, depth)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            text = f"<{_name_of(kind)}, whose repr raised {_name_of(type(error))}>"
        self.left -= len(text)
        return text

    def _of(self, kind: type, value: Any, depth: int) -> str:
        for text in _TEXTS:
            if issubclass(kind, text) and kind.__repr__ is text.__repr__:
                return _text(text, value)
        if issubclass(kind, int) and int.bit_length(value) > 1000:
            return f"an int of {int.bit_length(value):,} bits"
        if issubclass(kind, dict):
            return self._mapping(kind, dict.items(value), dict.__len__(value), depth)
        if issubclass(kind, Mapping):
            items = ((name, value[name]) for name in value)
            return self._mapping(kind, items, len(value), depth)
        if kind is SimpleNamespace or kind.__name__ == "Namespace":
            return self._mapping(kind, vars(value).items(), len(vars(value)), depth)
        if issubclass(kind, tuple) and type(getattr(kind, "_fields", None)) is tuple:
            named = zip(kind._fields, tuple.__iter__(value), strict=False)  # type: ignore[attr-defined]  # it was asked for
            return self._mapping(kind, named, tuple.__len__(value), depth)
        if issubclass(kind, _LISTED) and not issubclass(kind, (*_TEXTS, range, memoryview)):
            return self._sequence(kind, value, depth)
        return _masked(repr(value))

    def _sequence(self, kind: type, value: Any, depth: int) -> str:
        opening, closing = _BRACKETS.get(kind, ("[", "]"))
        if kind not in _BRACKETS:
            opening, closing = f"{_name_of(kind)}({opening}", f"{closing})"
        if depth == 0:
            return f"{opening}…{closing}"
        count = len(value)
        if count == 2 and issubclass(kind, (tuple, list)):
            first, second = value
            if is_secret(first):
                return f"{opening}{self.of(first, depth - 1)}, {MASK}{closing}"
            return f"{opening}{self.of(first, depth - 1)}, {self.of(second, depth - 1)}{closing}"
        parts = []
        for each in islice(value, MAX_ITEMS):
            if self.left <= 0:
                break
            parts.append(self.of(each, depth - 1))
        return f"{opening}{_joined(parts, count)}{closing}"

    def _mapping(
        self, kind: type, items: Iterable[tuple[object, object]], count: int, depth: int
    ) -> str:
        opening, closing = ("{", "}") if kind is dict else (f"{_name_of(kind)}({{", "})")
        if depth == 0:
            return f"{opening}…{closing}"
        hidden = any(each in _name_of(kind).lower() for each in _COOKIES)
        parts = []
        for name, value in islice(items, MAX_ITEMS):
            if self.left <= 0:
                break
            shown = MASK if hidden or is_secret(name) else self.of(value, depth - 1)
            parts.append(f"{self.of(name, depth - 1)}: {shown}")
        return f"{opening}{_joined(parts, count)}{closing}"


def _name_of(kind: type) -> str:
    return cut(type.__dict__["__name__"].__get__(kind), MAX_NAME)


def _text(kind: Any, value: Any) -> str:
    # What is left out is never made a repr of: it may be a gigabyte.
    length = kind.__len__(value)
    start = kind.__getitem__(value, slice(MAX_LOOKED_AT))
    text = _without_users(repr(start), length > MAX_LOOKED_AT)
    if len(text) <= MAX_VALUE and length <= MAX_LOOKED_AT:
        return text
    return f"{text[:MAX_VALUE]}… ({length:,} in all)"


def _joined(parts: list[str], count: int) -> str:
    more = [f"… {count - len(parts):,} more"] if count > len(parts) else []
    return ", ".join(parts + more)


# Secrets in a text that somebody else made.

_NAME = re.compile(
    r"""(?<![\w-])(?:b?(['"])([\w-]{1,80})\1\s?[:,=]|([A-Za-z_][\w-]{0,79})\s?[=:])\s?"""
)


def _masked(text: str) -> str:
    """Return the beginning of a repr, without addresses' passwords and what stands after secrets' names."""
    start = text[:MAX_LOOKED_AT]
    found = _without_secrets(_without_users(start, len(text) > len(start)))
    if len(found) <= MAX_VALUE and len(start) == len(text):
        return found
    return f"{found[:MAX_VALUE]}… ({len(text):,} characters)"


def _without_secrets(text: str) -> str:
    """Take out the values of `password='…'`, `Authorization: …` and `('token', '…')`."""
    kept = []
    done = 0
    for match in _NAME.finditer(text):
        if match.start() >= done and is_secret(match[2] or match[3]):
            kept += [text[done : match.end()], MASK]
            done = _end_of_value(text, match.end(), "=" in match[0])
    return "".join([*kept, text[done:]])


def _end_of_value(text: str, start: int, one_word: bool) -> int:
    """Return where a value ends that begins at `start`: at a comma or a bracket that is not its own."""
    depth, quote = 0, ""
    number = start
    while number < len(text):
        each = text[number]
        if quote:
            if each == "\\":
                number += 1
            elif each == quote:
                quote = ""
        elif each in "'\"":
            quote = each
        elif each in "([{<":
            depth += 1
        elif each in ")]}>":
            if depth == 0:
                return number
            depth -= 1
        elif depth == 0 and (each in ",\n" or (one_word and each in "; ")):
            return number
        number += 1
    return len(text)


def _without_users(text: str, is_cut: bool) -> str:
    """Take user and password out of each address in `text`: `postgres://me:pass@host`.

    With `is_cut` more would follow, so that the last address may end before its `@`.
    """
    if "://" not in text:
        return text
    first, *rest = text.split("://")
    last = len(rest) - 1
    return "://".join(
        [first, *(_without_user(part, is_cut and n == last) for n, part in enumerate(rest))]
    )


def _without_user(part: str, is_cut: bool) -> str:
    """Take user and password out of what follows a `://`."""
    end = next((n for n, each in enumerate(part) if each in "/?# '\""), len(part))
    user, at, host = part[:end].rpartition("@")
    if user:
        return f"•••{at}{host}{part[end:]}"
    name, colon, port = part[:end].partition(":")
    if at or not colon or name.startswith("["):
        return part
    # What a password should not hold, it may hold: `me:pa/ss@host`.
    word = part.split(None, 1)[0] if part.strip() else ""
    if is_cut and len(word) >= len(part) - 1:
        return "•••"
    if "@" not in word or (port.isdecimal() and len(port) <= 5):
        return part
    return f"•••@{part[word.rindex('@') + 1 :]}"
