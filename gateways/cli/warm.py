"""`gateways warm APP -o FILE`: write a CGI file that keeps the application running."""

from __future__ import annotations

import os

import click

from gateways.warm import IDLE_SECONDS, THREADS, Plan
from gateways.warm.writing import write_stub


@click.command("warm")
@click.argument("application", metavar="APP")
@click.option("-o", "--output", required=True, metavar="FILE", help="The CGI file to write.")
@click.option("--python-stub", is_flag=True, help="Write it in Python even where a C compiler is.")
@click.option(
    "--idle",
    type=click.FloatRange(0, 31_536_000),
    default=IDLE_SECONDS,
    help=f"Seconds without a request after which the daemon ends; 0 is never.  [{IDLE_SECONDS}]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=THREADS,
    help=f"Threads of the daemon.  [{THREADS}]",
)
@click.option("--script-name", default="", metavar="PATH", help="As for gateways serve.")
@click.option("--debug", is_flag=True, help="As for gateways serve.")
@click.option(
    "--touch-reload",
    multiple=True,
    metavar="FILE",
    help="Touching this file restarts the daemon; repeat for more.",
)
@click.option("--crash-log", default="", metavar="PATH", help="As for gateways serve.")
@click.option(
    "--runtime-dir",
    default="",
    metavar="FOLDER",
    help="The private folder for the socket, made with mode 700 where it is missing."
    "  [$XDG_RUNTIME_DIR/gateways, else /tmp/gateways-UID]",
)
@click.option(
    "--env",
    "keep",
    multiple=True,
    metavar="NAME",
    help="Variable of the web server's environment that the daemon takes over; repeat for more.",
)
@click.option("--force", is_flag=True, help="Write FILE although something else is there.")
def command(
    application: str,
    output: str,
    python_stub: bool,
    idle: float,
    threads: int,
    script_name: str,
    debug: bool,
    touch_reload: tuple[str, ...],
    crash_log: str,
    runtime_dir: str,
    keep: tuple[str, ...],
    force: bool,
) -> None:
    """Write a CGI file that hands its requests to a resident daemon.

    The daemon is started by the first request, under the web server's user, and ends when it is
    idle or when the application's files change. Where it cannot run, the file is plain CGI.
    """
    plan = Plan(
        application,
        os.getcwd(),
        idle=idle,
        threads=threads,
        script_name=script_name,
        debug=debug,
        touch_reload=touch_reload,
        crash_log=crash_log,
        keep=keep,
        cwd=os.path.dirname(os.path.abspath(output)),
    )
    kind = write_stub(
        plan,
        output,
        python=python_stub,
        runtime_dir=os.path.abspath(runtime_dir) if runtime_dir else "",
        force=force,
    )
    click.echo(f"{output} is {kind}")
