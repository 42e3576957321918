"""`assistant bench`: hands over to the daemon's own program, as clients do not load the engine."""

import subprocess
import sys

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure how fast a model runs on this machine."""
    # not exec: a parent that waits is what shells and Ctrl-C expect on every system
    try:
        sys.exit(subprocess.call([sys.executable, "-m", "assistantd.bench", *arguments]))
    except KeyboardInterrupt:
        sys.exit(130)
