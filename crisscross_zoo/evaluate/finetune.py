"""Full finetuning of a video encoder: random augmented clips, SGD, multi-step rate (section E.2, Table S11).

A clip is decided by ``(seed, epoch, position)`` alone, and a checkpoint is written after every epoch: a run that was
stopped goes on from there with the same clips, and ends with the same weights on the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from crisscross_zoo.checkpoints.files import state_sha256
from crisscross_zoo.checkpoints.training import load_progress, save_progress
from crisscross_zoo.config import VideoConfig
from crisscross_zoo.encoders.classifier import Classifier
from crisscross_zoo.errors import (
    CrissCrossError,
    NoStreamError,
    TrainingError,
)
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.protocols import FinetuneConfig
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.media.scan import scan_file
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.windows import frame_times, random_starts
from crisscross_zoo.numerics import DTYPES
from crisscross_zoo.settings import check_training_precision
from crisscross_zoo.transforms.augment import VideoAugment
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.transforms.frames import normalize, resize_crop
from crisscross_zoo.workers.errors import training_errors
from crisscross_zoo.workers.pool import work_on_files
from crisscross_zoo.workers.samples import Failures, SampleDataset, SampleKey, first_error

CHECKPOINT_FILE = "finetune.pt"


def describe_files(
    samples: Sequence[LabelledFile], *, workers: int, on_file: Callable[[int, int], None] | None = None
) -> tuple[list[tuple[LabelledFile, Media]], list[dict[str, str]]]:
    """Scan videos once; returns those that have pictures, in order, and what is wrong with the others."""
    found: dict[int, Media] = {}
    failed: dict[int, dict[str, str]] = {}
    for serial, path, news in work_on_files([s.path for s in samples], scan_file, workers=workers):
        if isinstance(news, CrissCrossError):
            failed[serial] = failure_row(os.fspath(path), news)
        elif news.video_span is None:
            error = NoStreamError("has no pictures, only sound", remedy="leave it out", path=path)
            failed[serial] = failure_row(os.fspath(path), error)
        else:
            found[serial] = news
        if on_file is not None:
            on_file(len(found) + len(failed), len(samples))
    return [(samples[n], found[n]) for n in sorted(found)], [failed[n] for n in sorted(failed)]


class ClipDataset(SampleDataset[tuple[Tensor, int]]):
    """Random clips of labelled videos with their labels, by :class:`~crisscross_zoo.workers.samples.SampleKey`.

    Args:
        files: Files with their labels, and what is known of them.
        video: What a clip is.
        augment: What is done to it; None: resized and cropped as for evaluation.
        seed: Another one gives other clips.
    """

    def __init__(
        self,
        files: Sequence[tuple[LabelledFile, Media]],
        video: VideoConfig,
        augment: VideoAugment | None,
        *,
        seed: int,
    ) -> None:
        super().__init__(files, seed=seed, remedy="check the data set")
        self.files, self.video, self.augment = files, video, augment

    def path(self, place: int) -> str:
        """Return the path of a file."""
        return self.files[place][0].path

    def draw(self, place: int, random: np.random.Generator) -> tuple[Tensor, int]:
        """Draw a clip (3, T, size, size) of a file, and return it with the file's label."""
        sample, info = self.files[place]
        return self._clip(info, random), sample.label

    def _clip(self, info: Media, random: np.random.Generator) -> Tensor:
        span, video = info.video_span, self.video
        assert span is not None
        starts = random_starts(span, video.window_seconds, 1, random)
        times = frame_times(starts, span, video.frames, video.fps).ravel()
        frames, _ = read_moment(info, times=times)
        assert frames is not None
        if self.augment is not None:
            return augment_video(frames, self.augment, config=video, rng=random)
        return normalize(resize_crop(frames, size=video.size, crop_ratio=video.crop_ratio), video)


class _Batches(Sampler[list[SampleKey]]):
    """Each file ``clips`` times an epoch, in a new order; what does not fill a batch is left out."""

    def __init__(self, files: int, clips: int, batch_size: int, epoch: int, seed: int) -> None:
        self.order = np.random.default_rng([seed, epoch]).permutation(np.repeat(np.arange(files), clips))
        self.batch_size, self.epoch = min(batch_size, len(self.order)), epoch

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(len(self)):
            first = step * self.batch_size
            yield [
                SampleKey(self.epoch, p, int(self.order[p])) for p in range(first, first + self.batch_size)
            ]


def finetune(
    classifier: Classifier,
    files: Sequence[tuple[LabelledFile, Media]],
    config: FinetuneConfig,
    *,
    video: VideoConfig,
    augment: VideoAugment | None,
    clips: int,
    seed: int,
    folder: Path,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    workers: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    on_failure: Callable[[dict[str, str]], None] | None = None,
    after_epoch: Callable[[int], float | None] | None = None,
    restart: bool = False,
    on_message: Callable[[str], None] | None = None,
) -> tuple[list[float], dict[int, float]]:
    """Train all of a classifier, going on from ``folder`` where it was stopped.

    Args:
        classifier: Changed in place.
        files: Training files, see :func:`describe_files`.
        config: Rate, epochs and the like.
        video: What a clip is.
        augment: What is done to it.
        clips: Clips of each file in an epoch.
        seed: Of clips, augmentation and order.
        folder: Where the checkpoint is kept.
        device: Where it is trained.
        precision: "fp32", or autocast to "bf16" or "fp16" (with a scaled gradient).
        workers: Processes that load clips.
        on_step: Told which step is done of how many, over all epochs.
        on_failure: Told of a clip that could not be read and was replaced by another file's.
        after_epoch: Called with the number of each epoch that ends, from 1, the classifier being in eval mode; not
            for epochs that a run before this one has done. May return a score: then the classifier ends as it was
            after the epoch of the highest, of equal ones the first, instead of after the last.
        restart: Begin anew where the checkpoint is of another run.
        on_message: Told of a damaged checkpoint, which is set aside, in a line.

    Returns:
        The mean loss of each epoch, and the scores by epoch.

    Raises:
        ConfigError: 16-bit precision on a CPU.
        TrainingError: the loss is no longer finite, or the checkpoint is of another run.
        MediaError: many files in turn cannot be used.
        OSError: the checkpoint cannot be written.
    """
    device = torch.device(device)
    check_training_precision(device.type, precision)
    classifier.to(device)
    optimizer = torch.optim.SGD(
        classifier.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(config.milestones), config.gamma)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    parts = {"model": classifier, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    identity = json.dumps(
        {
            "config": dataclasses.asdict(config),
            "video": video.to_dict(),
            "augment": None if augment is None else dataclasses.asdict(augment),
            "clips": clips,
            "seed": seed,
            "precision": precision,
            "files": [[s.path, s.label] for s, _ in files],
            "scored": after_epoch is not None,
            "weights": state_sha256(classifier.encoder.state_dict(), classifier.encoder.config),
        }
    )
    checkpoint = folder / CHECKPOINT_FILE
    wanted = {*parts, "losses", "scores", "best"}
    before = load_progress(checkpoint, identity, wanted, restart=restart, on_message=on_message)
    for name, part in parts.items() if before is not None else ():
        part.load_state_dict(before[name])  # type: ignore[index, attr-defined]
    before = before or {"losses": [], "scores": {}, "best": {}}
    losses: list[float] = before["losses"]
    scores: dict[int, float] = before["scores"]
    highest: dict[str, Tensor] = before["best"]
    data = ClipDataset(files, video, augment, seed=seed)
    dtype = DTYPES[precision]
    for epoch in range(len(losses), config.epochs):
        batches = _Batches(len(files), clips, config.batch_size, epoch, seed)
        loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
        )
        found: list[Tensor] = []
        classifier.train()
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            training_errors(memory="pass a smaller --finetune.batch-size, or --precision bf16"),
        ):
            torch.manual_seed(seed + epoch)  # dropout
            for batch in loader:
                if isinstance(batch, CrissCrossError):
                    raise batch
                x, labels, failures = batch
                if on_failure is not None:
                    for failure in failures:
                        on_failure(failure)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    logits = classifier(x.to(device, non_blocking=True))
                loss = F.cross_entropy(logits.float(), labels.to(device))
                optimizer.zero_grad()
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                found.append(loss.detach())
                if on_step is not None:
                    on_step(epoch * len(batches) + len(found), config.epochs * len(batches))
        schedule.step()
        losses.append(float(torch.stack(found).mean()))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} in epoch {epoch + 1}", remedy="lower finetune.lr")
        classifier.eval()
        score = None if after_epoch is None else after_epoch(epoch + 1)
        if score is not None:
            if score > max(scores.values(), default=-np.inf):
                highest = {
                    name: value.detach().cpu().clone() for name, value in classifier.state_dict().items()
                }
            scores[epoch + 1] = score
        states = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        save_progress(checkpoint, identity, {**states, "losses": losses, "scores": scores, "best": highest})
    if highest:
        classifier.load_state_dict(highest)
    classifier.eval()
    return losses, scores


def _collate(
    items: Sequence[tuple[tuple[Tensor, int], str, Failures] | CrissCrossError],
) -> tuple[Tensor, Tensor, Failures] | CrissCrossError:
    """Stack clips to a batch; an error among them stands for it: raised here it would lose its fields."""
    good, error = first_error(items)
    if error is not None:
        return error
    clips, labels = zip(*(content for content, _, _ in good), strict=True)
    return torch.stack(clips), torch.tensor(labels), [f for _, _, failures in good for f in failures]
