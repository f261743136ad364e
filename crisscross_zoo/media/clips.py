"""Choose the clips of a file, and read them one after another.

Frames are resized and cropped to the encoder's size (uint8), audio is int16: the smallest form to copy to the device.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import (
    CrissCrossError,
    MediaError,
    UnreadableMediaError,
)
from crisscross_zoo.files import remote
from crisscross_zoo.media import torchcodec_frames
from crisscross_zoo.media.advice import strict_error
from crisscross_zoo.media.audio import cut_out
from crisscross_zoo.media.decode import INT16_SCALE, read_audio, read_frames
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.windows import (
    Edges,
    FloatArray,
    centred_alike,
    centred_starts,
    centres_of,
    dense_starts,
    frame_times,
    random_starts,
    real_windows,
    uniform_starts,
)
from crisscross_zoo.settings import StrPath
from crisscross_zoo.transforms.augment import AudioAugment, VideoAugment
from crisscross_zoo.transforms.augment_audio import augment_audio
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.transforms.frames import resize_crop_frame
from crisscross_zoo.workers.errors import file_error
from crisscross_zoo.workers.pool import work_on_files

MOST_ROWS = 1 << 20
"""Maximum number of dense rows of a file: six days with a row each half second. Broken timestamps would give more."""

UNCOVERED_SECONDS = 1.0
"""A note reports audio that lasts longer than this before or after the video."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Clips at random positions, augmented or not: what linear classifiers are trained on (section E.1).

    Positions and augmentations depend on the seed, the epoch, the file's name and the clip's number only.

    Attributes:
        video: Augmentation of video clips; None: frames are resized and cropped as for evaluation.
        audio: Augmentation of audio clips; None: none.
        seed: Another seed gives other clips.
        epoch: Another epoch gives other clips; counted from 0.
    """

    video: VideoAugment | None = None
    audio: AudioAugment | None = None
    seed: int = 0
    epoch: int = 0

    def rng(self, path: StrPath, *more: int) -> np.random.Generator:
        """Return the random number generator of a file, or of one of its clips."""
        name = hashlib.sha256(os.fsencode(os.path.basename(path))).digest()[:8]
        epoch = [self.epoch] if self.epoch else []  # epoch 0 gives the same clips as views without an epoch
        return np.random.default_rng([self.seed, int.from_bytes(name, "little"), *epoch, *more])


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which clips to take from every file.

    Attributes:
        video: The video encoder's config, or None for audio only.
        audio: The audio encoder's config, or None for video only.
        stride: Seconds between dense windows. None: end to end; with both modalities, the video window's length.
        clips: Take this many uniform clips instead of dense windows.
        views: Take ``clips`` random, augmented clips instead of uniform ones.
        edges: "drop": with both modalities, drop rows whose windows are not centred within half a frame of each
            other, as at the ends of a file, where windows are moved inside.
        strict: Refuse files that are truncated or damaged.
        torchcodec: Device on which torchcodec decodes the frames; None: PyAV decodes them on the CPU.
    """

    video: VideoConfig | None
    audio: AudioConfig | None
    stride: float | None = None
    clips: int | None = None
    views: Views | None = None
    edges: Edges = "keep"
    strict: bool = False
    torchcodec: str | None = None


@dataclass(frozen=True)
class FileOpened:
    """The first event of a file: where its clips lie.

    Attributes:
        source: The file's identity: its ``path`` as given, ``bytes`` and ``modified_ns``.
        duration: Length of the file in seconds.
        windows: Per modality found, ``[start, end)`` of the real part of each clip: float64 seconds, shape (n, 2).
        missing: Requested modalities that the file does not have.
    """

    source: dict[str, str | int]
    duration: float
    windows: dict[str, FloatArray]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    """One clip: ``row`` of ``modality``, with its values.

    Attributes:
        modality: "video" or "audio".
        row: Row of the file's windows.
        values: uint8 RGB, shape (frames, size, size, 3), or int16, shape (clip_samples,). An augmented clip has the
            network's input: float32, shape (3, frames, size, size) or (1, n_mels, columns).
    """

    modality: str
    row: int
    values: npt.NDArray[np.uint8] | npt.NDArray[np.int16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class FileRead:
    """The last event of a file: it was read to its end.

    Attributes:
        damage: What was wrong with the file although it could be read, one phrase each.
        notes: What is unusual, one phrase each.
        failed: Modalities of which nothing could be decoded; ignore clips of them that were yielded before.
    """

    damage: tuple[str, ...]
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


ReadEvent = FileOpened | Clip | FileRead | CrissCrossError
"""The events of a file: one :class:`FileOpened`, its clips, one :class:`FileRead`; or an error, which is the last."""


def file_events(path: StrPath, sampling: Sampling) -> Iterator[ReadEvent]:
    """Read one file as :func:`read_clips` does, but yield an error instead of raising it."""
    try:
        if remote.is_url(path):
            yield from _remote_events(path, sampling)
        else:
            yield from read_clips(path, sampling)
    except Exception as error:
        yield file_error(error, path)


def _remote_events(url: StrPath, sampling: Sampling) -> Iterator[ReadEvent]:
    source = remote.source_of(url)
    with remote.local_copy(url) as local:
        try:
            for event in read_clips(local, sampling):
                yield dataclasses.replace(event, source=source) if isinstance(event, FileOpened) else event
        except CrissCrossError as error:
            error.path = os.fspath(url)
            yield error


def read_clips(path: StrPath, sampling: Sampling) -> Iterator[FileOpened | Clip | FileRead]:
    """Read one file: yield where its clips lie, then every clip, then the damage and the notes.

    Raises:
        MediaError: the file cannot be used (see :func:`crisscross_zoo.media.scan.scan`), or has more than
            :data:`MOST_ROWS` rows.
        NoStreamError: the file has none of the requested modalities, or only another one can be decoded.
        UnreadableMediaError: nothing in the file can be decoded, or with ``sampling.strict`` the decoder returns
            nothing of one modality.
        TruncatedMediaError: a requested stream is damaged, or has no decoder, and ``sampling.strict`` is set.
    """
    media = scan(path)
    wanted = [m for m, c in (("video", sampling.video), ("audio", sampling.audio)) if c is not None]
    if all(getattr(media, modality) is None for modality in wanted):
        raise media.lacks("audio" if wanted == ["audio"] else "video")
    report = _Report(path, strict=sampling.strict)
    for finding in media.findings_of(wanted):
        (report.note if finding.harmless else report.damage)(str(finding))
    starts, windows = _choose_windows(media, sampling, report.note)
    # As remote.source_of, but for the file as it was when it was opened.
    source: dict[str, str | int] = {
        "path": os.fspath(media.path),
        "bytes": media.size,
        "modified_ns": media.modified_ns,
    }
    yield FileOpened(source, media.duration, windows, tuple(m for m in wanted if m not in starts))
    failed: dict[str, UnreadableMediaError] = {}
    for modality, clips in (("video", _video_clips), ("audio", _audio_clips)):
        if modality not in starts:
            continue
        try:
            yield from clips(media, starts[modality], sampling, report)
        except UnreadableMediaError as error:
            if sampling.strict:
                raise
            failed[modality] = error
            report.damage(f"{modality}: {error.reason}")
    if len(failed) == len(starts):
        raise next(iter(failed.values()))
    yield FileRead(tuple(report.damages), tuple(report.notes), tuple(failed))


class _Report:
    """Collect the damage and the notes of a file, each phrase once; with ``strict``, raise at the first damage."""

    def __init__(self, path: StrPath, *, strict: bool) -> None:
        self._path, self._strict = path, strict
        self.damages: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def damage(self, phrase: str) -> None:
        self.damages[phrase] = None
        if self._strict:
            raise strict_error(phrase, self._path)

    def note(self, phrase: str) -> None:
        self.notes[phrase] = None


def _video_clips(media: Media, starts: FloatArray, sampling: Sampling, report: _Report) -> Iterator[Clip]:
    video, views = sampling.video, sampling.views
    assert video is not None
    augment = None if views is None else views.video
    taken = video_clips(
        media,
        starts,
        video,
        on_damage=report.damage,
        crop=augment is None,
        torchcodec=sampling.torchcodec,
    )
    for row, frames in enumerate(taken):
        if views is None or augment is None:
            yield Clip("video", row, frames)
        else:
            view = augment_video(frames, augment, config=video, rng=views.rng(media.path, row, 0))
            yield Clip("video", row, view.numpy())


def _audio_clips(media: Media, starts: FloatArray, sampling: Sampling, report: _Report) -> Iterator[Clip]:
    audio, views = sampling.audio, sampling.views
    assert audio is not None
    taken = audio_clips(media, starts, audio, on_damage=report.damage, on_note=report.note)
    for row, samples in enumerate(taken):
        if views is None or views.audio is None:
            yield Clip("audio", row, samples)
        else:
            wave = samples.astype(np.float32) / np.float32(INT16_SCALE)
            view = augment_audio(wave, views.audio, config=audio, rng=views.rng(media.path, row, 1))
            yield Clip("audio", row, view.numpy())


def _choose_windows(
    media: Media, sampling: Sampling, on_note: Callable[[str], None]
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return starts and windows per modality; with both modalities, row i of each is centred on the same time.

    Rows lie in the span of the video stream, or in that of the audio stream if the video stream is not used.
    """
    rates = {}
    lengths = {}
    if sampling.video is not None:
        rates["video"], lengths["video"] = sampling.video.fps, sampling.video.window_seconds
    if sampling.audio is not None:
        rates["audio"], lengths["audio"] = sampling.audio.columns_per_second, sampling.audio.window_seconds
    spans = {
        k: t.span for k, t in (("video", media.video), ("audio", media.audio)) if t is not None and k in rates
    }
    extent = spans.get("video") or spans["audio"]
    for name, seconds in (
        ("before the first frame", extent[0] - spans.get("audio", extent)[0]),
        ("after the last frame", spans.get("audio", extent)[1] - extent[1]),
    ):
        if seconds > UNCOVERED_SECONDS:
            on_note(f"audio: {seconds:.2f} s {name} have no rows; modality 'audio' includes them")
    if sampling.clips is not None:
        lead = max(
            lengths, key=lambda k: lengths[k]
        )  # the longest window, so that the others fit around its centre
        if sampling.views is None:
            grid = uniform_starts(extent, lengths[lead], sampling.clips, rates[lead])
        else:
            rng = sampling.views.rng(media.path)
            grid = random_starts(extent, lengths[lead], sampling.clips, rng)
    else:
        lead = "video" if "video" in lengths else "audio"
        stride = sampling.stride or lengths[lead]
        if (extent[1] - extent[0]) / stride > MOST_ROWS:
            raise MediaError(
                f"its timestamps span {extent[1] - extent[0]:.0f} s, which has more than {MOST_ROWS:,} rows",
                remedy="repair its timestamps, or pass a longer stride or a number of clips",
                path=media.path,
            )
        grid = dense_starts(extent, lengths[lead], stride)
    if len(lengths) == 1:
        starts = {lead: grid}
    else:
        centres = grid + lengths[lead] / 2
        starts = {k: centred_starts(centres, span, lengths[k]) for k, span in spans.items()}
    windows = {k: real_windows(s, spans[k], lengths[k]) for k, s in starts.items()}
    if len(starts) == 2:
        middles = centres_of(windows["video"])
        covered = (windows["audio"][:, 0] <= middles) & (middles <= windows["audio"][:, 1])
        if count := int((~covered).sum()):
            on_note(
                f"audio: {count} of {len(covered)} rows lie outside the audio; they get the nearest audio window"
            )
    if sampling.edges == "drop" and len(starts) == 2:
        alike = centred_alike(windows["video"], windows["audio"], rates["video"])
        if not alike.any():
            raise MediaError(
                f"no row has a video and an audio window with the same centre (windows of {lengths['video']:g} and"
                f" {lengths['audio']:g} s in {extent[1] - extent[0]:.2f} s)",
                remedy="use edges 'keep', or a shorter audio clip",
                path=media.path,
            )
        starts, windows = ({k: v[alike] for k, v in by.items()} for by in (starts, windows))
    return starts, windows


def video_clips(
    media: Media,
    starts: npt.NDArray[np.float64],
    config: VideoConfig,
    *,
    on_damage: Callable[[str], None],
    crop: bool = True,
    torchcodec: str | None = None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode the clips that begin at ``starts``; a frame that several clips share is decoded once.

    Args:
        media: From :func:`crisscross_zoo.media.scan.scan`, with a video track.
        starts: Seconds, shape (n,), ascending.
        config: Frames, frame rate and size of a clip.
        on_damage: Called with one phrase for what could not be decoded.
        crop: Resize and crop as for evaluation; otherwise frames keep their size.
        torchcodec: Device on which torchcodec decodes, and crops, instead of PyAV.

    Yields:
        One clip per start: uint8 RGB, shape (frames, size, size, 3), or (frames, H, W, 3) without ``crop``.
    """
    assert media.video is not None
    wanted = frame_times(starts, media.video.span, config.frames, config.fps)
    times, indices = np.unique(wanted, return_inverse=True)
    indices = indices.reshape(wanted.shape)
    needs = indices.max(axis=1)
    oldest = np.minimum.accumulate(indices.min(axis=1)[::-1])[::-1]
    held: deque[npt.NDArray[np.uint8]] = deque()  # frames for times[dropped:]
    dropped = row = 0
    frames: Iterator[tuple[int, npt.NDArray[np.uint8] | Tensor]]
    if torchcodec is None:
        frames = read_frames(media, times, on_damage=on_damage)
    else:
        frames = torchcodec_frames.read_frames(media, times, device=torchcodec)
    for count, frame in frames:
        if crop:
            cropped = resize_crop_frame(frame, size=config.size, crop_ratio=config.crop_ratio)
            frame = cropped.permute(1, 2, 0)
        held.extend([frame.cpu().numpy() if isinstance(frame, Tensor) else frame] * count)
        while row < len(starts) and needs[row] < dropped + len(held):
            yield np.stack([held[k - dropped] for k in indices[row]])
            row += 1
            for _ in range(oldest[row] - dropped if row < len(starts) else 0):
                held.popleft()
                dropped += 1


def audio_clips(
    media: Media,
    starts: npt.NDArray[np.float64],
    config: AudioConfig,
    *,
    on_damage: Callable[[str], None],
    on_note: Callable[[str], None] | None = None,
) -> Iterator[npt.NDArray[np.int16]]:
    """Decode the audio clips that begin at ``starts``; beyond the stream, and in its gaps, a clip is silent.

    Args:
        media: From :func:`crisscross_zoo.media.scan.scan`, with an audio track.
        starts: Seconds, shape (n,), ascending.
        config: Length and sample rate of a clip.
        on_damage: Called with one phrase for what could not be decoded.
        on_note: Called with one phrase for what is unusual.

    Yields:
        One clip per start: int16, shape (clip_samples,); divide by 32767 for [-1, 1].
    """
    firsts = np.rint(starts * config.sample_rate).astype(np.int64)
    length = config.clip_samples
    pieces: deque[tuple[int, npt.NDArray[np.int16]]] = deque()
    row = 0

    for position, piece in read_audio(media, config.sample_rate, on_damage=on_damage, on_note=on_note):
        while row < len(firsts) and firsts[row] + length <= position:
            yield cut_out(pieces, int(firsts[row]), length)
            row += 1
        if row == len(firsts):  # read on: damage of the audio is reported at its end
            continue
        while pieces and pieces[0][0] + len(pieces[0][1]) <= firsts[row]:
            pieces.popleft()
        pieces.append((position, piece))
    for first in firsts[row:]:
        yield cut_out(pieces, int(first), length)


def read_files(
    paths: Iterable[StrPath],
    sampling: Sampling,
    *,
    workers: int = 0,
    queue_size: int = 16,
    timeout: float | None = None,
) -> Generator[tuple[int, StrPath, ReadEvent], None, None]:
    """Read the clips of many files; a file that fails does not affect the others.

    Args:
        paths: Files; the next one is taken when a worker is free.
        sampling: Which clips to take.
        workers: Decoding processes. 0 decodes in one thread of this process, where a decoder crash is fatal.
        queue_size: Events in the queue before workers wait.
        timeout: Seconds after which a silent worker is killed.

    Yields:
        ``(serial, path, event)``: ``serial`` is the file's number in ``paths``, from 0. Events of one file are in
        order; events of different files are interleaved.
    """
    job = functools.partial(file_events, sampling=sampling)
    return work_on_files(paths, job, workers=workers, queue_size=queue_size, timeout=timeout)
