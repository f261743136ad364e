"""Full finetuning of a video encoder: random augmented clips, SGD, multi-step rate (section E.2, Table S11).

A clip is decided by ``(seed, epoch, position)`` alone, and a checkpoint is written after every epoch: a run that was
stopped goes on from there with the same clips, and ends with the same weights on the same machine.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from crisscross_zoo.atomic import atomic_path
from crisscross_zoo.config import VideoConfig
from crisscross_zoo.encoders.checkpoint import state_sha256
from crisscross_zoo.encoders.classifier import Classifier
from crisscross_zoo.errors import CrissCrossError, MediaError, TrainingError
from crisscross_zoo.evaluate.datasets import Sample
from crisscross_zoo.evaluate.protocols import FinetuneConfig
from crisscross_zoo.extract import PRECISIONS
from crisscross_zoo.media.decode import scan
from crisscross_zoo.media.moments import MediaInfo, describe, read_moment
from crisscross_zoo.media.windows import frame_times, random_starts
from crisscross_zoo.transforms.augment import VideoAugment
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.transforms.frames import normalize, resize_crop

Key = tuple[int, int, int]
"""Epoch, position in it, place of the file."""

TRIES = 10
"""Files tried for one clip before the run gives up."""

CHECKPOINT_FILE = "finetune.pt"


class ClipDataset(Dataset[tuple[Tensor, int]]):
    """Random clips of labelled videos, by :data:`Key`.

    Args:
        samples: Files and labels.
        video: What a clip is.
        augment: What is done to it; None: resized and cropped as for evaluation.
        seed: Another one gives other clips.
    """

    def __init__(
        self, samples: Sequence[Sample], video: VideoConfig, augment: VideoAugment | None, *, seed: int
    ) -> None:
        self.samples, self.video, self.augment, self.seed = samples, video, augment, seed
        self._known: dict[int, MediaInfo] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | CrissCrossError:  # type: ignore[override]
        """Return a clip (3, T, size, size) and its label; where a file fails, those of another.

        An error is returned, not raised: it would lose its fields on the way out of a data process.
        """
        epoch, position, place = key
        for attempt in range(TRIES):
            random = np.random.default_rng([self.seed, epoch, position, attempt])
            if attempt:
                place = int(random.integers(len(self.samples)))
            try:
                return self._clip(place, random), self.samples[place].label
            except MediaError as error:
                last = error
        return MediaError(
            f"{TRIES} files in turn cannot be used: {last.reason}",
            remedy="check the data set",
            path=last.path,
        )

    def _clip(self, place: int, random: np.random.Generator) -> Tensor:
        if place not in self._known:
            media = scan(self.samples[place].path)
            self._known[place] = describe(media)
        info, video = self._known[place], self.video
        span = info.video_span or (0.0, 0.0)  # without pictures read_moment says so
        starts = random_starts(span, video.window_seconds, 1, random)
        times = frame_times(starts, span, video.frames, video.fps).ravel()
        frames, _ = read_moment(info, times=times)
        assert frames is not None
        if self.augment is not None:
            return augment_video(frames, self.augment, config=video, rng=random)
        return normalize(resize_crop(frames, size=video.size, crop_ratio=video.crop_ratio), video)


class _Batches(Sampler[list[Key]]):
    """Each file ``clips`` times an epoch, in a new order; what does not fill a batch is left out."""

    def __init__(self, files: int, clips: int, batch_size: int, epoch: int, seed: int) -> None:
        self.order = np.random.default_rng([seed, epoch]).permutation(np.repeat(np.arange(files), clips))
        self.batch_size, self.epoch = min(batch_size, len(self.order)), epoch

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(len(self)):
            first = step * self.batch_size
            yield [(self.epoch, p, int(self.order[p])) for p in range(first, first + self.batch_size)]


def finetune(
    classifier: Classifier,
    samples: Sequence[Sample],
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
    on_step: Callable[[int, int, float], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    notes: dict[int, float] | None = None,
    restart: bool = False,
) -> list[float]:
    """Train all of a classifier, going on from ``folder`` where it was stopped.

    Args:
        classifier: Changed in place.
        samples: Training files.
        config: Rate, epochs and the like.
        video: What a clip is.
        augment: What is done to it.
        clips: Clips of each file in an epoch.
        seed: Of clips, augmentation and order.
        folder: Where the checkpoint is kept.
        device: Where it is trained.
        precision: "fp32", or autocast to "bf16" or "fp16" (with a scaled gradient).
        workers: Processes that load clips.
        on_step: Told which step is done of how many, over all epochs, and its loss.
        after_epoch: Called with the number of each epoch that ends, from 1, the classifier being in eval mode; not
            for epochs that a run before this one has done.
        notes: What ``after_epoch`` notes of each epoch; kept in the checkpoint, and filled from it.
        restart: Begin anew where the checkpoint is of another run.

    Returns:
        The mean loss of each epoch.

    Raises:
        TrainingError: the loss is no longer finite, or the checkpoint is of another run.
        MediaError: many files in turn cannot be used.
        OSError: the checkpoint cannot be written.
    """
    device = torch.device(device)
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
            "files": [[s.path, s.label] for s in samples],
            "weights": state_sha256(classifier.encoder.state_dict(), classifier.encoder.config),
        }
    )
    notes = {} if notes is None else notes
    losses = _resume(folder / CHECKPOINT_FILE, parts, identity, notes, restart=restart)
    data = ClipDataset(samples, video, augment, seed=seed)
    dtype = PRECISIONS[precision]
    for epoch in range(len(losses), config.epochs):
        batches = _Batches(len(samples), clips, config.batch_size, epoch, seed)
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
        with torch.random.fork_rng():
            torch.manual_seed(seed + epoch)  # dropout
            for x, labels in loader:
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    logits = classifier(x.to(device, non_blocking=True))
                loss = F.cross_entropy(logits.float(), labels.to(device))
                optimizer.zero_grad()
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                found.append(loss.detach())
                if on_step is not None:
                    on_step(epoch * len(batches) + len(found), config.epochs * len(batches), float(found[-1]))
        schedule.step()
        losses.append(float(torch.stack(found).mean()))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} in epoch {epoch + 1}", remedy="lower finetune.lr")
        classifier.eval()
        if after_epoch is not None:
            after_epoch(epoch + 1)
        states = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / CHECKPOINT_FILE) as temporary:
            torch.save({**states, "losses": losses, "notes": notes, "identity": identity}, temporary)
    classifier.eval()
    return losses


def _resume(
    path: Path, parts: dict[str, Any], identity: str, notes: dict[int, float], *, restart: bool
) -> list[float]:
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        if restart:
            return []
        raise TrainingError(
            "is the checkpoint of a run with other files, weights or settings",
            remedy="use another --out, or pass --overwrite",
            path=path,
        )
    notes.update(state["notes"])
    for name, part in parts.items():
        part.load_state_dict(state[name])
    losses: list[float] = state["losses"]
    return losses


def _collate(items: Sequence[tuple[Tensor, int] | CrissCrossError]) -> tuple[Tensor, Tensor]:
    clips = []
    labels = []
    for item in items:
        if isinstance(item, CrissCrossError):
            raise item
        clips.append(item[0])
        labels.append(item[1])
    return torch.stack(clips), torch.tensor(labels)
