"""Draw docs/session.svg: run real commands against a running daemon and record what they print.

python docs/picture.py
"""

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = (
    'assistant --temperature 0 --stats "What is the capital of France?"',
    'assistant --temperature 0 --max-tokens 40 "Name three colours."',
    "assistant status",
)


def main() -> None:
    """Run the commands, draw the picture."""
    console = Console(record=True, width=88, file=sys.stderr, force_terminal=True)
    for command in COMMANDS:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        console.print(Text(done.stdout.rstrip()))
        if done.stderr:
            console.print(Text(done.stderr.rstrip(), style="dim"))
        console.print()
    svg = console.export_svg(title="assistant")
    # the font comes from the reader's machine, not from the network
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    Path(__file__).with_name("session.svg").write_text(svg)


if __name__ == "__main__":
    main()
