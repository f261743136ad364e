"""The weights of an evaluation: loaded once, by modality, with what identifies them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from crisscross_zoo.checkpoints.files import state_sha256
from crisscross_zoo.config import MODALITIES, Modality
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import check_path
from crisscross_zoo.weights.load import load_encoder

Source = str | os.PathLike[str] | Encoder


@dataclass(frozen=True)
class LoadedWeights:
    """The weights of one modality.

    Attributes:
        source: What they were loaded from; the encoder itself, where the caller passed one.
        encoder: With its own pooling. Extracting with it moves it to the device; its weights stay as they are.
        id: What they are called.
        sha256: Of the file they were read from, or of what a caller's encoder holds now.
    """

    source: Source
    encoder: Encoder
    id: str
    sha256: str | None


def load_weights(weights: Source | Mapping[str, Source], modality: str) -> dict[str, LoadedWeights]:
    """Load the weights of each modality.

    Args:
        weights: As for :func:`~crisscross_zoo.evaluate.run.evaluate`.
        modality: "video", "audio" or "both".

    Raises:
        ConfigError: a modality is not among ``weights``, or an encoder is of another.
        WeightsError: they cannot be loaded.
    """
    return {name: _load(name, source) for name, source in _sources(weights, modality).items()}


def _sources(weights: Source | Mapping[str, Source], modality: str) -> dict[str, Source]:
    """Return the weights of each modality; the folder of a pretraining run stands for the encoders in it."""
    wanted = MODALITIES if modality == "both" else (modality,)
    if isinstance(weights, Mapping):
        if lacking := [m for m in wanted if m not in weights]:
            raise ConfigError(f"weights has no {lacking[0]!r}", remedy="add it, or use another modality")
        return {m: weights[m] for m in wanted}
    if isinstance(weights, Encoder):
        return dict.fromkeys(wanted, weights)
    found: dict[str, Source] = {}
    check_path("weights", weights)
    for m in wanted:
        inside = Path(weights) / m
        found[m] = inside if inside.is_dir() else weights
    return found


def _load(modality: str, source: Source) -> LoadedWeights:
    if not isinstance(source, Encoder):
        encoder = load_encoder(cast(Modality, modality), source)
        return LoadedWeights(source, encoder, encoder.weights_id, encoder.weights_sha256)
    if source.config.modality != modality:
        raise ConfigError(
            f"weights for {modality} are an encoder of {source.config.modality}",
            remedy="pass one of the other kind",
        )
    now = state_sha256(source.state_dict(), source.config)  # it may have been trained since it was loaded
    changed = "" if source.weights_sha256 in (None, now) else " (changed)"
    return LoadedWeights(source, source, source.weights_id + changed, now)
