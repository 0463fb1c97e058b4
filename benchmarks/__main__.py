"""python3 -m benchmarks COMMAND"""

from __future__ import annotations

import argparse

from benchmarks import (
    bodies,
    cgi,
    compare,
    environment,
    idle,
    instructions,
    memory,
    page,
    picture,
    quick,
    sleeper,
    suite,
)

COMMANDS = {
    "full": suite,
    "quick": quick,
    "cgi": cgi,
    "compare": compare,
    "instructions": instructions,
    "memory": memory,
    "idle": idle,
    "sleeper": sleeper,
    "bodies": bodies,
    "picture": picture,
    "page": page,
}
OFFLINE = ("picture", "page")
"""Those that measure nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        described = module.__doc__ or ""
        module.add_arguments(
            commands.add_parser(
                name,
                help=described.splitlines()[0],
                description=described,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    options = parser.parse_args()
    if options.command not in OFFLINE:
        for problem in environment.prepare():
            print(f"not here, and left out: {problem}")
    COMMANDS[options.command].main(options)


if __name__ == "__main__":
    main()
