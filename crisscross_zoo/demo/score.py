"""How good features are, in two numbers: a linear probe and retrieval. Labels are the names of the folders.

A data set is ``DATA/train/CLASS/FILE`` and ``DATA/test/CLASS/FILE``, as :mod:`crisscross_zoo.demo.data` writes
it. A file's feature is the mean over uniformly spread clips; nothing is fitted to test files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.demo.data import SPLITS
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.errors import ConfigError, CrissCrossError
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.files.find import VIDEO_SUFFIXES, find_media
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.settings import check_choice
from crisscross_zoo.transforms.mel import log_mel

CLIPS = 3
"""Clips of a file whose features are averaged."""

RIDGE_PENALTIES = tuple(10.0**n for n in range(-1, 7))
"""What the linear probe's regularisation is chosen from."""

RAW_SIZE = 112
"""Side of the crop whose mean colour is taken, in pixels; that of the demo's encoders."""

Rows = npt.NDArray[np.float64]


def score_encoders(
    encoders: Mapping[str, Encoder], data: str | Path, *, clips: int = CLIPS, workers: int | None = None
) -> dict[str, float]:
    """Score the features of encoders on files; labels are used to score alone.

    Args:
        encoders: "video", "audio" or both. They stay where they are, and in the mode (train, eval) in which they are.
        data: Folder of the data set.
        clips: Clips a file.
        workers: Decoding processes, see :class:`crisscross_zoo.FeatureExtractor`.

    Returns:
        Shares of the test files, 0 to 1: "video/linear", "video/retrieval", the same of "audio", and with two
        encoders of "both". See :func:`score_features` for what they mean. The same encoders give the same numbers.

    Raises:
        ConfigError: there are no encoders, or ``data`` has not the layout of a data set.
        MediaError: a file cannot be used.
    """
    if not encoders:
        raise ConfigError("there are no encoders", remedy="pass 'video', 'audio' or both")
    for name in encoders:
        check_choice("modality", name, ("video", "audio"))
    files = _files(data)
    modes = {name: encoder.training for name, encoder in encoders.items()}
    try:
        extractor = FeatureExtractor(
            encoders,
            "both" if len(encoders) == 2 else next(iter(encoders)),  # type: ignore[arg-type]
            device=next(iter(encoders.values())).device,
            clips=clips,
            workers=workers,
        )
        found: dict[str, dict[str, Rows]] = {}
        for path, features in extractor.stream([path for split in SPLITS for path in files[split]]):
            if isinstance(features, CrissCrossError):
                raise features
            arrays = features.arrays()
            if lacking := [name for name in encoders if name not in arrays]:
                raise ConfigError(f"{path}: has no {lacking[0]}", remedy="leave it out of the data set")
            found[str(path)] = {name: arrays[name].astype(np.float64).mean(axis=0) for name in encoders}
    finally:
        for name, encoder in encoders.items():
            encoder.train(modes[name])
    rows = {
        split: {name: np.stack([found[path][name] for path in files[split]]) for name in encoders}
        for split in SPLITS
    }
    return _score_all(rows, files)


def score_raw(data: str | Path, *, clips: int = CLIPS) -> dict[str, float]:
    """Score what no network is needed for: the mean colour, and the mean log-mel spectrum, of the same clips.

    Args:
        data: Folder of the data set.
        clips: Clips a file.

    Returns:
        Shares of the test files, 0 to 1: "mean-colour/linear", "mean-colour/retrieval", and the same of
        "mean-spectrum".

    Raises:
        ConfigError: ``data`` has not the layout of a data set.
        MediaError: a file cannot be used.
    """
    files = _files(data)
    audio = AudioConfig()
    sampling = Sampling(video=VideoConfig(size=RAW_SIZE), audio=audio, clips=clips)
    rows: dict[str, dict[str, Rows]] = {}
    for split in SPLITS:
        colours, spectra = [], []
        for path in files[split]:
            values: dict[str, list[npt.NDArray[np.generic]]] = {"video": [], "audio": []}
            for news in read_clips(path, sampling):
                if isinstance(news, Clip):
                    values[news.modality].append(news.values)
            if lacking := [name for name, found in values.items() if not found]:
                raise ConfigError(f"{path}: has no {lacking[0]}", remedy="leave it out of the data set")
            colours.append(np.stack(values["video"]).reshape(-1, 3).mean(axis=0))
            waves = torch.from_numpy(np.stack(values["audio"]).astype(np.float32) / INT16_SCALE)
            spectra.append(log_mel(waves, audio).double().mean(dim=(0, 1, 3)).numpy())
        rows[split] = {"mean-colour": np.stack(colours), "mean-spectrum": np.stack(spectra)}
    return _score_all(rows, files, both=False)


def score_features(
    train: npt.ArrayLike, train_labels: Iterable[str], test: npt.ArrayLike, test_labels: Iterable[str]
) -> dict[str, float]:
    """Score features by a linear probe and by retrieval.

    Each number is first brought to mean 0 and standard deviation 1 on the training files. The probe is a ridge
    classifier; its penalty is chosen among the training files by leaving one out. Retrieval (R@1) looks whether the
    training file nearest to a test file, by cosine, is of its class.

    Args:
        train: (N, D), finite.
        train_labels: N, of two classes or more.
        test: (M, D), finite.
        test_labels: M.

    Returns:
        "linear" and "retrieval": shares of the test files, 0 to 1.
    """
    scaler = StandardScaler().fit(train)
    known, asked = scaler.transform(train), scaler.transform(test)
    return _score(known, np.array(list(train_labels)), asked, np.array(list(test_labels)))


def _score(
    known: Rows, labels: npt.NDArray[np.str_], asked: Rows, truth: npt.NDArray[np.str_]
) -> dict[str, float]:
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(RIDGE_PENALTIES)).fit(known, labels)
    nearest = (_unit(asked) @ _unit(known).T).argmax(axis=1)
    return {
        "linear": float((probe.predict(asked) == truth).mean()),
        "retrieval": float((labels[nearest] == truth).mean()),
    }


def _score_all(
    rows: Mapping[str, Mapping[str, Rows]], files: Mapping[str, Mapping[str, str]], *, both: bool = True
) -> dict[str, float]:
    """Score the features of each name in ``rows[split]``; two of them also next to each other, each of length 1."""
    labels = {split: np.array(list(files[split].values())) for split in SPLITS}
    scaled: dict[str, tuple[Rows, Rows]] = {}
    for name, train in rows["train"].items():
        scaler = StandardScaler().fit(train)
        scaled[name] = scaler.transform(train), scaler.transform(rows["test"][name])
    if both and len(scaled) == 2:
        train, test = (np.hstack([_unit(pair[i]) for pair in scaled.values()]) for i in range(2))
        scaled["both"] = train, test
    return {
        f"{name}/{kind}": share
        for name, (train, test) in scaled.items()
        for kind, share in _score(train, labels["train"], test, labels["test"]).items()
    }


def _unit(rows: Rows) -> Rows:
    """Bring each row to length 1; one of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = rows / np.where(lengths > 0, lengths, 1)
    return unit


def _files(data: str | Path) -> dict[str, dict[str, str]]:
    """Return the class of each file by path, by split."""
    files: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        folder = Path(data) / split
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such folder", remedy="make the data with make_demo_data"
            )
        files[split] = {p: Path(p).parent.name for p in find_media([str(folder)], suffixes=VIDEO_SUFFIXES)}
    train, test = (set(files[split].values()) for split in SPLITS)
    if len(train) < 2 or not test <= train:
        raise ConfigError(
            f"{data}: train has the classes {sorted(train)}, test {sorted(test)}",
            remedy="make two classes or more, in train all of those in test",
        )
    return files
