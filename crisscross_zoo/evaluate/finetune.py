"""Full finetuning of a video encoder: random augmented clips, SGD, multi-step rate (section E.2, Table S11).

A clip depends only on ``(seed, epoch, position)``, and a checkpoint is written after every epoch. An interrupted run
therefore resumes with the same clips, and ends with the same weights on the same machine.
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
from crisscross_zoo.numerics import DTYPES, fixed_shapes
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
    """Scan videos once; return those that have a video stream, in order, and a row for each of the others."""
    found: dict[int, Media] = {}
    failed: dict[int, dict[str, str]] = {}
    for serial, path, scanned in work_on_files([s.path for s in samples], scan_file, workers=workers):
        if isinstance(scanned, CrissCrossError):
            failed[serial] = failure_row(os.fspath(path), scanned)
        elif scanned.video_span is None:
            error = NoStreamError(scanned.lacks("video").reason, remedy="leave it out", path=path)
            failed[serial] = failure_row(os.fspath(path), error)
        else:
            found[serial] = scanned
        if on_file is not None:
            on_file(len(found) + len(failed), len(samples))
    return [(samples[n], found[n]) for n in sorted(found)], [failed[n] for n in sorted(failed)]


class ClipDataset(SampleDataset[tuple[Tensor, int]]):
    """Random clips of labelled videos with their labels, by :class:`~crisscross_zoo.workers.samples.SampleKey`.

    Args:
        files: Files with their labels, scanned by :func:`describe_files`.
        video: Length, frame rate and size of a clip.
        augment: Augmentation of a clip; None: it is resized and cropped as in evaluation.
        seed: Seed of the clips.
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

    def path(self, index: int) -> str:
        """Return the path of a file."""
        return self.files[index][0].path

    def draw(self, index: int, random: np.random.Generator) -> tuple[Tensor, int]:
        """Draw a clip (3, T, size, size) of a file and return it with the file's label."""
        sample, info = self.files[index]
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
    """Each file ``clips`` times per epoch, in a new order; samples that do not fill a batch are dropped."""

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
    """Train a whole classifier; resume from the checkpoint in ``folder`` if there is one.

    Args:
        classifier: Changed in place.
        files: Training files, see :func:`describe_files`.
        config: Learning rate, epochs and the like.
        video: Length, frame rate and size of a clip.
        augment: Augmentation of a clip.
        clips: Clips of each file per epoch.
        seed: Seed of clips, augmentation and order.
        folder: Folder of the checkpoint.
        device: Where the classifier is trained.
        precision: "fp32", or autocast to "bf16" or "fp16" (with a scaled gradient).
        workers: Processes that load clips.
        on_step: Called with the number of steps done and the number of steps in all epochs.
        on_failure: Called with the failure row of a clip that could not be read and was replaced by another file's.
        after_epoch: Called after each epoch with its number, from 1, with the classifier in eval mode; not called
            for epochs that an earlier run has done. If it returns scores, the classifier ends with the weights of
            the epoch with the highest score (the first of equal ones) instead of the last epoch's.
        restart: Train from the beginning if the checkpoint belongs to another run.
        on_message: Called with a line of text if the checkpoint is damaged; the checkpoint is then set aside.

    Returns:
        The mean loss of each epoch, and the scores by epoch.

    Raises:
        ConfigError: 16-bit precision on a CPU.
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another run.
        MediaError: many files in a row cannot be used.
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
    stateful = {"model": classifier, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
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
    wanted = {*stateful, "losses", "scores", "best"}
    before = load_progress(checkpoint, identity, wanted, restart=restart, on_message=on_message)
    for name, item in stateful.items() if before is not None else ():
        item.load_state_dict(before[name])  # type: ignore[index, attr-defined]
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
            fixed_shapes(),
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
        states = {name: item.state_dict() for name, item in stateful.items()}  # type: ignore[attr-defined]
        save_progress(checkpoint, identity, {**states, "losses": losses, "scores": scores, "best": highest})
    if highest:
        classifier.load_state_dict(highest)
    classifier.eval()
    return losses, scores


def _collate(
    items: Sequence[tuple[tuple[Tensor, int], str, Failures] | CrissCrossError],
) -> tuple[Tensor, Tensor, Failures] | CrissCrossError:
    """Stack clips to a batch, or return the first error among them: raised in a worker, it would lose its fields."""
    good, error = first_error(items)
    if error is not None:
        return error
    clips, labels = zip(*(content for content, _, _ in good), strict=True)
    return torch.stack(clips), torch.tensor(labels), [f for _, _, failures in good for f in failures]
