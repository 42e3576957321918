"""Shows Progress messages on stderr: a bar or a passing line on a terminal, few lines elsewhere."""

import os
import sys
from typing import TYPE_CHECKING

from assistantd.localisation.width import cut
from assistantd.protocol import Progress
from clients.cli.output import clean, note

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_PERCENT_STEP = 10
"""In a pipe, a download says where it is this often."""


class Reporter:
    """Callable for `on_progress`; `clear` (or leaving its `with` block) before printing text.

    Attributes:
        mid_line: text was printed on stdout, and its line has not ended.
    """

    def __init__(self) -> None:
        self.mid_line = False
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._line_shown = False
        self._last_step: tuple[str, int | str] | None = None
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Show where the daemon is."""
        if progress.stage == "connection":
            self._lasting(progress)
        elif not self._terminal:
            self._plain(progress)
        elif progress.stage in ("download", "verify"):
            self._bar(progress)
        else:
            self._passing(progress)

    def clear(self) -> None:
        """Take away the passing line and the bar."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._stage = ""
        if self._line_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._line_shown = False

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def _plain(self, progress: Progress) -> None:
        """A line when something long begins, and for each tenth of a download."""
        if progress.stage not in ("download", "verify", "load"):
            return
        if progress.stage == "load" and progress.completed:
            return  # that it goes on, and soon ends
        step: int | str = progress.message if progress.stage == "load" else 0
        percent = ""
        if progress.stage == "download" and progress.completed is not None and progress.total:
            step = 100 * progress.completed // progress.total // _PERCENT_STEP
            percent = f" {step * _PERCENT_STEP} %"
        if (progress.stage, step) != self._last_step:
            self._last_step = (progress.stage, step)
            print(f"assistant: {clean(progress.message)}{percent}", file=sys.stderr, flush=True)

    def _lasting(self, progress: Progress) -> None:
        """A line that stays, below the text that it interrupts."""
        self.clear()
        if self.mid_line and self._terminal and sys.stdout.isatty():
            sys.stderr.write("\n")
        note(progress.message)

    def _passing(self, progress: Progress) -> None:
        """One line that the next one replaces."""
        if self._bars is not None:
            self.clear()
        percent = ""
        if progress.completed and progress.total:  # 0 % for a minute looks as if it hung
            percent = f" {100 * progress.completed // progress.total} %"
        width = max(20, _columns() - 8)
        sys.stderr.write(f"\r\x1b[K{cut(clean(progress.message), width)}{percent}")
        sys.stderr.flush()
        self._line_shown = True

    def _bar(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        if self._bars is None:
            self.clear()
            text = TextColumn("{task.description}", markup=False)
            self._bars = Bars(
                text,
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        if self._stage != progress.stage or self._task is None:
            self._stage = progress.stage
            self._task = self._bars.add_task(clean(progress.message), total=progress.total)
        self._bars.update(
            self._task,
            description=clean(progress.message),
            completed=progress.completed or 0,
            total=progress.total,
        )


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:  # not a terminal after all
        return 80
