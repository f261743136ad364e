"""Load batches in order, with workers that write into shared memory of a fixed size and are restarted if they die.

A worker reads chunks of a batch, of 16 samples at most, and writes each into one of a fixed number of slots in shared
memory. This memory is allocated before the first sample is read, so that the samples in flight cannot grow. A thread
puts the chunks of the next batch together while the previous one is trained on.

A worker records in that memory which file it is reading. A worker that dies or is silent for too long is restarted with
the same chunks. Samples are decided by their keys alone, so nothing else changes. The file that it was reading is added
to the run's list of incidents.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from crisscross_zoo.errors import ConfigError, CrissCrossError, TrainingError, first_line
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.data import Batch, BatchSampler, PretrainDataset, collate, used_views
from crisscross_zoo.pretrain.incidents import NOTHING, Incidents, Record
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.workers.samples import Failures, SampleKey

_T = TypeVar("_T")

STOP_SIGNALS = tuple(s for s in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, s))
"""Signals that stop a run; SIGUSR1 is Slurm's warning."""

CHUNK_SAMPLES = 16
"""Samples of a chunk, at most: a worker reads a chunk before it passes it on."""

BATCHES = 2
"""Whole batches that a training process holds: one that is trained on, one that is put together."""

_QUEUE = 2  # chunks that a worker has: the one that it reads, and the next one
_POLL_SECONDS = 0.2
_PARENT_SECONDS = 2.0
_IDLE_DEATHS = 3  # workers in a row that died without reading anything: none will start
_STORAGE_WORKERS = 4  # so many workers, all silent at different files: the storage is the cause, not a file
_PAGE = 4096
_ALIGNED = 64
_STATUS = np.dtype([("position", "<i8"), ("since", "<f8"), ("finished", "<f8")])
_FROM_OUTSIDE = tuple(-getattr(signal, s) for s in ("SIGKILL", "SIGTERM") if hasattr(signal, s))


# --- how much memory ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flight:
    """The samples in flight of a training process and its workers: read, but not trained on yet.

    Attributes:
        shapes: Shape of each view of a sample, by view.
        dtype: Dtype of the views.
        batch_size: Samples of a batch of this training process.
        chunk: Samples of a chunk.
        slots: Chunks in shared memory.
        pinned: Whether whole batches lie in pinned memory, which a GPU copies from.
    """

    shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    batch_size: int
    chunk: int
    slots: int
    pinned: bool

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def slot_bytes(self) -> int:
        """Bytes of a chunk in shared memory."""
        return sum(
            _up(prod(shape) * self.chunk * self.dtype.itemsize, _ALIGNED) for shape in self.shapes.values()
        )

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory."""
        return self.slots * self.slot_bytes

    @property
    def batch_bytes(self) -> int:
        """Bytes of one whole batch; torch allocates pinned memory in powers of two."""
        sizes = [prod(shape) * self.batch_size * self.dtype.itemsize for shape in self.shapes.values()]
        return sum(1 << (size - 1).bit_length() if self.pinned else size for size in sizes)

    @property
    def bytes(self) -> int:
        """Bytes of all samples in flight."""
        return self.shared_bytes + BATCHES * self.batch_bytes


def plan_flight(
    config: PretrainConfig, *, batch_size: int, workers: int, processes: int = 1, pinned: bool = False
) -> Flight:
    """Return chunks and batches that fit into ``config.run.data_bytes``, the bytes of a machine.

    If whole batches do not fit in pinned memory, which torch allocates in powers of two, they are not pinned. Copying
    them to the GPU is slower then.

    Under autocast, samples are passed on in its 16-bit dtype. The first layer of both networks rounds its input to that
    dtype in any case, so the result does not change.

    Args:
        config: Settings of the views, the precision and ``data_bytes``.
        batch_size: Samples of a batch for each training process.
        workers: Workers of each training process; 0: samples are read in the training process.
        processes: Training processes on this machine, which share ``data_bytes``.
        pinned: Whether batches are copied to a GPU.

    Raises:
        ConfigError: the samples in flight do not fit.
    """
    video, audio = config.views, config.audio.clip_samples // config.audio.hop_length
    shapes: dict[str, tuple[int, ...]] = {
        name: (3, video.frames, video.size, video.size) if name[0] == "v" else (1, config.audio.n_mels, audio)
        for name in used_views(config)
    }
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.optim.precision, torch.float32)
    room = config.run.data_bytes // processes

    def largest(pinned: bool) -> Flight:
        """Return the largest chunks that fit, or chunks of one sample."""
        chunk = min(CHUNK_SAMPLES, -(-batch_size // max(1, workers)))
        while (
            found := Flight(shapes, dtype, batch_size, chunk, _QUEUE * workers, pinned)
        ).bytes > room and chunk > 1:
            chunk -= 1
        return found

    planned = largest(pinned)
    if planned.bytes > room:
        planned = largest(False)
    if planned.bytes > room:
        raise ConfigError(
            f"{processes} x {workers} workers and {BATCHES} batches hold {planned.bytes * processes:,} bytes of"
            f" samples, more than run.data_bytes={config.run.data_bytes:,}",
            remedy="raise --run.data-bytes, or lower --run.workers or --optim.batch-size",
        )
    return planned


def check_memory(flight: Flight, *, processes: int, workers: int, available: int | None) -> None:
    """Raise if the samples in flight do not fit this machine's memory, before any of it is allocated.

    Args:
        flight: The samples in flight of one training process.
        processes: Training processes on this machine.
        workers: Workers of each training process, for the message.
        available: Available bytes of the machine, see :func:`available_bytes`; None: unknown.

    Raises:
        ConfigError: they do not fit.
    """
    needed = flight.bytes * processes
    if available is not None and needed > available:
        raise ConfigError(
            f"{processes} x {workers} workers and {BATCHES} batches take {needed:,} bytes of memory, this"
            f" machine has {available:,} available",
            remedy="lower --run.data-bytes, --run.workers or --optim.batch-size, or give the job more memory",
        )


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory available to this machine or this process's control group; None: unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable:")]
    group = root / "sys/fs/cgroup"
    for most, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max"
            limit = int((group / most).read_text(encoding="ascii"))
            taken = int((group / used).read_text(encoding="ascii"))
            for line in (group / statistics).read_text(encoding="ascii").splitlines():
                if line.startswith("inactive_file "):
                    taken -= int(line.split()[1])  # the kernel frees it when memory is needed
            found.append(max(0, limit - taken))
    return min(found, default=None)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


# --- shared memory -----------------------------------------------------------------------------------------------


class SharedBytes:
    """Memory that this process shares with the processes that it is passed to, under any start method.

    On Linux it is an anonymous memory file. All its pages are allocated at once, so that a lack of memory is an error
    here and not a bus error later. It needs no space in ``/dev/shm``, which is small in containers.

    Raises:
        ConfigError: there is not enough memory.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        if sys.platform == "linux" and hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("crisscross")
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                os.close(descriptor)
                raise ConfigError(
                    f"{size:,} bytes of shared memory cannot be allocated ({error.strerror})",
                    remedy="lower --run.data-bytes or --run.workers, or give the job more memory",
                ) from None
            self._attach(descriptor)
        else:
            self._array = multiprocessing.RawArray("B", size)
            self.memory = memoryview(self._array).cast("B")

    def _attach(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, self._size)
        self.memory = memoryview(self._map)

    def close(self) -> None:
        """Close the descriptor. The memory is freed with the last tensor in it."""
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
            del self._descriptor

    def __getstate__(self) -> dict[str, Any]:
        if sys.platform == "linux" and hasattr(self, "_descriptor"):
            from multiprocessing.reduction import DupFd

            return {"_size": self._size, "descriptor": DupFd(self._descriptor)}
        return {"_size": self._size, "_array": self._array}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._size = state["_size"]
        if "descriptor" in state:
            self._attach(state["descriptor"].detach())
        else:
            self._array = state["_array"]
            self.memory = memoryview(self._array).cast("B")


class _Slots:
    """A status row for each worker, then the slots, as arrays and tensors over shared memory."""

    def __init__(self, shared: SharedBytes, flight: Flight, workers: int) -> None:
        self.status = np.frombuffer(shared.memory, _STATUS, count=workers)
        self.views: list[dict[str, Tensor]] = []
        offset = _up(workers * _STATUS.itemsize, _PAGE)
        for _ in range(flight.slots):
            views = {}
            for name, shape in flight.shapes.items():
                count = flight.chunk * prod(shape)
                flat = torch.frombuffer(shared.memory, dtype=flight.dtype, count=count, offset=offset)
                views[name] = flat.view(flight.chunk, *shape)
                offset += _up(count * flight.dtype.itemsize, _ALIGNED)
            self.views.append(views)

    @staticmethod
    def size(flight: Flight, workers: int) -> int:
        return _up(workers * _STATUS.itemsize, _PAGE) + flight.shared_bytes


# --- a worker ----------------------------------------------------------------------------------------------------


@dataclass
class _Chunk:
    """Some samples of a step: the task for a worker, and then its result."""

    number: int
    first: int
    keys: list[SampleKey]
    slot: int = -1
    paths: list[str] = field(default_factory=list)
    failures: Failures = field(default_factory=list)
    error: CrissCrossError | None = None


def _work(
    pipe: connection.Connection,
    dataset: PretrainDataset,
    shared: SharedBytes,
    flight: Flight,
    workers: int,
    me: int,
) -> None:
    """Run a worker: read chunks until there are no more, or the training process has died."""
    for name in STOP_SIGNALS:
        # A terminal, Slurm or torchrun signals the whole group; the training process decides when to stop.
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    slots = _Slots(shared, flight, workers)
    shared.close()
    status, parent = slots.status, os.getppid()

    def note(position: int) -> None:
        status["finished" if position == NOTHING else "since"][me] = time.monotonic()
        status["position"][me] = position

    dataset.note = note
    with contextlib.suppress(EOFError, OSError):
        while True:
            while not pipe.poll(_PARENT_SECONDS):
                if os.getppid() != parent or not _parent_lives():
                    return
            task = pipe.recv()
            if task is None:
                return
            chunk, dataset.skipped = task
            for number, key in enumerate(chunk.keys):
                try:
                    views, path, failures = dataset[key]
                    note(NOTHING)
                    for name, view in views.items():
                        slots.views[chunk.slot][name][number].copy_(view)
                except CrissCrossError as error:
                    chunk.error = error
                except Exception as error:
                    chunk.error = TrainingError(
                        f"a worker failed ({type(error).__name__}: {first_line(error)})"
                    )
                if chunk.error is not None:
                    note(NOTHING)
                    break
                chunk.paths.append(path)
                chunk.failures += failures
            pipe.send(chunk)


def _parent_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


@dataclass
class _Worker:
    """A worker, as the training process sees it."""

    process: Any
    pipe: connection.Connection
    chunks: deque[_Chunk]

    def end(self) -> int | None:
        """Kill the worker and return its exit code, or None if the system cannot kill it."""
        self.process.kill()
        self.process.join(1.0)
        code: int | None = self.process.exitcode
        return code


# --- all workers -------------------------------------------------------------------------------------------------


class Loader:
    """Batches of a sampler, in its order, over all epochs without a pause. A loader can be iterated once.

    Args:
        dataset: The dataset that reads the samples.
        sampler: The keys of each step's samples.
        flight: Sizes of chunks and batches.
        workers: Number of workers; 0: samples are read in this process.
        incidents: The run's list of files that are not read any more.
        record: Records which file this process reads, with 0 workers.
        limit: Seconds that a file may take.

    Attributes:
        start_method: Start method of the workers; None: Python's default.
    """

    start_method: str | None = None

    def __init__(
        self,
        dataset: PretrainDataset,
        sampler: BatchSampler,
        flight: Flight,
        *,
        workers: int,
        incidents: Incidents,
        record: Record,
        limit: float,
    ) -> None:
        self.dataset, self.sampler, self.flight = dataset, sampler, flight
        self.workers, self.incidents, self.record, self.limit = workers, incidents, record, limit

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield batches; closing the iterator ends all workers.

        Raises:
            ConfigError: the memory cannot be allocated.
            TrainingError: the workers do not start, or nothing can be read.
        """
        return self._by_workers() if self.workers else self._here()

    def _here(self) -> Generator[Batch, None, None]:
        with self.record.kept() as record:
            self.dataset.note = record.note
            self.dataset.skipped = self.incidents.skipped
            for keys in self.sampler:
                try:
                    batch = collate(self.dataset.__getitems__(keys), self.flight.dtype)
                finally:
                    record.note(NOTHING)
                yield batch.pin_memory() if self.flight.pinned else batch

    def _by_workers(self) -> Generator[Batch, None, None]:
        with contextlib.closing(_Pool(self)) as pool:
            yield from _ahead(pool.batches(), pool.stop, pinned=self.flight.pinned)


class _Pool:
    """The workers of a training process, and their chunks."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.flight = loader, loader.flight
        self.stop = threading.Event()
        workers = loader.workers
        self.shared = SharedBytes(_Slots.size(self.flight, workers))
        self.slots = _Slots(self.shared, self.flight, workers)
        self.free = list(range(self.flight.slots))
        self.waiting: deque[_Chunk] = deque()
        self.done: dict[int, _Chunk] = {}
        self.coming = self._chunks()
        self.taken = 0  # chunks that are in a batch
        self.idle_deaths = 0
        self.workers: list[_Worker] = []
        try:
            for number in range(workers):
                self.workers.append(self._start(number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kill all workers; they ignore the signals that stop a run."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.end()
            worker.pipe.close()
        self.shared.close()

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches until ``stop`` is set."""
        for keys in self.loader.sampler:
            if (batch := self._next(len(keys))) is None:
                return
            yield batch
            if batch.error is not None:
                return

    def _next(self, samples: int) -> Batch | None:
        """Return the next batch, or None if ``stop`` is set."""
        views = {
            name: torch.empty((samples, *shape), dtype=self.flight.dtype, pin_memory=self.flight.pinned)
            for name, shape in self.flight.shapes.items()
        }
        paths: list[str] = []
        failures: Failures = []
        while len(paths) < samples:
            if self.stop.is_set():
                return None
            self._distribute()
            chunk = self.done.pop(self.taken, None)
            if chunk is None:
                self._listen()
                continue
            if chunk.error is not None:
                return Batch({}, [], [], chunk.error)
            for name, view in views.items():
                view[chunk.first : chunk.first + len(chunk.keys)].copy_(
                    self.slots.views[chunk.slot][name][: len(chunk.keys)]
                )
            self.free.append(chunk.slot)
            self.taken += 1
            paths += chunk.paths
            failures += chunk.failures
        return Batch(views, paths, failures)

    def _chunks(self) -> Iterator[_Chunk]:
        number, size = 0, self.flight.chunk
        for keys in self.loader.sampler:
            for first in range(0, len(keys), size):
                yield _Chunk(number, first, keys[first : first + size])
                number += 1

    def _distribute(self) -> None:
        """Send chunks to the workers that have the fewest, as long as there are free slots."""
        while True:
            worker = min(self.workers, key=lambda worker: len(worker.chunks))
            if len(worker.chunks) >= _QUEUE:
                return
            if not self.waiting:
                if not self.free or (chunk := next(self.coming, None)) is None:
                    return
                chunk.slot = self.free.pop()
                self.waiting.append(chunk)
            chunk = self.waiting.popleft()
            worker.chunks.append(chunk)
            with contextlib.suppress(OSError):  # the worker is dead: _listen notices and restarts it
                worker.pipe.send((chunk, self.loader.incidents.skipped))

    def _listen(self) -> None:
        """Receive chunks from the workers, and restart workers that have died or are silent."""
        by_pipe = {worker.pipe: number for number, worker in enumerate(self.workers)}
        by_sentinel = {worker.process.sentinel: number for number, worker in enumerate(self.workers)}
        ready = connection.wait([*by_pipe, *by_sentinel], _POLL_SECONDS)
        for pipe in ready:
            if pipe in by_pipe:
                self._receive(self.workers[by_pipe[pipe]])
        for number, worker in enumerate(self.workers):
            if worker.process.sentinel in ready:
                self._restart(number, silent=False)
        for number in self._silent():
            self._restart(number, silent=True)

    def _receive(self, worker: _Worker) -> bool:
        """Receive a chunk that a worker has read; return False if none will come."""
        try:
            chunk = worker.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return False
        worker.chunks.popleft()
        self.done[chunk.number] = chunk
        self.idle_deaths = 0
        return True

    def _silent(self) -> list[int]:
        """Return the numbers of the workers that are silent because of their file.

        Raises:
            TrainingError: all workers are silent, each at another file.
        """
        now, status, limit = time.monotonic(), self.slots.status, self.loader.limit
        reading = status["position"] != NOTHING
        late = np.flatnonzero(reading & (now - status["since"] > limit))
        if (
            len(late)
            and len(self.workers) >= _STORAGE_WORKERS
            and reading.all()
            and len(np.unique(status["position"])) == len(status)
            and now - status["finished"].max() > limit / 2
        ):  # the storage may be the cause; it is if all workers are late
            if len(late) < len(status):
                return []
            raise TrainingError(
                f"none of {len(late)} workers has read its file within {limit:g} s",
                remedy="check that the data's storage responds, or raise --run.read-seconds",
            )
        return [int(number) for number in late]

    def _restart(self, number: int, *, silent: bool) -> None:
        """Restart a worker with the chunks that it had, and list the file that it was reading."""
        worker = self.workers[number]
        code = worker.end()
        with contextlib.suppress(OSError):
            while worker.pipe.poll() and self._receive(worker):
                pass  # chunks that it had read before
        worker.pipe.close()
        position = int(self.slots.status["position"][number])
        if position != NOTHING:
            how = f"was silent for {self.loader.limit:g} s" if silent else f"died ({_manner(code)})"
            certain = silent or code not in _FROM_OUTSIDE
            self.loader.incidents.add(position, f"its worker {how}", certain=certain)
        elif not silent:
            self.idle_deaths += 1
            if self.idle_deaths >= _IDLE_DEATHS:
                raise TrainingError(
                    f"the workers die before they read anything ({_manner(code)})",
                    remedy="see what they printed, or pass --run.workers 0",
                )
        self.workers[number] = self._start(number)
        self.waiting.extendleft(reversed(worker.chunks))

    def _start(self, number: int) -> _Worker:
        self.slots.status["position"][number] = NOTHING
        mine: Any  # a pipe has another type on Windows
        mine, theirs = multiprocessing.Pipe()
        loader = self.loader
        context: Any = multiprocessing.get_context(loader.start_method)
        process = context.Process(
            target=_work,
            args=(theirs, loader.dataset, self.shared, self.flight, loader.workers, number),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Worker(process, mine, deque())


def _manner(code: int | None) -> str:
    if code is None:
        return "it cannot be killed"
    return f"signal {-code}" if code < 0 else f"exit code {code:#x}" if code > 255 else f"exit code {code}"


def _ahead(
    items: Generator[_T, None, None], stop: threading.Event, *, pinned: bool
) -> Generator[_T, None, None]:
    """Yield the items of ``items``. A thread makes each one while the previous one is used, and never more than one."""
    device = torch.cuda.current_device() if pinned else None
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)
            with contextlib.closing(items):
                while wanted.get():
                    made.put((next(items), None))
        except BaseException as error:
            made.put((None, error))

    thread = threading.Thread(target=run, daemon=True, name="crisscross-batches")
    thread.start()
    wanted.put(True)
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.put(True)
            assert item is not None
            yield item
    finally:
        stop.set()
        wanted.put(False)
        thread.join()


def make_loader(
    files: Sequence[Media],
    config: PretrainConfig,
    sampler: BatchSampler,
    *,
    workers: int,
    pin_memory: bool,
    flight: Flight | None = None,
    incidents: Incidents | None = None,
    record: Record | None = None,
) -> Loader:
    """Return a loader of the sampler's batches.

    Args:
        files: The data set.
        config: Every setting.
        sampler: The keys of each step's samples.
        workers: Number of workers; 0: samples are read in this process.
        pin_memory: Whether a GPU copies the batches.
        flight: Sizes of chunks and batches; default: those of :func:`plan_flight`.
        incidents: The run's list of incidents; default: one in memory.
        record: Records which file this process reads; default: no record.
    """
    if flight is None:
        flight = plan_flight(
            config, batch_size=config.optim.batch_size // sampler.world, workers=workers, pinned=pin_memory
        )
    limit = config.run.read_seconds
    return Loader(
        PretrainDataset(files, config),
        sampler,
        flight,
        workers=workers,
        incidents=Incidents(None, files) if incidents is None else incidents,
        record=Record(None, rank=sampler.rank, limit=limit) if record is None else record,
        limit=limit,
    )
