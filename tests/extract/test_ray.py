import contextlib
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import needs
import pytest

from crisscross_zoo import extract_files
from crisscross_zoo.cli.extract import main
from crisscross_zoo.errors import ClusterError, DecoderCrashError
from crisscross_zoo.extract import ray as extract_ray
from crisscross_zoo.extract.options import ExtractOptions
from crisscross_zoo.extract.outputs import FileResult
from crisscross_zoo.extract.report import Progress
from crisscross_zoo.files.store import LocalFolder

pytestmark = pytest.mark.integration

FAULTS = Path(__file__).parents[2] / "benchmarks" / "ray_faults.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}/x.npz", "--engine", "ray"], "writes to a folder"),
        (["--out", "{tmp}/out", "--engine", "ray", "--shard", "0/2"], "without --shard"),
        (["--out", "{tmp}/out", "--address", "auto"], "--address goes with --engine ray"),
        (["--out", "{tmp}/out", "--engine", "ray", "--device", "cuda:1"], "use auto, cpu or cuda"),
        (["--out", "{tmp}/out", "--engine", "dask"], "'dask' is not known; choose from ray"),
    ],
)
def test_bad_usage_is_one_line(arguments, message, tmp_path, capsys):
    if "cuda:1" in arguments:
        needs.package("ray", extra="ray")
    (tmp_path / "a.mp4").touch()
    assert (
        main([str(tmp_path / "a.mp4"), "--weights", "demo", *(a.format(tmp=tmp_path) for a in arguments)])
        == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


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


OUT = LocalFolder(Path("/out"))


class FakeRay:
    """A cluster of ``nodes``, whose workers return ``results`` one after the other."""

    def __init__(self, *nodes, results=()):
        self._nodes = [{"NodeID": "node", "Alive": True, "Resources": n} for n in nodes]
        self._results = deque(results)
        self.started = []
        self.killed = 0

    @property
    def exceptions(self):
        return needs.package("ray", extra="ray").exceptions

    def nodes(self):
        return self._nodes

    def cluster_resources(self):
        return {k: sum(n["Resources"].get(k, 0) for n in self._nodes) for k in ("CPU", "GPU")}

    def remote(self, *, max_restarts, max_task_retries, **takes):
        def start(setup):
            self.started.append((takes, setup.options))
            method = SimpleNamespace(remote=lambda *_: object())
            return SimpleNamespace(start=method, extract_one=method)

        return lambda _: SimpleNamespace(remote=start)

    def wait(self, refs, **_):
        return refs[:1], refs[1:]

    def get(self, _):
        result = self._results.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def kill(self, _):
        self.killed += 1


def cluster(ray, **options):
    return extract_ray._Cluster(ray, setup(**options), {"a.mp4": "a.npz"}, on_message=str)


def setup(**options):
    return extract_ray._Setup("demo", ExtractOptions(**options), OUT, None, None, overwrite=False)


@pytest.mark.parametrize(
    ("nodes", "options", "takes", "workers", "count"),
    [
        ([{"CPU": 4.0}], {}, {"num_cpus": 1}, 1, 5),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], {}, {"num_cpus": 4, "num_gpus": 1}, 3, 3),
        ([{"CPU": 99.0, "GPU": 1.0}], {"workers": 2}, {"num_cpus": 17, "num_gpus": 1}, 2, 2),
        ([{"CPU": 2.0, "GPU": 4.0}], {}, {"num_cpus": 1, "num_gpus": 1}, 1, 5),
        ([{"CPU": 4.0, "GPU": 1.0}], {"decoder": "torchcodec"}, {"num_cpus": 4, "num_gpus": 1}, None, 2),
        ([{"CPU": 4.0}], {"device": "cuda"}, {"num_cpus": 1, "num_gpus": 1}, 1, 1),  # none has come yet
    ],
)
def test_workers_fill_the_nodes_and_one_more_waits(nodes, options, takes, workers, count):
    ray = FakeRay(*nodes)
    cluster(ray, **options)._start_workers(100)
    assert [(t, o.workers) for t, o in ray.started] == [(takes, workers)] * count


def test_only_the_death_of_a_worker_that_can_be_reached_counts_against_its_file():
    errors = needs.package("ray", extra="ray").exceptions
    done = FileResult("a.mp4", "a.npz", {})
    ray = FakeRay({"CPU": 1.0}, results=["node", errors.ActorUnavailableError("away", None), "node", done])
    assert list(cluster(ray)._one_by_one(deque(["a.mp4"]))) == [done]
    assert ray.killed == 2
    ray = FakeRay({"CPU": 1.0}, results=["node", errors.OutOfMemoryError("memory")])
    (outcome,) = cluster(ray)._one_by_one(deque(["a.mp4"]))
    assert isinstance(outcome.error, DecoderCrashError)
    assert ray.killed == 1


def test_starts_that_fail_count_only_while_no_worker_lives():
    some = cluster(FakeRay())
    lost = extract_ray._WorkerState(None)
    some._workers = {0: extract_ray._WorkerState(None, node="node")}
    for _ in range(2 * extract_ray._START_ATTEMPTS):
        some._note_loss(lost, RuntimeError("died"))
    some._workers = {}
    for _ in range(extract_ray._START_ATTEMPTS - 1):
        some._note_loss(lost, RuntimeError("died"))
    with pytest.raises(ClusterError, match="die as they start"):
        some._note_loss(lost, RuntimeError("died"))


def test_skipped_files_are_reported_before_anything_is_extracted(monkeypatch):
    worker = extract_ray._Worker(setup())
    worker._folder = OUT
    outcomes = []

    def stream(paths):
        assert list(paths) == ["b"]
        assert [o.path for o in outcomes] == ["a"]
        yield "b", DecoderCrashError("crashed")

    worker._extractor = SimpleNamespace(identity=None, stream=stream)
    known = {"a": FileResult("a", "a.npz", {}, skipped=True), "b": None}
    monkeypatch.setattr(extract_ray, "known_result", lambda path, *_, **__: known[path])
    worker._extract(iter([("a", "a.npz"), ("b", "b.npz")]), put=outcomes.append)
    assert [o.path for o in outcomes] == ["a", "b"]


def test_progress_is_reported_as_workers_finish(tmp_path, monkeypatch):
    paths = [tmp_path / f"{k}.mp4" for k in range(4)]
    for path in paths:
        path.write_bytes(b"x")

    def finish(weights, options, outputs, folder, **_):
        for path, name in outputs.items():
            yield FileResult(path, name, error=DecoderCrashError("crashed"))

    monkeypatch.setattr(extract_ray, "extract_on_ray", finish)
    monkeypatch.setattr("crisscross_zoo.extract.run._PROGRESS_SECONDS", 0)
    events = []
    out = tmp_path / "out"
    extract_files(paths, out, weights="demo", device="cpu", engine="ray", on_event=events.append)
    assert [event.files for event in events if isinstance(event, Progress)] == [0, 1, 2, 3, 4, 4]


def test_a_worker_that_fails_at_no_file_is_one_line(tmp_path, monkeypatch):
    ray = needs.package("ray", extra="ray")

    def run(_):
        raise ray.exceptions.RayTaskError(
            "start", "Traceback ...", RuntimeError("CUDA error:\nno kernel image")
        )

    monkeypatch.setattr(extract_ray._Cluster, "run", run)
    monkeypatch.setattr(extract_ray, "_connected", lambda *_: contextlib.nullcontext())
    with pytest.raises(ClusterError) as caught:
        list(extract_ray.extract_on_ray("demo", ExtractOptions(), {}, LocalFolder(tmp_path), on_message=str))
    assert str(caught.value) == "a worker failed (RuntimeError: CUDA error:); see Ray's logs on the node"


def test_a_relative_cache_makes_workers_change_to_this_folder():
    for cache, folder in ((None, None), ("cache", str(Path.cwd()))):
        options = ExtractOptions(cache_dir=cache)
        assert extract_ray._working_folder("demo", options, ["/in/a.mp4", "/out"]) == folder


@pytest.mark.parametrize(
    ("files", "case"),
    [(4, "poison"), *(pytest.param(12, c, marks=pytest.mark.slow) for c in ("node", "all"))],
)
def test_on_two_nodes_nothing_is_lost_or_doubled(files, case):
    needs.package("ray", extra="ray")
    done = subprocess.run(
        [sys.executable, FAULTS, "--files", str(files), "--cases", case, "--timeout", "3"],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")[1:-1]]
    poison = 0 if case == "node" else 3
    # case, files, done, failed, (redone), lost, doubled, exit code
    assert [*row[:4], *row[5:8]] == [case, *map(str, (files + poison, files, poison, 0, 0, min(1, poison)))]
