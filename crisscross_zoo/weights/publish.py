"""Publishing a checkpoint on the Hugging Face Hub: its folder, its model card, the push, the manifest.

For maintainers with a token. One repository holds one checkpoint, so that ``from_pretrained`` works on it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from crisscross_zoo import __version__
from crisscross_zoo.checkpoints.files import MODEL_FILE, file_sha256
from crisscross_zoo.checkpoints.hub import hub_error
from crisscross_zoo.config import Modality
from crisscross_zoo.errors import ConfigError, ManifestError, WeightsError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.weights.card import LIBRARY, card_data
from crisscross_zoo.weights.load import load_encoder
from crisscross_zoo.weights.manifest import (
    Hub,
    WeightsEntry,
    find_weights,
    list_weights,
    manifest_path,
    parse_manifest,
)

CARD_FILE = "README.md"

_INPUTS = {
    "video": "frames)[None])        # uint8 (8, height, width, 3), 16 frames a second",
    "audio": "wave, sample_rate=16000)[None])    # float (samples,), 2 seconds",
}

_CARD = """---
{front_matter}
---

# CrissCross {modality} encoder, pretrained on {dataset}

{arch}, pretrained without labels on {dataset} ({size}) by CrissCross: *{title}* ({authors}, {year}),
[arXiv {arxiv}](https://arxiv.org/abs/{arxiv}), [doi {doi}](https://doi.org/{doi}).
The weights are the ones that the authors released at <{code}>,
converted to safetensors by CrissCross Zoo {version}; no value was changed.

## Use

The package `crisscross_zoo` is installed from a clone of the CrissCross Zoo repository: run `pip install .` in
the clone's folder.

```python
from crisscross_zoo import load_encoder

encoder = load_encoder("{modality}", weights="{repo}")
features = encoder(encoder.preprocess({inputs}
```

`config.json` and the header of `{model_file}` hold the architecture and the preprocessing.
sha256 of `{model_file}`: `{sha256}`

## Results

As the authors report them; not measured again on these files.

{results}

## Training data and license

Pretrained on {dataset}, {size}; the data set's own terms apply to it. The weights are licensed {license}
(attribution, no commercial use), as the authors released them. The loading code is Apache-2.0.

## Limitations

As the paper states them (appendix H): asynchronous cross-modal optimisation has been explored for sound and
picture alone, not for more than two modalities such as sound, picture and text. Between full supervision
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
```
"""


def publish(
    name: str, modality: Modality, *, repo: str, private: bool = False, token: str | None = None
) -> Hub:
    """Push a checkpoint of the manifest to the Hub in one commit, and write where it is into the manifest.

    Args:
        name: Of the manifest.
        modality: ``"video"`` or ``"audio"``.
        repo: ``org/name``; created if missing.
        private: Create it so that only its organisation sees it.
        token: With the right to write; None: ``HF_TOKEN``, or the one that ``hf auth login`` stored.

    Returns:
        Repository, file, revision and sha256, as the manifest now has them.

    Raises:
        ConfigError: another checkpoint is in this repository, or this one is not of the authors' release.
        ManifestError: the manifest cannot be written; it is checked before anything is pushed.
        WeightsError: the checkpoint cannot be had, or the Hub refuses.
    """
    manifest = manifest_path()
    if not os.access(manifest, os.W_OK):
        raise ManifestError("is not writable", remedy="publish from a checkout of the project", path=manifest)
    for other in list_weights():
        if other.hub.repo == repo and (other.name, other.modality) != (name, modality):
            raise ConfigError(
                f"{repo} holds {other.name} ({other.modality})",
                remedy="give each checkpoint its own repository",
            )
    with tempfile.TemporaryDirectory() as folder:
        hub = write_folder(Path(folder), name, modality, repo=repo, token=token)
        api = HfApi(token=token, library_name=LIBRARY, library_version=__version__)
        try:
            api.create_repo(repo, private=private or None, exist_ok=True)  # None: as its organisation has it
            commit = api.create_commit(  # upload_folder may make several commits of one folder
                repo,
                [CommitOperationAdd(path.name, path) for path in sorted(Path(folder).iterdir())],
                commit_message=f"Add CrissCross {name}, {modality}",
            )
        except Exception as error:  # the client's transport, hence its errors, changes with its version
            raise hub_error(error, repo, file=MODEL_FILE, doing="push to") from error
    hub = dataclasses.replace(hub, revision=commit.oid)
    record(manifest, name, modality, hub)
    return hub


def write_folder(folder: Path, name: str, modality: Modality, *, repo: str, token: str | None = None) -> Hub:
    """Write what a repository for this checkpoint holds: weights, config and model card.

    Args:
        folder: Where to; made if missing, must be empty.
        name: Of the manifest.
        modality: ``"video"`` or ``"audio"``.
        repo: ``org/name``, for the card's snippet.
        token: For a checkpoint that is fetched from a private repository.

    Returns:
        What the manifest will say, but for the revision.

    Raises:
        ConfigError: ``folder`` is not empty, or the checkpoint is not of the authors' release.
        WeightsError: the checkpoint cannot be had, or the folder not be written.
    """
    entry = find_weights(name, modality)
    if entry.status == "released" and entry.origin is None:
        raise ConfigError(
            f"{name} ({modality}) is not of the authors' release, which the model card is about",
            remedy="use encoder.push_to_hub and write a card for it",
        )
    encoder = load_encoder(modality, name, token=token)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", remedy="name a new folder")
        write_atomically(folder / CARD_FILE, b"")  # so that save_pretrained leaves the card to us
        encoder.save_pretrained(folder)
        hub = Hub(repo=repo, file=MODEL_FILE, revision=None, sha256=file_sha256(folder / MODEL_FILE))
        write_atomically(folder / CARD_FILE, model_card(entry, hub).encode())
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror or error}", remedy="choose another folder", path=folder
        ) from error
    return hub


def model_card(entry: WeightsEntry, hub: Hub) -> str:
    """Return the README of a checkpoint's repository: data, license, numbers, limits and use."""
    assert hub.repo is not None
    known = [result for result in entry.results if result.value is not None]
    data = card_data(entry, model_name=hub.repo.split("/")[1])
    rows = ["| benchmark | protocol | metric | value |", "| --- | --- | --- | --- |"]
    rows += [f"| {r.benchmark} | {r.protocol} | {r.metric} | {r.value} |" for r in known]
    if missing := [f"{r.benchmark} ({r.protocol})" for r in entry.results if r.value is None]:
        rows += ["", f"Not given here, see the paper: {', '.join(missing)}."]
    return _CARD.format(
        **dataclasses.asdict(entry.citation),
        **{k: getattr(entry, k) for k in ("modality", "arch", "license")},
        **dataclasses.asdict(entry.pretrained_on),
        front_matter=data.to_yaml(),
        repo=hub.repo,
        sha256=hub.sha256,
        model_file=MODEL_FILE,
        inputs=_INPUTS[entry.modality],
        results="\n".join(rows),
        version=__version__,
    )


def record(manifest: Path, name: str, modality: Modality, hub: Hub) -> None:
    """Write where a checkpoint is on the Hub into the manifest file, which is replaced whole.

    Raises:
        ManifestError: the manifest would not be valid, or cannot be written; the message has the values.
    """
    try:
        raw = json.loads(manifest.read_text(encoding="utf-8"))
        for fields in raw["checkpoints"]:
            if (fields["name"], fields["modality"]) == (name, modality):
                fields["hub"] = dataclasses.asdict(hub)
        parse_manifest(raw, path=manifest)
        write_atomically(manifest, (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ManifestError(
            f"cannot be written ({error.strerror or error}), but {name} ({modality}) is published",
            remedy=f"put this under its hub field: {json.dumps(dataclasses.asdict(hub))}",
            path=manifest,
        ) from error
