"""What gateways costs beside other servers.  `python3 -m benchmarks --help` names the commands.

Standard library only, and gateways is never imported: it is a program that is started, like the
others.
"""
