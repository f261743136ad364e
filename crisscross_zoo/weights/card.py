"""What the manifest says of a checkpoint, as the front matter of a model card on the Hugging Face Hub."""

from __future__ import annotations

import re

from huggingface_hub import EvalResult, ModelCardData

from crisscross_zoo.weights.manifest import WeightsEntry

LIBRARY = "crisscross-zoo"

_TASKS = {"video": "video-classification", "audio": "audio-classification"}


def card_data(entry: WeightsEntry, *, model_name: str | None = None) -> ModelCardData:
    """Return license, data set, tags and results of a checkpoint.

    Args:
        entry: Of the manifest.
        model_name: What its results are listed under; None: made of the entry's name and modality.
    """
    source = f"https://arxiv.org/abs/{entry.citation.arxiv}" if entry.origin is not None else None
    results = [
        EvalResult(
            task_type=_TASKS[entry.modality],
            dataset_type=_slug(result.benchmark),
            dataset_name=f"{result.benchmark}, {result.protocol}",
            metric_type="accuracy",
            metric_name=result.metric,
            metric_value=result.value,
            source_name=source and "the paper",
            source_url=source,
        )
        for result in entry.results
        if result.value is not None
    ]
    return ModelCardData(
        license=entry.license.lower(),
        library_name=LIBRARY,
        pipeline_tag="feature-extraction",
        tags=["crisscross", "self-supervised", "audio-visual", entry.modality, "feature-extraction"],
        datasets=[_slug(entry.pretrained_on.dataset)],
        metrics=["accuracy"] if results else None,
        model_name=model_name or f"crisscross-{entry.name}-{entry.modality}",
        eval_results=results or None,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-")
