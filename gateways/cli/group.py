"""The command line but for `gateways cgi`: the click group.

Each command's module is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module

import click

import gateways
from gateways.cli.told import say, tell

COMMANDS = {
    "serve": "gateways.cli.serve",
    "cgi": "gateways.cli.cgi_help",
    "warm": "gateways.cli.warm",
    "get": "gateways.cli.get",
    "explain": "gateways.cli.explain",
    "doctor": "gateways.cli.doctor",
    "demo": "gateways.cli.demo",
}


class _Group(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(COMMANDS[name]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        name = arguments[0]
        near = get_close_matches(name, COMMANDS, 1)
        if name not in COMMANDS and not name.startswith("-") and near:
            context.fail(f'there is no command "{name}"; did you mean {near[0]}?')
        return super().resolve_command(context, arguments)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    import platform  # with the installed version's metadata it is three megabytes

    python = f"{platform.python_implementation()} {platform.python_version()}"
    click.echo(f"gateways {gateways.__version__} ({python})")
    context.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def group() -> None:
    """Put any WSGI application behind any web server, over CGI, FastCGI or SCGI."""


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code, having said in a line what went wrong."""
    try:
        return tell(
            lambda: group.main(arguments or ["--help"], prog_name="gateways", standalone_mode=False)
        )
    except click.ClickException as error:
        return say(_words_of(error), error.exit_code)
    except click.Abort:
        return 130


def _words_of(error: click.ClickException) -> str:
    words = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        words += f' (see "{context.command_path} --help")'
    return words
