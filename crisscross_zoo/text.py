"""Numbers as text: counts with their noun, durations, percentages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``, ``1 class``, ``2 classes``: a number and its noun."""
    if number == 1:
        return f"{number:,} {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def duration(seconds: float) -> str:
    """Return ``42 s``, ``12.5 min`` or ``3.1 h``."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if round(seconds / 60, 1) < 60 else f"{seconds / 3600:.1f} h"


def percent(mean: float, std: float = 0.0) -> str:
    """Return a fraction as ``50.0 %``, or as ``50.0 ± 1.2 %`` with its standard deviation."""
    spread = f" ± {100 * std:.1f}" if std else ""
    return f"{100 * mean:.1f}{spread} %"
