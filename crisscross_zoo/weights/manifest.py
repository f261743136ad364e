"""The manifest: the named checkpoints, what they were pretrained on, and where they come from.

``weights_manifest.json`` ships in the wheel, and is beside the package in an editable install. The
environment variable ``CRISSCROSS_MANIFEST`` names another file instead, for a mirror of the downloads
or for your own checkpoints. Standard library only: listing weights does not import torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, cast

from crisscross_zoo.config import MODALITIES, EncoderConfig, Modality, config_from_dict
from crisscross_zoo.errors import ConfigError, ManifestError, UnknownWeightsError
from crisscross_zoo.settings import check_choice, suggest

SCHEMA = 1
"""Version of the manifest's format that this package reads."""

MANIFEST_FILE = "weights_manifest.json"
MANIFEST_VARIABLE = "CRISSCROSS_MANIFEST"

PACKAGE_FOLDER = Path(__file__).resolve().parent.parent
BUNDLED_FOLDER = PACKAGE_FOLDER / "weights"
"""Folder of the checkpoints that ship inside the wheel."""

Status = Literal["released", "planned"]
STATUSES: tuple[str, ...] = ("released", "planned")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What a checkpoint was pretrained on: the data set and its size in clips."""

    dataset: str
    size: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """One result of the paper; ``value`` is None if it is not given here, and ``note`` has the reason."""

    benchmark: str
    protocol: str
    metric: str
    value: float | None
    note: str | None

    @property
    def is_top1(self) -> bool:
        """Whether it is a top-1 accuracy; others are R@k of retrieval."""
        return self.metric.startswith("top-1")


@dataclass(frozen=True, kw_only=True)
class Citation:
    """The publication to cite."""

    key: str
    authors: str
    title: str
    venue: str
    year: int
    doi: str
    arxiv: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Hub:
    """The location of a checkpoint on the Hugging Face Hub; all None until it is published.

    Attributes:
        repo: ``org/name``.
        file: The safetensors file's path inside the repository.
        revision: The commit, 40 hexadecimal digits.
        sha256: sha256 of the safetensors file.
    """

    repo: str | None
    file: str | None
    revision: str | None
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The authors' release: a zip with one PyTorch state dict.

    Attributes:
        url: URL of the zip.
        member_suffix: Suffix of the state dict's name in the zip.
        sha256: sha256 of the zip; None if its publisher gives none.
    """

    url: str
    member_suffix: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A checkpoint inside the wheel: a file name in :data:`BUNDLED_FOLDER` and its sha256."""

    file: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One checkpoint of the manifest.

    Attributes:
        name: The name for ``load_encoder(weights=...)``; one name may have a video and an audio entry.
        modality: ``"video"`` or ``"audio"``.
        status: ``"released"``, or ``"planned"``: announced, but there is nothing to load yet.
        arch: The architecture in words.
        config: Architecture and preprocessing; None while planned.
        pretrained_on: Data set and size.
        license: SPDX identifier of the weights' license.
        results: The paper's results for this checkpoint.
        citation: The publication to cite.
        note: Anything a user should know first, or None.
        hub: Its location on the Hub.
        origin: The authors' release, or None.
        bundled: The file inside the wheel, or None.
    """

    name: str
    modality: Modality
    status: Status
    arch: str
    config: EncoderConfig | None
    pretrained_on: Pretraining
    license: str
    results: tuple[Result, ...]
    citation: Citation
    note: str | None
    hub: Hub
    origin: Origin | None
    bundled: Bundled | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        plain = dataclasses.asdict(self)
        plain["config"] = None if self.config is None else self.config.to_dict()
        return plain


def list_weights(modality: Modality | None = None) -> list[WeightsEntry]:
    """Return the checkpoints that :func:`~crisscross_zoo.load_encoder` knows by name, planned ones included.

    Args:
        modality: ``"video"`` or ``"audio"``; None: both.

    Raises:
        ConfigError: the modality is unknown.
        ManifestError: the manifest is missing or malformed.
    """
    if modality is not None:
        check_choice("modality", modality, MODALITIES)
    return [entry for entry in read_manifest(manifest_path()) if modality in (None, entry.modality)]


def find_weights(name: str, modality: Modality) -> WeightsEntry:
    """Return the entry of this name and modality.

    Raises:
        UnknownWeightsError: there is no such entry; the error proposes the nearest name.
        ManifestError: the manifest is missing or malformed.
    """
    entries = {entry.name: entry for entry in list_weights(modality)}
    if name not in entries:
        spelt = name.lower().replace("_", "-").replace(" ", "-")
        raise UnknownWeightsError(
            f"no {modality} weights are called {name!r}", remedy=suggest(spelt, entries)
        )
    return entries[name]


def manifest_path() -> Path:
    """Return the manifest's path: ``CRISSCROSS_MANIFEST``, else in the package, else beside it.

    Raises:
        ManifestError: there is no such file.
    """
    if override := os.environ.get(MANIFEST_VARIABLE):
        path = Path(override).expanduser()
        if not path.is_file():
            raise ManifestError(
                f"{MANIFEST_VARIABLE} names no file", remedy="correct or unset the variable", path=path
            )
        return path
    for folder in (PACKAGE_FOLDER, PACKAGE_FOLDER.parent):
        if (folder / MANIFEST_FILE).is_file():
            return folder / MANIFEST_FILE
    raise ManifestError(
        "the installation has no weights manifest",
        remedy="install crisscross-zoo again",
        path=PACKAGE_FOLDER / MANIFEST_FILE,
    )


def read_manifest(path: Path) -> list[WeightsEntry]:
    """Read and check a manifest file.

    Raises:
        ManifestError: it cannot be read, or an entry's field is missing, unknown or has a wrong value.
    """
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"cannot be read as JSON ({error})", remedy=_REMEDY, path=path) from error
    return parse_manifest(raw, path=path)


def parse_manifest(raw: object, *, path: Path) -> list[WeightsEntry]:
    """Check the JSON of a manifest and return its entries.

    Args:
        raw: The parsed JSON.
        path: The file of the manifest, for errors.

    Raises:
        ManifestError: see :func:`read_manifest`.
    """
    try:
        return _parse(raw)
    except _Wrong as wrong:
        raise ManifestError(str(wrong), remedy=wrong.remedy or _REMEDY, path=path) from wrong


_REMEDY = "correct the file, or install crisscross-zoo again"

# The fields of every object of the file, and their JSON types. All fields are required, and no others are allowed;
# those with None may be null.
_NONE = type(None)
_MANIFEST = {"schema": (int,), "citations": (dict,), "checkpoints": (list,)}
_ENTRY = {
    "name": (str,),
    "modality": (str,),
    "status": (str,),
    "arch": (str,),
    "config": (dict, _NONE),
    "pretrained_on": (dict,),
    "license": (str,),
    "results": (list,),
    "citation": (str,),
    "note": (str, _NONE),
    "hub": (dict,),
    "origin": (dict, _NONE),
    "bundled": (dict, _NONE),
}
_PRETRAINING = {"dataset": (str,), "size": (str,)}
_RESULT = {
    "benchmark": (str,),
    "protocol": (str,),
    "metric": (str,),
    "value": (int, float, _NONE),
    "note": (str, _NONE),
}
_CITATION = {
    "authors": (str,),
    "title": (str,),
    "venue": (str,),
    "year": (int,),
    "doi": (str,),
    "arxiv": (str,),
    "code": (str,),
}
_HUB = {"repo": (str, _NONE), "file": (str, _NONE), "revision": (str, _NONE), "sha256": (str, _NONE)}
_ORIGIN = {"url": (str,), "member_suffix": (str,), "sha256": (str, _NONE)}
_BUNDLED = {"file": (str,), "sha256": (str, _NONE)}

_JSON_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}

_PATTERNS = {
    "name": (re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), "lower-case words joined by hyphens"),
    "repo": (re.compile(r"[\w.-]+/[\w.-]+"), "org/name"),
    "revision": (re.compile(r"[0-9a-f]{40}"), "a commit: 40 hexadecimal digits"),
    "sha256": (re.compile(r"[0-9a-f]{64}"), "64 hexadecimal digits"),
    "url": (re.compile(r"https?://[^\s/]+/\S+"), "an http or https URL"),
    "file": (
        re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*\.safetensors"),
        "a relative path to a .safetensors file",
    ),
}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, where: str, what: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.remedy = remedy


def _fields(raw: object, spec: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Return ``raw`` if it is an object with exactly the fields of ``spec``, of the right types and forms."""
    if not isinstance(raw, dict):
        raise _Wrong(where, "must be an object")
    for field in raw:
        if field not in spec:
            raise _Wrong(where, f"has an unknown field {field!r}", suggest(field, spec))
    for field, types in spec.items():
        if field not in raw:
            raise _Wrong(where, f"field {field!r} is missing")
        value = raw[field]
        if not isinstance(value, types) or isinstance(value, bool):
            allowed = " or ".join(dict.fromkeys(_JSON_WORDS.get(t, "null") for t in types))
            raise _Wrong(where, f"field {field!r} is {value!r:.60}, it must be {allowed}")
        if isinstance(value, str) and not value.strip():
            raise _Wrong(where, f"field {field!r} is empty")
        if isinstance(value, str) and field in _PATTERNS and not _PATTERNS[field][0].fullmatch(value):
            raise _Wrong(where, f"field {field!r} is {value!r:.60}, it must be {_PATTERNS[field][1]}")
    return raw


def _parse(raw: object) -> list[WeightsEntry]:
    if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
        raise _Wrong(
            "",
            f"its schema is {raw.get('schema')!r}, this version of crisscross-zoo reads {SCHEMA}",
            "upgrade crisscross-zoo, or use a manifest of its version",
        )
    manifest = _fields(raw, _MANIFEST, "")
    citations = {
        key: Citation(key=key, **_fields(value, _CITATION, f"citations.{key}"))
        for key, value in manifest["citations"].items()
    }
    entries: list[WeightsEntry] = []
    for index, item in enumerate(manifest["checkpoints"]):
        entry = _parse_entry(item, citations, f"checkpoints[{index}]")
        if any((entry.name, entry.modality) == (other.name, other.modality) for other in entries):
            raise _Wrong(f"{entry.name} ({entry.modality})", "is listed twice")
        entries.append(entry)
    return entries


def _parse_entry(raw: object, citations: Mapping[str, Citation], where: str) -> WeightsEntry:
    if isinstance(raw, dict) and isinstance(raw.get("name"), str):
        where = f"{raw['name']} ({raw.get('modality')})"
    fields = _fields(raw, _ENTRY, where)
    for field, allowed in (("modality", MODALITIES), ("status", STATUSES), ("citation", tuple(citations))):
        if fields[field] not in allowed:
            raise _Wrong(
                where,
                f"field {field!r} is {fields[field]!r}",
                suggest(fields[field], allowed) if allowed else "",
            )
    planned = fields["status"] == "planned"
    results = tuple(
        Result(**_fields(item, _RESULT, f"{where}: results[{index}]"))
        for index, item in enumerate(fields["results"])
    )
    entry = WeightsEntry(
        name=fields["name"],
        modality=cast(Modality, fields["modality"]),
        status=cast(Status, fields["status"]),
        arch=fields["arch"],
        config=_parse_config(fields["config"], fields["modality"], where),
        pretrained_on=Pretraining(
            **_fields(fields["pretrained_on"], _PRETRAINING, f"{where}: pretrained_on")
        ),
        license=fields["license"],
        results=results,
        citation=citations[fields["citation"]],
        note=fields["note"],
        hub=_parse_hub(fields["hub"], where),
        origin=_optional(Origin, fields["origin"], _ORIGIN, f"{where}: origin"),
        bundled=_optional(Bundled, fields["bundled"], _BUNDLED, f"{where}: bundled"),
    )
    if not planned:
        if entry.config is None:
            raise _Wrong(where, "field 'config' is null, only planned checkpoints have none")
        if entry.hub.repo is None and entry.origin is None and entry.bundled is None:
            raise _Wrong(where, "is released, but hub, origin and bundled are all empty")
        if entry.bundled is not None and entry.bundled.sha256 is None:
            raise _Wrong(f"{where}: bundled", "field 'sha256' is null, a shipped file has one")
    return entry


def _parse_config(raw: dict[str, Any] | None, modality: str, where: str) -> EncoderConfig | None:
    if raw is None:
        return None
    try:
        config = config_from_dict(raw)
    except ConfigError as error:
        raise _Wrong(f"{where}: config", error.reason, error.remedy) from error
    if config.modality != modality:
        raise _Wrong(
            f"{where}: config", f"field 'modality' is {config.modality!r}, the entry's is {modality!r}"
        )
    for field in config.to_dict():
        if field not in raw:
            raise _Wrong(f"{where}: config", f"field {field!r} is missing")
    return config


def _parse_hub(raw: object, where: str) -> Hub:
    fields = _fields(raw, _HUB, f"{where}: hub")
    nulls = [field for field in _HUB if fields[field] is None]
    if nulls and len(nulls) < len(_HUB):
        raise _Wrong(f"{where}: hub", f"field {nulls[0]!r} is null: give all four, or none until published")
    return Hub(**fields)


def _optional(cls: type[_T], raw: object, spec: Mapping[str, tuple[type, ...]], where: str) -> _T | None:
    return None if raw is None else cls(**_fields(raw, spec, where))
