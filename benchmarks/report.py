"""The result of a benchmark: a table, and ratios with the bound that each should keep."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """A number that can be compared between runs.

    Attributes:
        name: Numerator and denominator.
        value: The ratio.
        bound: The bound that it should keep, or None.
        more_is_better: Whether the bound is a lower bound; otherwise it is an upper bound.
    """

    name: str
    value: float
    bound: float | None = None
    more_is_better: bool = True

    @property
    def kept(self) -> bool:
        """Whether the bound is kept."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.more_is_better else self.value <= self.bound

    def worse_than(self, before: Ratio, fraction: float = 0.2) -> bool:
        """Return whether it is worse than before by more than this fraction."""
        factor = before.value / self.value if self.more_is_better else self.value / before.value
        return factor > 1 + fraction


@dataclass
class Report:
    """One table of a benchmark.

    Attributes:
        title: Heading of the table, one line.
        columns: Names of the columns.
        rows: Cells, as they are printed.
        ratios: The ratios to compare between runs.
        notes: Sentences below the table.
        failures: One line for each measurement that failed, with the reason.
    """

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append([str(cell) for cell in cells])

    def markdown(self) -> str:
        """Return the table, followed by the ratios with their bounds."""
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += map(_line, self.rows)
        bounded = [r for r in self.ratios if r.bound is not None]
        if bounded:
            lines += ["", "| ratio | measured | bound | |", "| --- | --- | --- | --- |"]
            for r in bounded:
                sign, verdict = "≥" if r.more_is_better else "≤", "kept" if r.kept else "**missed**"
                lines.append(f"| {r.name} | {r.value:.2f} | {sign} {r.bound:g} | {verdict} |")
        for note in [*self.notes, *(f"**Failed**: {failure}" for failure in self.failures)]:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return JSON types; :meth:`from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Report:
        """Return the report that :meth:`to_json` stored."""
        return cls(**{**values, "ratios": [Ratio(**r) for r in values["ratios"]]})


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json FILE``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the tables as JSON")


def finish(reports: Sequence[Report], path: Path | None) -> None:
    """Print the tables, and write them as JSON if a file is given."""
    for report in reports:
        print(report.markdown(), flush=True)
    if path is not None:
        path.write_text(json.dumps([r.to_json() for r in reports], indent=1) + "\n", encoding="utf-8")
