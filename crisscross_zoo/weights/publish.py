"""Publish a checkpoint on the Hugging Face Hub: its folder, its model card, the push, the manifest.

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
from crisscross_zoo.checkpoints.card import CARD_FILE, LIBRARY
from crisscross_zoo.checkpoints.files import MODEL_FILE
from crisscross_zoo.checkpoints.hub import hub_error
from crisscross_zoo.config import Modality
from crisscross_zoo.errors import ConfigError, ManifestError, WeightsError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights.card import release_card
from crisscross_zoo.weights.load import load_encoder
from crisscross_zoo.weights.manifest import (
    Hub,
    find_weights,
    list_weights,
    manifest_path,
    parse_manifest,
)


def publish(
    name: str, modality: Modality, *, repo: str, private: bool = False, token: str | None = None
) -> Hub:
    """Push a checkpoint of the manifest to the Hub in one commit, and write its location into the manifest.

    Args:
        name: A name of the manifest.
        modality: ``"video"`` or ``"audio"``.
        repo: ``org/name``; created if missing.
        private: Create the repository so that only its organisation sees it.
        token: With write access; None: ``HF_TOKEN``, or the token that ``hf auth login`` stored.

    Returns:
        Repository, file, revision and sha256, as written to the manifest.

    Raises:
        ConfigError: another checkpoint is in this repository, or this one is not of the authors' release.
        ManifestError: the manifest cannot be written; this is checked before the push.
        WeightsError: the checkpoint cannot be loaded, or the Hub refuses.
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
            # None: the default of its organisation.
            api.create_repo(repo, private=private or None, exist_ok=True)
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
    """Write the files of a repository for this checkpoint: weights, config and model card.

    Args:
        folder: The folder to write; created if missing, must be empty.
        name: A name of the manifest.
        modality: ``"video"`` or ``"audio"``.
        repo: ``org/name``, for the card's snippet.
        token: For a checkpoint that is downloaded from a private repository.

    Returns:
        The location for the manifest, without the revision.

    Raises:
        ConfigError: ``folder`` is not empty, or the checkpoint is not of the authors' release.
        WeightsError: the checkpoint cannot be loaded, or the folder cannot be written.
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
        write_atomically(folder / CARD_FILE, b"")  # so that save_pretrained writes no card of its own
        encoder.save_pretrained(folder)
        hub = Hub(repo=repo, file=MODEL_FILE, revision=None, sha256=file_sha256(folder / MODEL_FILE))
        write_atomically(folder / CARD_FILE, str(release_card(entry, hub)).encode())
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror or error}", remedy="choose another folder", path=folder
        ) from error
    return hub


def record(manifest: Path, name: str, modality: Modality, hub: Hub) -> None:
    """Write a checkpoint's location on the Hub into the manifest file, which is replaced atomically.

    Raises:
        ManifestError: the manifest would be invalid, or cannot be written; the message has the values.
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
