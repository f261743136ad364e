"""The benchmarks' results: bounds, and comparison with the last results. The benchmarks themselves run in CI."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("gpu", "report", "run"):
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


def test_the_page_has_every_table_and_marks_missed_bounds(benchmarks):
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
    video, audio = 4 * 4 * 128 / 1e3, 4 * 4 * 1728 / 1e3
    assert storage["rows"][0][1:3] == [f"{video:.0f}", f"{audio:.0f}"]


def test_the_plan_of_protocols_counts_the_releases_clips(tmp_path):
    run_script("protocol_plan.py", "--dataset", "esc50", "--json", tmp_path / "plan.json")
    (report,) = json.loads((tmp_path / "plan.json").read_text())
    rows = {row[0]: row[1:3] for row in report["rows"]}
    assert rows["linear esc50, 2s"] == ["16,000", "4,000"]  # ten clips each of 1600 and 400 files
    assert rows["linear esc50, 5s"] == ["16,000", "400"]
    assert rows["retrieval esc50, 2s"] == ["16,000", "4,000"]


@pytest.fixture
def gpu(benchmarks, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """benchmarks/gpu.py, and one of its parts that runs here for 100 s."""
    import gpu

    return gpu, gpu.Part(tmp_path / "part.json", smoke=True, seconds=100)


def run_script(script: str, *arguments: object, expected: int = 0) -> str:
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == expected, done.stderr
    return done.stdout


def test_all_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    run_script("gpu.py", "--smoke", "--out", tmp_path)
    (found,) = json.loads((tmp_path / "gpu.json").read_text()).values()
    rows = {report["title"]: report["rows"] for report in found["reports"]}
    assert [row[0] for row in rows["pytest -m cuda"]] == ["0"]
    (step, compiled) = (r["rows"] for r in found["reports"] if "step of 2" in r["title"])
    assert [len(step), len(compiled)] == [5, 2]
    assert [row[1:3] for row in rows["Largest batch, bf16, channels-last"]] == [["3", "4"]] * 2
    features = rows["Features against the CPU's in fp32"]
    assert {(row[0], row[2]): float(row[5]) > 0.999 for row in features} == {
        (modality, p): True for modality in ("video", "audio") for p in ("fp32", "tf32", "bf16", "fp16")
    }
    assert rows["Extraction from files, 640x360, H.264, video alone"][0][:2] == ["pyav", "112"]
    assert "### Largest batch" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_the_gpu_benchmark_fails_with_a_message(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no NVIDIA GPU; pass --smoke"):
        gpu[0].main(["--out", str(tmp_path / "x.json"), "--parts", "machine", "--seconds", "9"])


def test_a_row_that_fails_is_recorded_and_the_next_one_runs(gpu, tmp_path):
    _, part = gpu
    report = part.table("t", ("a", "b", "c"))
    with part.row(report, "x"):
        raise RuntimeError("too\nmuch")
    with part.row(report, "y"):
        report.add("y", 1, 2)
    part.until = 0.0
    with part.row(report, "z"):
        part.check_time()
        report.add("z", 1, 2)
    (saved,) = json.loads((tmp_path / "part.json").read_text())
    assert saved["rows"] == [["x", "failed", ""], ["y", "1", "2"], ["z", "failed", ""]]
    assert saved["failures"][0].startswith("x: RuntimeError: too")
    assert saved["failures"][1] == "z: TimeoutError: no time was left"


@pytest.fixture
def world_ablation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("world_ablation")


def test_the_ablations_table_has_the_mean_and_its_confidence_interval(world_ablation, tmp_path):
    for seed, values in enumerate([(40, 1), (50, 2), (60, 3)]):
        run = tmp_path / "intra" / f"seed{seed}"
        run.mkdir(parents=True)
        (run / "scores.json").write_text(
            json.dumps(dict(zip(("drums, linear", "drums, R@1"), values, strict=True)))
        )
    only = tmp_path / "random" / "seed0"
    only.mkdir(parents=True)
    (only / "scores.json").write_text(json.dumps({"drums, linear": 30, "drums, R@1": 1}))
    random, intra = world_ablation.table(tmp_path)[2:]
    assert random == "| random | 1 | 30.0 | 1.0 |"
    # Student's t with two degrees of freedom: 4.303; the standard deviations are 10 and 1.
    assert intra == f"| intra, mixed | 3 | 50.0 ± {4.3027 * 10 / 3**0.5:.1f} | 2.0 ± {4.3027 / 3**0.5:.1f} |"
    # Paired by seed: with seed 0 alone, and not the mean of the others.
    assert world_ablation.table(tmp_path, minus="random")[2:] == ["| intra, mixed | 1 | +10.0 | +0.0 |"]


def test_gradients_tell_directions_whatever_the_contrast(world_ablation):
    """A grating, the same with less contrast, and the same turned by a right angle."""
    quick_scores = importlib.import_module("quick_scores")
    rows = (0.5 + 0.5 * torch.sin(torch.arange(96) / 3)).expand(128, 96).T
    seen = torch.stack([rows, 0.5 + 0.2 * (rows - 0.5), rows[:, :96].T.repeat(1, 2)[:, :128]])
    clips = (255 * seen).byte()[:, None, ..., None].expand(-1, 8, -1, -1, 3)
    gradients = quick_scores.encoder_of("gradients", "video")
    found = gradients(gradients.preprocess(clips))
    assert found.shape == (3, 216)
    same, turned = (found[0] - found[1]).norm(), (found[0] - found[2]).norm()
    assert same < 0.05 * turned


def test_an_ablations_variants_differ_in_one_setting(world_ablation):
    def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found = {}
        for key, value in settings.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    runs = {v: flat(asdict(world_ablation.config_of(v, 3, 300))) for v in world_ablation.VARIANTS}
    full = runs["crisscross"]
    assert full["data.epoch_size"] == 300 * full["optim.batch_size"]
    for variant, settings in runs.items():
        other = {key for key in full if settings[key] != full[key]} - {"objective"}
        assert all(key.startswith("loss.") for key in other) or other == {"data.relaxation"}, variant
    different = {str({**settings, "objective": ""}) for settings in runs.values()}
    assert len(different) == len(runs)


@pytest.mark.parametrize(
    ("end", "seconds", "reason"),
    [
        ("", 60, None),
        ("raise SystemExit('lost')", 60, "exit code 1 (lost)"),
        ("time.sleep(99)", 3, "not ready in 3 s"),
    ],
)
def test_a_part_that_ends_early_leaves_its_finished_rows(gpu, tmp_path, end, seconds, reason):
    path = tmp_path / "found.json"
    table = {"title": "t", "columns": ["a"], "rows": [["1"]], "ratios": [], "notes": [], "failures": []}
    path.write_text(json.dumps([table]))
    reports, failed = gpu[0].run_parts([sys.executable, "-c", f"import time; {end}"], path, seconds)
    assert [report.rows for report in reports] == [[["1"]]]
    assert failed == reason


@pytest.mark.parametrize("limit", [0, 1, 100, 813, 4096])
def test_the_largest_size_is_found_within_a_32nd(gpu, limit):
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    low, high = gpu[0].search(fits, 128, lambda size: True)
    assert low <= limit < high
    assert high - low <= max(1, low // 32)
    assert len(tried) <= 15


def test_the_search_for_the_largest_size_ends_in_time(gpu):
    assert gpu[0].search(lambda size: True, 128, lambda size: size < 512) == (256, None)
    assert gpu[0].search(lambda size: size < 200, 128, lambda size: size != 192) == (128, 256)


def test_the_memory_plan_is_a_line_and_agrees_with_a_real_step(tmp_path):
    arguments = ["--preset", "demo", "--precision", "bf16", "--batches", 4, 8, 16, "--check", 4]
    run_script("gpu_plan.py", *arguments, "--json", tmp_path / "plan.json")
    peaks, largest, check = json.loads((tmp_path / "plan.json").read_text())
    for row, sizes in zip(peaks["rows"], largest["rows"], strict=True):
        assert float(row[-1].rstrip(" %")) < 1
        for gpu, size in zip((24, 40, 80, 141), sizes[2:], strict=True):
            assert int(size) == pytest.approx((gpu * 0.9 - float(row[-2])) / float(row[-3]), rel=0.05)
    assert [row[0] for row in check["rows"]] == ["no", "yes"]
    for row in check["rows"]:
        assert abs(float(row[-1].rstrip(" %"))) < 10  # its kernels' scratch memory is of the CPU alone
