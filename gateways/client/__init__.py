"""The edge that asks: talk to anything that answers FastCGI or SCGI, in blocking calls.

    answer = request("fcgi://127.0.0.1:9000", "/greet?name=Ada")
    answer.status, answer.headers, answer.read()

    with connect("fcgi+unix:/run/app.sock") as connection:        several requests, one connection
        connection.request(variables("/first")).read()

    application = ProxyApplication("scgi://127.0.0.1:4000")       a WSGI application that forwards

One thread at a time may use a connection; it carries one request at a time.
"""

from __future__ import annotations

from gateways.client.connection import Answer, Connection, connect, request
from gateways.client.proxy import ProxyApplication
from gateways.client.variables import variables

__all__ = ["Answer", "Connection", "ProxyApplication", "connect", "request", "variables"]
