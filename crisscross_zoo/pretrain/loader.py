"""Batches in their order: read by processes that write into memory of a fixed size, and that may die.

Each process takes parts of a batch, of 16 samples at most, and writes them into one of a fixed number of slots in
shared memory, which is taken as a whole before the first sample is read: what is in flight cannot grow. A thread puts
the parts of the next batch together while the one before is trained on.

A process says what it reads in that memory. One that dies or is silent for too long is started again and gets its parts
again; samples are decided by their keys alone, so nothing else changes. What it was reading goes on the run's list.
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
from crisscross_zoo.pretrain.data import Batch, BatchSampler, PretrainDataset, collate
from crisscross_zoo.pretrain.incidents import NOTHING, Incidents, Record
from crisscross_zoo.pretrain.loss import VIEWS
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.workers.samples import Failures, SampleKey

_T = TypeVar("_T")

STOP_SIGNALS = tuple(s for s in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, s))
"""What tells a run to stop; SIGUSR1 is Slurm's warning."""

PART_SAMPLES = 16
"""Samples that a process reads before it hands them over, at most."""

BATCHES = 2
"""Whole batches of a training process: one that is trained on, one that is put together."""

_QUEUE = 2  # parts that a process has: one that it reads, and one after
_POLL_SECONDS = 0.2
_PARENT_SECONDS = 2.0
_IDLE_DEATHS = 3  # in turn, of processes that read nothing: none will start
_STORAGE_PROCESSES = 4  # silent at once, each at another file: that is no file's fault
_PAGE = 4096
_ALIGNED = 64
_STATUS = np.dtype([("place", "<i8"), ("since", "<f8"), ("finished", "<f8")])
_FROM_OUTSIDE = tuple(-getattr(signal, s) for s in ("SIGKILL", "SIGTERM") if hasattr(signal, s))


# --- how much ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flight:
    """What a training process and its data processes hold of samples that are not trained on yet.

    Attributes:
        shapes: Of each view of a sample.
        dtype: Of the views.
        share: Samples of a batch.
        part: Samples of a part.
        slots: Parts in shared memory.
        pinned: Whether whole batches lie in memory that a GPU copies from.
    """

    shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    share: int
    part: int
    slots: int
    pinned: bool

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def slot_bytes(self) -> int:
        """Bytes of a part in shared memory."""
        return sum(
            _up(prod(shape) * self.part * self.dtype.itemsize, _ALIGNED) for shape in self.shapes.values()
        )

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory."""
        return self.slots * self.slot_bytes

    @property
    def batch_bytes(self) -> int:
        """Bytes of one whole batch; torch takes pinned memory in powers of two."""
        sizes = [prod(shape) * self.share * self.dtype.itemsize for shape in self.shapes.values()]
        return sum(1 << (size - 1).bit_length() if self.pinned else size for size in sizes)

    @property
    def bytes(self) -> int:
        """Bytes of all of it."""
        return self.shared_bytes + BATCHES * self.batch_bytes


def plan_flight(
    config: PretrainConfig, *, share: int, workers: int, processes: int = 1, pinned: bool = False
) -> Flight:
    """Return how samples travel within the bytes that ``config.run.data_bytes`` gives a machine.

    Where whole batches do not fit in pinned memory, of which torch takes powers of two, they are not pinned: copying
    them is slower then.

    Under autocast samples travel in its 16 bits: the first layer of both networks rounds its input to these in any
    case, so no number changes.

    Args:
        config: Views, precision and the bytes.
        share: Samples of a batch for each training process.
        workers: Data processes of each; 0: samples are read in the training process.
        processes: Training processes on this machine, which share the bytes.
        pinned: Whether batches are copied to a GPU.

    Raises:
        ConfigError: it does not fit.
    """
    video, audio = config.video.frames, config.audio.clip_samples // config.audio.hop_length
    crop = config.data.crop
    shapes: dict[str, tuple[int, ...]] = {
        name: (3, video, crop, crop) if name[0] == "v" else (1, config.audio.n_mels, audio) for name in VIEWS
    }
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.optim.precision, torch.float32)
    room = config.run.data_bytes // processes

    def largest(pinned: bool) -> Flight:
        """The largest parts that fit, or those of one sample."""
        part = min(PART_SAMPLES, -(-share // max(1, workers)))
        while (
            found := Flight(shapes, dtype, share, part, _QUEUE * workers, pinned)
        ).bytes > room and part > 1:
            part -= 1
        return found

    planned = largest(pinned)
    if planned.bytes > room:
        planned = largest(False)
    if planned.bytes > room:
        raise ConfigError(
            f"{processes} x {workers} data processes and {BATCHES} batches hold {planned.bytes * processes:,} bytes of"
            f" samples, more than run.data_bytes={config.run.data_bytes:,}",
            remedy="raise --run.data-bytes, or lower --run.workers or --optim.batch-size",
        )
    return planned


def check_memory(flight: Flight, *, processes: int, workers: int, available: int | None) -> None:
    """Refuse a run whose samples in flight do not fit the machine, before anything is taken.

    Args:
        flight: What one training process takes.
        processes: Training processes on this machine.
        workers: Data processes of each, for the message.
        available: Bytes that the machine has, see :func:`available_bytes`; None: not known.

    Raises:
        ConfigError: they do not fit.
    """
    needed = flight.bytes * processes
    if available is not None and needed > available:
        raise ConfigError(
            f"{processes} x {workers} data processes and {BATCHES} batches take {needed:,} bytes of memory, this"
            f" machine has {available:,} available",
            remedy="lower --run.data-bytes, --run.workers or --optim.batch-size, or give the job more memory",
        )


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this machine, or this process's control group, has available; None: not known."""
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
                    taken -= int(line.split()[1])  # given back when memory is wanted
            found.append(max(0, limit - taken))
    return min(found, default=None)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


# --- memory of several processes ---------------------------------------------------------------------------------


class SharedBytes:
    """Memory that this process and those that it is handed to see alike, under any start method.

    On Linux it is an anonymous memory file: its pages are taken at once, so that too little of it is an error here and
    not a fault later, and it needs no room in ``/dev/shm``, of which containers have little.

    Raises:
        ConfigError: there is not as much.
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
                    f"{size:,} bytes of shared memory cannot be taken ({error.strerror})",
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
        """Give the descriptor back; the memory goes with the last tensor in it."""
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
    """A line of status for each process, then the slots, as arrays and tensors over shared memory."""

    def __init__(self, shared: SharedBytes, flight: Flight, workers: int) -> None:
        self.status = np.frombuffer(shared.memory, _STATUS, count=workers)
        self.views: list[dict[str, Tensor]] = []
        offset = _up(workers * _STATUS.itemsize, _PAGE)
        for _ in range(flight.slots):
            views = {}
            for name, shape in flight.shapes.items():
                count = flight.part * prod(shape)
                flat = torch.frombuffer(shared.memory, dtype=flight.dtype, count=count, offset=offset)
                views[name] = flat.view(flight.part, *shape)
                offset += _up(count * flight.dtype.itemsize, _ALIGNED)
            self.views.append(views)

    @staticmethod
    def size(flight: Flight, workers: int) -> int:
        return _up(workers * _STATUS.itemsize, _PAGE) + flight.shared_bytes


# --- a data process ----------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """Some samples of a step: a task, and then what came of it."""

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
    """Read parts until there are no more, or the training process is gone."""
    for name in STOP_SIGNALS:
        # A terminal, Slurm or torchrun signals the whole group; the training process decides when to stop.
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    slots = _Slots(shared, flight, workers)
    shared.close()
    status, parent = slots.status, os.getppid()

    def note(place: int) -> None:
        status["finished" if place == NOTHING else "since"][me] = time.monotonic()
        status["place"][me] = place

    dataset.note = note
    with contextlib.suppress(EOFError, OSError):
        while True:
            while not pipe.poll(_PARENT_SECONDS):
                if os.getppid() != parent or not _parent_lives():
                    return
            task = pipe.recv()
            if task is None:
                return
            part, dataset.skipped = task
            for number, key in enumerate(part.keys):
                try:
                    views, path, failures = dataset[key]
                    note(NOTHING)
                    for name, view in views.items():
                        slots.views[part.slot][name][number].copy_(view)
                except CrissCrossError as error:
                    part.error = error
                except Exception as error:
                    part.error = TrainingError(
                        f"a data process failed ({type(error).__name__}: {first_line(error)})"
                    )
                if part.error is not None:
                    note(NOTHING)
                    break
                part.paths.append(path)
                part.failures += failures
            pipe.send(part)


def _parent_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


@dataclass
class _Process:
    """A data process as the training process sees it."""

    process: Any
    pipe: connection.Connection
    parts: deque[_Part]

    def end(self) -> int | None:
        """End it, whatever it does; return its exit code, or None where the system cannot end it."""
        self.process.kill()
        self.process.join(1.0)
        code: int | None = self.process.exitcode
        return code


# --- all of them -------------------------------------------------------------------------------------------------


class Loader:
    """Batches of a sampler, in its order, over epochs without a pause; iterate once.

    Args:
        dataset: What makes the samples.
        sampler: Which, step by step.
        flight: How they travel.
        workers: Data processes; 0: samples are read in this process.
        incidents: The run's list of files that are not read any more.
        record: Where this process says what it reads, with 0 data processes.
        limit: Seconds that a file may take.

    Attributes:
        start_method: How processes start; None: Python's own choice.
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
        """Yield batches; closing the iterator ends all processes.

        Raises:
            ConfigError: the memory cannot be taken.
            TrainingError: data processes do not start, or nothing can be read.
        """
        return self._by_processes() if self.workers else self._here()

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

    def _by_processes(self) -> Generator[Batch, None, None]:
        with contextlib.closing(_Pool(self)) as pool:
            yield from _ahead(pool.batches(), pool.stop, pinned=self.flight.pinned)


class _Pool:
    """The data processes of a training process, and their parts."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.flight = loader, loader.flight
        self.stop = threading.Event()
        workers = loader.workers
        self.shared = SharedBytes(_Slots.size(self.flight, workers))
        self.slots = _Slots(self.shared, self.flight, workers)
        self.free = list(range(self.flight.slots))
        self.waiting: deque[_Part] = deque()
        self.done: dict[int, _Part] = {}
        self.coming = self._parts()
        self.taken = 0  # parts that are in a batch
        self.idle_deaths = 0
        self.processes: list[_Process] = []
        try:
            for number in range(workers):
                self.processes.append(self._start(number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes; they do not listen to signals."""
        for one in self.processes:
            one.process.kill()
        for one in self.processes:
            one.end()
            one.pipe.close()
        self.shared.close()

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches until told to stop."""
        for keys in self.loader.sampler:
            if (batch := self._next(len(keys))) is None:
                return
            yield batch
            if batch.error is not None:
                return

    def _next(self, samples: int) -> Batch | None:
        """Return the next batch, or None where that is not wanted any more."""
        views = {
            name: torch.empty((samples, *shape), dtype=self.flight.dtype, pin_memory=self.flight.pinned)
            for name, shape in self.flight.shapes.items()
        }
        paths: list[str] = []
        failures: Failures = []
        while len(paths) < samples:
            if self.stop.is_set():
                return None
            self._hand_out()
            part = self.done.pop(self.taken, None)
            if part is None:
                self._listen()
                continue
            if part.error is not None:
                return Batch({}, [], [], part.error)
            for name, view in views.items():
                view[part.first : part.first + len(part.keys)].copy_(
                    self.slots.views[part.slot][name][: len(part.keys)]
                )
            self.free.append(part.slot)
            self.taken += 1
            paths += part.paths
            failures += part.failures
        return Batch(views, paths, failures)

    def _parts(self) -> Iterator[_Part]:
        number, size = 0, self.flight.part
        for keys in self.loader.sampler:
            for first in range(0, len(keys), size):
                yield _Part(number, first, keys[first : first + size])
                number += 1

    def _hand_out(self) -> None:
        """Give parts to the processes that have the fewest, as long as there are slots."""
        while True:
            one = min(self.processes, key=lambda one: len(one.parts))
            if len(one.parts) >= _QUEUE:
                return
            if not self.waiting:
                if not self.free or (part := next(self.coming, None)) is None:
                    return
                part.slot = self.free.pop()
                self.waiting.append(part)
            part = self.waiting.popleft()
            one.parts.append(part)
            with contextlib.suppress(OSError):  # it is dead, which is seen when it is listened to
                one.pipe.send((part, self.loader.incidents.skipped))

    def _listen(self) -> None:
        """Take what comes, and see who has died or is silent."""
        by_pipe = {one.pipe: number for number, one in enumerate(self.processes)}
        by_sentinel = {one.process.sentinel: number for number, one in enumerate(self.processes)}
        ready = connection.wait([*by_pipe, *by_sentinel], _POLL_SECONDS)
        for pipe in ready:
            if pipe in by_pipe:
                self._take(self.processes[by_pipe[pipe]])
        for number, one in enumerate(self.processes):
            if one.process.sentinel in ready:
                self._again(number, silent=False)
        for number in self._silent():
            self._again(number, silent=True)

    def _take(self, one: _Process) -> bool:
        """Take a part that a process has read; False if there will be none."""
        try:
            part = one.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return False
        one.parts.popleft()
        self.done[part.number] = part
        self.idle_deaths = 0
        return True

    def _silent(self) -> list[int]:
        """Return the processes that are silent because of their file.

        Raises:
            TrainingError: all are silent, each at another file.
        """
        now, status, limit = time.monotonic(), self.slots.status, self.loader.limit
        reading = status["place"] != NOTHING
        late = np.flatnonzero(reading & (now - status["since"] > limit))
        if (
            len(late)
            and len(self.processes) >= _STORAGE_PROCESSES
            and reading.all()
            and len(np.unique(status["place"])) == len(status)
            and now - status["finished"].max() > limit / 2
        ):  # the storage, it seems: it is when the others are as late
            if len(late) < len(status):
                return []
            raise TrainingError(
                f"none of {len(late)} data processes has read its file within {limit:g} s",
                remedy="see whether the data's storage answers, or raise --run.read-seconds",
            )
        return [int(number) for number in late]

    def _again(self, number: int, *, silent: bool) -> None:
        """Start a process anew with the parts it had, and write down what it was reading."""
        one = self.processes[number]
        code = one.end()
        with contextlib.suppress(OSError):
            while one.pipe.poll() and self._take(one):
                pass  # what it had read before
        one.pipe.close()
        place = int(self.slots.status["place"][number])
        if place != NOTHING:
            how = f"nothing came for {self.loader.limit:g} s" if silent else _manner(code)
            certain = silent or code not in _FROM_OUTSIDE
            self.loader.incidents.add(place, f"ended its data process ({how})", certain=certain)
        elif not silent:
            self.idle_deaths += 1
            if self.idle_deaths >= _IDLE_DEATHS:
                raise TrainingError(
                    f"data processes die before they read anything ({_manner(code)})",
                    remedy="see what they printed, or pass --run.workers 0",
                )
        self.processes[number] = self._start(number)
        self.waiting.extendleft(reversed(one.parts))

    def _start(self, number: int) -> _Process:
        self.slots.status["place"][number] = NOTHING
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
        return _Process(process, mine, deque())


def _manner(code: int | None) -> str:
    if code is None:
        return "it cannot be ended"
    return f"signal {-code}" if code < 0 else f"exit code {code:#x}" if code > 255 else f"exit code {code}"


def _ahead(
    items: Generator[_T, None, None], stop: threading.Event, *, pinned: bool
) -> Generator[_T, None, None]:
    """Yield what ``items`` yields, each made in a thread while the one before is used, and never more than one."""
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
        sampler: Which samples, step by step.
        workers: Data processes; 0: samples are read in this process.
        pin_memory: Whether a GPU copies the batches.
        flight: How samples travel; default: what :func:`plan_flight` says.
        incidents: The run's list; default: one that is not kept.
        record: Where this process says what it reads; default: nowhere.
    """
    if flight is None:
        flight = plan_flight(
            config, share=config.optim.batch_size // sampler.world, workers=workers, pinned=pin_memory
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
