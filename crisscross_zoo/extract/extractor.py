"""Features of media files: :class:`FeatureExtractor`, files in, :class:`Features` out.

Files are decoded by :mod:`crisscross_zoo.workers.pool` while the encoder runs. Batches run across files and always have
the same size, filled up with zeros at the very end: a row's bytes depend on its clip, the encoder and the batch size,
never on what else was in the batch, so a run that was killed and started again gives the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crisscross_zoo import __version__
from crisscross_zoo.checkpoints.files import state_sha256
from crisscross_zoo.config import MODALITIES, AudioConfig, Pooling, VideoConfig
from crisscross_zoo.encoders import AudioEncoder, Encoder
from crisscross_zoo.encoders.head import clip_features
from crisscross_zoo.encoders.inference import InferenceEncoder
from crisscross_zoo.errors import ConfigError, CrissCrossError, InputError, StorageError
from crisscross_zoo.extract.options import DECODERS, Decoder, check_clip_options
from crisscross_zoo.features import Features
from crisscross_zoo.files import remote
from crisscross_zoo.media.clips import Clip, FileOpened, FileRead, Sampling, Views, read_files
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.scan import decoder_versions
from crisscross_zoo.media.torchcodec_frames import check_torchcodec
from crisscross_zoo.media.windows import Edges
from crisscross_zoo.numerics import DTYPES, exact_float32, plain_torch
from crisscross_zoo.settings import (
    PRECISIONS,
    Precision,
    StrPath,
    check_choice,
    check_count,
    check_path,
    pick_device,
)
from crisscross_zoo.transforms.frames import normalize
from crisscross_zoo.weights.load import load_encoder
from crisscross_zoo.workers.pool import usable_cores

Weights = str | os.PathLike[str] | Encoder | None


_OUT_OF_MEMORY = re.compile("out of memory|(can't|cannot|not enough).*memory", re.IGNORECASE)

DEFAULT_BATCH: dict[str, dict[str, int]] = {
    "cpu": {"video": 4, "audio": 16},
    "mps": {"video": 8, "audio": 32},
    "cuda": {"video": 32, "audio": 128},
}
"""Clips a batch, by device and modality. Small on a CPU, where a larger one is no faster and its end is filled up."""


DEFAULT_TIMEOUT = 600.0
"""Seconds: a decoding process from which nothing comes for so long hangs."""


class FeatureExtractor:
    """Turns media files into :class:`Features`.

    Args:
        weights: As in :func:`crisscross_zoo.load_encoder`: a name, Hub id, path, ``"random:SEED"``, None, or an
            :class:`Encoder` (which is moved to ``device`` and put in eval mode); or a dict with one of these for
            each modality.
        modality: ``"video"``, ``"audio"`` or ``"both"``.
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device.
        pooling: See :mod:`crisscross_zoo.encoders.pooling`. Default: the checkpoint's or encoder's own.
        precision: ``"fp32"``, or a network in ``"bf16"`` or ``"fp16"``. Features are float32 in any case.
        window: Seconds of each window; sets ``frames`` and ``audio_seconds``.
        stride: Seconds between windows. Default: the window, or with both modalities the video's.
        clips: This many uniformly spread windows in place of dense ones (section E.1).
        views: With ``clips``: random, augmented clips in place of spread ones.
        frames: Frames in a video clip. Default: the checkpoint's, 8.
        fps: Frames a second. Default: the checkpoint's, 16.
        size: Side of the square crop in pixels. Default: the checkpoint's, 224.
        audio_seconds: Seconds of an audio clip. Default: the checkpoint's, 2.
        edges: ``"drop"``: with both modalities, leave out the rows whose windows are not centred within half a frame of
            each other, as at the ends of a file, where windows are moved inside. ``"keep"``: keep them.
        batch_size: Clips a batch. Default: :data:`DEFAULT_BATCH`.
        workers: Decoding processes for :meth:`stream`; 0 decodes in a thread of this process. Default: by device and
            cores; for one file or a GPU that decodes 0, or with ``timeout`` 1.
        timeout: Seconds after which a decoding process from which nothing comes is ended, and its file fails. Fetching
            a file and looking through it before its first clip count, too. Default: :data:`DEFAULT_TIMEOUT`; decoding
            in a thread cannot be ended.
        decoder: ``"pyav"``, or ``"torchcodec"`` for pictures decoded on the GPU where ``device`` is CUDA, else with
            the system's FFmpeg. Sound is PyAV's in any case.
        strict: Refuse truncated or damaged files; otherwise they give what can be read, and a warning.
        revision: Hub revision of the weights.
        cache_dir: Where downloads are kept, instead of the Hub's cache.
        local_files_only: Download nothing.
        token: For private or gated repositories; default: the stored one.

    Attributes:
        encoders: The encoders by modality, in eval mode on ``device``. What is run is made of them once
            (:meth:`Encoder.optimize_for_inference`): to use other weights, make another extractor.
        weights: Their "id" and "sha256" by modality.
        sizes: Length of a feature vector, D, by modality.
        settings: What decides the numbers besides the weights, as kept in the features' metadata.

    Raises:
        ConfigError: a value that is not allowed, or values that exclude each other.
        WeightsError: the weights cannot be had.
    """

    def __init__(
        self,
        weights: Weights | Mapping[str, Weights] = "audioset",
        modality: Literal["video", "audio", "both"] = "video",
        *,
        device: str | torch.device = "auto",
        pooling: Pooling | None = None,
        precision: Precision = "fp32",
        window: float | None = None,
        stride: float | None = None,
        clips: int | None = None,
        views: Views | None = None,
        frames: int | None = None,
        fps: float | None = None,
        size: int | None = None,
        audio_seconds: float | None = None,
        edges: Edges = "keep",
        batch_size: int | None = None,
        workers: int | None = None,
        timeout: float | None = None,
        decoder: Decoder = "pyav",
        strict: bool = False,
        revision: str | None = None,
        cache_dir: StrPath | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> None:
        check_choice("modality", modality, (*MODALITIES, "both"))
        check_choice("precision", precision, PRECISIONS)
        check_choice("decoder", decoder, DECODERS)
        check_clip_options(
            modality,
            window=window,
            stride=stride,
            clips=clips,
            frames=frames,
            fps=fps,
            size=size,
            audio_seconds=audio_seconds,
            edges=edges,
        )
        if views is not None and clips is None:
            raise ConfigError("views without clips", remedy="say how many: clips=10")
        check_count("batch_size", batch_size, least=1)
        check_count("workers", workers, least=0)
        self.modality = modality
        self.device = pick_device(device)
        self.precision = precision
        if timeout is not None and (workers == 0 or not timeout > 0):
            raise ConfigError(
                f"timeout {timeout:g} with {'no decoding process' if timeout > 0 else 'no time at all'}",
                remedy="take workers above 0 and a timeout above 0",
            )
        self.workers = workers
        self.timeout = timeout
        self._versions = decoder_versions()
        if decoder == "torchcodec":
            if modality == "audio":
                raise ConfigError("decoder='torchcodec' is for pictures", remedy="leave it out for sound")
            self._versions.update(check_torchcodec())
        wanted = MODALITIES if modality == "both" else (modality,)
        self.encoders: dict[str, Encoder] = {}
        self._networks: dict[str, InferenceEncoder] = {}
        self.weights: dict[str, dict[str, str | None]] = {}
        for name in wanted:
            if isinstance(weights, Mapping) and name not in weights:
                raise ConfigError(f"weights has no {name!r}", remedy="add it, or use another modality")
            source = weights[name] if isinstance(weights, Mapping) else weights
            if isinstance(source, Encoder):
                # It may have been trained since it was loaded: what it holds now is what counts.
                sha256: str | None = state_sha256(source.state_dict(), source.config)
                source = source.with_pooling(pooling)
            else:
                source = load_encoder(
                    name,  # type: ignore[arg-type]
                    source,
                    pooling=pooling,
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    token=token,
                )
                sha256 = source.weights_sha256
            if source.num_classes:
                raise ConfigError(
                    f"the {name} encoder has a classifier", remedy="call its reset_classifier(0) for features"
                )
            if source.config.modality != name:
                raise ConfigError(
                    f"the {name} encoder is one for {source.config.modality}", remedy=f"pass a {name} one"
                )
            changed = "" if sha256 == source.weights_sha256 or source.weights_sha256 is None else " (changed)"
            self.weights[name] = {"id": source.weights_id + changed, "sha256": sha256}
            with plain_torch():
                self.encoders[name] = source.to(self.device).eval()
            self._networks[name] = source.optimize_for_inference(DTYPES[precision])
        self._sampling = self._make_sampling(
            window, stride, clips, views, frames, fps, size, audio_seconds, edges, strict
        )
        if decoder == "torchcodec":
            decodes = str(self.device) if self.device.type == "cuda" else "cpu"
            self._sampling = dataclasses.replace(self._sampling, torchcodec=decodes)
        defaults = DEFAULT_BATCH.get(self.device.type, DEFAULT_BATCH["cuda"])
        self._batch = {name: batch_size or defaults[name] for name in wanted}
        self.settings = self._describe_settings()
        self.sizes: dict[str, int] = {}
        self._check_clips()

    def __call__(self, path: StrPath) -> Features:
        """Extract the features of one file.

        Raises:
            InputError: ``path`` is no path: bytes, an open file.
            MediaError: the file cannot be used; the error says why and what to do.
        """
        ((_, result),) = self._run([path], workers=0, on_progress=None)
        if isinstance(result, CrissCrossError):
            raise result
        return result

    def stream(
        self, paths: Iterable[StrPath], *, on_progress: Callable[[int, int], None] | None = None
    ) -> Iterator[tuple[StrPath, Features | CrissCrossError]]:
        """Extract many files; a bad one gives its error in place of features, and costs nothing else.

        Args:
            paths: Files; any iterable, taken as needed.
            on_progress: Told, as they grow, how many clips are done and how many are known of.

        Yields:
            ``(path, result)`` as files get ready, which need not be the order of ``paths``.

        Raises:
            ConfigError: ``paths`` is one path.
            InputError: ``paths`` is an open file or bytes.
            StorageError: the disk that files at URLs are fetched to is full.
        """
        if isinstance(paths, str | os.PathLike):
            raise ConfigError("stream takes several paths", remedy=f"pass [{os.fspath(paths)!r}]")
        if isinstance(paths, bytes) or hasattr(paths, "read"):  # both can be iterated over
            check_path("paths", paths)
        workers = self.workers
        if workers is None:
            alone = isinstance(paths, Sized) and len(paths) <= 1
            on_gpu = self._sampling.torchcodec not in (None, "cpu")
            fewest = 0 if self.timeout is None else 1  # a thread cannot be ended
            workers = fewest if alone or on_gpu else default_workers(self.device)
        yield from self._run(paths, workers=workers, on_progress=on_progress)

    def _run(
        self, paths: Iterable[StrPath], *, workers: int, on_progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[StrPath, Features | CrissCrossError]]:
        open_files: dict[int, _OpenFile] = {}
        batches = {name: _Batch(self, name) for name in self.encoders}
        done = known = 0
        queue_size = 2 * min(self._batch.values())
        news_of_files = read_files(
            paths,
            self._sampling,
            workers=workers,
            queue_size=queue_size,
            timeout=self.timeout or DEFAULT_TIMEOUT,
        )
        with contextlib.closing(news_of_files):
            for serial, path, news in news_of_files:
                if isinstance(
                    news, StorageError
                ):  # where files are fetched to: no other file would fit either
                    raise news
                if isinstance(news, CrissCrossError):
                    open_files.pop(serial, None)
                    yield path, news
                elif isinstance(news, FileOpened):
                    open_files[serial] = _OpenFile(path, news, self.sizes)
                    known += sum(open_files[serial].rows_left.values())
                elif isinstance(news, FileRead):
                    open_files[serial].end(news)
                else:
                    batch = batches[news.modality]
                    batch.add(open_files[serial], news)
                    if batch.full:
                        done += batch.encode()
                if on_progress is not None:
                    on_progress(done, known)
                yield from self._finished(open_files)
            for batch in batches.values():
                done += batch.encode()
            if on_progress is not None:
                on_progress(done, known)
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
        """Return whether no clip is whole, the file having less than one."""
        length: float = getattr(self._sampling, modality).window_seconds
        return float((windows[:, 1] - windows[:, 0]).max()) < length - 1e-3

    def _provenance(self) -> dict[str, Any]:
        return {
            "device": self.device.type,
            "batch_size": self._batch,
            "versions": {"crisscross_zoo": __version__, "torch": torch.__version__, **self._versions},
        }

    def identity(self, path: StrPath) -> dict[str, Any]:
        """Return what must be the same for finished features of ``path`` to be used again.

        Raises:
            InputError: ``path`` is no path: bytes, an open file.
            OSError: there is no such file.
            UnreadableMediaError: it is at a URL that cannot be asked.
        """
        check_path("the path", path)
        return self._identity(remote.source_of(path))

    def _identity(self, source: Mapping[str, Any]) -> dict[str, Any]:
        return {"source": source, "settings": self.settings, "weights": self.weights}

    def _make_sampling(
        self,
        window: float | None,
        stride: float | None,
        clips: int | None,
        views: Views | None,
        frames: int | None,
        fps: float | None,
        size: int | None,
        audio_seconds: float | None,
        edges: Edges,
        strict: bool,
    ) -> Sampling:
        video: VideoConfig | None = None
        audio: AudioConfig | None = None
        if "video" in self.encoders:
            own = self.encoders["video"].config
            assert isinstance(own, VideoConfig)
            fps = own.fps if fps is None else fps
            if window is not None:
                frames = max(1, round(window * fps))
            changes = {"frames": frames, "fps": fps, "size": size}
            video = own.replace(**{k: v for k, v in changes.items() if v is not None})
        if "audio" in self.encoders:
            heard = self.encoders["audio"].config
            assert isinstance(heard, AudioConfig)
            seconds = window if audio_seconds is None else audio_seconds
            audio = heard if seconds is None else heard.replace(seconds=seconds)
        return Sampling(
            video=video, audio=audio, stride=stride, clips=clips, views=views, edges=edges, strict=strict
        )

    def _check_clips(self) -> None:
        """Find out before any file is read whether clips fit the networks."""
        for name, encoder in self.encoders.items():
            config = getattr(self._sampling, name)
            if isinstance(config, AudioConfig) and config.clip_samples <= config.n_fft // 2:
                least = (config.n_fft // 2 + 1) / config.sample_rate
                raise ConfigError(
                    f"an audio clip of {config.seconds} s is too short", remedy=f"take at least {least:.3f} s"
                )
            try:
                self.sizes[name] = clip_features(config, encoder.config.pooling)
            except InputError as error:
                raise ConfigError(
                    f"the {name} clip does not fit: {error.reason}", remedy=error.remedy
                ) from None

    def _describe_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"modality": self.modality, "precision": self.precision}
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
            augment = {name: {} if a is None else dataclasses.asdict(a) for name, a in given.items()}
            plain = {
                n: {k: list(v) if isinstance(v, tuple) else v for k, v in a.items()}
                for n, a in augment.items()
            }
            epoch = {"epoch": views.epoch} if views.epoch else {}
            settings["views"] = {"seed": views.seed, **epoch, **plain}
        return settings


@dataclass
class _OpenFile:
    """A file of which some rows are still to come."""

    path: StrPath
    opened: FileOpened
    sizes: InitVar[Mapping[str, int]]  # of the features, by modality
    read: FileRead | None = None  # None until it is read to its end
    windows: dict[str, npt.NDArray[np.float64]] = field(init=False)
    rows: dict[str, npt.NDArray[np.float32]] = field(init=False)
    rows_left: dict[str, int] = field(init=False)

    def __post_init__(self, sizes: Mapping[str, int]) -> None:
        self.windows = dict(self.opened.windows)
        self.rows = {name: np.empty((len(w), sizes[name]), np.float32) for name, w in self.windows.items()}
        self.rows_left = {name: len(rows) for name, rows in self.rows.items()}

    def end(self, read: FileRead) -> None:
        """Take the last news; what could not be decoded is left out."""
        self.read = read
        for modality in read.failed:
            for by_modality in (self.windows, self.rows, self.rows_left):
                by_modality.pop(modality, None)

    def take(self, modality: str, row: int, values: npt.NDArray[np.float32]) -> None:
        """Take one row, unless its modality failed after all."""
        if modality in self.rows:
            self.rows[modality][row] = values
            self.rows_left[modality] -= 1

    @property
    def is_finished(self) -> bool:
        return self.read is not None and not any(self.rows_left.values())


class _Batch:
    """Clips of one modality on their way through the encoder."""

    def __init__(self, extractor: FeatureExtractor, modality: str) -> None:
        self._encoder = extractor.encoders[modality]
        self._network = extractor._networks[modality]
        self._size = extractor._batch[modality]
        self._owners: list[tuple[_OpenFile, int]] = []
        self._clips: Tensor | None = None

    @property
    def full(self) -> bool:
        return len(self._owners) == self._size

    def add(self, file: _OpenFile, clip: Clip) -> None:
        if self._clips is None:
            dtype = torch.from_numpy(clip.values).dtype
            pinned = self._encoder.device.type == "cuda"
            with self._memory_errors():
                shape = (self._size, *clip.values.shape)
                self._clips = torch.zeros(shape, dtype=dtype, device="cpu", pin_memory=pinned)
        self._clips[len(self._owners)] = torch.from_numpy(clip.values)
        self._owners.append((file, clip.row))

    @contextlib.contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's allocator raises it plain
            if not _OUT_OF_MEMORY.search(str(error)):
                raise
            raise ConfigError(
                f"a batch of {self._size} clips does not fit into memory",
                remedy="choose a smaller batch_size, size or clip",
            ) from None

    def encode(self) -> int:
        """Run the encoder on what has come in, filled up to a whole batch, and return how many clips that was."""
        owners, self._owners = self._owners, []
        if not owners:
            return 0
        assert self._clips is not None
        self._clips[len(owners) :] = 0
        clips = self._clips.to(self._encoder.device)
        with torch.inference_mode(), exact_float32(), self._memory_errors():
            if clips.is_floating_point():  # an augmented clip is ready
                x = clips
            elif isinstance(self._encoder, AudioEncoder):
                x = self._encoder.preprocess(clips[:, None].float() / INT16_SCALE)
            else:
                x = normalize(clips.movedim(-1, -4), cast(VideoConfig, self._encoder.config))
            rows = self._network(x).float().cpu().numpy()
        modality = self._encoder.config.modality
        for (file, row), values in zip(owners, rows, strict=False):
            file.take(modality, row, values)
        return len(owners)


def default_workers(device: torch.device) -> int:
    """Return how many processes decode: nearly every core for a GPU, a quarter where the network needs them too.

    Processes that ``torchrun`` started on one machine share its cores.
    """
    cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, cores - 1 if device.type == "cuda" else cores // 4))
