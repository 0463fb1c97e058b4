"""What an application's answer tells, apart from that it is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateways.doctor.findings import Finding, Report, command, shown


@dataclass(slots=True)
class Heard:
    """An answer: where it was asked for, and what came."""

    about: str
    target: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    errors: bytes

    def header(self, name: str) -> str:
        """Return the first header called `name` in small letters, or an empty string."""
        return next((value for each, value in self.headers if each.lower() == name), "")


def judge_application(heard: Heard, app_status: int, protocol_status: int, report: Report) -> None:
    """Find that the application failed, or says that it does not know what to do."""
    known = by_error_output(heard.about, heard.errors) or _by_body(heard)
    if known is not None:
        report.add(known)
    elif protocol_status:
        report.add(refused(heard.about, f"protocolStatus {protocol_status}"))
    elif heard.status >= 500:
        report.add(_failed(heard))
    elif app_status:
        report.add(
            Finding(
                "exit-status",
                heard.about,
                f"the application ended the request with exit status {app_status}",
                "it says that the answer is not complete, although its status is"
                f" {heard.status}; {last_line(heard.errors)}",
                advice="its own log says why",
            )
        )


def _failed(heard: Heard) -> Finding:
    last = last_line(heard.errors)
    if heard.status == 503:
        why = "it is overloaded, or shut for maintenance"
        advice = "gateways logs what its threads do; more --threads or --workers if they only wait"
    else:
        why = "the application itself failed; the web server passes that on"
        advice = "the traceback is in its log; gateways shows the visitor a number, which is in the log too"
    return Finding(
        "answer-5xx",
        heard.about,
        f"GET {heard.target} is answered {heard.status}" + (f": {last}" if last else ""),
        why,
        (_asking_again(heard),),
        advice,
    )


def _asking_again(heard: Heard) -> str:
    kind, _, path = heard.about.partition("+unix:")
    if kind == "http":
        return command("curl", "-i", "--unix-socket", path, f"http://localhost{heard.target}")
    if heard.about.startswith(("http:", "https:")):
        return command("curl", "-i", heard.about)
    return command("gateways", "get", "-i", heard.about, heard.target)


def by_error_output(about: str, errors: bytes) -> Finding | None:
    """Return what the error output of PHP-FPM or fcgiwrap says about the request."""
    if b"Primary script unknown" in errors:
        return _php(about)
    if b"Cannot get script name" in errors:
        return Finding(
            "fcgiwrap-script",
            about,
            "fcgiwrap says: Cannot get script name",
            "it runs the file that SCRIPT_FILENAME names, and there is none, or it is not executable",
            (command("gateways", "get", about, "/", "-V", "SCRIPT_FILENAME=/srv/cgi-bin/x.cgi"),),
            "nginx: fastcgi_param SCRIPT_FILENAME /srv/cgi-bin$fastcgi_script_name; and then:"
            " gateways doctor SCRIPT",
        )
    return None


def _by_body(heard: Heard) -> Finding | None:
    if heard.status == 404 and heard.body.strip() == b"File not found.":
        return _php(heard.about)
    return None


def _php(about: str) -> Finding:
    return Finding(
        "php-script-unknown",
        about,
        "PHP-FPM says: Primary script unknown (the page says: File not found.)",
        "it runs the file that SCRIPT_FILENAME names, and that does not exist for its user: a wrong"
        " root, a chroot, or a folder that it may not enter",
        (command("gateways", "get", about, "/", "-V", "SCRIPT_FILENAME=/srv/www/index.php"),),
        "nginx: fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;",
    )


def refused(about: str, how: str) -> Finding:
    """Return that a FastCGI application refused the request."""
    return Finding(
        "refused",
        about,
        f"the application refused the request: {shown(how, 200)}",
        "it is overloaded, takes one request per connection, or does not know the role; 502",
        advice="more --workers or --threads, or --max-connections; no multiplexing in the web server",
    )


def no_answer(about: str, timeout: float) -> Finding:
    """Return that nothing came in time."""
    return Finding(
        "no-answer",
        about,
        f"the connection was accepted, and nothing came within {timeout:g} s",
        "all threads of the application are busy or stuck, or it waits for something itself;"
        " the web server answers 504 after its own time limit",
        advice="gateways logs what its threads do; --timeout SECONDS waits longer here",
    )


def last_line(errors: bytes) -> str:
    """Return the last line of error output, to be shown."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return shown(lines[-1].strip(), 200) if lines else ""


# SCRIPT_NAME and PATH_INFO.

_TOLD = re.compile(rb"""\b(SCRIPT_NAME|PATH_INFO)["']?\s*[=:]\s*["']?(/[\w./~%-]*)""")
_LINK = re.compile(rb"""(?:href|src|action)\s*=\s*["'](/[^"'\s>]+)""", re.IGNORECASE)


def judge_doubling(heard: Heard, script_name: str, report: Report) -> None:
    """Find that the mount point stands twice in a redirect, in links, or in what is told of the environ."""
    mount = script_name or _first_segment(heard.target)
    location = re.sub(r"^[a-z]+://[^/]*", "", heard.header("location"))
    places = [("a redirect", location.encode("latin-1", "replace"))]
    places += [("a link", found) for found in _LINK.findall(heard.body)]
    for what, place in places:
        if mount and place.startswith(f"{mount}{mount}/".encode()):
            report.add(_doubled(heard, f"{what} leads to {shown(place, 80)}", mount))
            return
        # /app.fcgi/app.fcgi/…, whichever path was asked for.
        twice = re.match(rb"(/[\w-]+\.\w+)\1(?=/|$)", place)
        if twice:
            report.add(_doubled(heard, f"{what} leads to {shown(place, 80)}", shown(twice[1])))
            return
    told = dict(_TOLD.findall(heard.body))
    name, info = told.get(b"SCRIPT_NAME", b""), told.get(b"PATH_INFO", b"")
    asked = heard.target.encode("utf-8").startswith(name + name)
    if len(name) > 1 and not asked and (info == name or info.startswith(name + b"/")):
        seen = f"the page tells SCRIPT_NAME {shown(name, 60)} and PATH_INFO {shown(info, 60)}"
        report.add(_doubled(heard, seen, shown(name)))


def _first_segment(target: str) -> str:
    path = target.partition("?")[0]
    return "/" + path.split("/")[1] if path.count("/") > 1 or "." in path else ""


def _doubled(heard: Heard, seen: str, mount: str) -> Finding:
    return Finding(
        "doubled-script-name",
        heard.about,
        seen,
        f"the application is given {mount} both as SCRIPT_NAME and at the beginning of PATH_INFO, and"
        " puts the two together",
        advice=f"gateways serve … --script-name {mount}; or in nginx fastcgi_split_path_info"
        f" ^({re.escape(mount)})(/.*)?$; with fastcgi_param SCRIPT_NAME $fastcgi_script_name; and"
        " fastcgi_param PATH_INFO $fastcgi_path_info;",
    )
