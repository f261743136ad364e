"""Extraction on a Ray cluster: :func:`extract_on_ray`, the same outputs as on one machine.

Workers are Ray actors, each with encoders and decoding workers of its own. They take files one by one from a queue on
the driver's node, and write features to the output folder, which all nodes share. Plain actors, not Ray Data, which
retries blocks: there, a file that always kills its process is retried forever, or its block fails with it. Here, a loss
is known by file. When the queue is empty, the files without an outcome (their worker died) and those that crashed or
hung the decoder are retried once, one file per worker at a time; a file that kills its worker again has failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crisscross_zoo.errors import ClusterError, ConfigError, CrissCrossError, DecoderCrashError, first_line
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.extract.lists import FRAGMENTS_NAME
from crisscross_zoo.extract.options import ExtractOptions
from crisscross_zoo.extract.outputs import FileResult, known_result, save
from crisscross_zoo.files import remote
from crisscross_zoo.files.store import Folder, LocalFolder
from crisscross_zoo.weights.loaded import Weights

CHUNK = 10_000
"""Number of files that are sent to the queue at once."""

GPU_WORKER_CPUS = 17
"""Upper limit of the cores of a worker with a GPU: one for itself, and one for each of its decoding workers."""

_POLL_SECONDS = 0.5
_START_ATTEMPTS = 5
_PATIENCE_SECONDS = 60.0  # until a message reports that no worker has started
_LOCAL_STORE_BYTES = 100_000_000  # no features go through Ray's object store


@dataclass(frozen=True)
class _Setup:
    """What is sent to a worker."""

    weights: Weights | Mapping[str, Weights]
    options: ExtractOptions
    folder: Folder
    scratch: Path | None  # a folder that all nodes share; None where the output folder is at a URL
    working_folder: str | None  # the folder that relative paths start from; None if all paths are absolute
    overwrite: bool


def extract_on_ray(
    weights: Weights | Mapping[str, Weights],
    options: ExtractOptions,
    outputs: Mapping[str, str],
    folder: Folder,
    *,
    address: str | None = None,
    overwrite: bool = False,
    on_message: Callable[[str], None],
) -> Generator[FileResult, None, None]:
    """Extract files on a Ray cluster; a bad file fails alone, and a lost worker or node loses no file.

    Args:
        weights: As for :class:`FeatureExtractor`; every node must be able to load them.
        options: Device "auto" uses every GPU of the cluster, one per worker, or every core if there is no GPU; "cpu"
            uses only cores, "cuda" only GPUs. ``workers`` is the number of decoding workers of one Ray worker.
        outputs: The name of each input's output in the folder. Inputs are paths that all nodes share.
        folder: The output folder, which all nodes share.
        address: Address of the cluster, as in ``ray.init``: "auto", "HOST:PORT". Default: $RAY_ADDRESS, or a cluster on
            this machine that ends with the call.
        overwrite: Extract also inputs whose output is up to date.
        on_message: Called with one line, for example about a worker that was lost.

    Yields:
        The outcome of every input, as soon as it is known.

    Raises:
        ConfigError: Ray is not installed or not reachable, or the options do not fit, here or on a node.
        ClusterError: the cluster was lost, a worker failed for another reason than a file, or none can start.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "the ray engine needs Ray, which is not installed", remedy="pip install 'crisscross-zoo[ray]'"
        ) from None
    if options.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {str(options.device)!r} on a cluster", remedy="use auto, cpu or cuda")
    scratch = None
    if folder.local is not None:
        scratch = folder.local.absolute() / FRAGMENTS_NAME / f"ray-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
    working_folder = _working_folder(weights, options, [*outputs, folder.locate()])
    setup = _Setup(weights, options, folder, scratch, working_folder, overwrite)
    try:
        with _connected(ray, address):
            yield from _Cluster(ray, setup, outputs, on_message).run()
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CrissCrossError):
            raise error.cause from None
        raise ClusterError(
            f"a worker failed ({type(error.cause).__name__}: {first_line(error.cause)})",
            remedy="see Ray's logs on the node",
        ) from error
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the cluster was lost ({type(error).__name__}: {first_line(error)})",
            remedy="run the same command again to resume",
        ) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
            with contextlib.suppress(OSError):  # fragments of shards may be there too
                scratch.parent.rmdir()


def _working_folder(
    weights: Weights | Mapping[str, Weights], options: ExtractOptions, paths: Sequence[str]
) -> str | None:
    """Return the working folder, which workers must change to, if any path is relative; else None."""
    sources = weights.values() if isinstance(weights, Mapping) else [weights]
    paths = [
        *paths,
        *(os.fspath(w) for w in sources if isinstance(w, str | os.PathLike) and Path(w).exists()),
    ]
    if options.cache_dir is not None:
        paths.append(os.fspath(options.cache_dir))
    return str(Path.cwd()) if any(not remote.is_url(p) and not Path(p).is_absolute() for p in paths) else None


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _LOCAL_STORE_BYTES}
    try:
        # Ray itself tries for minutes, and ignores signals.
        if match := re.fullmatch(r"([^/]+):(\d+)", address):
            socket.create_connection((match[1], int(match[2])), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level="error", **(own if address == "local" else {}))
    except Exception as error:  # Ray raises a plain Exception if its own node does not start in time
        raise ConfigError(
            f"no Ray cluster at address {address!r} ({first_line(error)})",
            remedy="start one with `ray start --head`, or leave out the address to use this machine",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


class _Queue:
    """An actor: the files that no worker has taken yet, and the outcomes that the driver has not collected yet."""

    def __init__(self) -> None:
        self._todo: deque[tuple[str, str]] = deque()
        self._outcomes: list[FileResult] = []

    def add(self, files: list[tuple[str, str]]) -> None:
        """Append files."""
        self._todo.extend(files)

    def take(self) -> tuple[str, str] | None:
        """Return the next file, which no other worker gets; None if none is left."""
        return self._todo.popleft() if self._todo else None

    def put(self, outcome: FileResult) -> None:
        """Append an outcome."""
        self._outcomes.append(outcome)

    def collect(self) -> tuple[list[FileResult], int]:
        """Return the outcomes since the last call, and the number of files that are left."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes, len(self._todo)


class _Worker:
    """An actor that extracts files from the queue, or one file."""

    def __init__(self, setup: _Setup) -> None:
        self._setup = setup

    def start(self) -> str:
        """Load the encoders and return the id of the node."""
        import ray

        setup = self._setup
        try:
            if setup.working_folder is not None:
                os.chdir(setup.working_folder)
        except OSError as error:
            raise ConfigError(
                f"node {socket.gethostname()} has no folder {setup.working_folder} ({error.strerror})",
                remedy="run the command in a folder that all nodes share",
            ) from None
        if setup.scratch is not None and not setup.scratch.is_dir():
            raise ConfigError(
                f"node {socket.gethostname()} does not see {setup.scratch.parents[1]}",
                remedy="give --out a folder that all nodes share",
            )
        self._folder = setup.folder
        if setup.scratch is not None:
            scratch = setup.scratch / uuid.uuid4().hex
            scratch.mkdir()
            assert isinstance(setup.folder, LocalFolder)
            self._folder = dataclasses.replace(setup.folder, scratch=scratch)
        options = setup.options
        self._extractor = FeatureExtractor(setup.weights, options.modality, **options.keywords())
        return str(ray.get_runtime_context().get_node_id())

    def extract_all(self, queue: Any) -> None:
        """Extract files until the queue is empty."""
        import ray

        self._extract(
            iter(lambda: ray.get(queue.take.remote()), None),
            put=lambda outcome: ray.get(queue.put.remote(outcome)),
        )

    def extract_one(self, path: str, output: str) -> FileResult:
        """Extract one file."""
        outcomes: list[FileResult] = []
        self._extract(iter([(path, output)]), put=outcomes.append)
        (outcome,) = outcomes
        return outcome

    def _extract(self, files: Iterator[tuple[str, str]], *, put: Callable[[FileResult], None]) -> None:
        """Extract files, and call ``put`` with each outcome as soon as it is known, from any thread."""
        outputs: dict[str, str] = {}

        def paths() -> Iterator[str]:
            for path, output in files:
                known = known_result(
                    path, self._folder, output, self._extractor.identity, overwrite=self._setup.overwrite
                )
                if known is None:
                    outputs[path] = output
                    yield path
                else:
                    put(known)

        for given, result in self._extractor.stream(paths()):
            path = str(given)
            put(save(path, self._folder, outputs.pop(path), result))


@dataclass
class _WorkerState:
    """What the driver knows of a worker."""

    handle: Any
    node: str | None = None  # None until the worker has started
    path: str | None = None  # the file that is assigned to it, when files are extracted one by one


class _Cluster:
    """The driver: starts workers, replaces lost ones, and yields one outcome for every input."""

    def __init__(
        self, ray: Any, setup: _Setup, outputs: Mapping[str, str], on_message: Callable[[str], None]
    ) -> None:
        self._ray = ray
        self._setup = setup
        self._outputs = outputs
        self._on_message = on_message
        self._workers: dict[Any, _WorkerState] = {}  # by the reference of the task that each is running
        self._failed_starts = 0  # in a row, while no worker lives
        self._patience = time.monotonic() + _PATIENCE_SECONDS

    def run(self) -> Iterator[FileResult]:
        retry = dict.fromkeys(self._outputs)
        try:
            for outcome in self._all_together():
                if not isinstance(outcome.error, DecoderCrashError):
                    del retry[outcome.path]
                    yield outcome
            yield from self._one_by_one(deque(retry))
        finally:
            for worker in self._workers.values():
                self._ray.kill(worker.handle)

    def _all_together(self) -> Iterator[FileResult]:
        ray = self._ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        queue = ray.remote(num_cpus=0, scheduling_strategy=here)(_Queue).remote()
        files = list(self._outputs.items())
        ray.get([queue.add.remote(files[k : k + CHUNK]) for k in range(0, len(files), CHUNK)])
        while True:
            working = any(worker.node is not None for worker in self._workers.values())
            outcomes, left = ray.get(queue.collect.remote())
            yield from outcomes
            if not left and not working:
                break
            self._start_workers(left)
            for worker, result in self._events():
                if isinstance(result, str):
                    self._assign(worker, "extract_all", queue)
                elif result is None:
                    ray.kill(worker.handle)  # the queue is empty
        ray.kill(queue)

    def _one_by_one(self, paths: deque[str]) -> Iterator[FileResult]:
        while paths or any(worker.path is not None for worker in self._workers.values()):
            self._start_workers(len(paths) + sum(w.path is not None for w in self._workers.values()))
            for worker, result in self._events():
                if isinstance(result, FileResult):
                    # Features may be there from the first try, whose outcome was lost.
                    yield dataclasses.replace(result, skipped=False)
                elif worker.path is not None:
                    unavailable = isinstance(result, self._ray.exceptions.ActorUnavailableError)
                    if unavailable or not self._is_alive(worker.node):
                        paths.append(worker.path)  # not the file's fault
                    else:
                        yield FileResult(worker.path, self._outputs[worker.path], error=_killed(worker.path))
                if not isinstance(result, Exception):
                    worker.path = None
                    if paths:
                        worker.path = paths.popleft()
                        self._assign(worker, "extract_one", worker.path, self._outputs[worker.path])
                    else:
                        self._ray.kill(worker.handle)

    def _start_workers(self, wanted: int) -> None:
        """Start workers until there are ``wanted``, or one more than the cluster has room for now.

        The one more is pending: an autoscaling cluster grows for it; in another cluster, it replaces a lost worker.
        """
        resources = self._ray.cluster_resources()
        device = self._setup.options.device
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if device == "cpu" or (device == "auto" and not gpus):
            device, room, takes = "cpu", cores, {"num_cpus": 1}
        else:
            alive = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
            cpus = min((int(r.get("CPU", 0) // r["GPU"]) for r in alive if r.get("GPU")), default=1)
            device, room = "cuda", gpus
            takes = {"num_cpus": max(1, min(GPU_WORKER_CPUS, cpus)), "num_gpus": 1}
        for _ in range(min(wanted, room + 1) - len(self._workers)):
            options = dataclasses.replace(self._setup.options, device=device)
            decodes_itself = device == "cuda" and options.decoder == "torchcodec"
            if options.workers is None and not decodes_itself:
                options = dataclasses.replace(options, workers=max(1, takes["num_cpus"] - 1))
            setup = dataclasses.replace(self._setup, options=options)
            handle = self._ray.remote(max_restarts=0, max_task_retries=0, **takes)(_Worker).remote(setup)
            self._workers[handle.start.remote()] = _WorkerState(handle)

    def _events(self) -> Iterator[tuple[_WorkerState, Any]]:
        """Wait briefly; yield workers whose task ended, each with its result or the error that shows that it died."""
        ready, _ = self._ray.wait(list(self._workers), num_returns=1, timeout=_POLL_SECONDS)
        if time.monotonic() > self._patience:
            self._patience = float("inf")
            self._on_message("no worker has started yet; `ray status` shows the cluster's free resources")
        for ref in ready:
            worker = self._workers.pop(ref)
            try:
                result = self._ray.get(ref)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.OutOfMemoryError) as error:
                self._ray.kill(worker.handle)  # it may be alive, but unreachable
                self._note_loss(worker, error)
                result = error
            else:
                if worker.node is None:
                    worker.node, self._failed_starts, self._patience = result, 0, float("inf")
            yield worker, result

    def _note_loss(self, worker: _WorkerState, error: Exception) -> None:
        self._on_message("a worker was lost; its unfinished files are extracted again")
        if worker.node is None and all(w.node is None for w in self._workers.values()):
            self._failed_starts += 1
            if self._failed_starts == _START_ATTEMPTS:
                raise ClusterError(
                    f"workers die as they start ({' '.join(str(error).split())[:300]})",
                    remedy="see Ray's logs on the node",
                )

    def _is_alive(self, node: str | None) -> bool:
        return node is None or any(n["NodeID"] == node and n["Alive"] for n in self._ray.nodes())

    def _assign(self, worker: _WorkerState, method: str, *arguments: Any) -> None:
        self._workers[getattr(worker.handle, method).remote(*arguments)] = worker


def _killed(path: str) -> DecoderCrashError:
    return DecoderCrashError(
        "killed its worker twice",
        remedy="remove it from the inputs, or convert it with another tool; a worker may also need more memory",
        path=path,
    )
