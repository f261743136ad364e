"""One table of many results with the paper's numbers, as Markdown, CSV or HTML."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crisscross_zoo.errors import OutputError
from crisscross_zoo.evaluate.releases import describe_missing
from crisscross_zoo.evaluate.results import RESULT_FILE, weights_name
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.settings import suggest
from crisscross_zoo.text import counted

COLUMNS: tuple[str, ...] = (
    "protocol",
    "data set",
    "setup",
    "weights",
    "metric",
    "%",
    "std",
    "paper",
    "chance",
    "folds",
    "test files",
    "chosen on",
    "notes",
)
"""Columns of the table, in order."""

FORMATS: tuple[str, ...] = (".md", ".csv", ".html")


def find_results(paths: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Read all results in some folders and their subfolders.

    Raises:
        OutputError: a folder has no result, or a result is damaged.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(path.rglob(RESULT_FILE))
        if not files:
            raise OutputError(f"has no {RESULT_FILE}", remedy="name the --out of an evaluation", path=path)
        for file in files:
            try:
                result = json.loads(file.read_text(encoding="utf-8"))
                row_of(result)
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                raise OutputError(
                    f"is not a result, or is damaged ({type(error).__name__})",
                    remedy="leave it out, or run the evaluation again",
                    path=file,
                ) from None
            found[file.resolve()] = result
    return list(found.values())


def report_rows(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the table's rows, by column, sorted by protocol, data set, setup and weights."""
    rows = [row for result in results for row in row_of(result)]
    return sorted(rows, key=lambda row: [str(row[name]) for name in COLUMNS[:4]])


def row_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each metric of a result; the paper's number is None if it is unknown or not comparable."""
    folds = list(result["folds"].values())
    notes = []
    if failed := len({bad["path"] for fold in folds for bad in fold["failed"]}):
        notes.append(f"{counted(failed, 'file')} failed")
    if result["shared_content"]:
        notes.append(f"{counted(sum(result['shared_content'].values()), 'test file')} also in training")
    if damaged := len({bad["path"] for fold in folds for bad in fold["damaged"]}):
        notes.append(f"{counted(damaged, 'file')} damaged")
    if result["released"]:
        notes.append("follows the released code")
    notes += [f"{name} {value}" for name, value in result["changed"].items()]
    notes += result["absent"]
    # Results of older versions have neither.
    notes += describe_missing(result["dataset"], result.get("incomplete", {}))
    chance = result.get("chance", {})
    metrics: dict[tuple[str, str], Mapping[str, float]] = {}
    if "recall" in result:
        for direction, recall in result["recall"].items():
            metrics |= {(f"R@{k}, {direction}", k): value for k, value in recall.items()}
    else:
        metrics["top-1", "1"] = result["top1"]
    published = result["published"]
    chosen_on = {"test": "test", "train": "training"}.get(folds[0].get("chosen_on"), "nothing")
    return [
        {
            "protocol": result["protocol"],
            "data set": result["dataset"] if result["dataset"] != "folder" else Path(result["root"]).name,
            "setup": result["setup"],
            "weights": weights_name(result),
            "metric": name,
            "%": round(100 * value["mean"], 2),
            "std": round(100 * value["std"], 2) if len(folds) > 1 else None,
            "paper": published["value"] if published and name == "top-1" and not result["changed"] else None,
            "chance": round(100 * chance[k], 2) if k in chance else None,
            "folds": ", ".join(result["folds"]),
            "test files": sum(fold["test_files"] for fold in folds),
            "chosen on": chosen_on,
            "notes": "; ".join(notes) or None,
        }
        for (name, k), value in metrics.items()
    ]


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_text(row[n]).replace("|", "\\|") for n in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a complete HTML page."""

    def line(tag: str, cells: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line("td", (_text(row[n]) for n in COLUMNS)) for row in rows)
    return _PAGE.format(head=line('th scope="col"', COLUMNS).replace('</th scope="col">', "</th>"), body=body)


def write_report(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write the table in the format of the suffix: one of :data:`FORMATS`.

    Raises:
        OutputError: the suffix is another one.
        OSError: the file cannot be written.
    """
    make = {".md": to_markdown, ".csv": to_csv, ".html": to_html}.get(Path(path).suffix)
    if make is None:
        raise OutputError(
            f"a report cannot be written as {Path(path).suffix or 'a name without suffix'!r}",
            remedy=suggest(Path(path).suffix, FORMATS),
            path=path,
        )
    write_atomically(path, (make(rows).rstrip("\n") + "\n").encode())


def _text(value: object) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>CrissCross evaluations</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .4rem .6rem; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }}
th {{ border-bottom: 2px solid; }}
td:nth-child(n+6):nth-child(-n+9), td:nth-child(11) {{ text-align: right; }}
td:nth-child(6) {{ font-weight: 600; }}
td:last-child {{ white-space: normal; overflow-wrap: break-word; min-width: 14rem; }}
</style>
</head>
<body>
<main>
<h1>CrissCross evaluations</h1>
<p>"paper" is the authors' published result for these weights. It is empty if that result is not available, or if
settings or files differ from the paper's. "chosen on test" marks results whose cost or epoch was chosen on the test
files, as in the paper.</p>
<div class="scroll" tabindex="0" role="region" aria-label="results">
<table>
<thead>{head}</thead>
<tbody>
{body}
</tbody>
</table>
</div>
</main>
</body>
</html>
"""
