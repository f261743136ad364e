import subprocess
import sys
from pathlib import Path

import pytest

from crisscross_zoo.cli.extract import main

FAULTS = Path(__file__).parents[1] / "benchmarks" / "ray_faults.py"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "{tmp}/x.npz", "--engine", "ray"], "writes to a folder"),
        (["--out", "{tmp}/out", "--engine", "ray", "--shard", "0/2"], "without --shard"),
        (["--out", "{tmp}/out", "--address", "auto"], "--address goes with --engine ray"),
        (["--out", "{tmp}/out", "--engine", "ray", "--device", "cuda:1"], "use auto, cpu or cuda"),
        (["--out", "{tmp}/out", "--engine", "dask"], "'dask' is not known; choose from ray"),
    ],
)
def test_bad_usage_is_one_line(arguments, says, tmp_path, capsys):
    if "cuda:1" in arguments:
        pytest.importorskip("ray")
    (tmp_path / "a.mp4").touch()
    assert (
        main([str(tmp_path / "a.mp4"), "--weights", "demo", *(a.format(tmp=tmp_path) for a in arguments)])
        == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_without_ray_the_error_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.mp4").touch()
    arguments = [
        str(tmp_path / "a.mp4"),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "ray",
        "--weights",
        "demo",
    ]
    assert main(arguments) == 2
    assert "pip install 'crisscross-zoo[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.parametrize(
    ("files", "case"),
    [(4, "poison"), *(pytest.param(12, c, marks=pytest.mark.slow) for c in ("node", "all"))],
)
def test_on_two_nodes_nothing_is_lost_or_doubled(files, case):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, FAULTS, "--files", str(files), "--cases", case, "--timeout", "3"],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")[1:-1]]
    poison = 0 if case == "node" else 3
    # case, files, done, failed, (redone), lost, doubled, exit code
    assert [*row[:4], *row[5:8]] == [case, *map(str, (files + poison, files, poison, 0, 0, min(1, poison)))]
