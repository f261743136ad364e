import functools
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from jobs import hang_at
from make_media import make_media

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import CrissCrossError, DecoderCrashError, MediaNotFoundError
from crisscross_zoo.media.clips import Clip, FileRead, Sampling, read_files
from crisscross_zoo.workers import pool

pytestmark = pytest.mark.integration

SAMPLING = Sampling(video=VideoConfig(size=32), audio=None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return [make_media(folder / f"{k}.mp4", seconds=1 + k / 4, audio=None) for k in range(5)]


def collect(paths, **kwargs):
    found = {}
    for serial, path, event in read_files(paths, SAMPLING, **kwargs):
        found.setdefault((serial, str(path)), []).append(event)
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_every_file_is_complete_and_a_bad_one_affects_no_other(files, workers, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video\n" * 99)
    paths = [files[0], bad, *files[1:], tmp_path / "missing.mp4"]
    found = collect(paths, workers=workers)
    assert sorted(found) == [(k, str(p)) for k, p in enumerate(paths)]
    assert isinstance(found[1, str(bad)][-1], CrissCrossError)
    assert isinstance(found[6, str(paths[6])][-1], MediaNotFoundError)
    for (serial, _), events in found.items():
        if serial not in (1, 6):
            assert isinstance(events[-1], FileRead)
            assert sum(isinstance(e, Clip) for e in events) == len(events[0].windows["video"])


def test_processes_and_thread_give_the_same_bytes(files):
    one, other = collect(files, workers=0), collect(files, workers=2)
    for key, events in one.items():
        for a, b in zip(events[1:-1], other[key][1:-1], strict=True):
            np.testing.assert_array_equal(a.values, b.values)


def test_a_crashed_decoder_affects_one_file(files, monkeypatch):
    killed: list[subprocess.Popen] = []
    start = pool._WorkerProcess._start

    def start_and_remember(self):
        process = start(self)
        killed.append(process)
        return process

    monkeypatch.setattr(pool._WorkerProcess, "_start", start_and_remember)
    found = {}
    for serial, _, event in read_files(files, SAMPLING, workers=1, queue_size=1):
        if serial == 1 and 1 not in found:
            os.kill(killed[0].pid, signal.SIGKILL)
        found.setdefault(serial, []).append(event)
    crashed = [s for s, events in found.items() if isinstance(events[-1], DecoderCrashError)]
    assert len(crashed) == 1  # file 1, or 2 if the worker had already continued with it
    assert "signal 9" in str(found[crashed[0]][-1])
    assert len(found) == len(files)
    assert len(killed) == 2


def test_a_file_that_hangs_affects_no_other(monkeypatch):
    job = functools.partial(hang_at, name="b")
    started = time.monotonic()
    found = {}
    for _, path, item in pool.work_on_files(["a", "b", "c"], job, workers=1, timeout=0.5):
        found.setdefault(path, []).append(item)
        if path == "a":
            time.sleep(1.5)  # the consumer may be slow
    assert (found["a"], found["c"]) == (["a"], ["c"])
    (error,) = found["b"]
    assert isinstance(error, DecoderCrashError)
    assert "hung the decoder (silent for" in str(error)
    assert "allow more time (timeout)" in str(error)
    assert time.monotonic() - started < 50


def test_stopping_early_leaves_no_process_and_no_thread(files, monkeypatch):
    started = []
    start = pool._WorkerProcess._start
    monkeypatch.setattr(
        pool._WorkerProcess, "_start", lambda self: started.append(start(self)) or started[-1]
    )
    before = threading.active_count()
    reading = read_files(files, SAMPLING, workers=2, queue_size=2)
    next(reading)
    reading.close()
    assert started
    assert all(p.poll() is not None for p in started)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_paths_are_taken_as_they_are_needed(files):
    taken = []

    def paths():
        for k in range(50):
            taken.append(k)
            yield files[0]

    reading = read_files(paths(), SAMPLING, workers=0, queue_size=2)
    next(reading)
    time.sleep(0.5)
    reading.close()
    assert len(taken) < 5


def test_a_worker_that_cannot_start_does_not_blame_the_file(files, monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "false")
    found = collect(files[:1], workers=1)
    (event,) = found[0, str(files[0])]
    assert "the decoding process does not start" in str(event)


def test_a_crash_on_a_workers_first_file_is_the_files(files, monkeypatch, tmp_path):
    dies = tmp_path / "dies"
    dies.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(pool.sys, "executable", str(dies))
    found = collect(files[:1], workers=1)
    (event,) = found[0, str(files[0])]
    assert "crashed the decoder (signal 11)" in str(event)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (0xC0000005, DecoderCrashError, "crashed the decoder (exit code 0xc0000005)"),  # access violation
        (1, pool.WorkerStartError, "the decoding process does not start (exit code 1)"),
    ],
)
def test_a_crash_on_windows_is_recognised_by_its_exit_code(files, monkeypatch, code, kind, message):
    class Ended:
        """A process as Windows reports one that ended on its first file."""

        def __init__(self):
            self.stdin, self.stdout = io.BytesIO(), io.BytesIO()

        def wait(self, timeout=None):
            return code

        def kill(self):
            """It has ended."""

    monkeypatch.setattr(pool.subprocess, "Popen", lambda *_, **__: Ended())
    ((_, (error,)),) = collect(files[:1], workers=1).items()
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_ends_with_its_parent_though_its_file_is_long(tmp_path):
    (tmp_path / "long_job.py").write_text(
        "import os, time\n"
        "def job(path):\n    open(path, 'w').write(f'{os.getpid()} ')\n    time.sleep(100)\n    yield 1\n"
    )
    script = (
        "import sys\nfrom long_job import job\nfrom crisscross_zoo.workers.pool import work_on_files\n"
        "list(work_on_files(sys.argv[1:], job, workers=1))"
    )
    note = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    parent = subprocess.Popen([sys.executable, "-c", script, str(note)], env=environment)
    for _ in range(1000):
        if note.exists() and note.read_text().endswith(" "):
            break
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    status = Path("/proc", note.read_text().strip(), "status")
    for _ in range(250):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.02)
    raise AssertionError("the worker still runs")
