"""benchmarks/svm.py: enlarged features, the table of the SVM, and the objective."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from crisscross_zoo.evaluate.rows import Rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("svm_benchmark", ROOT / "benchmarks" / "svm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_features_of_a_larger_size_and_a_table_of_every_cost(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(12), 3)
    file = tmp_path / "features.npz"
    np.savez(file, X=rng.standard_normal((36, 8)).astype(np.float32) + 2, y=owners % 3, o=owners)
    words = ["svm.py", str(file), "--rows", "100", "--dims", "20", "--classes", "6", "--costs", "0.001", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--linear-svc", "0"])
    assert benchmark.main() == 0
    shown = capsys.readouterr().out
    assert "100 x 20, 6 classes" in shown
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if " s |" in line]
    assert [(row[0], row[3]) for row in rows] == [("0.001", "yes"), ("1", "yes")]


def test_the_objective_is_least_where_linear_svc_ends(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 5)).astype(np.float32), np.arange(60) % 3
    machine = LinearSVC(C=0.1, dual=False, tol=1e-8).fit(x.astype(float), labels)
    least = benchmark.objective(Rows.of(x), labels, machine.coef_.T, machine.intercept_, 0.1)
    assert least == pytest.approx(0.1 * 180, rel=0.3)  # zero weights cost C for each row and class
    for change in (0.01, -0.01):
        assert least < benchmark.objective(
            Rows.of(x), labels, machine.coef_.T + change, machine.intercept_, 0.1
        )
