"""The model card of an encoder: one template for ``save_pretrained``, pretraining runs and releases."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from crisscross_zoo.checkpoints.files import MODEL_FILE
from crisscross_zoo.config import AudioConfig, EncoderConfig, VideoConfig

CARD_FILE = "README.md"
"""Name of the card in a checkpoint folder or Hub repository."""

LIBRARY = "crisscross-zoo"
PIPELINE = "feature-extraction"
TAGS = ("crisscross", "self-supervised", "audio-visual", "feature-extraction")
"""Library, task and tags of every encoder's card; the modality is a tag too."""

UNKNOWN_HISTORY = "Say here what it was trained on, its license, its results and its limits."

_TEMPLATE = """---
{{ card_data }}
---

# CrissCross {{ modality }} encoder{{ title }}

{{ architecture }} of depth {{ depth }} and width {{ width }}, {{ origin }}

## Use

The package `crisscross_zoo` is installed from a clone of the CrissCross Zoo repository: run `pip install .` in
the clone's folder.

```python
from crisscross_zoo import load_encoder

encoder = load_encoder("{{ modality }}", weights="{{ repo_id }}")
features = encoder(encoder.preprocess({{ argument }})[None])  # {{ argument_is }}
```

`config.json` and the header of `{{ model_file }}` hold the architecture and the preprocessing.

## Weights

{{ history }}
"""


def model_card(data: ModelCardData, architecture: str, config: EncoderConfig, **texts: Any) -> ModelCard:
    """Return an encoder's card.

    Args:
        data: Its front matter.
        architecture: Name of the network, as in "R(2+1)D".
        config: The encoder's config.
        **texts: ``origin``: where the weights come from, the end of a sentence; ``history``: what they were trained
            on, their license, results and limits; ``title``: the end of the first heading; ``repo_id``: the weights
            that the snippet loads; or any other name in the template.
    """
    facts = {
        "title": "",
        "repo_id": "org/name",
        "history": UNKNOWN_HISTORY,
        "modality": config.modality,
        "architecture": architecture,
        "depth": config.depth,
        "width": config.width,
        "model_file": MODEL_FILE,
        **_input(config),
    }
    card: ModelCard = ModelCard.from_template(data, template_str=_TEMPLATE, **{**facts, **texts})
    return card


def _input(config: EncoderConfig) -> dict[str, str]:
    """Return the argument of ``preprocess`` in the snippet, and its description."""
    if isinstance(config, VideoConfig):
        shape = f"({config.frames}, height, width, 3)"
        return {"argument": "frames", "argument_is": f"uint8 {shape}, {config.fps:g} frames per second"}
    assert isinstance(config, AudioConfig)
    return {
        "argument": f"wave, sample_rate={config.sample_rate}",
        "argument_is": f"float (samples,), {config.seconds:g} seconds",
    }
