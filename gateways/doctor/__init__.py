"""Finds out why a script, a socket, a URL or a line of an error log is in trouble.

    report = doctor.examine("/srv/cgi-bin/hello.cgi")
    report.findings[0].seen, .why, .commands         what was seen, why it fails, what mends it

Nothing is changed unless `fix` is asked for, and no script is executed unless `run` is.
"""

from __future__ import annotations

from gateways.doctor.findings import Finding, Report, Wishes
from gateways.doctor.kinds import examine

__all__ = ["Finding", "Report", "Wishes", "examine"]
