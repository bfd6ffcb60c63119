"""A console whose text the tests read."""

from __future__ import annotations

import re
from io import StringIO

from rich.console import Console

from daemon.mirror.progress import MirrorProgress
from tests.support.clock import FakeClock


class Said:
    """A console's text, and the clock of the progress that writes there."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.clock = FakeClock(auto=False)
        self._file = StringIO()
        self._console = Console(
            file=self._file, force_terminal=terminal, width=160, _environ={"TERM": "xterm"}, color_system=None
        )

    def progress(self) -> MirrorProgress:
        return MirrorProgress(self._console, self.clock)

    def lines(self) -> list[str]:
        """Returns the lines without the codes that move a terminal's cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", self._file.getvalue()).splitlines()
