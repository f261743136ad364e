"""Copies for training: their frames and audio keep their times; a stopped run is resumed; errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from make_media import make_media, numbered_frame, read_number, sine
from make_trees import contents
from pretrain_case import forked_packing, tiny_config

from crisscross_zoo.errors import ConfigError, UnreadableMediaError
from crisscross_zoo.media import encode
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.encode import CopyOptions, reencode
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.data import PretrainDataset
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.pretrain.prepare import SETTINGS_NAME, prepare
from crisscross_zoo.pretrain.shards import ShardReader, open_data, pack
from crisscross_zoo.workers.samples import SampleKey

ROOT = Path(__file__).resolve().parents[2]
SMALL = CopyOptions(short_side=48)


def never(what: str) -> None:
    raise AssertionError(what)


def copy(path: Path, **options: Any) -> Path:
    out = path.with_name("copy.mp4")
    reencode(scan(path), out, CopyOptions(**options), on_damage=never)
    return out


def numbers(media: Media, times: npt.NDArray[np.float64]) -> list[int]:
    served = read_frames(media, times, on_damage=never)
    return [read_number(frame) for count, frame in served for _ in range(count)]


def audio_of(media: Media) -> tuple[int, npt.NDArray[np.int16]]:
    """Return the position of the first sample at 16 kHz, and all samples, with zeros in gaps."""
    pieces = list(read_audio(media, 16_000, on_damage=never))
    first, end = pieces[0][0], pieces[-1][0] + len(pieces[-1][1])
    samples = np.zeros(end - first, np.int16)
    for position, piece in pieces:
        samples[position - first : position - first + len(piece)] = piece
    return first, samples


# --- one copy ----------------------------------------------------------------------------------------------------

VARIABLE = [0, 40, 47, 130, 131, 300, 333, 700, 1000, 1033, 1800, 1950, 2000]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("plain.mp4", {}),
        ("ntsc.mp4", {"fps": Fraction(30_000, 1001), "options": {"bf": "3"}}),
        ("variable.mkv", {"frame_ticks": VARIABLE, "fps": 25}),
        ("audio_first.mp4", {"video_start": 1.5}),
        ("video_first.mp4", {"audio_start": 0.7351, "audio_seconds": 2.4}),
        ("late.mkv", {"video_start": 3.2, "audio_start": 3.5}),
        ("counted.avi", {"video": "mpeg4", "audio": "pcm_s16le"}),
        ("stream.ts", {"options": {"bf": "2"}}),
        ("six.mkv", {"layout": "5.1", "audio": "flac", "sample_rate": 48_000}),
    ],
)
def test_frames_and_audio_keep_their_times(tmp_path: Path, name: str, form: dict[str, Any]) -> None:
    original = scan(make_media(tmp_path / name, **{"seconds": 3.0, "size": (192, 64), **form}))
    again = scan(copy(tmp_path / name))
    assert original.video is not None
    assert again.video is not None
    assert again.video.span == pytest.approx(original.video.span, abs=2e-5)
    start, end = original.video.span
    times = np.arange(start + 0.0005, end, 0.001)
    assert numbers(again, times) == numbers(original, times)
    (first, samples), (other, others) = audio_of(original), audio_of(again)
    assert first == other
    assert np.array_equal(samples, others)


@pytest.mark.parametrize("form", [{}, {"video_start": 1.25, "audio_start": 0.031}, {"frame_ticks": VARIABLE}])
def test_a_flash_and_a_click_stay_together(tmp_path: Path, form: dict[str, Any]) -> None:
    wave = np.zeros((3 * 44_100, 1), np.int16)
    wave[44_100 : 44_100 + 50] = 30_000  # at 1 s
    path = make_media(tmp_path / "clip.mkv", samples=wave, layout="mono", audio="flac", seconds=3, **form)
    found = []
    for media in (scan(path), scan(copy(path, short_side=32))):
        assert media.video is not None
        info, times = media.compact(), np.arange(*media.video.span, 0.0005) + 1e-4
        frames, samples = read_moment(info, times=times, audio=(0.0, 16_000 * 4))
        assert frames is not None
        assert samples is not None
        flash = times[[read_number(f) for f in frames].index(5)]
        found.append((flash, int(np.abs(samples.astype(int)).argmax()) / 16_000))
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_gap_in_the_audio_becomes_silence_of_its_length(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("libx264", 25),
            container.add_stream("pcm_s16le", 16_000, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = 192, 64, "yuv420p"
        for k in range(250):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(k))))
        container.mux(video.encode(None))
        for first in (0, 128_000):
            frame = av.AudioFrame.from_ndarray(sine(2, 16_000, 1).T.copy(), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    first, samples = audio_of(scan(copy(path)))
    assert (first, len(samples)) == (0, 160_000)
    assert not samples[33_000:127_000].any()
    assert np.array_equal(samples, audio_of(scan(path))[1])


@pytest.mark.parametrize(
    ("size", "rotation", "short_side", "wanted"),
    [
        ((192, 64), 0, 256, (192, 64)),  # never enlarged
        ((192, 64), 0, 32, (96, 32)),
        ((192, 108), 0, 50, (88, 50)),
        ((192, 64), 90, 32, (32, 96)),
        ((192, 64), 180, 32, (96, 32)),
        ((192, 64), 270, 32, (32, 96)),
    ],
)
def test_frames_are_upright_and_of_even_sides(
    tmp_path: Path, size: tuple[int, int], rotation: int, short_side: int, wanted: tuple[int, int]
) -> None:
    path = make_media(tmp_path / "clip.mp4", seconds=0.4, size=size, rotation=rotation)
    again = copy(path, short_side=short_side, crf=5)
    with av.open(str(again)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == wanted
        (before, after) = (
            next(read_frames(scan(p), np.array([0.3]), on_damage=never))[1] for p in (path, again)
        )
    small = torch.nn.functional.interpolate(
        torch.from_numpy(before).permute(2, 0, 1)[None], wanted[::-1], mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    assert np.abs(small.numpy().astype(int) - after).mean() < 6


@pytest.mark.parametrize(
    ("pix_fmt", "codec"), [("yuvj420p", "mjpeg"), ("yuv444p10le", "libx264"), ("rgb24", "libx264rgb")]
)
def test_colours_stay(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    path = tmp_path / "colours.mkv"
    colours = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 90, 40]], np.uint8
    )
    image = np.ascontiguousarray(np.repeat(np.repeat(colours[None], 64, 0), 32, 1))
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream(codec, 25),
            container.add_stream("pcm_s16le", 16_000, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = 192, 64, pix_fmt
        container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sine(1, 16_000, 1).T.copy(), "s16", "mono")
        frame.sample_rate = 16_000
        container.mux(audio.encode(frame))
    ((_, after),) = read_frames(scan(copy(path, crf=5)), np.zeros(1), on_damage=never)
    assert np.abs(after[32, 16::32].astype(int) - colours).max() <= 6


def test_key_frames_are_near_and_nothing_is_reordered(tmp_path: Path) -> None:
    again = copy(make_media(tmp_path / "clip.mp4", seconds=3, gop=250, options={"bf": "3"}), gop=10)
    with av.open(str(again)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert [p.pts for p in packets] == [p.dts for p in packets]
    keys = [k for k, p in enumerate(packets) if p.is_keyframe]
    assert max(np.diff([*keys, len(packets)])) <= 10


def test_a_lower_frame_rate_takes_the_frame_that_is_shown_and_a_higher_one_changes_nothing(
    tmp_path: Path,
) -> None:
    path = make_media(tmp_path / "clip.mp4", seconds=2, fps=25)
    assert copy(path, fps=30).read_bytes() == copy(path).read_bytes()
    original, again = scan(path), scan(copy(path, fps=10))
    assert again.video is not None
    assert again.video.frames == 20
    times = np.arange(20) / 10
    assert numbers(again, times) == numbers(original, times)
    assert again.video.span == pytest.approx((0, 2), abs=1e-4)


def test_frames_that_change_in_size_are_an_error(tmp_path: Path) -> None:
    track = scan(make_media(tmp_path / "clip.ts", seconds=1)).video
    assert track is not None
    scale = encode._CopyScaler(track, "clip.ts", 32)
    assert [scale(av.VideoFrame(96, 64, "yuv422p")).width for _ in range(2)] == [48, 48]
    with pytest.raises(UnreadableMediaError, match="its frames change from 96x64 to 64x96"):
        scale(av.VideoFrame(64, 96, "yuv422p"))


def test_the_media_of_an_index_is_enough(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mp4", seconds=1, size=(96, 64))
    again = tmp_path / "again.mp4"
    reencode(scan(path).compact(), again, CopyOptions(), on_damage=never)
    assert again.read_bytes() == copy(path).read_bytes()


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mp4", seconds=1, size=(96, 64))
    assert len({copy(path, short_side=48).read_bytes() for _ in range(5)}) == 1


@pytest.mark.parametrize(
    "bad", [{"short_side": 0}, {"gop": 0}, {"crf": 52}, {"fps": 0}, {"fps": float("nan")}]
)
def test_options_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.* is out of range"):
        CopyOptions(**bad)


# --- a data set --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of Kinetics400 with three good files and one that was damaged after indexing, and its index."""
    folder = tmp_path_factory.mktemp("films")
    root = folder / "data" / "train"
    for name in ("a/0.mp4", "b/1.mkv", "b/2.mp4", "b/3.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make_media(root / name, seconds=2, size=(96, 64))
        os.utime(root / name, (1e9, 1e9))  # before any copy: a stopped run may leave one without this time
    build_index([str(folder / "data")], folder / "i.parquet", layout="kinetics400", workers=0)
    (root / "b" / "3.mp4").write_bytes(b"broken")
    return folder


def test_copies_keep_the_tree_and_are_training_data(films: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    index, out = read_index(films / "i.parquet"), tmp_path / "out"
    report = prepare(index, out, SMALL, workers=2, on_progress=lambda *n: seen.append(n))
    assert (report.total, report.usable, report.written, report.failed) == (4, 3, 3, 1)
    assert seen == [*((k, 4) for k in range(1, 5)), *((k, 3) for k in range(1, 4))]
    copies = ["train/a/0.mp4", "train/b/1.mkv.mp4", "train/b/2.mp4"]
    assert sorted(contents(out)) == sorted([*copies, "failed.jsonl", "index.parquet", SETTINGS_NAME])
    (failure,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert (failure["path"], failure["error"]) == (index[3].path, "UnreadableMediaError")
    files, _ = open_data(out)
    assert [os.path.relpath(info.path, out) for info in files] == copies
    again = read_index(out / "index.parquet")
    assert (again.layout, again.split, again.class_names) == ("kinetics400", "train", ("a", "b"))
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 1]
    assert report.copied_bytes == sum((out / name).stat().st_size for name in copies)
    out.rename(tmp_path / "moved")
    views, path, failures = PretrainDataset(open_data(tmp_path / "moved")[0], tiny_config())[
        SampleKey(0, 0, 1)
    ]
    assert (path, failures) == (str(tmp_path / "moved" / copies[1]), [])
    assert views["v1"].shape == (3, 4, 32, 32)


def test_copies_can_be_packed(films: Path, tmp_path: Path) -> None:
    prepare(read_index(films / "i.parquet"), tmp_path / "out", SMALL, workers=0)
    with forked_packing():
        pack(read_index(tmp_path / "out" / "index.parquet"), tmp_path / "shards")
    reader = ShardReader(tmp_path / "shards")
    assert reader.open(1).read() == (tmp_path / "out/train/b/1.mkv.mp4").read_bytes()


def test_a_run_resumes_and_changed_files_are_copied_again(films: Path, tmp_path: Path) -> None:
    shutil.copytree(films / "data", tmp_path / "data")
    index = read_index(films / "i.parquet", root=tmp_path / "data")
    prepare(index, tmp_path / "whole", SMALL, workers=0)
    out = tmp_path / "out"

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(index, out, SMALL, workers=0, on_progress=stop)
    first = out / "train/a/0.mp4"
    (out / "train/b/.2.mp4.tmp").write_bytes(b"what a killed run leaves")
    written = first.stat().st_ctime_ns
    report = prepare(index, out, SMALL, workers=0)
    assert (report.written, report.failed) == (1, 1)
    assert first.stat().st_ctime_ns == written
    old, new = contents(tmp_path / "whole"), contents(out)
    assert {n: b for n, b in new.items() if n.endswith(".mp4")} == {
        n: b for n, b in old.items() if n.endswith(".mp4")
    }
    assert old.keys() == new.keys()

    make_media(tmp_path / "data/train/a/0.mp4", seconds=3, size=(96, 64))
    os.utime(tmp_path / "data/train/a/0.mp4", (1.1e9, 1.1e9))
    shutil.copy(tmp_path / "data/train/b/2.mp4", tmp_path / "data/train/b/3.mp4")
    build_index([str(tmp_path / "data")], tmp_path / "new.parquet", layout="kinetics400", workers=0)
    report = prepare(read_index(tmp_path / "new.parquet"), out, SMALL, workers=0)
    assert (report.usable, report.written, report.failed) == (4, 2, 0)
    assert not (out / "failed.jsonl").exists()
    assert read_index(out / "index.parquet").seconds.tolist() == pytest.approx([3, 2, 2, 2], abs=0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_command_leaves_whole_copies_and_resumes(films: Path, tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(films / "data/train/a/0.mp4", tmp_path / "data" / f"{k:02}.mp4")
    build_index([str(tmp_path / "data")], tmp_path / "i.parquet", workers=0)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "crisscross_zoo.cli.pretrain", "prepare", str(tmp_path / "i.parquet"),
        "--out", str(out), "--workers", "1", "--quiet", "--short-side", "48",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(600):
        if len(list(out.glob("*.mp4"))) > 1:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = contents(out)
    assert 1 < len([n for n in before if n.endswith(".mp4")]) <= 12
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=100).returncode == 0
    after = contents(out)
    copies = {n: b for n, b in after.items() if n.endswith(".mp4") and not n.startswith(".")}
    assert len(copies) == 12
    assert len(set(copies.values())) == 1
    assert [n for n in after if n.startswith(".")] == []


def test_a_folder_with_other_contents_or_options_is_refused(films: Path, tmp_path: Path) -> None:
    index = read_index(films / "i.parquet")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        prepare(index, films / "data", workers=0)
    prepare(index, tmp_path / "out", SMALL, workers=0)
    with pytest.raises(ConfigError, match=r"was prepared with other options \(gop 15, not 8\)"):
        prepare(index, tmp_path / "out", CopyOptions(short_side=48, gop=8), workers=0)


def test_two_files_with_the_same_copy_are_refused(films: Path, tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mkv.mp4"):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(films / "data/train/a/0.mp4", tmp_path / "data" / name)
    build_index([str(tmp_path / "data")], tmp_path / "i.parquet", workers=0)
    with pytest.raises(ConfigError, match="another file has the same copy"):
        prepare(read_index(tmp_path / "i.parquet"), tmp_path / "out", workers=0)
