"""Run:  gateways serve samples/hello.py -b 127.0.0.1:9000

Then ask it:  gateways get fcgi://127.0.0.1:9000/
"""


def application(environ, start_response):  # type: ignore[no-untyped-def]  # a first look at WSGI needs no types
    body = f"Hello from {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
