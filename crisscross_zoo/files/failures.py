"""What is written down of a file that failed: a row of ``failed.jsonl``, of an evaluation's results, of a report."""

from __future__ import annotations

from crisscross_zoo.errors import CrissCrossError

FAILED_NAME = "failed.jsonl"
"""One row a line, as JSON, in the folder of what did not fail."""


def failure_row(path: str, error: CrissCrossError, *, modality: str | None = None) -> dict[str, str]:
    """Describe a failed file.

    Args:
        path: As it was given.
        error: Why it failed.
        modality: What was wanted of it, where that differs from run to run.
    """
    wanted = {} if modality is None else {"modality": modality}
    return {
        "path": path, **wanted, "error": type(error).__name__, "reason": error.reason, "remedy": error.remedy,
    }  # fmt: skip
