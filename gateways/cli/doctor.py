"""`gateways doctor`: why does it not work?"""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import click

from gateways.cli.get import seconds

if TYPE_CHECKING:
    from gateways.doctor import Finding, Report


@click.command("doctor")
@click.argument("thing", metavar='SCRIPT|FILE|ADDRESS|URL|"LOG LINE"')
@click.option("--fix", is_flag=True, help="Do the harmless mendings, then look again.")
@click.option("--run", is_flag=True, help="Run a CGI script once, as a web server would.")
@click.option(
    "--user", default="", metavar="NAME", help="The web server's user.  [www-data, nginx, …]"
)
@click.option(
    "--script-name", default="", metavar="PATH", help="The path the application is mounted at."
)
@click.option(
    "--timeout", type=seconds, default="10", metavar="SECONDS", help="Seconds for each wait.  [10]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    thing: str, fix: bool, run: bool, user: str, script_name: str, timeout: float, as_json: bool
) -> int:
    """Find out why something does not work, and what mends it.

    \b
        gateways doctor /srv/cgi-bin/hello.cgi
        gateways doctor fcgi+unix:/run/app.sock
        gateways doctor http://localhost/app/
        gateways doctor "connect() to unix:/run/app.sock failed (13: Permission denied)"
        tail /var/log/nginx/error.log | gateways doctor -

    --fix makes a script executable, and removes carriage returns and a byte order mark; the file
    as it was stays beside it.  It mends only files of whoever runs doctor: as root, root's own.
    Nothing else is changed, and a script is executed with --run alone.
    The exit code is 1 when there are findings that are not mended.
    """
    from gateways import doctor

    report = doctor.examine(
        thing, user=user, fix=fix, run=run, timeout=timeout, script_name=script_name
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal or a pipe cannot show is escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    return 0 if report.healthy else 1


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    from gateways.doctor.findings import shown

    # A command is copied whole, so no line is broken.
    console = Console(highlight=False, soft_wrap=True, file=sys.stdout)
    for finding in report.findings:
        style = "green" if finding.fixed else "bold red"
        mark = "mended" if finding.fixed else "found"
        console.print(Text.assemble((f"{mark}: ", style), (shown(finding.seen, 1000), "bold")))
        for name, text in _lines_of(finding):
            console.print(Text.assemble((f"  {name:<5}", "cyan"), shown(text, 2000)))
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), shown(note, 1000)))
    if not report.findings:
        looked = ", ".join(dict.fromkeys(report.checked))
        words = f"healthy: {report.about} ({looked})" if looked else f"healthy: {report.about}"
        console.print(Text(shown(words, 2000), style="green"))


def _lines_of(finding: Finding) -> list[tuple[str, str]]:
    lines = [("why", finding.why)]
    if finding.fixed:
        return [*lines, ("did", finding.fixed)]
    lines += [("mend", f"$ {each}") for each in finding.commands]
    if finding.advice:
        lines.append(("" if finding.commands else "mend", finding.advice))
    return lines
