"""Load the weights of each modality, with their id and checksum: :func:`load_weights`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crisscross_zoo.checkpoints.files import MODEL_FILE, state_sha256
from crisscross_zoo.config import MODALITIES, Modality, Pooling
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.errors import CheckpointError, ConfigError, OtherModalityError
from crisscross_zoo.weights.load import load_encoder

Weights = str | os.PathLike[str] | Encoder | None


@dataclass(frozen=True)
class LoadedWeights:
    """The weights of one modality.

    Attributes:
        source: The argument that they were loaded from; the encoder itself if the caller passed one.
        encoder: In eval mode on the CPU; a caller's own encoder as it is, or a copy of it with another pooling.
        id: Id of the weights.
        sha256: sha256 of the weights' file, or of the current weights of a caller's encoder.
    """

    source: Weights
    encoder: Encoder
    id: str
    sha256: str | None


def load_weights(
    weights: Weights | Mapping[str, Weights], modality: str, *, pooling: Pooling | None = None, **access: Any
) -> dict[str, LoadedWeights]:
    """Load the weights of each modality.

    Args:
        weights: As for :func:`~crisscross_zoo.weights.load.load_encoder`, or an encoder; or a dict with one of these
            for each modality.
        modality: "video", "audio" or "both".
        pooling: As for :func:`~crisscross_zoo.weights.load.load_encoder`.
        **access: ``revision``, ``cache_dir``, ``local_files_only`` and ``token``, as for the same function.

    Raises:
        ConfigError: ``weights`` lacks a modality, or an encoder is of the other modality.
        WeightsError: the weights cannot be loaded.
    """
    wanted = MODALITIES if modality == "both" else (modality,)
    if isinstance(weights, Mapping) and (missing := [name for name in wanted if name not in weights]):
        raise ConfigError(f"weights has no {missing[0]!r}", remedy="add it, or use another modality")
    loaded: dict[str, LoadedWeights] = {}
    for name in wanted:
        source = weights[name] if isinstance(weights, Mapping) else weights
        if isinstance(source, Encoder):
            loaded[name] = _of_encoder(source, name, pooling)
        else:
            try:
                encoder = load_encoder(cast(Modality, name), source, pooling=pooling, **access)
            except OtherModalityError as error:
                if modality != "both" or isinstance(weights, Mapping):
                    raise
                raise _need_both(error) from None
            loaded[name] = LoadedWeights(source, encoder, encoder.weights_id, encoder.weights_sha256)
    return loaded


def _need_both(error: OtherModalityError) -> CheckpointError:
    """Return the error for weights of one modality if both are needed."""
    assert error.path is not None
    run = Path(error.path).parent
    remedy = "pass weights for each modality (of a command: --weights VIDEO --audio-weights AUDIO)"
    if all((run / name / MODEL_FILE).is_file() for name in MODALITIES):
        remedy = f"pass {run}, which has both"
    return CheckpointError(
        f"modality 'both' needs weights of both, and {error.reason}", remedy=remedy, path=error.path
    )


def _of_encoder(encoder: Encoder, modality: str, pooling: Pooling | None) -> LoadedWeights:
    if encoder.config.modality != modality:
        raise ConfigError(
            f"the {modality} encoder is one for {encoder.config.modality}", remedy=f"pass one for {modality}"
        )
    changed = " (changed)" if encoder.is_changed() else ""  # such as trained
    now = state_sha256(encoder.state_dict(), encoder.config)
    return LoadedWeights(encoder, encoder.with_pooling(pooling), encoder.weights_id + changed, now)
