"""Decode many files at once, in threads or in processes, into one bounded queue."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from crisscross_zoo.errors import CrissCrossError, DecoderCrashError
from crisscross_zoo.media.clips import FileRead, News, Sampling, file_news
from crisscross_zoo.media.decode import StrPath

_POLL_SECONDS = 0.5


def read_files(
    paths: Iterable[StrPath], sampling: Sampling, *, workers: int = 0, queue_size: int = 16
) -> Generator[tuple[int, StrPath, News], None, None]:
    """Read the clips of many files; a bad one costs itself alone.

    Args:
        paths: Files; taken one by one as readers get free.
        sampling: Which clips to take.
        workers: Decoding processes. 0 decodes in one thread of this process, where a decoder crash is fatal.
        queue_size: News items held before readers wait.

    Yields:
        ``(serial, path, news)``: serial numbers ``paths`` from 0. News of one file come in order, those of several
        files mixed.
    """
    numbered = enumerate(paths)
    lock = threading.Lock()
    news: queue.Queue[tuple[int, StrPath, News] | BaseException | None] = queue.Queue(queue_size)
    stop = threading.Event()

    def put(item: tuple[int, StrPath, News] | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                news.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def read(source: _InProcess | _WorkerProcess) -> None:
        try:
            while not stop.is_set():
                with lock:
                    serial, path = next(numbered, (-1, ""))
                if serial < 0:
                    break
                for item in source.read(path):
                    if not put((serial, path, item)):
                        return
            put(None)
        except BaseException as error:
            put(error)
        finally:
            source.close()

    sources: list[_InProcess | _WorkerProcess] = [_WorkerProcess(sampling) for _ in range(workers)]
    sources = sources or [_InProcess(sampling)]
    threads = [threading.Thread(target=read, args=(s,), daemon=True) for s in sources]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while (item := news.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
    finally:
        stop.set()
        for source in sources:
            source.close()
        for thread in threads:
            thread.join(timeout=2 * _POLL_SECONDS)


class _InProcess:
    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def read(self, path: StrPath) -> Iterator[News]:
        return file_news(path, self._sampling)

    def close(self) -> None:
        """Nothing to end."""


class _WorkerProcess:
    """One process of :mod:`crisscross_zoo.media.worker`, started when first needed and again after a crash."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, path: StrPath) -> Iterator[News]:
        started = self._process is None
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        item: News | None = None
        try:
            if started:
                pickle.dump(self._sampling, process.stdin)
            pickle.dump(os.fspath(path), process.stdin)
            process.stdin.flush()
            while not isinstance(item, (FileRead, CrissCrossError)):
                item = pickle.load(process.stdout)  # noqa: S301 - from our own process
                yield item
        except (EOFError, OSError, pickle.UnpicklingError, ValueError):
            if self._closed:
                return
            self._process = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
            process.kill()  # where what it said made no sense
            code = process.wait()
            if item is None and started and code >= 0:  # a decoder that crashes dies by a signal
                yield DecoderCrashError(
                    f"cannot be decoded: the decoding process does not start (exit code {code})",
                    remedy="see what it printed, or decode without processes (workers 0)",
                    path=path,
                )
                return
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            yield DecoderCrashError(
                f"crashed the decoder ({how})",
                remedy="leave it out, or convert it with another tool",
                path=path,
            )

    def _start(self) -> subprocess.Popen[bytes]:
        # Unpinned threads in every worker would fight over the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # The package need not be installed, nor its folder be on the path still.
        here = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join([*(p for p in sys.path if p), here])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crisscross_zoo.media.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        return self._process

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
