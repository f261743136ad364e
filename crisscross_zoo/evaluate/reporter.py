"""Messages and progress that an evaluation reports to its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crisscross_zoo.errors import CrissCrossError, shown
from crisscross_zoo.text import counted

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the number of items done and their total number; a total of 0 is unknown."""


NAMED_FAILURES = 3
"""If no more files than this fail for the same reason, each is named; otherwise only one is."""


class Reporter:
    """Passes messages and progress on to the caller's callbacks.

    Args:
        on_message: Called with each message, a line of text. None: messages are dropped.
        on_progress: Called as a stage progresses. None: progress is not reported.
    """

    def __init__(
        self, on_message: Callable[[str], None] | None = None, on_progress: Progress | None = None
    ) -> None:
        self._on_message, self._on_progress = on_message, on_progress
        self._failed: set[str] = set()

    def message(self, line: str) -> None:
        """Pass a line of text on to ``on_message``."""
        if self._on_message is not None:
            self._on_message(line)

    def report_failures(self, failures: Mapping[str, CrissCrossError]) -> None:
        """Report failed files, each only once, since a file may be in several folds.

        Many files that failed for the same reason are one message.
        """
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
        """Return a callback that reports the progress of a stage: the number of items done, and their total."""

        def on_progress(done: int, total: int) -> None:
            if self._on_progress is not None:
                self._on_progress(name, done, total)

        return on_progress
