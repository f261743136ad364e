"""The row that describes a failed file, in ``failed.jsonl``, in an evaluation's results and in a report."""

from __future__ import annotations

from crisscross_zoo.errors import CrissCrossError

FAILED_NAME = "failed.jsonl"
"""One JSON row per line, in the folder of the outputs."""


def failure_row(path: str, error: CrissCrossError, *, modality: str | None = None) -> dict[str, str]:
    """Return the row of a failed file.

    Args:
        path: The path as it was given.
        error: Why it failed.
        modality: The modality that was requested, if it differs from run to run.
    """
    wanted = {} if modality is None else {"modality": modality}
    return {
        "path": path, **wanted, "error": type(error).__name__, "reason": error.reason, "remedy": error.remedy,
    }  # fmt: skip
