"""What an evaluation tells its caller while it runs: lines to read, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crisscross_zoo.errors import CrissCrossError, shown
from crisscross_zoo.text import counted

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done of it, and how much of it there is; 0: that is not known."""


NAMED_FAILURES = 3
"""How many files that fail alike are named; of more, one is."""


class Reporter:
    """Passes on lines and progress to a caller's functions.

    Args:
        on_message: Called with each line. None: nobody reads them.
        on_progress: Called as a stage goes on.
    """

    def __init__(
        self, on_message: Callable[[str], None] | None = None, on_progress: Progress | None = None
    ) -> None:
        self._on_message, self._on_progress = on_message, on_progress
        self._failed: set[str] = set()

    def message(self, line: str) -> None:
        """Pass on a line."""
        if self._on_message is not None:
            self._on_message(line)

    def report_failures(self, failures: Mapping[str, CrissCrossError]) -> None:
        """Pass on that files failed, each once: it may be in several folds. The same of many files is one line."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for path, error in failures.items():
            if path not in self._failed:
                self._failed.add(path)
                kinds.setdefault((error.reason, error.remedy), []).append(error.path or path)
        for (reason, remedy), paths in kinds.items():
            text = f"{reason}; {remedy}" if remedy else reason
            if len(paths) > NAMED_FAILURES:
                self.message(f"{counted(len(paths), 'file')}, such as {shown(paths[0])}: {text}")
            else:
                for path in paths:
                    self.message(f"{shown(path)}: {text}")

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Return what passes on how much of a stage is done, and how much of it there is."""

        def on_progress(done: int, total: int) -> None:
            if self._on_progress is not None:
                self._on_progress(name, done, total)

        return on_progress
