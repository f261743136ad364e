"""Training samples, each of two views of one file in each modality that the loss uses, and their order.

``(seed, epoch, position in the epoch)`` alone decides a sample: its file, its windows, and every random number of its
augmentation; see :mod:`crisscross_zoo.workers.samples`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from crisscross_zoo.errors import ConfigError, CrissCrossError
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.windows import frame_times
from crisscross_zoo.pretrain.loss import VIEWS, needed_views
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.pretrain.relaxation import ViewStarts, view_starts
from crisscross_zoo.transforms.augment_audio import augment_audio
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.workers.samples import Failures, SampleDataset, SampleKey, first_error

FAR_APART_SECONDS = 2.0
"""Views with a longer gap between them are read separately, instead of decoding the frames between them."""

_ORDER = (
    0x6F726465,
)  # makes an epoch's order independent of its first sample, whose seed is [seed, epoch, 0, 0]


_Times = npt.NDArray[np.float64]
_Moment = tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.int16] | None]

Sample = tuple[dict[str, Tensor], str, Failures]
"""The views, the path of their file, and the files that failed before it."""


def used_views(config: PretrainConfig) -> tuple[str, ...]:
    """Return the names of the views that the loss uses, in their order. Only these are read."""
    needed = needed_views(**vars(config.loss))
    return tuple(name for name in VIEWS if name in needed)


@dataclass(frozen=True)
class Batch:
    """One rank's part of a batch: the views that the loss uses, their files, and the files that failed.

    Attributes:
        views: Tensors by view: video (n, 3, T, H, W), audio (n, 1, 80, T); float32, or the 16-bit dtype of autocast.
        paths: The file of each sample.
        failures: Files that were replaced by another.
        error: Why the batch could not be loaded, or None.
    """

    views: dict[str, Tensor]
    paths: list[str]
    failures: Failures
    error: CrissCrossError | None = None

    def pin_memory(self) -> Batch:
        """Return a copy in pinned memory. Torch's loader calls this."""
        return dataclasses.replace(self, views={name: view.pin_memory() for name, view in self.views.items()})


@lru_cache(maxsize=2)
def epoch_files(seed: int, epoch: int, files: int, samples: int) -> npt.NDArray[np.int64]:
    """Return the file of every sample of an epoch: random permutations of all files, one after another.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        files: Number of files.
        samples: Number of samples in the epoch.

    Returns:
        Positions of the files in the data set, int64, shape (samples,). No file occurs twice before every file has
        occurred once.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=_ORDER))
    rounds = -(-samples // files)
    return np.concatenate([random.permutation(files) for _ in range(rounds)])[:samples]


class BatchSampler(Sampler[list[SampleKey]]):
    """The keys of each step's batch, for one rank, from any step on.

    Args:
        seed: Seed of the run.
        files: Number of files.
        epoch_size: Samples in an epoch; samples at its end that do not fill a batch are dropped.
        batch_size: Samples per step, over all ranks.
        steps: ``range(first, last)`` of the steps to yield.
        rank: Rank of this process.
        world: Number of ranks; each takes an equal, contiguous part of every batch.
    """

    def __init__(
        self,
        *,
        seed: int,
        files: int,
        epoch_size: int,
        batch_size: int,
        steps: range,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.seed, self.files, self.epoch_size, self.batch_size = seed, files, epoch_size, batch_size
        self.steps, self.rank, self.world = steps, rank, world
        self.steps_per_epoch = steps_per_epoch(epoch_size, batch_size)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        size = self.batch_size // self.world
        for step in self.steps:
            epoch, within = divmod(step, self.steps_per_epoch)
            order = epoch_files(self.seed, epoch, self.files, self.epoch_size)
            first = within * self.batch_size + self.rank * size
            yield [SampleKey(epoch, p, int(order[p])) for p in range(first, first + size)]


def steps_per_epoch(epoch_size: int, batch_size: int) -> int:
    """Return the number of whole batches in an epoch.

    Raises:
        ConfigError: an epoch has no whole batch.
    """
    steps = epoch_size // batch_size
    if steps == 0:
        raise ConfigError(
            f"an epoch of {epoch_size} samples has no batch of {batch_size}",
            remedy="lower --optim.batch-size, or raise --data.epoch-size",
        )
    return steps


@runtime_checkable
class HoldsBytes(Protocol):
    """Files whose bytes are not read from their paths but from elsewhere, such as from shards."""

    def open(self, position: int) -> BinaryIO:
        """Open the file at a position of the data set; the stream can seek.

        Raises:
            MediaError: it cannot be read.
        """


class PretrainDataset(SampleDataset[dict[str, Tensor]]):
    """Samples of an index by :class:`~crisscross_zoo.workers.samples.SampleKey`: the views that the loss uses, by name.

    Args:
        files: An index of :func:`~crisscross_zoo.pretrain.index.read_index`, or any sequence of files with a video and
            an audio stream. If it is a :class:`HoldsBytes`, its ``open`` reads a file; otherwise the path is opened.
        config: Settings of seed, views and augmentation.
    """

    def __init__(self, files: Sequence[Media], config: PretrainConfig) -> None:
        super().__init__(
            files, seed=config.seed, remedy="index the files again; if they were moved, pass --data-root"
        )
        self.files = files
        self.config = config
        self.used = used_views(config)

    def path(self, index: int) -> str:
        """Return the path of a file."""
        return self.files[index].path

    def draw(self, index: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Draw the views of a file. A file in a shard is read from there."""
        source = self.files.open(index) if isinstance(self.files, HoldsBytes) else None
        return self.views(self.files[index], random, source=source)

    def views(
        self, file: Media, random: np.random.Generator, *, source: BinaryIO | None = None
    ) -> dict[str, Tensor]:
        """Draw, read and augment the views of a file, or of ``source``, which holds its bytes.

        Raises:
            MediaError: the file cannot be used.
        """
        config = self.config
        assert file.video_span is not None
        assert file.audio_span is not None
        starts = view_starts(
            config.data.relaxation,
            video_span=file.video_span,
            audio_span=file.audio_span,
            video_seconds=config.views.window_seconds,
            audio_seconds=config.audio.window_seconds,
            rng=random,
            released=config.data.loose_sync,
        )
        views: dict[str, Tensor] = {}
        for name, (frames, samples) in zip("12", self._read(file, starts, source), strict=True):
            if frames is not None:
                views[f"v{name}"] = augment_video(
                    frames, config.video_augment, config=config.views, rng=random
                )
            if samples is not None:
                wave = samples.astype(np.float32) / np.float32(INT16_SCALE)
                views[f"a{name}"] = augment_audio(wave, config.audio_augment, config=config.audio, rng=random)
        return {name: views[name] for name in self.used}

    def _read(self, file: Media, starts: ViewStarts, source: BinaryIO | None) -> list[_Moment]:
        """Read frames and audio samples of each view, at once unless the views are far apart.

        A modality that the loss does not use is not decoded: None.
        """
        video, audio, rate = self.config.views, self.config.audio, self.config.audio.sample_rate
        assert file.video_span is not None
        half, length = video.frames, audio.clip_samples
        times = frame_times(np.array([starts.v1, starts.v2]), file.video_span, half, video.fps)
        first = [round(start * rate) for start in (starts.a1, starts.a2)]

        def read(times: _Times, start: int, samples: int) -> _Moment:
            return read_moment(
                file,
                times=times if "v1" in self.used else None,
                audio=(start / rate, samples) if "a1" in self.used else None,
                sample_rate=rate,
                source=source,
            )

        window = max(video.window_seconds, audio.window_seconds)
        if max(abs(starts.v2 - starts.v1), abs(starts.a2 - starts.a1)) > window + FAR_APART_SECONDS:
            return [read(times[i], first[i], length) for i in (0, 1)]
        low = min(first)
        frames, samples = read(times.ravel(), low, max(first) + length - low)
        return [
            (
                None if frames is None else frames[i * half : (i + 1) * half],
                None if samples is None else samples[first[i] - low : first[i] - low + length],
            )
            for i in (0, 1)
        ]


def collate(items: Sequence[Sample | CrissCrossError], dtype: torch.dtype = torch.float32) -> Batch:
    """Stack samples to a batch of a dtype. If one of the items is an error, the batch holds the error only."""
    samples, error = first_error(items)
    if error is not None:
        return Batch({}, [], [], error)
    views = {name: torch.stack([views[name] for views, _, _ in samples]).to(dtype) for name in samples[0][0]}
    return Batch(views, [path for _, path, _ in samples], [f for _, _, failures in samples for f in failures])
