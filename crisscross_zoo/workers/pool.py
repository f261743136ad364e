"""Work on many files at once, in a thread or in processes, into one bounded queue.

A file that crashes its process does not affect other files.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from crisscross_zoo.errors import DecoderCrashError, InputError
from crisscross_zoo.files.atomic import temporary_folder
from crisscross_zoo.settings import StrPath, check_path

T = TypeVar("T")

_POLL_SECONDS = 0.5
_LEAST_FAULT = 0xC0000000  # Windows' exit codes from here on are faults; elsewhere a fault is a signal


class WorkerStartError(DecoderCrashError):
    """A decoding process does not start, whatever the file."""


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_on_files(
    paths: Iterable[StrPath],
    job: Callable[[StrPath], Iterable[T]],
    *,
    workers: int = 0,
    queue_size: int = 16,
    timeout: float | None = None,
) -> Generator[tuple[int, StrPath, T | DecoderCrashError | InputError], None, None]:
    """Run ``job(path)`` on many files and yield its items.

    Args:
        paths: Files; taken one by one as processes become free.
        job: The function to call. The job and its items must pickle (a function of a module, or a partial of one). An
            exception ends its process, so a job should yield its errors as items.
        workers: Number of processes. 0 runs the job in one thread of this process, where a crash is fatal.
        queue_size: Items held before the workers wait.
        timeout: Seconds without an item after which a process that works on a file is killed. The time in which the
            process waits for the queue does not count. A job in a thread cannot be killed.

    Yields:
        ``(serial, path, item)``: serial numbers ``paths`` from 0. Items of one file come in order, those of several
        files mixed. A file whose process dies ends with a DecoderCrashError, or a :class:`WorkerStartError` if the
        process did not start at all; an element that is not a path (bytes, an open file) gives an InputError.
    """
    numbered = enumerate(paths)
    lock = threading.Lock()
    items: queue.Queue[tuple[int, StrPath, T | DecoderCrashError | InputError] | BaseException | None]
    items = queue.Queue(queue_size)
    stop = threading.Event()

    def put(item: tuple[int, StrPath, T | DecoderCrashError | InputError] | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def read(source: _InProcess | _WorkerProcess) -> None:
        try:
            while not stop.is_set():
                with lock:
                    serial, path = next(numbered, (-1, ""))
                if serial < 0:
                    break
                try:
                    check_path("the path", path)
                except InputError as error:
                    put((serial, path, error))
                    continue
                for item in source.read(path):
                    if not put((serial, path, item)):
                        return
            put(None)
        except BaseException as error:
            put(error)
        finally:
            source.close()

    def watch(limit: float) -> None:
        while not stop.wait(min(_POLL_SECONDS, limit)):
            for process in processes:
                process.kill_if_silent(limit)

    processes = [_WorkerProcess(job) for _ in range(workers)]
    sources: list[_InProcess | _WorkerProcess] = [*processes] or [_InProcess(job)]
    threads = [threading.Thread(target=read, args=(s,), daemon=True) for s in sources]
    watchers = [] if timeout is None else [threading.Thread(target=watch, args=(timeout,), daemon=True)]
    for thread in [*threads, *watchers]:
        thread.start()
    try:
        for _ in threads:
            while (item := items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
    finally:
        stop.set()
        for source in sources:
            source.close()
        for thread in [*threads, *watchers]:
            thread.join(timeout=2 * _POLL_SECONDS)


class _InProcess:
    def __init__(self, job: Callable[[StrPath], Iterable[Any]]) -> None:
        self._job = job

    def read(self, path: StrPath) -> Iterable[Any]:
        return self._job(path)

    def close(self) -> None:
        """Do nothing: there is no process to end."""


class _WorkerProcess:
    """One process of :mod:`crisscross_zoo.workers.worker`, started when first needed and again after a crash."""

    def __init__(self, job: Callable[[StrPath], Iterable[Any]]) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._silent_since: float | None = None  # while it works without yielding an item
        self._silent_for = 0.0  # until it was killed for its silence

    def read(self, path: StrPath) -> Iterator[Any]:
        started = self._process is None
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        silent = True
        try:
            if started:
                pickle.dump(self._job, process.stdin)
                process.stdin.flush()
                pickle.load(process.stdout)  # noqa: S301 - from our own process, which is then ready
            pickle.dump(os.fspath(path), process.stdin)
            process.stdin.flush()
            while (item := self._next_item(process)) is not None:
                silent = False
                yield item
        except (EOFError, OSError, pickle.UnpicklingError, ValueError):
            if self._closed:
                return
            self._process = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
            code = self._end(process)  # also if its output could not be unpickled
            silent_for, self._silent_for = self._silent_for, 0.0
            if silent_for:
                yield DecoderCrashError(
                    f"hung the decoder (silent for {silent_for:.0f} s)",
                    remedy="skip it, convert it with another tool, or allow more time (timeout)",
                    path=path,
                )
                return
            faulty = code < 0 or code >= _LEAST_FAULT
            if silent and started and not faulty:
                yield WorkerStartError(
                    f"cannot be decoded: the decoding process does not start (exit code {code})",
                    remedy="see what it printed, or decode without processes (workers 0)",
                    path=path,
                )
                return
            how = f"signal {-code}" if code < 0 else f"exit code {code:#x}" if faulty else f"exit code {code}"
            yield DecoderCrashError(
                f"crashed the decoder ({how})",
                remedy="skip it, or convert it with another tool",
                path=path,
            )

    def _next_item(self, process: subprocess.Popen[bytes]) -> Any:
        assert process.stdout is not None
        self._silent_since = time.monotonic()
        try:
            return pickle.load(process.stdout)  # noqa: S301 - from our own process
        finally:
            self._silent_since = None

    def kill_if_silent(self, seconds: float) -> None:
        """Kill the process if it works on a file and has been silent for longer; :meth:`read` then yields the error."""
        since, process = self._silent_since, self._process
        if since is not None and process is not None and time.monotonic() - since > seconds:
            self._silent_for = time.monotonic() - since
            process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        # With several threads per worker, the workers would compete for the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # The package need not be installed, and its folder may no longer be on the path.
        here = str(Path(__file__).parents[2])
        # The temporary files are removed with the process, even if it cannot do so itself.
        self._temporary = temporary_folder()
        environment["TMPDIR"] = environment["TEMP"] = environment["TMP"] = self._temporary.name
        environment["PYTHONPATH"] = os.pathsep.join([*(p for p in sys.path if p), here])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crisscross_zoo.workers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Without an open stderr a pipe would get its number, and whatever is printed.
            stderr=None if _is_open(2) else subprocess.DEVNULL,
            env=environment,
        )
        return self._process

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        self._closed = True
        if self._process is not None:
            self._end(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """Kill a process and free its pipes and temporary files; return its exit code."""
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # of data that was still to be written
                pipe.close()
        self._temporary.cleanup()
        return code


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
