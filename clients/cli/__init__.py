"""`assistant`, the command line: one module per command, heavy imports only where needed."""

import sys


def main() -> None:
    """Entry point of the `assistant` script; ends the process."""
    from clients.cli.app import run

    sys.exit(run(sys.argv[1:]))
