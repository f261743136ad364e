"""What the benchmarks' results are made of: bounds, and what counts as worse. The benchmarks themselves run in CI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("report", "run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import report
    import run

    return report, run


@pytest.mark.parametrize(
    ("value", "bound", "more_is_better", "kept"),
    [
        (2, 2, True, True),
        (1.9, 2, True, False),
        (2.1, 2, True, True),
        (1.1, 1.2, False, True),
        (1.3, 1.2, False, False),
    ],
)
def test_a_bound_is_kept_or_missed(benchmarks, value, bound, more_is_better, kept):
    ratio = benchmarks[0].Ratio("x", value, bound, more_is_better=more_is_better)
    assert ratio.kept is kept
    assert benchmarks[0].Ratio("x", value).kept


def test_worse_by_more_than_a_fifth_is_found_in_both_directions(benchmarks):
    report, run = benchmarks

    def found(fast: float, large: float) -> dict[str, object]:
        table = report.Report(
            "t",
            ("a",),
            ratios=[report.Ratio("fast", fast), report.Ratio("large", large, 9, more_is_better=False)],
        )
        return {"reports": [json.loads(json.dumps(table.to_json()))]}

    assert run.worse(found(2, 1), found(1.7, 1.15)) == []
    assert run.worse(found(2, 1), found(3, 0.5)) == []
    assert run.worse(found(2, 1), found(1.6, 1.3)) == [
        "fast: 2.000 before, 1.600 now",
        "large: 1.000 before, 1.300 now",
    ]
    assert run.worse({}, found(1, 1)) == []


def test_the_page_has_every_table_and_says_what_is_missed(benchmarks):
    report, run = benchmarks
    table = report.Report("A table", ("a", "b"), ratios=[report.Ratio("speed", 1.5, 2.0)], notes=["A note."])
    table.add("x", 1)
    part = {
        "command": "c.py",
        "date": "2026-01-01",
        "machine": "m",
        "versions": "v",
        "reports": [table.to_json()],
    }
    text = run.page({"media": part})
    assert "## Media" in text
    assert "| a | b |\n| --- | --- |\n| x | 1 |" in text
    assert "| speed | 1.50 | ≥ 2 | **missed** |" in text
    assert "A note." in text


def test_every_part_names_a_script(benchmarks):
    for full, smoke in benchmarks[1].PARTS.values():
        assert full[0] == smoke[0]
        assert (ROOT / "benchmarks" / full[0]).exists()


def test_a_plan_is_arithmetic_on_what_was_measured(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks/plan.py",
        "--weights",
        "demo",
        "--height",
        "90",
        "--seconds",
        "2",
    ]
    command += ["--rounds", "1", "--files", "100000000", "--cores", "10", "--json", tmp_path / "plan.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    file, cores, _, storage = json.loads((tmp_path / "plan.json").read_text())
    *parts, whole = ([float(cell) for cell in row[1:3]] for row in file["rows"])
    assert [sum(column) for column in zip(*parts, strict=True)] == pytest.approx(
        whole, abs=0.016
    )  # of rounding
    for seconds, row in zip(whole, cores["rows"], strict=True):
        assert float(row[1]) == pytest.approx(seconds * 100, abs=0.5 + 0.05)
        assert float(row[2].split()[0]) == pytest.approx(float(row[1]) * 1e6 / 10 / 3600, rel=0.05)
    video, audio = 4 * 4 * 64 / 1e3, 4 * 4 * 576 / 1e3
    assert storage["rows"][0][1:3] == [f"{video:.0f}", f"{audio:.0f}"]
