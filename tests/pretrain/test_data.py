"""Samples: decided by their key alone, whichever worker loads them; the order of files; broken files."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrain_case import tiny_config

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import ConfigError, MediaError
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain import data
from crisscross_zoo.pretrain.data import (
    BatchSampler,
    PretrainDataset,
    epoch_files,
    steps_per_epoch,
)
from crisscross_zoo.pretrain.loader import make_loader
from crisscross_zoo.pretrain.presets import OBJECTIVES
from crisscross_zoo.pretrain.relaxation import RELAXATIONS, ViewStarts
from crisscross_zoo.workers.samples import TRIES, SampleKey


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 30), st.integers(1, 100))
def test_no_file_comes_twice_before_all_came_once(seed: int, epoch: int, files: int, samples: int) -> None:
    order = epoch_files(seed, epoch, files, samples)
    assert len(order) == samples
    for first in range(0, samples, files):
        once = order[first : first + files]
        assert len(set(once.tolist())) == len(once)
    assert set(order.tolist()) <= set(range(files))


def test_epochs_and_seeds_have_other_orders() -> None:
    orders = {tuple(epoch_files(seed, epoch, 50, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("seed", [0, 1, 1 << 40])
def test_an_epochs_order_is_independent_of_its_first_sample(seed: int) -> None:
    order = epoch_files(seed, 3, 1000, 1000)
    for attempt in range(TRIES):
        of_sample = np.random.default_rng([seed, 3, 0, attempt]).permutation(1000)
        assert (order == of_sample).mean() < 0.02


def sampler(steps: range, *, files: int = 7, rank: int = 0, world: int = 1) -> BatchSampler:
    return BatchSampler(seed=1, files=files, epoch_size=10, batch_size=4, steps=steps, rank=rank, world=world)


def test_batches_continue_over_epochs_and_drop_the_remainder() -> None:
    batches = list(sampler(range(5)))
    assert [[(k.epoch, k.position) for k in b] for b in batches[:3]] == [
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(0, 4), (0, 5), (0, 6), (0, 7)],
        [(1, 0), (1, 1), (1, 2), (1, 3)],
    ]
    assert len(batches) == len(sampler(range(5))) == 5
    assert list(sampler(range(3, 5))) == batches[3:], "a resumed run gets the same"


def test_ranks_split_every_batch() -> None:
    whole = list(sampler(range(3)))
    ranks = [list(sampler(range(3), rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole


def test_an_epoch_without_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="an epoch of 3 samples has no batch of 4"):
        steps_per_epoch(3, 4)


def test_a_sample_is_decided_by_its_key(clips: list[Media]) -> None:
    dataset = PretrainDataset(clips, tiny_config())
    key = SampleKey(2, 5, 3)
    (views, path, failures), (again, *_) = dataset[key], dataset[key]
    assert path == clips[3].path
    assert failures == []
    assert {n: tuple(v.shape) for n, v in views.items()} == {
        "v1": (3, 4, 32, 32), "v2": (3, 4, 32, 32), "a1": (1, 80, 64), "a2": (1, 80, 64),
    }  # fmt: skip
    assert all(v.dtype == torch.float32 and bool(v.isfinite().all()) for v in views.values())
    assert all(torch.equal(views[n], again[n]) for n in views)
    others = [dataset[SampleKey(*k, 3)][0] for k in ((2, 6), (3, 5))]
    others.append(PretrainDataset(clips, tiny_config(seed=1))[key][0])
    assert not any(torch.equal(views["v1"], other["v1"]) for other in others)
    assert not torch.equal(views["v1"], views["v2"]), "each view is augmented separately"


def test_the_views_frames_need_not_be_the_checkpoints(clips: list[Media]) -> None:
    """Views are those of an encoder with such clips, also through workers."""

    def batches(workers: int, **changes: Any) -> list[data.Batch]:
        config = tiny_config(**changes)
        return list(make_loader(clips, config, sampler(range(2), files=6), workers=workers, pin_memory=False))

    expected = batches(0, video=VideoConfig(depth=10, width=8, frames=2, fps=4.0, size=32))
    assert expected[0].views["v1"].shape == (4, 3, 2, 32, 32)
    for workers in (0, 1):
        found = batches(workers, **{"data.frames": 2, "data.fps": 4.0})
        for a, b in zip(expected, found, strict=True):
            assert all(torch.equal(a.views[n], b.views[n]) for n in a.views)


def test_threads_and_workers_change_no_bit(clips: list[Media]) -> None:
    def batches(workers: int) -> list[data.Batch]:
        loader = make_loader(
            clips, tiny_config(), sampler(range(3), files=6), workers=workers, pin_memory=False
        )
        return list(loader)

    one = batches(0)
    torch.set_num_threads(2)
    for other in (batches(0), batches(2)):
        for a, b in zip(one, other, strict=True):
            assert a.paths == b.paths
            assert all(torch.equal(a.views[n], b.views[n]) for n in a.views)


def test_loading_leaves_the_global_generators_alone(clips: list[Media]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    next(iter(make_loader(clips, tiny_config(), sampler(range(3), files=6), workers=0, pin_memory=False)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_reads(clips: list[Media], relaxation: str) -> None:
    views, *_ = PretrainDataset(clips, tiny_config(**{"data.relaxation": relaxation}))[SampleKey(0, 0, 5)]
    assert views["a2"].shape == (1, 80, 64)


@pytest.mark.parametrize("apart", [-9.0, 9.0])
@pytest.mark.parametrize(
    ("objective", "names", "unread"), [("v1v2", "v1 v2", "audio"), ("a1a2", "a1 a2", "times")]
)
def test_a_modality_that_the_loss_does_not_use_is_not_read(
    clips: list[Media],
    monkeypatch: pytest.MonkeyPatch,
    apart: float,
    objective: str,
    names: str,
    unread: str,
) -> None:
    monkeypatch.setattr(data, "FAR_APART_SECONDS", apart)
    asked = []
    read = data.read_moment

    def noted(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return read(*args, **options)

    monkeypatch.setattr(data, "read_moment", noted)
    one = PretrainDataset(clips, tiny_config(**OBJECTIVES[objective]))
    assert list(one[SampleKey(0, 0, 5)][0]) == names.split()
    assert [options[unread] for options in asked] == [None] * (2 if apart < 0 else 1)
    starts = ViewStarts(v1=0.5, v2=0.8, a1=0.3, a2=0.6)
    which = "va".index(objective[0])
    found = [moment[which] for moment in one._read(clips[5], starts, None)]
    expected = [
        moment[which] for moment in PretrainDataset(clips, tiny_config())._read(clips[5], starts, None)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("gap", [0.1, 1.0])
def test_views_read_separately_are_the_views_read_together(
    clips: list[Media], monkeypatch: pytest.MonkeyPatch, gap: float
) -> None:
    dataset = PretrainDataset(clips, tiny_config())
    starts = ViewStarts(v1=0.5, v2=0.5 + gap, a1=0.3, a2=0.3 + gap)
    together = dataset._read(clips[5], starts, None)
    monkeypatch.setattr(data, "FAR_APART_SECONDS", -9.0)
    apart = dataset._read(clips[5], starts, None)
    for a, b in zip(itertools.chain(*together), itertools.chain(*apart), strict=True):
        assert a.shape == b.shape
        assert int(np.abs(a.astype(int) - b.astype(int)).max()) <= (
            0 if a.ndim == 4 else 3
        )  # AAC: see media/seek.py


def test_a_broken_file_is_replaced_by_the_same_other_each_time(clips: list[Media], tmp_path: Path) -> None:
    gone = dataclasses.replace(clips[0], path=str(tmp_path / "gone.mp4"))
    dataset = PretrainDataset([gone, *clips[1:]], tiny_config())
    taken = []
    for position in range(20):
        key = SampleKey(0, position, 0)
        (_, path, failures), (_, again, _) = dataset[key], dataset[key]
        assert path == again != gone.path
        assert {(f["path"], f["error"]) for f in failures} == {(gone.path, "MediaNotFoundError")}
        taken.append(path)
    assert len(Counter(taken)) > 2


def test_nothing_but_broken_files_is_an_error(clips: list[Media], tmp_path: Path) -> None:
    gone = [dataclasses.replace(c, path=str(tmp_path / f"{i}.mp4")) for i, c in enumerate(clips)]
    with pytest.raises(MediaError, match="10 files in turn cannot be used: no such file"):
        PretrainDataset(gone, tiny_config())[SampleKey(0, 0, 0)]
