"""What a CGI script writes: a head of "Name: value" lines, an empty line, a body (RFC 3875, §6).

It is judged from the source where the first lines that are printed are literal, and from the
output itself where the script was run.
"""

from __future__ import annotations

import ast
import os
import re
import warnings

from gateways.doctor.findings import Finding, Report, shown
from gateways.errors import ProtocolError
from gateways.headparser import HeadParser

_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
_WHY = (
    "the web server reads header lines up to the first empty line; where it meets anything else"
    " Apache answers 500 and nginx 502"
)


def check_source(path: str, data: bytes, report: Report) -> None:
    """Find a head that is wrong for certain, in the literals that the script prints first."""
    if _is_nph(path):
        return
    try:
        # A warning is of no use here, and telling of it would read the file that it names.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # The interpreter itself has told of it.
    pieces, known_to_end = _printed(tree.body)
    source_line: list[int] = []
    text = b""
    for at, piece in pieces:
        text += piece
        source_line += [at] * piece.count(b"\n")
    if not text:
        return
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines[:-1]):
        at = source_line[number]
        if not line:
            if number == 0:
                report.add(_nothing_before_blank(path, f"line {at} prints an empty line first"))
            return
        if not _HEADER.match(line):
            report.add(_not_a_header(path, f"line {at} prints", line, number))
            return
    if known_to_end and not lines[-1]:
        seen = f"the last that is printed is a header, in line {source_line[-1]}"
        report.add(_no_blank(path, seen))


def _printed(body: list[ast.stmt]) -> tuple[list[tuple[int, bytes]], bool]:
    """Return what is printed at first, with line numbers; and whether that is all there is."""
    found: list[tuple[int, bytes]] = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            continue
        piece = _literal(node)
        if piece is None:
            return found, False
        found.append((node.lineno, piece))
    return found, True


def _literal(node: ast.stmt) -> bytes | None:
    """Return what a print or sys.stdout.write of literals alone writes."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return None
    call = node.value
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    if len(texts) != len(call.args) or not all(isinstance(text, str) for text in texts):
        return None
    words = [str(text) for text in texts]
    if isinstance(call.func, ast.Name) and call.func.id == "print":
        end = "\n"
        for keyword in call.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg == "flush":
                continue
            if keyword.arg != "end" or not isinstance(value, str):
                return None
            end = value
        return (" ".join(words) + end).encode("utf-8", "replace")
    if ast.unparse(call.func) == "sys.stdout.write" and len(words) == 1:
        return words[0].encode("utf-8", "replace")
    return None


def check_output(path: str, output: bytes, report: Report) -> bool:
    """Find what is wrong with the output's head; return whether it is right."""
    if not output:
        report.add(
            Finding(
                "no-output",
                path,
                "run as CGI, it wrote nothing",
                _WHY,
                advice='write a header line and an empty one first: print("Content-Type: text/html\\n")',
            )
        )
        return False
    nph = _is_nph(path)
    if output.startswith(b"HTTP/") != nph:
        report.add(
            Finding(
                "http-line",
                path,
                f'it writes "{shown(output.splitlines()[0], 40)}" first',
                "a script whose name begins with nph- writes the whole HTTP head, and no other one"
                " does: Apache, caddy and haproxy answer 500 or 502",
                advice='write "Status: 200 OK" instead of "HTTP/1.1 200 OK"'
                if not nph
                else "take nph- off the script's name",
            )
        )
        return False
    if nph:
        return True
    lines = output[:65536].replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines):
        if not line and number < len(lines) - 1:
            break
        if line and not _HEADER.match(line) and not (number and line[:1] in b" \t"):
            report.add(_not_a_header(path, "run as CGI, it writes", line, number))
            return False
    else:
        report.add(_no_blank(path, "run as CGI, it ends without an empty line"))
        return False
    if not lines[0]:
        report.add(_nothing_before_blank(path, "run as CGI, it writes an empty line first"))
        return False
    head = [line.partition(b":")[0].lower() for line in lines[:number]]
    if not {b"content-type", b"location", b"status"} & set(head):
        report.add(
            Finding(
                "no-content-type",
                path,
                f"its head has only {shown(b' '.join(head))}",
                "one of Content-Type, Location and Status has to be there (RFC 3875, section 6.2)",
                advice='write "Content-Type: text/html; charset=utf-8" as the first line',
            )
        )
        return False
    try:
        HeadParser().receive(output)
    except ProtocolError as error:
        report.add(
            Finding(
                "bad-head", path, f"its head is wrong: {error}", _WHY, advice="mend that header"
            )
        )
        return False
    return True


def _is_nph(path: str) -> bool:
    """Return whether the script writes the whole HTTP head itself (RFC 3875, section 5)."""
    return os.path.basename(path).startswith("nph-")


def _not_a_header(path: str, where: str, line: bytes, number: int) -> Finding:
    if number:
        return Finding(
            "no-blank-line",
            path,
            f'{where} "{shown(line, 60)}" behind the headers, without an empty line before it',
            _WHY,
            advice="end the headers with an empty line: print()",
        )
    return Finding(
        "output-before-headers",
        path,
        f'{where} "{shown(line, 60)}" before any header',
        _WHY,
        advice='let "Content-Type: text/html; charset=utf-8" and an empty line come first; send what'
        " is for you alone to sys.stderr, which goes to the error log",
    )


def _no_blank(path: str, seen: str) -> Finding:
    return Finding(
        "no-blank-line", path, seen, _WHY, advice="end the headers with an empty line: print()"
    )


def _nothing_before_blank(path: str, seen: str) -> Finding:
    return Finding(
        "no-header",
        path,
        seen,
        "the empty line ends the headers, so there are none; the web server answers 500",
        advice='write "Content-Type: text/html; charset=utf-8" before it',
    )
