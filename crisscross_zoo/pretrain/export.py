"""From a run's checkpoint to two encoders that ``load_encoder`` takes, each with its config and card."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast

from crisscross_zoo.checkpoints.files import apply_state_dict
from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.config import MODALITIES, config_from_dict
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import CheckpointError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.pretrain.loss import needed_views

CARD_FILE = "README.md"

_STEPS = re.compile(r"after [\d,]+ steps of")  # in a card of an earlier export

_CARD = """---
library_name: crisscross-zoo
tags:
- self-supervised
- feature-extraction
---

# CrissCross {modality} encoder, pretrained with the preset `{preset}`

{architecture} of depth {depth} and width {width}, after {step:,} steps of {batch_size} samples
(objective `{objective}`, relaxation `{relaxation}`, seed {seed}; package {version}, torch {torch}).

```python
from crisscross_zoo import load_encoder

encoder = load_encoder("{modality}", weights="path/to/this/folder")
```

`config.json` and the header of `model.safetensors` hold the architecture and the preprocessing. Say here which data it
was trained on, its license, its results and its limits.
"""


def export_encoders(run: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Path]:
    """Write the backbones of a run's newest checkpoint to ``out/video`` and ``out/audio``.

    Args:
        run: A run's folder.
        out: Where to; the run's own folder at the end of a run.

    Returns:
        The folders by modality. An objective of one modality gives that one alone.

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
    encoder = build_encoder(config_from_dict(config[modality]))
    prefix = f"{modality}_backbone."
    weights = {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in state["model"].items()
        if name.startswith(prefix)
    }
    apply_state_dict(encoder, weights, source=str(folder))
    versions = json.loads(cast(str, state["versions"]))
    card = _CARD.format(
        modality=modality,
        architecture=encoder.architecture,
        depth=encoder.config.depth,
        width=encoder.config.width,
        preset=config["preset"],
        step=state["step"],
        batch_size=config["optim"]["batch_size"],
        objective=config["objective"],
        relaxation=config["data"]["relaxation"],
        seed=config["seed"],
        version=versions["crisscross_zoo"],
        torch=versions["torch"],
    )
    if (folder / CARD_FILE).exists():  # its owner may have written more into it
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        card = _STEPS.sub(f"after {state['step']:,} steps of", text)
    write_atomically(folder / CARD_FILE, card.encode())
    encoder.eval().save_pretrained(folder)
