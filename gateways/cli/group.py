"""The command line but for `gateways cgi`: the click group, and what errors look like.

Every error is one line that begins with "gateways: "; only the user's own code is shown with a
traceback.  Each command's module is imported when it is used.
"""

from __future__ import annotations

import os
import platform
import sys
from difflib import get_close_matches
from importlib import import_module

import click

import gateways
from gateways.errors import ConfigurationError, GatewayError
from gateways.loading import ApplicationImportError

COMMANDS = {
    "serve": "gateways.cli.serve",
    "cgi": "gateways.cli.cgi_help",
    "get": "gateways.cli.get",
    "explain": "gateways.cli.explain",
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
        name = arguments[0]
        near = get_close_matches(name, COMMANDS, 1)
        if name not in COMMANDS and not name.startswith("-") and near:
            context.fail(f'there is no command "{name}"; did you mean {near[0]}?')
        return super().resolve_command(context, arguments)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    message=f"gateways %(version)s ({platform.python_implementation()} {platform.python_version()})",
    version=gateways.__version__,
)
def group() -> None:
    """Put any WSGI application behind any web server, over CGI, FastCGI or SCGI."""


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code, having said in a line what went wrong."""
    try:
        result = group.main(arguments or ["--help"], prog_name="gateways", standalone_mode=False)
    except click.ClickException as error:
        return _say(_words_of(error), error.exit_code)
    except ApplicationImportError as error:
        sys.stderr.write(error.traceback_text)
        return _say(str(error), 2)
    except ConfigurationError as error:
        return _say(str(error), 2)
    except GatewayError as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough.  Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _words_of(error: click.ClickException) -> str:
    words = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        words += f' (see "{context.command_path} --help")'
    return words


def _say(words: str, code: int) -> int:
    print(f"gateways: {words}", file=sys.stderr)
    return code
