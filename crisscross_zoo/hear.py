"""The interface of HEAR 2021 (Holistic Evaluation of Audio Representations): from audio to embeddings.

A sound is, in HEAR's terms, one mono signal of a batch. A timestamp embedding is the feature vector of the clip (2 s)
that is centred on its timestamp; a scene embedding is the mean over clips that start half a clip apart. A sound
is padded with silence before its start and after its end. Clips go through the network in small batches, so that only
the memory of input and output grows with the length of the sounds.

``hear-validator`` and ``heareval`` import this module by its name, ``crisscross_zoo.hear``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crisscross_zoo.encoders import AudioEncoder
from crisscross_zoo.encoders.head import clip_features
from crisscross_zoo.errors import InputError
from crisscross_zoo.extract.extractor import DEFAULT_BATCH
from crisscross_zoo.media.windows import dense_starts
from crisscross_zoo.numerics import exact_float32
from crisscross_zoo.transforms.mel import log_mel, mono_at_rate
from crisscross_zoo.weights.load import load_encoder

DEFAULT_WEIGHTS = "audioset"

HOP_MS = 50
"""Milliseconds from one timestamp to the next."""


class HearModel(nn.Module):
    """An audio encoder with its front end, from clips (N, samples) to embeddings (N, D); see :func:`load_model`.

    Attributes:
        sample_rate: Sample rate of the input, 16000 Hz.
        scene_embedding_size: D, 4608 for the released weights.
        timestamp_embedding_size: D.
        clip_samples: Length of a clip in samples.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.config = encoder.config
        self.network = encoder.optimize_for_inference()
        self.sample_rate = self.config.sample_rate
        self.clip_samples = self.config.clip_samples
        self.scene_embedding_size = self.timestamp_embedding_size = clip_features(
            encoder.config, self.config.pooling
        )

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def forward(self, clips: Tensor) -> Tensor:
        """Return embeddings, float32 (N, D), of clips (N, samples): mono, in [-1, 1], at ``sample_rate``."""
        embeddings: Tensor = self.network(log_mel(clips, self.config))
        return embeddings


def load_model(model_file_path: str = "") -> HearModel:
    """Return the model, on the CPU.

    Args:
        model_file_path: A weights name, path or Hub id, as for :func:`crisscross_zoo.load_encoder`; ``""``:
            :data:`DEFAULT_WEIGHTS`.

    Raises:
        WeightsError: the weights cannot be loaded.
    """
    return HearModel(cast(AudioEncoder, load_encoder("audio", model_file_path or DEFAULT_WEIGHTS)))


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Return an embedding of each sound every :data:`HOP_MS`, from 0 to its end.

    Args:
        audio: (n_sounds, n_samples), floating point, mono, in [-1, 1], at ``model.sample_rate``, on any device.
        model: Of :func:`load_model`.

    Returns:
        Embeddings, float32 (n_sounds, n_timestamps, D), and their timestamps in milliseconds, float32
        (n_sounds, n_timestamps): 0, 50, 100, ... up to the end. Both are on the device of ``audio``.

    Raises:
        InputError: ``audio`` has another form, or values that are not audio samples.
    """
    waves = _waves(audio, model)
    timestamps = timestamps_ms(waves.shape[1], model.sample_rate)
    starts = clip_starts(timestamps, model.sample_rate, model.clip_samples)
    shape = (len(waves), len(starts), model.timestamp_embedding_size)
    embeddings = torch.empty(shape, dtype=torch.float32, device=waves.device)
    for rows, values in _embed(waves, starts, model):
        embeddings.view(-1, embeddings.shape[2])[rows] = values
    times = torch.from_numpy(timestamps.astype(np.float32)).to(waves.device)
    return embeddings, times.repeat(len(waves), 1)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Return one embedding per sound: the mean over its clips, which start half a clip apart.

    Args:
        audio: As for :func:`get_timestamp_embeddings`. A sound shorter than a clip is padded with silence.
        model: Of :func:`load_model`.

    Returns:
        float32 (n_sounds, D), on the device of ``audio``.

    Raises:
        InputError: ``audio`` has another form, or values that are not audio samples.
    """
    waves = _waves(audio, model)
    clip = model.clip_samples / model.sample_rate
    seconds = dense_starts((0.0, waves.shape[1] / model.sample_rate), clip, clip / 2)
    starts = np.rint(seconds * model.sample_rate).astype(np.int64)
    shape = (len(waves), model.scene_embedding_size)
    scenes = torch.zeros(shape, dtype=torch.float32, device=waves.device)
    for rows, values in _embed(waves, starts, model):
        sounds = torch.arange(rows.start, rows.stop, device=waves.device) // len(starts)
        scenes.index_add_(0, sounds, values / len(starts))
    return scenes


def timestamps_ms(samples: int, sample_rate: int) -> npt.NDArray[np.int64]:
    """Return the timestamps of a sound in milliseconds, computed as multiples of the hop, without running sums."""
    return HOP_MS * np.arange(samples * 1000 // (sample_rate * HOP_MS) + 1, dtype=np.int64)


def clip_starts(
    timestamps: npt.NDArray[np.int64], sample_rate: int, clip_samples: int
) -> npt.NDArray[np.int64]:
    """Return the first sample of the clip centred on each timestamp, never off by more than half a sample."""
    return (timestamps * sample_rate + 500) // 1000 - clip_samples // 2


def _waves(audio: Tensor, model: HearModel) -> Tensor:
    if not isinstance(audio, Tensor) or audio.ndim != 2:
        found = f"of shape {tuple(audio.shape)}" if isinstance(audio, Tensor) else type(audio).__name__
        raise InputError(
            f"audio is {found}", remedy="pass a tensor (n_sounds, n_samples), mono, at model.sample_rate"
        )
    return mono_at_rate(audio[:, None], model.config)


def _embed(waves: Tensor, starts: npt.NDArray[np.int64], model: HearModel) -> Iterator[tuple[slice, Tensor]]:
    """Embed the clips of every sound that begin at ``starts``, one batch at a time.

    Yields:
        A slice of rows and their embeddings; row i is start ``i % len(starts)`` of sound ``i // len(starts)``.
    """
    device, total, length = model.device, len(waves) * len(starts), waves.shape[1]
    size = DEFAULT_BATCH.get(device.type, DEFAULT_BATCH["cuda"])["audio"]
    for first in range(0, total, size):
        rows = slice(first, min(first + size, total))
        shape = (rows.stop - first, model.clip_samples)
        clips = torch.zeros(shape, dtype=torch.float32, device=waves.device)
        for clip, row in zip(clips, range(rows.start, rows.stop), strict=True):
            start = int(starts[row % len(starts)])
            begin, end = max(start, 0), min(start + model.clip_samples, length)
            clip[begin - start : end - start] = waves[row // len(starts), begin:end]
        with torch.no_grad(), exact_float32():
            values = model(clips.to(device))
        yield rows, values.to(waves.device)
