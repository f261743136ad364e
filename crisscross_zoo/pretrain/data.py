"""Training samples: two views of picture and sound from one place of one file, and the order they come in.

A sample is decided by ``(seed, epoch, position)`` alone: which file, where in it, and every random number of its
augmentation; see :mod:`crisscross_zoo.workers.samples`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import BinaryIO, Protocol, TypeVar, runtime_checkable

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
from crisscross_zoo.pretrain.loss import VIEWS
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.pretrain.relaxation import ViewStarts, view_starts
from crisscross_zoo.transforms.augment_audio import augment_audio
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.workers.samples import Failures, SampleDataset, SampleKey, first_error

_Array = TypeVar("_Array")

FAR_APART_SECONDS = 2.0
"""Views with a longer gap between them are read apart, instead of decoding what lies between."""

_ORDER = (
    0x6F726465,
)  # keeps an epoch's order apart from its first sample, whose seed is [seed, epoch, 0, 0]


Sample = tuple[dict[str, Tensor], str, Failures]
"""The views, the file they are from, and the files that failed before it."""


@dataclass(frozen=True)
class Batch:
    """A part of a batch: the four views, which files they are from, and which files failed.

    Attributes:
        views: By view: video (n, 3, T, H, W), audio (n, 1, 80, T); float32, or autocast's 16 bits.
        paths: The file of each sample.
        failures: Files that were replaced by another.
        error: Why there is no batch, where there is none.
    """

    views: dict[str, Tensor]
    paths: list[str]
    failures: Failures
    error: CrissCrossError | None = None

    def pin_memory(self) -> Batch:
        """Return a copy in memory that a GPU copies from at once; torch's loader calls this."""
        return dataclasses.replace(self, views={name: view.pin_memory() for name, view in self.views.items()})


@lru_cache(maxsize=2)
def epoch_files(seed: int, epoch: int, files: int, samples: int) -> npt.NDArray[np.int64]:
    """Return the file of every sample of an epoch: random permutations of all files, one after another.

    Args:
        seed: Of the run.
        epoch: From 0.
        files: How many there are.
        samples: How many are wanted.

    Returns:
        Shape (samples,); no file comes twice before every file has come once.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=_ORDER))
    rounds = -(-samples // files)
    return np.concatenate([random.permutation(files) for _ in range(rounds)])[:samples]


class BatchSampler(Sampler[list[SampleKey]]):
    """The keys of each step's batch, for one of several processes, from any step on.

    Args:
        seed: Of the run.
        files: How many files there are.
        epoch_size: Samples in an epoch; what does not fill a batch at its end is left out.
        batch_size: Samples a step, over all processes.
        steps: ``range(first, last)`` of the steps to give.
        rank: This process.
        world: How many there are; each takes an equal, contiguous share of every batch.
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
        share = self.batch_size // self.world
        for step in self.steps:
            epoch, within = divmod(step, self.steps_per_epoch)
            order = epoch_files(self.seed, epoch, self.files, self.epoch_size)
            first = within * self.batch_size + self.rank * share
            yield [SampleKey(epoch, p, int(order[p])) for p in range(first, first + share)]


def steps_per_epoch(epoch_size: int, batch_size: int) -> int:
    """Return the whole batches in an epoch.

    Raises:
        ConfigError: there is not one.
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
    """Files whose bytes are read from elsewhere than their paths, such as from shards."""

    def open(self, place: int) -> BinaryIO:
        """Return what the file at this place holds, able to seek.

        Raises:
            MediaError: it cannot be read.
        """


class PretrainDataset(SampleDataset[dict[str, Tensor]]):
    """Samples of an index by :class:`~crisscross_zoo.workers.samples.SampleKey`: the four views, by name.

    Args:
        files: What :func:`~crisscross_zoo.pretrain.index.read_index` gives, or any sequence of files with picture
            and sound. One that :class:`HoldsBytes` is asked for what a file holds; else its path is opened.
        config: Seed, views and augmentation.
    """

    def __init__(self, files: Sequence[Media], config: PretrainConfig) -> None:
        super().__init__(
            files, seed=config.seed, remedy="index the files again; if they were moved, pass --data-root"
        )
        self.files = files
        self.config = config

    def path(self, place: int) -> str:
        """Return the path of a file."""
        return self.files[place].path

    def draw(self, place: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Draw the views of a file, from its bytes where it lies in a shard."""
        source = self.files.open(place) if isinstance(self.files, HoldsBytes) else None
        return self.views(self.files[place], random, source=source)

    def views(
        self, file: Media, random: np.random.Generator, *, source: BinaryIO | None = None
    ) -> dict[str, Tensor]:
        """Draw, read and augment the four views of one place in a file, or in ``source``, which holds its bytes.

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
        for name, frames, samples in zip("12", *self._read(file, starts, source), strict=True):
            views[f"v{name}"] = augment_video(frames, config.video_augment, config=config.views, rng=random)
            wave = samples.astype(np.float32) / np.float32(INT16_SCALE)
            views[f"a{name}"] = augment_audio(wave, config.audio_augment, config=config.audio, rng=random)
        return {name: views[name] for name in VIEWS}

    def _read(
        self, file: Media, starts: ViewStarts, source: BinaryIO | None
    ) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.int16]]]:
        """Frames and sound of both views, from one decoding unless they are far apart."""
        config, rate = self.config, self.config.audio.sample_rate
        read = partial(read_moment, file, sample_rate=rate, source=source)
        assert file.video_span is not None
        first_frames = np.array([starts.v1, starts.v2])
        times = frame_times(first_frames, file.video_span, config.video.frames, config.video.fps)
        first = [round(start * rate) for start in (starts.a1, starts.a2)]
        length = config.audio.clip_samples
        window = max(config.video.window_seconds, config.audio.window_seconds)
        if max(abs(starts.v2 - starts.v1), abs(starts.a2 - starts.a1)) > window + FAR_APART_SECONDS:
            views = [read(times=times[i], sound=(first[i] / rate, length)) for i in (0, 1)]
            return [_need(frames) for frames, _ in views], [_need(samples) for _, samples in views]
        low = min(first)
        frames, samples = read(times=times.ravel(), sound=(low / rate, max(first) + length - low))
        pictures, sound = _need(frames), _need(samples)
        half = config.video.frames
        return [pictures[:half], pictures[half:]], [sound[f - low : f - low + length] for f in first]


def collate(items: Sequence[Sample | CrissCrossError], dtype: torch.dtype = torch.float32) -> Batch:
    """Stack samples to a batch of a dtype; an error among them makes a batch of that alone."""
    samples, error = first_error(items)
    if error is not None:
        return Batch({}, [], [], error)
    views = {name: torch.stack([views[name] for views, _, _ in samples]).to(dtype) for name in VIEWS}
    return Batch(views, [path for _, path, _ in samples], [f for _, _, failures in samples for f in failures])


def _need(array: _Array | None) -> _Array:
    assert array is not None
    return array
