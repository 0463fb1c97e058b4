"""Run:  python -m tests.docs_tables      (or  make docs)

Writes docs/options.md from the one table of options, `gateways.server.options.OPTIONS`.
tests/test_docs.py fails when the page is not what this makes.
"""

from __future__ import annotations

from pathlib import Path

from gateways.server.options import OPTIONS, Option

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"

HEAD = """\
# Options

Made from the table in `gateways/server/options.py` by `make docs`; change it there.

The command line of `gateways serve` spells a name with dashes (`--graceful-timeout 10`), Python
with underscores (`gateways.serve(application, graceful_timeout=10)`), the environment in capitals
(`GATEWAYS_GRACEFUL_TIMEOUT=10`); the command line wins over the environment. A name that does not
exist is an error that suggests the nearest one, and so is a value out of its bounds. What happens at
the limits is told in [limits](limits.md).
"""


def options_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for section in dict.fromkeys(option.section for option in OPTIONS):
        parts.append(f"\n## {section}\n\n| option | default | what it does |\n|---|---|---|\n")
        parts += [row(option) for option in OPTIONS if option.section == section]
    return "".join(parts)


def row(option: Option) -> str:
    text = escaped(option.help) + bounds(option)
    return f"| {flag(option)} | {default(option)} | {text} |\n"


def flag(option: Option) -> str:
    dashed = option.name.replace("_", "-")
    # What is on by default needs the name that turns it off.
    return f"`--{dashed}`, `--no-{dashed}`" if option.default is True else f"`--{dashed}`"


def default(option: Option) -> str:
    value = option.default
    if option.kind == "bool":
        return "on" if value else "off"
    if option.kind == "mode":
        return f"`{value:o}`"
    if value in ("", ()):
        return "none"
    if isinstance(value, float):
        return f"{value:g} s"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"


def bounds(option: Option) -> str:
    if option.choices:
        return f" One of {', '.join(f'`{choice}`' for choice in option.choices)}."
    if option.kind in ("int", "float") and option.minimum is not None:
        return f" From {option.minimum:,g} to {exact(option.maximum)}."
    return ""


def exact(number: float | None) -> str:
    return "any number" if number is None else f"{number:,.0f}"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(options_page())
