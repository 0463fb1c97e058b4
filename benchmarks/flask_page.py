"""A page as frameworks make them: Flask, and a Jinja table of 20 rows; the same at every path."""

from __future__ import annotations

from flask import Flask, render_template
from jinja2 import DictLoader

PAGE = """<!doctype html>
<html lang="en"><head><title>{{ title }}</title></head><body>
<h1>{{ title }}</h1>
<table>
<tr><th>Number</th><th>Article</th><th>Price</th><th>In stock</th></tr>
{% for row in rows %}<tr><td>{{ row.number }}</td><td>{{ row.name }}</td><td>{{ "%.2f"|format(row.price) }}</td>
<td>{% if row.stock %}yes{% else %}no{% endif %}</td></tr>
{% endfor %}</table></body></html>
"""

ROWS = [
    {"number": each, "name": f"Article <{each}>", "price": each * 1.25, "stock": each % 3}
    for each in range(20)
]

application = Flask(__name__)
# A template that is given as text would be compiled again for each request.
application.jinja_loader = DictLoader({"page.html": PAGE})


@application.route("/", defaults={"path": ""})
@application.route("/<path:path>")
def page(path: str) -> str:
    return render_template("page.html", title="Catalogue", rows=ROWS)
