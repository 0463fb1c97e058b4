#!/usr/bin/python3
# Run:  gateways serve "pycgi:samples/cgi-bin/upload.py?interpreter=/usr/bin/python3" -b 127.0.0.1:9000
#
# A form with a file, as CGI scripts in Python read one: the module `cgi` was part of Python until
# 3.12, and later it is `pip install legacy-cgi`.  Nothing in this script knows of gateways: it gives
# the same under Apache, behind cgi: and behind pycgi: in both of its modes.
import cgi
import hashlib
import os

form = cgi.FieldStorage()
print("Content-Type: text/plain; charset=utf-8")
print()
print(os.environ["REQUEST_METHOD"], "with", os.environ.get("CONTENT_LENGTH") or "no", "bytes")
for name in sorted(form.keys()):
    fields = form[name] if isinstance(form[name], list) else [form[name]]
    for field in fields:
        if field.filename:
            digest = hashlib.sha256(field.file.read()).hexdigest()
            print(f"{name}: file {field.filename!r} of type {field.type}, sha256 {digest}")
        else:
            print(f"{name}: {field.value!r}")
