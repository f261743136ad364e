"""Scores of features: what scikit-learn says by itself, chance where there is nothing to find, repeatable."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer, StandardScaler

from crisscross_zoo.demo.data import CLASSES, make_demo_data
from crisscross_zoo.demo.score import RIDGE_PENALTIES, score_encoders, score_features, score_raw
from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.errors import ConfigError, UnreadableMediaError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each class to train on, one held out."""
    folder = tmp_path_factory.mktemp("demo")
    make_demo_data(folder, train_clips=2, test_clips=1)
    return folder


@pytest.fixture
def encoders() -> dict[str, Encoder]:
    return {
        "video": VideoEncoder(depth=10, width=2, size=112),
        "audio": AudioEncoder(depth=10, width=2),
    }


def rows(spread: float, *, per_class: int = 60, classes: int = 8) -> tuple[np.ndarray, list[str]]:
    """Return points around a centre for each class, and the classes' names; columns of very different scale."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, 20))
    labels = np.arange(classes).repeat(per_class)
    points = centres[labels] + spread * rng.standard_normal((len(labels), 20))
    return points * np.geomspace(1, 1000, 20) + 5, [f"class {n}" for n in labels]


# --- hand-made features ------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn() -> None:
    features, labels = rows(spread=1.2)
    train, test = slice(0, None, 2), slice(1, None, 2)
    scores = score_features(features[train], labels[train], features[test], labels[test])
    scaler = StandardScaler().fit(features[train])
    known, asked = scaler.transform(features[train]), scaler.transform(features[test])
    probe = RidgeClassifierCV(RIDGE_PENALTIES).fit(known, labels[train])
    near = KNeighborsClassifier(1, metric="euclidean").fit(Normalizer().transform(known), labels[train])
    assert scores == {
        "linear": pytest.approx(probe.score(asked, labels[test])),
        "retrieval": pytest.approx(near.score(Normalizer().transform(asked), labels[test])),
    }
    assert 0.5 < scores["retrieval"] < scores["linear"] < 1


def test_classes_apart_are_all_found() -> None:
    features, labels = rows(spread=0.05)
    train, test = slice(0, None, 2), slice(1, None, 2)
    assert score_features(features[train], labels[train], features[test], labels[test]) == {
        "linear": 1.0,
        "retrieval": 1.0,
    }


def test_shuffled_labels_score_chance() -> None:
    features, labels = rows(spread=0.5)
    shuffled = np.random.default_rng(1).permutation(labels)
    train, test = slice(0, None, 2), slice(1, None, 2)
    scores = score_features(features[train], shuffled[train], features[test], shuffled[test])
    assert all(abs(score - 1 / 8) < 0.07 for score in scores.values())


def test_a_number_that_never_changes_does_no_harm() -> None:
    features, labels = rows(spread=0.05)
    features[:, 3] = 7
    features[:, :2] = 0
    train, test = slice(0, None, 2), slice(1, None, 2)
    assert score_features(features[train], labels[train], features[test], labels[test])["retrieval"] == 1


# --- files -------------------------------------------------------------------------------------------------------


def test_encoders_are_scored_and_left_as_they_were(data: Path, encoders: dict[str, Encoder]) -> None:
    encoders["audio"].eval()
    before = {f"{n}.{k}": v.clone() for n, e in encoders.items() for k, v in e.state_dict().items()}
    first = score_encoders(encoders, data, clips=2, workers=0)
    assert list(first) == [
        f"{name}/{kind}" for name in ("video", "audio", "both") for kind in ("linear", "retrieval")
    ]
    assert all(0 <= score <= 1 and (score * len(CLASSES)).is_integer() for score in first.values())
    assert (encoders["video"].training, encoders["audio"].training) == (True, False)
    after = {f"{n}.{k}": v for n, e in encoders.items() for k, v in e.state_dict().items()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert score_encoders(encoders, data, clips=2, workers=0) == first
    alone = score_encoders({"audio": encoders["audio"]}, data, clips=2, workers=0)
    assert list(alone) == ["audio/linear", "audio/retrieval"]


def test_files_that_are_in_both_splits_are_found_again(
    tmp_path: Path, data: Path, encoders: dict[str, Encoder]
) -> None:
    for name in CLASSES:
        shutil.copytree(data / "train" / name, tmp_path / "train" / name)
        shutil.copytree(data / "train" / name, tmp_path / "test" / name)
    scores = {**score_encoders(encoders, tmp_path, clips=1, workers=0), **score_raw(tmp_path, clips=1)}
    assert {k: v for k, v in scores.items() if k.endswith("retrieval")} == {
        f"{name}/retrieval": 1.0 for name in ("video", "audio", "both", "mean-colour", "mean-spectrum")
    }


def test_raw_inputs_are_scored(data: Path) -> None:
    scores = score_raw(data, clips=1)
    assert list(scores) == [
        f"{name}/{kind}" for name in ("mean-colour", "mean-spectrum") for kind in ("linear", "retrieval")
    ]
    assert scores == score_raw(data, clips=1)


def test_a_broken_file_is_an_error(tmp_path: Path, data: Path, encoders: dict[str, Encoder]) -> None:
    shutil.copytree(data, tmp_path / "data")
    broken = tmp_path / "data" / "test" / CLASSES[0] / "000.mp4"
    broken.write_bytes(b"no media")
    with pytest.raises(UnreadableMediaError, match=r"000\.mp4"):
        score_encoders({"audio": encoders["audio"]}, tmp_path / "data", clips=1, workers=0)
    with pytest.raises(UnreadableMediaError, match=r"000\.mp4"):
        score_raw(tmp_path / "data", clips=1)
    assert encoders["audio"].training


def test_a_folder_of_another_layout_is_refused(
    tmp_path: Path, data: Path, encoders: dict[str, Encoder]
) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        score_encoders(encoders, tmp_path)
    for split, name in (("train", CLASSES[0]), ("test", CLASSES[1])):
        shutil.copytree(data / "train" / name, tmp_path / split / name)
    with pytest.raises(ConfigError, match="has the classes"):
        score_raw(tmp_path)


def test_encoders_must_be_named_by_modality(data: Path, encoders: dict[str, Encoder]) -> None:
    with pytest.raises(ConfigError, match="no encoders"):
        score_encoders({}, data)
    with pytest.raises(ConfigError, match="sound"):
        score_encoders({"sound": encoders["audio"]}, data)
