"""Features of media files: :class:`FeatureExtractor`, files in, :class:`Features` out.

Files are decoded by :mod:`crisscross_zoo.workers.pool` while the encoder runs. A batch holds clips of one or more files
and always has the same size; the last one is padded with zeros. The bytes of a row depend on its clip, the encoder and
the batch size, never on the other clips of the batch, so a run that was killed and restarted gives the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from typing import Any, Self, Unpack, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crisscross_zoo import __version__
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import AudioEncoder, Encoder
from crisscross_zoo.encoders.head import clip_features
from crisscross_zoo.encoders.inference import InferenceEncoder
from crisscross_zoo.errors import ConfigError, CrissCrossError, InputError, StorageError
from crisscross_zoo.extract.options import (
    DEFAULT_TIMEOUT,
    ExtractKeywords,
    ExtractOptions,
    Modalities,
)
from crisscross_zoo.features import Features
from crisscross_zoo.files import remote
from crisscross_zoo.media.clips import Clip, FileOpened, FileRead, Sampling, read_files
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.scan import decoder_versions
from crisscross_zoo.media.torchcodec_frames import check_torchcodec
from crisscross_zoo.numerics import DTYPES, cpu_has_bfloat16, exact_float32, plain_torch
from crisscross_zoo.settings import StrPath, check_path, pick_device
from crisscross_zoo.transforms.frames import normalize
from crisscross_zoo.weights.loaded import Weights, load_weights
from crisscross_zoo.workers.pool import usable_cores

_OUT_OF_MEMORY = re.compile("out of memory|(can't|cannot|not enough).*memory", re.IGNORECASE)

DEFAULT_BATCH: dict[str, dict[str, int]] = {
    "cpu": {"video": 1, "audio": 4},
    "mps": {"video": 8, "audio": 32},
    "cuda": {"video": 32, "audio": 128},
}
"""Clips per batch, by device and modality. Small on a CPU, where larger ones are no faster and the last is padded."""

MAX_CONCURRENT_BATCHES = 16
"""Upper limit of the batches that a CPU computes at once; with more threads than that, each batch has several."""

_MIN_QUEUE = 16
"""Lower limit of the number of clips that are decoded ahead."""

MAX_CLIP_VALUES = 1 << 30
"""Upper limit of the values of one clip, as the network's input: 4 GB of float32."""


class FeatureExtractor:
    """Turns media files into :class:`Features`, one by one or as a stream.

    Args:
        weights: As in :func:`crisscross_zoo.load_encoder`: a name, Hub id, path, ``"random:SEED"``, None, or an
            :class:`Encoder` (which is moved to ``device`` and put in eval mode); or a dict with one of these for
            each modality.
        modality: ``"video"``, ``"audio"`` or ``"both"``.
        **options: See :class:`crisscross_zoo.extract.ExtractOptions`, such as ``size=112``.

    Attributes:
        encoders: The encoders by modality, in eval mode on ``device``. The networks that run are made from them once
            (:meth:`Encoder.optimize_for_inference`): to use other weights, make another extractor.
        weights: "id" and "sha256" of the weights, by modality.
        sizes: Length D of a feature vector, by modality.
        options: The options as given.
        settings: The settings that, with the weights, decide the features' values; they are stored in the metadata.

    Raises:
        ConfigError: a value that is not allowed, or values that exclude each other.
        WeightsError: the weights cannot be loaded.
    """

    def __init__(
        self,
        weights: Weights | Mapping[str, Weights] = "audioset",
        modality: Modalities = "video",
        **options: Unpack[ExtractKeywords],
    ) -> None:
        self.options = given = ExtractOptions.of(modality, options)
        self.device = pick_device(given.device)
        self._versions = decoder_versions()
        if given.decoder == "torchcodec":
            self._versions.update(check_torchcodec())
        loaded = load_weights(
            weights,
            modality,
            pooling=given.pooling,
            revision=given.revision,
            cache_dir=given.cache_dir,
            local_files_only=given.local_files_only,
            token=given.token,
        )
        self.encoders: dict[str, Encoder] = {}
        self._networks: dict[str, InferenceEncoder] = {}
        self.weights: dict[str, dict[str, str | None]] = {}
        for name, entry in loaded.items():
            if entry.encoder.num_classes:
                raise ConfigError(
                    f"the {name} encoder has a classifier", remedy="call its reset_classifier(0) for features"
                )
            self.weights[name] = {"id": entry.id, "sha256": entry.sha256}
            with plain_torch():
                self.encoders[name] = entry.encoder.to(self.device).eval()
            self._networks[name] = entry.encoder.optimize_for_inference(DTYPES[given.precision])
        self._sampling = self._make_sampling()
        defaults = DEFAULT_BATCH.get(self.device.type, DEFAULT_BATCH["cuda"])
        self._batch = {name: given.batch_size or defaults[name] for name in loaded}
        self.settings = self._describe_settings()
        self.sizes: dict[str, int] = {}
        self._check_clips()

    def __call__(self, path: StrPath) -> Features:
        """Extract the features of one file.

        Raises:
            InputError: ``path`` is not one path: a list, a tensor, bytes, an open file.
            MediaError: the file cannot be used; the error states why and what to do.
        """
        if isinstance(path, list | tuple | set):
            raise InputError(
                f"FeatureExtractor takes one path, not a {type(path).__name__}",
                remedy="use stream([...]) for several",
            )
        _refuse_tensor(path)
        ((_, result),) = self._run([path], workers=0, on_progress=None)
        if isinstance(result, CrissCrossError):
            raise result
        return result

    def stream(
        self, paths: Iterable[StrPath], *, on_progress: Callable[[int, int, int], None] | None = None
    ) -> Iterator[tuple[StrPath, Features | CrissCrossError]]:
        """Extract many files; a file that fails yields its error in place of features and does not stop the others.

        Args:
            paths: Files; any iterable, consumed as needed.
            on_progress: Called with three numbers, as they grow: clips done, clips of the files that were opened so
                far, and the number of these files.

        Yields:
            ``(path, result)`` as files get ready, not necessarily in the order of ``paths``.

        Raises:
            ConfigError: ``paths`` is one path.
            InputError: ``paths`` is an open file, bytes or a tensor.
            StorageError: the disk to which files at URLs are downloaded is full.
        """
        if isinstance(paths, str | os.PathLike):
            raise ConfigError("stream takes several paths", remedy=f"pass [{os.fspath(paths)!r}]")
        _refuse_tensor(paths)
        if isinstance(paths, bytes) or hasattr(paths, "read"):  # both can be iterated over
            check_path("paths", paths)
        workers = self.options.workers
        if workers is None:
            alone = isinstance(paths, Sized) and len(paths) <= 1
            on_gpu = self._sampling.torchcodec not in (None, "cpu")
            fewest = 0 if self.options.timeout is None else 1  # a thread cannot be killed
            workers = fewest if alone or on_gpu else default_workers(self.device)
        yield from self._run(paths, workers=workers, on_progress=on_progress)

    def _run(
        self,
        paths: Iterable[StrPath],
        *,
        workers: int,
        on_progress: Callable[[int, int, int], None] | None,
    ) -> Iterator[tuple[StrPath, Features | CrissCrossError]]:
        open_files: dict[int, _OpenFile] = {}
        batches = {name: _Batch(self, name) for name in self.encoders}
        done = known = opened = 0  # clips done, clips of the opened files, opened files
        running = _RunningBatches(self.device)
        queue_size = max(_MIN_QUEUE, 2 * min(self._batch.values()))
        events = read_files(
            paths,
            self._sampling,
            workers=workers,
            queue_size=queue_size,
            timeout=self.options.timeout or DEFAULT_TIMEOUT,
        )
        with contextlib.closing(events), running:
            for serial, path, event in events:
                if isinstance(event, StorageError):
                    raise event  # the disk that files are downloaded to is full: no other file would fit either
                if isinstance(event, CrissCrossError):
                    open_files.pop(serial, None)
                    yield path, event
                elif isinstance(event, FileOpened):
                    open_files[serial] = _OpenFile(path, event, self.sizes)
                    known += sum(open_files[serial].rows_left.values())
                    opened += 1
                elif isinstance(event, FileRead):
                    open_files[serial].end(event)
                else:
                    batch = batches[event.modality]
                    batch.add(open_files[serial], event)
                    if batch.full:
                        running.start(batch.take())
                done += running.collect()
                if on_progress is not None:
                    on_progress(done, known, opened)
                yield from self._finished(open_files)
            for batch in batches.values():
                if not batch.empty:
                    running.start(batch.take())
            done += running.collect(wait=True)
            if on_progress is not None:
                on_progress(done, known, opened)
            yield from self._finished(open_files)

    def _finished(self, open_files: dict[int, _OpenFile]) -> Iterator[tuple[StrPath, Features]]:
        for serial in [s for s, f in open_files.items() if f.is_finished]:
            file = open_files.pop(serial)
            assert file.read is not None
            rows: dict[str, Any] = file.rows
            windows: dict[str, Any] = {f"{name}_windows": w for name, w in file.windows.items()}
            metadata = {
                **self._identity(file.opened.source),
                "shapes": {name: list(rows.shape) for name, rows in file.rows.items()},
                "duration": file.opened.duration,
                "missing": [*file.opened.missing, *file.read.failed],
                "padded": [name for name, w in file.windows.items() if self._is_padded(name, w)],
                "warnings": list(file.read.damage),
                "notes": list(file.read.notes),
                **self._provenance(),
            }
            yield file.path, Features(**rows, **windows, metadata=metadata)

    def _is_padded(self, modality: str, windows: npt.NDArray[np.float64]) -> bool:
        """Return whether the file is shorter than one clip, so that no window is whole."""
        length: float = getattr(self._sampling, modality).window_seconds
        return float((windows[:, 1] - windows[:, 0]).max()) < length - 1e-3

    def _provenance(self) -> dict[str, Any]:
        return {
            "device": self.device.type,
            "batch_size": self._batch,
            "versions": {"crisscross_zoo": __version__, "torch": torch.__version__, **self._versions},
        }

    @property
    def precision_is_slow(self) -> bool:
        """Whether the network runs in bfloat16 on a processor that computes faster in float32."""
        wants = self.device.type == "cpu" and self.options.precision == "bf16"
        return wants and cpu_has_bfloat16() is False

    def identity(self, path: StrPath) -> dict[str, Any]:
        """Return what must be unchanged for existing features of ``path`` to be up to date.

        Raises:
            InputError: ``path`` is not a path: bytes, an open file.
            OSError: the file does not exist.
            UnreadableMediaError: the file is at a URL that does not answer.
        """
        check_path("the path", path)
        return self._identity(remote.source_of(path))

    def _identity(self, source: Mapping[str, Any]) -> dict[str, Any]:
        return {"source": source, "settings": self.settings, "weights": self.weights}

    def _make_sampling(self) -> Sampling:
        given = self.options
        video: VideoConfig | None = None
        audio: AudioConfig | None = None
        if "video" in self.encoders:
            video_config = self.encoders["video"].config
            assert isinstance(video_config, VideoConfig)
            fps = video_config.fps if given.fps is None else given.fps
            frames = given.frames if given.window is None else max(1, round(given.window * fps))
            changes = {"frames": frames, "fps": fps, "size": given.size}
            video = video_config.replace(**{k: v for k, v in changes.items() if v is not None})
        if "audio" in self.encoders:
            audio_config = self.encoders["audio"].config
            assert isinstance(audio_config, AudioConfig)
            seconds = given.window if given.audio_seconds is None else given.audio_seconds
            audio = audio_config if seconds is None else audio_config.replace(seconds=seconds)
        decodes = (
            (str(self.device) if self.device.type == "cuda" else "cpu")
            if given.decoder == "torchcodec"
            else None
        )
        return Sampling(
            video=video,
            audio=audio,
            stride=given.stride,
            clips=given.clips,
            views=given.views,
            edges=given.edges,
            strict=given.strict,
            torchcodec=decodes,
        )

    def _check_clips(self) -> None:
        """Set ``sizes``; raise a ConfigError, before any file is read, if clips do not fit the networks."""
        for name, encoder in self.encoders.items():
            config = getattr(self._sampling, name)
            if isinstance(config, AudioConfig) and config.clip_samples <= config.n_fft // 2:
                least = (config.n_fft // 2 + 1) / config.sample_rate
                raise ConfigError(
                    f"an audio clip of {config.seconds} s is too short", remedy=f"use at least {least:.3f} s"
                )
            video = isinstance(config, VideoConfig)
            values = 3 * config.frames * config.size**2 if video else config.clip_samples
            if values > MAX_CLIP_VALUES:
                raise ConfigError(
                    f"the {name} clip has {float(values):.0e} values, more than {float(MAX_CLIP_VALUES):.0e}",
                    remedy="use a smaller clip",
                )
            try:
                self.sizes[name] = clip_features(config, encoder.config.pooling)
            except InputError as error:
                raise ConfigError(
                    f"the {name} clip does not fit: {error.reason}", remedy=error.remedy
                ) from None

    def _describe_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"modality": self.options.modality, "precision": self.options.precision}
        settings.update(
            stride=self._sampling.stride, clips=self._sampling.clips, strict=self._sampling.strict
        )
        for name in self.encoders:
            config = getattr(self._sampling, name)
            settings[name] = {k: v for k, v in config.to_dict().items() if k != "modality"}
        if self._sampling.edges != "keep":
            settings["edges"] = self._sampling.edges
        if self._sampling.torchcodec is not None:
            settings["decoder"] = "torchcodec"
        if (views := self._sampling.views) is not None:
            given = {name: getattr(views, name) for name in self.encoders}
            plain = {name: {} if a is None else a.to_dict() for name, a in given.items()}
            epoch = {"epoch": views.epoch} if views.epoch else {}
            settings["views"] = {"seed": views.seed, **epoch, **plain}
        return settings


def _refuse_tensor(given: object) -> None:
    """Raise an InputError if frames or samples are given in place of paths."""
    if isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype.kind in "biufc"):
        raise InputError(
            f"FeatureExtractor takes paths of media files, not a {type(given).__name__} of shape {tuple(given.shape)}",
            remedy="use load_encoder(...) for tensors: its preprocess(...), then the encoder",
        )


@dataclass
class _OpenFile:
    """An opened file, some of whose rows are not computed yet."""

    path: StrPath
    opened: FileOpened
    sizes: InitVar[Mapping[str, int]]  # of the features, by modality
    read: FileRead | None = None  # None until the file is read to its end
    windows: dict[str, npt.NDArray[np.float64]] = field(init=False)
    rows: dict[str, npt.NDArray[np.float32]] = field(init=False)
    rows_left: dict[str, int] = field(init=False)

    def __post_init__(self, sizes: Mapping[str, int]) -> None:
        self.windows = dict(self.opened.windows)
        self.rows = {name: np.empty((len(w), sizes[name]), np.float32) for name, w in self.windows.items()}
        self.rows_left = {name: len(rows) for name, rows in self.rows.items()}

    def end(self, read: FileRead) -> None:
        """Store the file's last event; drop the modalities that could not be decoded."""
        self.read = read
        for modality in read.failed:
            for by_modality in (self.windows, self.rows, self.rows_left):
                by_modality.pop(modality, None)

    def take(self, modality: str, row: int, values: npt.NDArray[np.float32]) -> None:
        """Store one row, unless its modality was dropped."""
        if modality in self.rows:
            self.rows[modality][row] = values
            self.rows_left[modality] -= 1

    @property
    def is_finished(self) -> bool:
        return self.read is not None and not any(self.rows_left.values())


class _Batch:
    """Collects clips of one modality into batches for the encoder."""

    def __init__(self, extractor: FeatureExtractor, modality: str) -> None:
        self._encoder = extractor.encoders[modality]
        self._network = extractor._networks[modality]
        self._size = extractor._batch[modality]
        self._owners: list[tuple[_OpenFile, int]] = []
        self._clips: Tensor | None = None

    @property
    def full(self) -> bool:
        return len(self._owners) == self._size

    @property
    def empty(self) -> bool:
        return not self._owners

    def add(self, file: _OpenFile, clip: Clip) -> None:
        if self._clips is None:
            dtype = torch.from_numpy(clip.values).dtype
            pinned = self._encoder.device.type == "cuda"
            with self._memory_errors():
                shape = (self._size, *clip.values.shape)
                self._clips = torch.empty(shape, dtype=dtype, device="cpu", pin_memory=pinned)
        # by NumPy: torch would copy with all its threads and wait for each, while the workers have the cores
        self._clips.numpy()[len(self._owners)] = clip.values
        self._owners.append((file, clip.row))

    @contextlib.contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's allocator raises it plain
            if not _OUT_OF_MEMORY.search(str(error)):
                raise
            raise ConfigError(
                f"clips do not fit into memory, in batches of {self._size}",
                remedy="choose a smaller batch_size, size or clip",
            ) from None

    def take(self) -> _Work:
        """Return the batch, padded with zeros to its full size, and begin an empty one."""
        assert self._clips is not None
        self._clips[len(self._owners) :] = 0
        work = _Work(
            self._owners, self._encoder.config.modality, functools.partial(self._encode, self._clips)
        )
        self._owners, self._clips = [], None
        return work

    def _encode(self, clips: Tensor) -> npt.NDArray[np.float32]:
        clips = clips.to(self._encoder.device)
        with torch.inference_mode(), exact_float32(), self._memory_errors():
            if clips.is_floating_point():  # augmented clips are already preprocessed
                x = clips
            elif isinstance(self._encoder, AudioEncoder):
                x = self._encoder.preprocess(clips[:, None].float() / INT16_SCALE).to(clips.device)
            else:
                x = normalize(clips.movedim(-1, -4), cast(VideoConfig, self._encoder.config))
            rows: npt.NDArray[np.float32] = self._network(x).float().cpu().numpy()
        return rows


@dataclass(frozen=True)
class _Work:
    """A batch to compute: the file and row of each clip, and the function that computes the rows."""

    owners: list[tuple[_OpenFile, int]]
    modality: str
    encode: Callable[[], npt.NDArray[np.float32]]

    def keep(self, rows: npt.NDArray[np.float32]) -> int:
        """Store the rows in their files, and return how many there are."""
        for (file, row), values in zip(self.owners, rows, strict=False):
            file.take(self.modality, row, values)
        return len(self.owners)


class _RunningBatches:
    """Runs batches through the networks: on a CPU as many at once as torch has threads, up to MAX_CONCURRENT_BATCHES.

    Threads that share a batch wait for the slowest of them in every layer, and one is always slow, since its core also
    decodes.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool: ThreadPoolExecutor | None = None
        threads = torch.get_num_threads()
        if device.type == "cpu" and threads > 1:
            each = -(-threads // MAX_CONCURRENT_BATCHES)
            self._at_once = threads // each
            self._pool = _thread_pool(self._at_once, each)
            torch.set_num_threads(threads)  # the default of new threads, which _thread_pool changed
        self._running: deque[tuple[_Work, Future[npt.NDArray[np.float32]]]] = deque()
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, work: _Work) -> None:
        """Compute a batch: on a CPU in the background, otherwise at once. Wait while too many are running."""
        if self._pool is None:
            self._done += work.keep(work.encode())
            return
        self._running.append((work, self._pool.submit(work.encode)))
        while len(self._running) > self._at_once + 1:  # one more may be queued
            self._keep_first()

    def collect(self, *, wait: bool = False) -> int:
        """Return how many clips were done since the last call; with ``wait``, wait for all."""
        while self._running and (wait or self._running[0][1].done()):
            self._keep_first()
        done, self._done = self._done, 0
        return done

    def _keep_first(self) -> None:
        work, rows = self._running.popleft()
        self._done += work.keep(rows.result())


def _thread_pool(count: int, torch_threads: int) -> ThreadPoolExecutor:
    """Return ``count`` started threads with ``torch_threads`` each; this changes torch's default for new threads."""
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(torch_threads)
        torch.get_num_threads()  # a thread copies the process's number at its first call: this one
        ready.wait()

    pool = ThreadPoolExecutor(count, initializer=begin)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    return pool


def default_workers(device: torch.device) -> int:
    """Return the default number of decoding workers, 1 to 16: with CUDA all cores but one, otherwise a quarter of them.

    Without CUDA the network may need the other cores. Processes that ``torchrun`` started on one machine divide its
    cores.
    """
    cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, cores - 1 if device.type == "cuda" else cores // 4))
