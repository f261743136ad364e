"""Means over clips, neighbours by cosine, and the heads that map both modalities into one space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crisscross_zoo.checkpoints.training import list_checkpoints, save_checkpoint
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import CheckpointError
from crisscross_zoo.evaluate.probe import FileClips
from crisscross_zoo.evaluate.retrieval import file_means, load_heads, nearest
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.pretrain.model import CrissCross


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def make_clips(counts: list[int], dims: int = 5) -> tuple[FileClips, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    files = [rng.standard_normal((n, dims)).astype(np.float32) for n in counts]
    return FileClips.of(files), files


def in_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    real = Rows.blocks
    monkeypatch.setattr(Rows, "blocks", lambda rows: real(rows, size))


@pytest.mark.parametrize("block", [1, 3, 4, 100])
def test_means_are_those_of_a_loop_wherever_a_block_ends(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks(monkeypatch, block)
    clips, files = make_clips([4, 1, 7, 2, 3])
    found = file_means(clips)
    assert (found.shape, found.dtype) == ((5, 5), np.float32)
    for mean, file in zip(found, files, strict=True):
        np.testing.assert_allclose(mean, sum(file.astype(float)) / len(file), rtol=1e-6, atol=1e-7)


def test_clips_are_projected_before_the_mean_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks(monkeypatch, 3)
    clips, files = make_clips([4, 1, 7])
    projector = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU()).eval()
    with torch.no_grad():
        expected = [projector(torch.from_numpy(f)).numpy().mean(axis=0) for f in files]
        other = [projector(torch.from_numpy(f.mean(axis=0))).numpy() for f in files]
    found = file_means(clips, projector)
    assert (found.shape, found.dtype) == ((3, 6), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found - other).max() > 1e-2


def test_means_are_not_summed_in_single_precision() -> None:
    values = np.array([[2.0**24], [1.0], [1.0], [-(2.0**24)]], np.float32)
    clips = FileClips(Rows.of(values), np.zeros(4, np.int64))
    assert file_means(clips) == 0.5


@settings(max_examples=40)
@given(m=st.integers(1, 10), n=st.integers(1, 30), k=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_neighbours_are_those_of_a_table_of_cosines(m: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = (
        (rng.standard_normal((rows, 6)) * 10 ** rng.uniform(-2, 2, (rows, 1))).astype(np.float32)
        for rows in (n, m)
    )
    indices, cosines = nearest(gallery, queries, k)
    assert indices.shape == cosines.shape == (m, min(k, n))
    assert (indices.dtype, cosines.dtype) == (np.int64, np.float32)
    table = np.array(
        [
            [float(q @ g) / float(np.linalg.norm(q) * np.linalg.norm(g)) for g in gallery.astype(float)]
            for q in queries.astype(float)
        ]
    )
    best = -np.sort(-table, axis=1)[:, : min(k, n)]
    np.testing.assert_allclose(cosines, best, atol=1e-5)
    # an index may differ only where two cosines are practically equal
    np.testing.assert_allclose(np.take_along_axis(table, indices, axis=1), best, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in indices)


def test_a_file_is_nearest_to_itself_whatever_its_scale() -> None:
    gallery = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    indices, cosines = nearest(gallery, 50 * gallery, 1)
    np.testing.assert_array_equal(indices[:, 0], np.arange(20))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    _, opposite = nearest(gallery[:1], -gallery[:1], 1)
    np.testing.assert_allclose(opposite, -1, atol=1e-6)


def test_zero_features_have_cosine_0_to_everything() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    _, cosines = nearest(gallery, np.zeros((1, 2), np.float32), 2)
    np.testing.assert_array_equal(cosines, [[0, 0]])
    indices, cosines = nearest(gallery, np.array([[2.0, 0.0]], np.float32), 2)
    np.testing.assert_allclose(cosines, [[1, 0]], atol=1e-6)
    np.testing.assert_array_equal(indices, [[0, 1]])


# --- projectors --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> CrissCross:
    """A small model whose batch norms have running statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CrissCross(
            VideoEncoder(VideoConfig(depth=10, width=8, frames=4, size=32)),
            AudioEncoder(AudioConfig(depth=10, width=8, seconds=0.64)),
            projection=16,
            prediction_hidden=8,
        )
        for _ in range(2):
            model(*make_views())
    return model.eval()


def make_views(n: int = 6) -> tuple[torch.Tensor, ...]:
    shapes = [(n, 3, 4, 32, 32)] * 2 + [(n, 1, 80, 64)] * 2
    return tuple(torch.randn(shape) for shape in shapes)


def save(run: Path, step: int, model: CrissCross, **more: Any) -> Path:
    return save_checkpoint(run, step, {"model": model.state_dict(), **more}, keep=5)


def test_projectors_of_a_run_embed_average_pooled_features_as_the_model_does(
    model: CrissCross, tmp_path: Path
) -> None:
    views = make_views()
    save(tmp_path, 9, model, optimizer={"state": {}})
    heads = load_heads(tmp_path)
    assert list(heads) == ["video", "audio"]
    with torch.inference_mode():
        embeddings, predictions = model.embed(*views)
        for modality, view, name in (("video", views[0], "v1"), ("audio", views[2], "a1")):
            backbone = getattr(model, f"{modality}_backbone")
            features = backbone.forward_features(view).flatten(2).mean(2)
            assert not heads[modality].training
            found = heads[modality].projector(features)
            assert found.shape == (6, 16)
            torch.testing.assert_close(found, embeddings[name], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(heads[modality](features), predictions[name], rtol=1e-5, atol=1e-5)
            other = heads["audio" if modality == "video" else "video"].projector(features)
            assert (other - embeddings[name]).abs().max() > 0.1


def test_the_newest_checkpoint_counts(model: CrissCross, tmp_path: Path) -> None:
    save(tmp_path, 10, model)
    older = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path, 9, {"model": older}, keep=5)
    assert len(list_checkpoints(tmp_path)) == 2
    state = load_heads(str(tmp_path))["video"].projector.state_dict()
    assert all(torch.equal(value, model.video_projector.state_dict()[name]) for name, value in state.items())


def test_half_precision_is_read_as_single(model: CrissCross, tmp_path: Path) -> None:
    halves = {n: v.bfloat16() if v.is_floating_point() else v for n, v in model.state_dict().items()}
    save_checkpoint(tmp_path, 1, {"model": halves}, keep=1)
    for name, value in load_heads(tmp_path)["audio"].state_dict().items():
        assert value.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)


def test_a_folder_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="has no checkpoints; name the folder of a pretraining run"):
            load_heads(run)


def test_a_damaged_checkpoint_is_an_error(model: CrissCross, tmp_path: Path) -> None:
    path = save(tmp_path, 9, model)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step_000000009\.pt: is no checkpoint of a run, or damaged"):
        load_heads(tmp_path)
