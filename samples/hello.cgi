#!/usr/bin/env python3
# Run:  REQUEST_METHOD=GET samples/hello.cgi
#
# Turns any WSGI application into a CGI script.  Copy this file to where your web server runs CGI
# scripts, mode 755, with Unix line ends, and put your own application in the place of `application`.
#
# The interpreter in the first line must be able to import gateways: name the one of your virtual
# environment (#!/path/to/.venv/bin/python), or copy the folder gateways/ beside this file, since
# answering a CGI request needs nothing but the standard library.

import gateways.cgi


def application(environ, start_response):
    body = f"Hello from {environ['SCRIPT_NAME']}{environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


gateways.cgi.run(application)
