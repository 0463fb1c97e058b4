"""Python CGI scripts kept warm, unchanged: `pycgi:PATH`, and PythonScript as a WSGI application."""

from __future__ import annotations

from gateways.pycgi.application import PythonScript
from gateways.pycgi.settings import Settings, load

__all__ = ["PythonScript", "Settings", "load"]
