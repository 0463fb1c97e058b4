"""Run:  gateways serve samples/shared-hosting/fastcgi/application.py -b 127.0.0.1:9000

What a shared host is to serve; put your own application in its place.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# (Types are left out here: it is to be read at a glance.)

import hashlib
import os

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>It works</title><link rel="stylesheet" href="{root}/static/style.css">
<h1>It works</h1>
<p>This is the page {path}, made by process {process}.</p>
<p><a href="{root}/">Home</a>, <a href="{root}/a/pretty/url">a pretty URL</a>,
<a href="{root}/crash">a fault</a>.</p>
<form method="post" action="{root}/upload" enctype="multipart/form-data">
<p><input type="file" name="file"> <button>Upload</button></p></form>
"""


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/crash":
        raise RuntimeError("this is what a fault looks like")
    if path == "/upload":
        body = environ["wsgi.input"].read()
        text = f"{len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()}\n"
        return answer(start_response, "200 OK", "text/plain", text)
    if path == "/" or path.startswith("/a/"):
        root = environ["SCRIPT_NAME"]
        text = PAGE.format(root=escaped(root), path=escaped(path), process=os.getpid())
        return answer(start_response, "200 OK", "text/html", text)
    return answer(start_response, "404 Not Found", "text/plain", "There is no such page.\n")


def answer(start_response, status, kind, text):
    body = text.encode()
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def escaped(text):
    """What WSGI spells as latin-1, for a page."""
    text = text.encode("latin-1").decode("utf-8", "replace")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
