"""`gateways cgi` for click: the help, and the way in for whoever calls the group itself."""

from __future__ import annotations

import click

from gateways.cli import cgi


@click.command(
    "cgi",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[--script-name PATH] [--crash-log PATH] [--debug]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="APP")
def command(arguments: tuple[str, ...]) -> int:
    """Answer the one CGI request in the environment.

    For a wrapper script that a web server runs as CGI, or in a first line such as

        #!/usr/bin/env -S gateways cgi

    where the file that follows is the application.  --script-name is the path the application is
    mounted at, where the web server cannot say so.  --crash-log is a private file that gets an
    entry for each fault.  --debug shows the traceback of a failed request to the visitor.  What stands after APP is ignored, because visitors can write there.
    """
    return cgi.main(list(arguments))
