"""Clips at random positions, augmented: determined by seed, name and number, and changed as configured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_media import make_media, sine
from scipy.stats import kstest

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.clips import Clip, FileOpened, Sampling, Views, read_clips, read_files
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.windows import random_starts
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS, AudioAugment, VideoAugment
from crisscross_zoo.transforms.augment_audio import augment_audio
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.transforms.frames import normalize
from crisscross_zoo.transforms.mel import log_mel

SIZE = 48
VIDEO = VideoConfig(size=SIZE, crop_ratio=1.0)
AUDIO = AudioConfig(seconds=1.0)
NONE = Views(
    video=VideoAugment(
        area=(1, 1),
        aspect=(1, 1),
        flip=0,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        grey=0,
        blur=0,
        cutout=0,
    ),
    audio=AudioAugment(volume=0, masks=0, crop=(0, 0)),
)
LINEAR = Views(video=VIDEO_AUGMENTS["linear"], audio=AUDIO_AUGMENTS["linear"])


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three seconds of frames in a clip's size and of audio, both lossless."""
    noise = np.random.default_rng(0).normal(0, 3000, (48_000, 1)).astype(np.int16)
    return make_media(
        tmp_path_factory.mktemp("views") / "square.mkv", video="ffv1", pix_fmt="yuv444p", size=(SIZE, SIZE),
        seconds=3, audio="pcm_s16le", sample_rate=16_000, layout="mono", samples=noise + sine(3, 16_000, 1),
    )  # fmt: skip


def read(
    path: Path, views: Views, clips: int = 4, **sampling: Any
) -> tuple[FileOpened, dict[str, list[np.ndarray]]]:
    configs = {"video": VIDEO, "audio": None, **sampling}
    opened, *events = read_clips(path, Sampling(clips=clips, views=views, **configs))
    assert isinstance(opened, FileOpened)
    found: dict[str, list[np.ndarray]] = {}
    for clip in events[:-1]:
        assert isinstance(clip, Clip)
        assert clip.row == len(found.setdefault(clip.modality, []))
        found[clip.modality].append(clip.values)
    return opened, found


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def frames_at(frames: np.ndarray, start: float) -> np.ndarray:
    """Return eight frames of a file of 25 fps, 1/16 s apart."""
    return frames[[int((start + k / 16) * 25 + 1e-6) for k in range(8)]]


def samples_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])


# --- what determines a clip --------------------------------------------------------------------------------------


def test_the_same_file_and_seed_give_the_same_bytes_wherever_they_are_decoded(
    lossless: Path, tmp_path: Path
) -> None:
    sampling = Sampling(video=VIDEO, audio=AUDIO, clips=3, views=LINEAR)
    copy = tmp_path / "elsewhere" / lossless.name
    copy.parent.mkdir()
    shutil.copy(lossless, copy)
    found = []
    for path, workers in ((lossless, 0), (lossless, 1), (copy, 0)):
        events = [event for _, _, event in read_files([path], sampling, workers=workers)]
        clips = {(e.modality, e.row): e.values.tobytes() for e in events if isinstance(e, Clip)}
        assert len(clips) == 6
        assert isinstance(events[0], FileOpened)
        found.append((clips, {name: w.tobytes() for name, w in events[0].windows.items()}))
    assert found[0] == found[1] == found[2]


def test_another_seed_and_another_name_give_other_clips(lossless: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "another.mkv"
    shutil.copy(lossless, renamed)
    first, clips = read(lossless, LINEAR, audio=AUDIO)
    for path, views in ((lossless, dataclasses.replace(LINEAR, seed=1)), (renamed, LINEAR)):
        opened, others = read(path, views, audio=AUDIO)
        for name in ("video", "audio"):
            assert np.abs(opened.windows[name] - first.windows[name]).max() > 0.05
            assert not any(np.array_equal(a, b) for a, b in zip(clips[name], others[name], strict=True))


def test_clips_of_a_file_are_augmented_each_in_its_own_way(tmp_path: Path) -> None:
    """In a file of one frame, only the augmentation makes clips differ."""
    path = make_media(
        tmp_path / "still.mkv", video="ffv1", pix_fmt="yuv444p", audio=None, size=(SIZE, SIZE), fps=16,
        frame_ticks=[0], seconds=1,
    )  # fmt: skip
    _, clips = read(path, dataclasses.replace(LINEAR, video=dataclasses.replace(LINEAR.video, cutout=0)))
    assert len({clip.tobytes() for clip in clips["video"]}) == 4
    for clip in clips["video"]:  # but all frames of a clip in the same way
        np.testing.assert_array_equal(clip, np.repeat(clip[:, :1], 8, axis=1))


# --- where clips lie ---------------------------------------------------------------------------------------------


def test_windows_lie_in_the_stream(lossless: Path) -> None:
    opened, clips = read(lossless, NONE, clips=40, audio=AUDIO)
    for name, window in (("video", 0.5), ("audio", 1.0)):
        starts, ends = opened.windows[name].T
        assert len(clips[name]) == 40
        np.testing.assert_allclose(ends - starts, window, atol=1e-6)
        assert np.all(np.diff(starts) >= 0)
        assert starts.min() >= 0
        assert ends.max() <= 3 + 1e-6
        assert starts.min() < 0.5
        assert ends.max() > 2.5


def test_windows_of_both_modalities_have_the_same_centres(lossless: Path) -> None:
    for audio in (AUDIO, AUDIO.replace(seconds=0.25)):  # longer than the video's window, and shorter
        opened, _ = read(lossless, NONE, clips=20, audio=audio)
        video_centres, audio_centres = (opened.windows[name].mean(axis=1) for name in ("video", "audio"))
        np.testing.assert_allclose(video_centres, audio_centres, atol=1e-6)
        assert np.ptp(video_centres) > 1


def test_a_file_shorter_than_a_clip_gives_its_beginning_every_time(tmp_path: Path) -> None:
    path = make_media(
        tmp_path / "short.mkv", video="ffv1", pix_fmt="yuv444p", size=(SIZE, SIZE), fps=16, seconds=0.25,
        audio="pcm_s16le", sample_rate=16_000, layout="mono",
    )  # fmt: skip
    opened, clips = read(path, NONE, clips=3, audio=AUDIO)
    np.testing.assert_allclose(opened.windows["video"], [[0, 0.25]] * 3, atol=1e-6)
    np.testing.assert_allclose(opened.windows["audio"], [[0, 0.25]] * 3, atol=1e-6)
    frames = decoded(path)[[0, 1, 2, 3, 0, 1, 2, 3]]  # repeated from the first
    for clip in clips["video"]:
        torch.testing.assert_close(
            torch.from_numpy(clip),
            normalize(torch.from_numpy(frames).movedim(-1, 0), VIDEO),
            rtol=0,
            atol=1e-5,
        )
    assert len({clip.tobytes() for clip in clips["audio"]}) == 1


def test_with_a_missing_stream_the_other_is_read(tmp_path: Path) -> None:
    path = make_media(tmp_path / "mute.mp4", audio=None, seconds=1.5, size=(64, 48))
    opened, clips = read(path, LINEAR, audio=AUDIO)
    assert opened.missing == ("audio",)
    assert {name: len(found) for name, found in clips.items()} == {"video": 4}


@given(
    st.floats(0, 100), st.floats(0.01, 300), st.floats(0.1, 10), st.integers(1, 60), st.integers(0, 2**32 - 1)
)
def test_random_windows_lie_in_the_span_and_ascend(
    start: float, length: float, window: float, clips: int, seed: int
) -> None:
    starts = random_starts((start, start + length), window, clips, np.random.default_rng(seed))
    assert (starts.shape, starts.dtype) == ((clips,), np.float64)
    assert np.all(np.diff(starts) >= 0)
    assert np.all(starts >= start)
    assert np.all(starts <= start + max(0, length - window) + 1e-9)
    if length <= window:
        np.testing.assert_allclose(starts, start, rtol=0, atol=1e-9)


def test_random_windows_are_uniformly_distributed() -> None:
    starts = random_starts((2.0, 12.0), 2.0, 20_000, np.random.default_rng(0))
    assert abs(starts.mean() - 6.0) < 4 * 8 / 12**0.5 / 20_000**0.5  # four standard errors
    assert starts[0] < 2.01
    assert starts[-1] > 9.99
    assert kstest(starts, "uniform", args=(2.0, 8.0)).pvalue > 0.01


# --- augmentation ------------------------------------------------------------------------------------------------


def test_without_augmentation_a_clip_is_the_normalised_frames_at_its_times(lossless: Path) -> None:
    opened, clips = read(lossless, NONE)
    frames = decoded(lossless)
    for (start, _), clip in zip(opened.windows["video"], clips["video"], strict=True):
        assert (clip.shape, clip.dtype) == ((3, 8, SIZE, SIZE), np.float32)
        picked = torch.from_numpy(frames_at(frames, start)).movedim(-1, 0)
        torch.testing.assert_close(torch.from_numpy(clip), normalize(picked, VIDEO), rtol=0, atol=1e-5)


def test_without_augmentation_audio_is_the_log_mel_of_its_samples(lossless: Path) -> None:
    opened, clips = read(lossless, NONE, video=None, audio=AUDIO)
    samples = samples_of(lossless)
    for (start, _), clip in zip(opened.windows["audio"], clips["audio"], strict=True):
        assert (clip.shape, clip.dtype) == ((1, 80, 100), np.float32)
        first = round(start * 16_000)
        wave = torch.from_numpy(samples[first : first + 16_000] / np.float32(32_767))
        torch.testing.assert_close(
            torch.from_numpy(clip[0]), log_mel(wave, AUDIO).squeeze(), rtol=0, atol=1e-4
        )


def test_without_augmentation_a_wide_frame_is_cropped_to_the_square_in_its_middle(tmp_path: Path) -> None:
    path = make_media(
        tmp_path / "wide.mkv", video="ffv1", pix_fmt="yuv444p", audio=None, size=(2 * SIZE, SIZE), seconds=2
    )
    opened, clips = read(path, NONE, clips=6)
    frames = decoded(path)
    middle = slice(SIZE // 2, SIZE // 2 + SIZE)
    for (start, _), clip in zip(opened.windows["video"], clips["video"], strict=True):
        whole = normalize(torch.from_numpy(frames_at(frames, start)).movedim(-1, 0), VIDEO)
        torch.testing.assert_close(torch.from_numpy(clip), whole[..., middle], rtol=0, atol=1e-5)


@pytest.fixture
def colourful(tmp_path: Path) -> Path:
    """Make lossless frames of noise in all colours."""
    rng = np.random.default_rng(0)
    path = tmp_path / "colours.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv444p"
        for _ in range(40):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"flip": 1.0}, lambda frames: frames[:, :, ::-1].astype(float)),
        ({"grey": 1.0}, lambda frames: np.repeat(frames @ [0.299, 0.587, 0.114], 3).reshape(frames.shape)),
    ],
    ids=["flip", "grey"],
)
def test_frames_are_changed_as_configured(changes: dict[str, Any], expected: Any, colourful: Path) -> None:
    views = dataclasses.replace(NONE, video=dataclasses.replace(NONE.video, **changes))
    opened, clips = read(colourful, views)
    frames = decoded(colourful)
    for (start, _), clip in zip(opened.windows["video"], clips["video"], strict=True):
        picked = frames_at(frames, start)
        found = np.moveaxis(clip, 0, -1) * VIDEO.std + VIDEO.mean  # (8, H, W, 3), in [0, 1]
        np.testing.assert_allclose(found, expected(picked) / 255, rtol=0, atol=1e-4)
        assert np.abs(expected(picked) - picked).max() > 50


def test_audio_is_changed_as_configured(lossless: Path) -> None:
    loud = dataclasses.replace(NONE, audio=dataclasses.replace(NONE.audio, volume=0.9))
    _, plain = read(lossless, NONE, video=None, audio=AUDIO)
    _, found = read(lossless, loud, video=None, audio=AUDIO)
    shifts = []
    for a, b in zip(plain["audio"], found["audio"], strict=True):
        shift = (b - a).mean()
        np.testing.assert_allclose(b - a, shift, atol=1e-2)  # a factor of the wave shifts the log-mel
        shifts.append(np.exp(shift * AUDIO.std / 2))
    assert len(set(shifts)) == 4
    assert min(shifts) > 0.1
    assert max(shifts) < 1.9
    masked = dataclasses.replace(NONE, audio=AudioAugment(volume=0, crop=(0, 0), masks=1, frequency_mask=0))
    _, found = read(lossless, masked, video=None, audio=AUDIO)
    for a, b in zip(plain["audio"], found["audio"], strict=True):
        columns = np.flatnonzero((a != b).any(axis=(0, 1)))
        assert len(columns) <= 20
        assert len(columns) == 0 or columns[-1] - columns[0] < 20


def test_every_random_number_of_the_augmentation_comes_from_the_clips_own_generator(lossless: Path) -> None:
    views = dataclasses.replace(LINEAR, seed=3)
    opened, clips = read(lossless, views, audio=AUDIO)
    frames, samples = decoded(lossless), samples_of(lossless)
    for row in range(4):
        start = opened.windows["video"][row, 0]
        rng = views.rng(lossless, row, 0)
        video = augment_video(frames_at(frames, start), views.video, config=VIDEO, rng=rng)
        np.testing.assert_array_equal(clips["video"][row], video.numpy())
        first = round(opened.windows["audio"][row, 0] * 16_000)
        wave = samples[first : first + 16_000] / np.float32(32_767)
        audio = augment_audio(wave, views.audio, config=AUDIO, rng=views.rng(lossless, row, 1))
        np.testing.assert_allclose(clips["audio"][row], audio.numpy(), atol=1e-5)
    first_numbers = {views.rng(lossless, row, kind).random() for row in range(4) for kind in (0, 1)}
    assert len(first_numbers | {views.rng(lossless).random()}) == 9


# --- in the extractor --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        video = build_encoder(VideoConfig(width=8, depth=10, pooling="max", size=SIZE))
        audio = build_encoder(AudioConfig(width=8, depth=10, pooling="max", seconds=1.0))
    return {"video": video.eval(), "audio": audio.eval()}


def make_extractor(
    encoders: dict[str, Any], views: Views | None, modality: str = "both", **options: Any
) -> Any:
    options = {"clips": 3, **options}
    return FeatureExtractor(encoders, modality, views=views, device="cpu", workers=0, **options)  # type: ignore[arg-type]


def test_features_are_those_of_the_augmented_clips(encoders: dict[str, Any], lossless: Path) -> None:
    features = make_extractor(encoders, LINEAR)(lossless)
    opened, clips = read(lossless, LINEAR, clips=3, audio=AUDIO)
    for name in ("video", "audio"):
        with torch.inference_mode():
            expected = encoders[name](torch.from_numpy(np.stack(clips[name])))
        np.testing.assert_allclose(getattr(features, name), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(getattr(features, f"{name}_windows"), opened.windows[name])
    other = make_extractor(encoders, dataclasses.replace(LINEAR, seed=1))(lossless)
    assert np.abs(other.video - features.video).max() > 1e-2


def test_without_augmentation_clips_are_those_of_evaluation(lossless: Path) -> None:
    opened, clips = read(lossless, Views(video=None, audio=None), clips=5, audio=AUDIO)
    assert {v.dtype for some in clips.values() for v in some} == {np.dtype(np.uint8), np.dtype(np.int16)}
    again, others = read(lossless, NONE, clips=5, audio=AUDIO)
    np.testing.assert_array_equal(opened.windows["video"], again.windows["video"])
    for plain, augmented in zip(clips["audio"], others["audio"], strict=True):
        expected = log_mel(torch.from_numpy(plain.astype(np.float32) / INT16_SCALE)[None], AUDIO)[0]
        assert (expected - torch.from_numpy(augmented)).abs().max() < 1e-4


def test_another_epoch_has_other_clips_and_epoch_0_those_of_earlier_versions(lossless: Path) -> None:
    views = [dataclasses.replace(LINEAR, epoch=epoch) for epoch in (0, 1, 2, 1)]
    found = [read(lossless, view, clips=3, audio=AUDIO) for view in views]
    starts = [opened.windows["video"][:, 0].tolist() for opened, _ in found]
    assert starts[1] == starts[3]
    assert len({tuple(s) for s in starts}) == 3
    for modality in ("video", "audio"):
        first, second, third, again = (clips[modality] for _, clips in found)
        np.testing.assert_array_equal(second, again)
        assert not np.array_equal(first, second)
        assert not np.array_equal(second, third)
    draw = np.random.default_rng([LINEAR.seed, 415513676766358527, 4, 1]).random()
    assert LINEAR.rng("somewhere/clip.mp4", 4, 1).random() == draw  # so that existing features stay valid


def test_views_are_among_the_settings(encoders: dict[str, Any]) -> None:
    views = Views(video=VideoAugment(flip=0.25), audio=AudioAugment(volume=0.125), seed=9)
    both = json.loads(json.dumps(make_extractor(encoders, views).settings["views"]))
    assert (both["seed"], both["video"]["flip"], both["audio"]["volume"]) == (9, 0.25, 0.125)
    assert both["video"] == json.loads(json.dumps(dataclasses.asdict(views.video)))
    assert set(make_extractor(encoders, views, "audio").settings["views"]) == {"seed", "audio"}
    assert "views" not in make_extractor(encoders, None).settings
    later = make_extractor(encoders, dataclasses.replace(views, epoch=2)).settings["views"]
    assert (later["epoch"], "epoch" in both) == (2, False)
    texts = {
        json.dumps(make_extractor(encoders, v).settings)
        for v in (views, dataclasses.replace(views, seed=8), NONE, LINEAR, None)
    }
    assert len(texts) == 5


def test_views_without_a_number_of_clips_are_refused(encoders: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="views without clips; pass the number of clips: clips=10"):
        make_extractor(encoders, LINEAR, clips=None)
