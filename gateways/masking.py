"""What may be shown of a value in a debug page or a crash log: bounded, escaped, and no secrets.

A value is a secret by the name that it stands under (`password`, `HTTP_COOKIE`), also inside of
dicts, and so is what stands between `://` and `@` of an address.  Names are all that is looked at:
a secret under another name, in a message or in a query, is shown.
"""

from __future__ import annotations

MASK = "•••••• (not shown: its name looks like a secret's)"

MAX_VALUE = 400
"""Characters of one value."""

MAX_NAME = 80
MAX_ITEMS = 12
MAX_DEPTH = 3

_PARTS = (
    *("passw", "passphrase", "passcode", "secret", "token", "credential", "authorization"),
    *("cookie", "session", "apikey", "privatekey", "signature", "csrf", "xsrf", "jwt"),
)
"""A name that holds one of these, without its underscores and dashes, is a secret's."""

_WORDS = frozenset({"key", "keys", "pw", "pwd", "pass", "auth", "salt", "otp", "pin", "sid", "dsn"})
"""A name of which one word is one of these is a secret's."""


def is_secret(name: object) -> bool:
    """Whether the value of something that is called `name` is not for strangers' eyes."""
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str) or name == "PWD":  # the shell's word for the working directory
        return False
    spaced = "".join(each.lower() if each.isalnum() else " " for each in _words(name[:200]))
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
    text = printable(_repr(value, MAX_DEPTH))
    if "://" in text:
        text = _without_user(text)
    return cut(text, MAX_VALUE)


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


def _repr(value: object, depth: int) -> str:
    kind = type(value)
    try:
        if kind is str or kind is bytes or kind is bytearray:
            return _text(value)  # type: ignore[arg-type]  # it is one of the three
        if kind is dict:
            return _mapping(value, depth)  # type: ignore[arg-type]  # it is a dict
        if kind in _BRACKETS:
            return _sequence(value, depth)  # type: ignore[arg-type]  # it is one of those
        if kind is int and value.bit_length() > 1000:  # type: ignore[attr-defined]  # it is an int
            return f"an int of {value.bit_length():,} bits"  # type: ignore[attr-defined]  # as above
        text = repr(value)
        return text if len(text) <= MAX_VALUE else cut(text, MAX_VALUE)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{_name_of(kind)}, whose repr raised {_name_of(type(error))}>"


def _name_of(kind: type) -> str:
    return cut(type.__dict__["__name__"].__get__(kind), MAX_NAME)


def _text(value: str | bytes | bytearray) -> str:
    # What is left out is never made a repr of: it may be a gigabyte.
    text = repr(value[:MAX_VALUE])
    return text if len(value) <= MAX_VALUE else f"{text}… ({len(value):,} in all)"


_BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}"}


def _sequence(value: list[object], depth: int) -> str:
    brackets = _BRACKETS[type(value)]
    opening, closing = brackets[0], brackets[1]
    if depth == 0:
        return f"{opening}…{closing}"
    parts = [_repr(each, depth - 1) for each in _first(value)]
    return f"{opening}{_joined(parts, len(value))}{closing}"


def _mapping(value: dict[object, object], depth: int) -> str:
    if depth == 0:
        return "{…}"
    parts = []
    for name in _first(value):
        held = MASK if is_secret(name) else _repr(value[name], depth - 1)
        parts.append(f"{_repr(name, depth - 1)}: {held}")
    return f"{{{_joined(parts, len(value))}}}"


def _first(values: list[object] | dict[object, object]) -> list[object]:
    return [each for each, _ in zip(values, range(MAX_ITEMS), strict=False)]


def _joined(parts: list[str], count: int) -> str:
    more = [f"… {count - len(parts):,} more"] if count > len(parts) else []
    return ", ".join(parts + more)


def _without_user(text: str) -> str:
    """Take user and password out of each address in `text`: `postgres://me:pass@host`."""
    first, *rest = text.split("://")
    kept = [first]
    for part in rest:
        end = next((n for n, each in enumerate(part) if each in "/?# '\""), len(part))
        user, at, host = part[:end].rpartition("@")
        kept.append(f"•••{at}{host}{part[end:]}" if at and user else part)
    return "://".join(kept)
