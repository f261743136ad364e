"""Export the encoders of a run's checkpoint, each with its config and model card, for ``load_encoder``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast

from crisscross_zoo.checkpoints.card import CARD_FILE
from crisscross_zoo.checkpoints.files import build_strictly
from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.config import MODALITIES, config_from_dict
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import CheckpointError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.pretrain.loss import needed_views

_STEPS = re.compile(r"after [\d,]+ steps of")  # in the card of an earlier export


def export_encoders(run: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Path]:
    """Write the backbones of a run's newest checkpoint to ``out/video`` and ``out/audio``.

    Args:
        run: A run's folder.
        out: The output folder; at the end of a run it is the run's own folder.

    Returns:
        The folders by modality. A run with an objective of one modality has only that one.

    Raises:
        CheckpointError: the run has no checkpoint, or a damaged one.
        OSError: the folders cannot be written.
    """
    run, out = Path(run), Path(out)
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise CheckpointError("has no checkpoints", remedy="name the folder of a pretraining run", path=run)
    state = load_checkpoint(checkpoints[-1])
    config = json.loads(state["config"])
    needed = needed_views(**config["loss"])
    folders = {}
    for modality in MODALITIES:
        if f"{modality[0]}1" in needed:
            folders[modality] = out / modality
            _export(state, config, modality, folders[modality])
    return folders


def _export(state: dict[str, Any], config: dict[str, Any], modality: str, folder: Path) -> None:
    prefix = f"{modality}_backbone."
    weights = {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in state["model"].items()
        if name.startswith(prefix)
    }
    encoder = build_strictly(build_encoder, config_from_dict(config[modality]), weights, source=str(folder))
    card = folder / CARD_FILE
    steps = f"after {state['step']:,} steps of"
    if card.exists():  # the user may have edited it
        text = _STEPS.sub(steps, card.read_text(encoding="utf-8"))
    else:
        versions = json.loads(cast(str, state["versions"]))
        origin = (
            f"{steps} {config['optim']['batch_size']} samples\n"
            f"(objective `{config['objective']}`, relaxation `{config['data']['relaxation']}`, seed {config['seed']};"
            f" package {versions['crisscross_zoo']}, torch {versions['torch']})."
        )
        title = f", pretrained with the preset `{config['preset']}`"
        text = str(encoder.generate_model_card(title=title, origin=origin, repo_id="path/to/this/folder"))
    write_atomically(card, text.encode())
    encoder.eval().save_pretrained(folder)
