"""`gateways serve` for click: the help, and what is wrong with a command line.

Its options are made from the one table in server/options.py.  A command line in which nothing is
wrong does not come here: see plain.py.
"""

from __future__ import annotations

from typing import Any

import click

from gateways.cli import plain
from gateways.cli.plain import ENVIRONMENT_PREFIX
from gateways.server.options import OPTIONS, Option
from gateways.server.started import DEFAULT_ADDRESSES


def octal(text: str) -> int:
    """Read permissions as chmod takes them; the name of the function is shown in the help."""
    try:
        return int(text, 8)
    except ValueError:
        raise click.BadParameter(f'"{text}" is not an octal number such as 660') from None


class _Serve(click.Command):
    """A command whose help shows the options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        titles = {_flag(option): option.section for option in OPTIONS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(titles.get(parameter.opts[0], "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _flag(option: Option) -> str:
    # A list is given one value at a time.
    return "--" + option.name.replace("_", "-")


def _type(option: Option) -> Any:
    if option.kind == "choice":
        return click.Choice(option.choices)
    return {"int": int, "float": float, "bool": bool, "mode": octal}.get(option.kind, str)


def _help(option: Option) -> str:
    if option.kind == "mode":
        shown = f"{option.default:04o}"
    elif option.kind == "bool":
        shown = "on" if option.default else "off"
    elif option.kind == "float":
        shown = f"{option.default:g} s"
    else:
        shown = str(option.default) if option.default not in ("", ()) else ""
    return f"{option.help}  [{shown}]" if shown else option.help


def _click_option(option: Option) -> click.Option:
    flag = _flag(option)
    return click.Option(
        [f"{flag}/--no-{flag[2:]}" if option.kind == "bool" else flag],
        type=_type(option),
        default=None,  # so that only what was given is handed on
        multiple=option.multiple,
        envvar=ENVIRONMENT_PREFIX + option.name.upper(),
        help=_help(option),
    )


def _serve(application: str, bind: tuple[str, ...], **given: Any) -> int:
    return plain.serve(application, bind, given)


command = _Serve(
    "serve",
    callback=_serve,
    params=[
        click.Argument(["application"], metavar="APP"),
        click.Option(
            ["-b", "--bind"],
            multiple=True,
            metavar="ADDRESS",
            envvar=ENVIRONMENT_PREFIX + "BIND",
            help="Where to listen: fcgi://HOST:PORT, fcgi+unix:PATH, scgi://…, fcgi+fd:0; HOST:PORT"
            " and PATH mean FastCGI. Repeat for more.  [the sockets of whoever started this: a web"
            f" server, spawn-fcgi, systemd; else {DEFAULT_ADDRESSES['fcgi']}]",
        ),
        *(_click_option(option) for option in OPTIONS),
    ],
    help="""Serve a WSGI application until stopped.

    APP is package.module:attribute, a factory such as package.module:create_app(), or a file:
    app.py, app.wsgi, app.fcgi, each with an optional :attribute (application, then app), or
    cgi:PATH, a CGI script or a folder of them.

    Every option may also stand in the environment: --graceful-timeout as
    GATEWAYS_GRACEFUL_TIMEOUT.  A list holds spaces between its values there.
    """,
)
