"""Model cards for the Hugging Face Hub from the manifest's facts about a checkpoint."""

from __future__ import annotations

import dataclasses
import re

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from crisscross_zoo import __version__
from crisscross_zoo.checkpoints.card import LIBRARY, PIPELINE, TAGS, model_card
from crisscross_zoo.checkpoints.files import MODEL_FILE
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.weights.manifest import Hub, WeightsEntry

_ARCHITECTURES = {"video": VideoEncoder.architecture, "audio": AudioEncoder.architecture}
_TASKS = {"video": "video-classification", "audio": "audio-classification"}

_ORIGIN = """pretrained without labels on {dataset} ({size}) by CrissCross:
*{title}* ({authors}, {year}), [arXiv {arxiv}](https://arxiv.org/abs/{arxiv}), [doi {doi}](https://doi.org/{doi})."""

_HISTORY = """The weights are the ones that the authors released at <{code}>,
converted to safetensors by CrissCross Zoo {version}; no value was changed.
sha256 of `{model_file}`: `{sha256}`

## Results

As the authors report them; not measured again on these files.

{results}

## Training data and license

Pretrained on {dataset}, {size}; the data set's own terms apply to it. The weights are licensed {license}
(attribution, no commercial use), as the authors released them. The loading code is Apache-2.0.

## Limitations

As the paper states them (appendix H): asynchronous cross-modal optimisation has been explored for audio and
video alone, not for more than two modalities such as audio, video and text. Between full supervision
and self-supervision a considerable gap of performance remains when both are pretrained on the same large
data set (Kinetics400 or AudioSet).

## Broader impact

As the paper states it (appendix I): better self-supervised audio-visual learning can be used to detect
harmful contents on the Internet and to develop better multimedia systems; and that relaxed temporal
synchronicity between modalities is useful can challenge standard approaches to multi-modal representations
and lead to new directions of inquiry. The authors do not foresee any major negative impacts.

## Citation

```bibtex
@inproceedings{{{key},
  title = {{{title}}},
  author = {{{authors}}},
  booktitle = {{{venue}}},
  year = {{{year}}},
  doi = {{{doi}}}
}}
```"""


def card_data(entry: WeightsEntry, *, model_name: str | None = None) -> ModelCardData:
    """Return license, data set, tags and results of a checkpoint.

    Args:
        entry: The checkpoint's entry in the manifest.
        model_name: The name under which its results are listed; None: made of the entry's name and modality.
    """
    source = f"https://arxiv.org/abs/{entry.citation.arxiv}" if entry.origin is not None else None
    results = [
        EvalResult(
            task_type=_TASKS[entry.modality],
            dataset_type=_slug(result.benchmark),
            dataset_name=f"{result.benchmark}, {result.protocol}",
            dataset_config=result.protocol,  # the Hub gives results of one data set and config one name
            metric_type="accuracy" if result.is_top1 else "recall",
            metric_name=f"{result.metric} ({result.note})" if result.note else result.metric,
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
        pipeline_tag=PIPELINE,
        tags=[*TAGS, entry.modality],
        datasets=[_slug(entry.pretrained_on.dataset)],
        metrics=["accuracy"] if results else None,
        model_name=model_name or f"crisscross-{entry.name}-{entry.modality}",
        eval_results=results or None,
    )


def release_card(entry: WeightsEntry, hub: Hub) -> ModelCard:
    """Return the card of a released checkpoint's repository: data, license, results, limits and use.

    Args:
        entry: The checkpoint's entry in the manifest; it is of the authors' release.
        hub: The repository, and the sha256 of the weights in it.
    """
    assert hub.repo is not None
    assert entry.config is not None
    rows = ["| benchmark | protocol | metric | value |", "| --- | --- | --- | --- |"]
    rows += [
        f"| {r.benchmark} | {r.protocol} | {r.metric} | {r.value} |"
        for r in entry.results
        if r.value is not None
    ]
    if missing := [f"{r.benchmark} ({r.protocol})" for r in entry.results if r.value is None]:
        rows += ["", f"Not given here, see the paper: {', '.join(missing)}."]
    facts = {
        **dataclasses.asdict(entry.citation),
        **dataclasses.asdict(entry.pretrained_on),
        "license": entry.license,
        "sha256": hub.sha256,
        "model_file": MODEL_FILE,
        "results": "\n".join(rows),
        "version": __version__,
    }
    return model_card(
        card_data(entry, model_name=hub.repo.split("/")[1]),
        _ARCHITECTURES[entry.modality],
        entry.config,
        title=f", pretrained on {entry.pretrained_on.dataset}",
        origin=_ORIGIN.format(**facts),
        history=_HISTORY.format(**facts),
        repo_id=hub.repo,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-")
