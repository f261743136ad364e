"""Training samples per second on one core: the plain path, ours, from prepared copies, and the limit, in one run.

    python benchmarks/training_data.py                                      Markdown tables
    python benchmarks/training_data.py --json training_data.json            also as JSON
    python benchmarks/training_data.py --gpu-samples-per-second 500 2000    cores that keep such GPUs busy

A sample is 12 frames and 3 s of audio, with two augmented views of each, of the kinetics400 preset. The files are
generated: 10 s of 640x360 and 1280x720, 30 fps, H.264 with a key frame every 150 frames, AAC (``clips.py``).

The plain path decodes from the key frame to the last frame, converts the wanted frames to Pillow images, augments them
one by one, and computes the spectrogram with librosa. Ours is :class:`PretrainDataset`. "Opening and decoding" opens
the file as PyAV does, decodes the packets that our reader decodes, and discards the result. The limit does the same but
opens the file without probing, as our reader does. Times are processor times of one thread, so that other processes,
and threads of NumPy that wait for work, matter little. Variants take turns. The time of a sample is the minimum over
the rounds, and the time of a variant is the mean over the samples.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import torch
from clips import make_clip
from PIL import Image, ImageFilter
from report import Ratio, Report, add_json_option, finish
from torchvision.transforms import functional as pil

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.encode import CopyOptions, reencode
from crisscross_zoo.media.frames import DecodingPlan, decode_video
from crisscross_zoo.media.packets import decode_audio, open_media, read_packets
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import _stretches, read_moment, track_of
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.windows import frame_times
from crisscross_zoo.pretrain.data import PretrainDataset
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config
from crisscross_zoo.pretrain.relaxation import view_starts
from crisscross_zoo.transforms import augment_audio as audio_steps
from crisscross_zoo.transforms.augment_video import VideoChoices, apply_choices, draw_choices
from crisscross_zoo.transforms.mel import log_mel
from crisscross_zoo.workers.samples import SampleKey

SIZES = ((640, 360), (1280, 720))
COPIES = {
    "prepared": CopyOptions(),
    "prepared, 16 fps": CopyOptions(fps=16),
    "prepared, --no-fast-decode": CopyOptions(fast_decode=False),
}
AUGMENT_BOUND = 3.5


# --- the plain path ----------------------------------------------------------------------------------------------


def draw(info: Media, config: PretrainConfig, number: int) -> tuple[Any, ...]:
    """Draw a sample's windows: return the times of frames (2, n), the starts of the audio (s), and the generator."""
    rng = np.random.default_rng([config.seed, 0, number, 0])
    assert info.video_span is not None
    assert info.audio_span is not None
    starts = view_starts(
        config.data.relaxation, video_span=info.video_span, audio_span=info.audio_span,
        video_seconds=config.views.window_seconds, audio_seconds=config.audio.window_seconds, rng=rng,
        released=config.data.loose_sync,
    )  # fmt: skip
    times = frame_times(
        np.array([starts.v1, starts.v2]), info.video_span, config.views.frames, config.views.fps
    )
    return times, (starts.a1, starts.a2), rng


def plain_sample(info: Media, config: PretrainConfig, number: int) -> list[torch.Tensor]:
    times, (a1, a2), rng = draw(info, config, number)
    rate, length = config.audio.sample_rate, config.audio.clip_samples
    with av.open(info.path) as container:
        images = plain_images(container, np.unique(times))
        wave = plain_wave(container, min(a1, a2), abs(a2 - a1) + length / rate, rate)
    views: list[torch.Tensor] = []
    for row, start in zip(times, (a1, a2), strict=True):
        frames = [images[float(t)] for t in row]
        choices = draw_choices(
            config.video_augment,
            height=frames[0].height,
            width=frames[0].width,
            size=config.views.size,
            rng=rng,
        )
        views.append(plain_video(frames, choices, config.views))
        first = round((start - min(a1, a2)) * rate)
        views.append(plain_audio(wave[first : first + length], config, rng))
    return views


def plain_images(container: Any, wanted: np.ndarray) -> dict[float, Image.Image]:
    stream = container.streams.video[0]
    stream.thread_count = 1
    container.seek(int(wanted[0] / stream.time_base), stream=stream)
    images: dict[float, Image.Image] = {}
    shown, done = None, 0
    for frame in container.decode(stream):
        while done < len(wanted) and shown is not None and frame.time > wanted[done] + 1e-6:
            images[float(wanted[done])] = shown.to_image()
            done += 1
        shown = frame
        if done == len(wanted):
            break
    for wanted_time in wanted[done:]:
        images[float(wanted_time)] = shown.to_image()
    return images


def plain_wave(container: Any, start: float, seconds: float, rate: int) -> np.ndarray:
    stream = container.streams.audio[0]
    stream.thread_count = 1
    container.seek(max(0, int((start - 0.2) / stream.time_base)), stream=stream)
    resampler = av.AudioResampler(format="s16p", layout="mono", rate=rate)
    pieces, begin = [], None
    for frame in container.decode(stream):
        begin = frame.time if begin is None else begin
        pieces += [p.to_ndarray()[0] for p in resampler.resample(frame)]
        if frame.time > start + seconds:
            break
    wave = np.concatenate([*pieces, np.zeros(round(seconds * rate), np.int16)])
    first = max(0, round((start - (begin or 0.0)) * rate))
    return wave[first : first + round(seconds * rate)].astype(np.float32) / np.float32(INT16_SCALE)


def plain_video(frames: list[Image.Image], choices: VideoChoices, config: VideoConfig) -> torch.Tensor:
    """Augment Pillow images one by one; return (3, T, size, size)."""
    steps: dict[str, Callable[..., Any]] = {
        "brightness": pil.adjust_brightness,
        "contrast": pil.adjust_contrast,
        "saturation": pil.adjust_saturation,
        "hue": pil.adjust_hue,
    }
    top, left, height, width = choices.crop
    above, below, before, after = choices.cutout
    done: list[torch.Tensor] = []
    for frame in frames:
        image = frame.crop((left, top, left + width, top + height))
        image = image.resize((config.size, config.size), Image.Resampling.BILINEAR)
        if choices.flip:
            image = pil.hflip(image)
        for name, amount in choices.jitter:
            image = steps[name](image, amount)
        if choices.grey:
            image = pil.to_grayscale(image, num_output_channels=3)
        if choices.blur is not None:
            image = image.filter(ImageFilter.GaussianBlur(choices.blur[0]))
        pixels = pil.normalize(pil.to_tensor(image), config.mean, config.std)
        if above < below and before < after:
            pixels[:, above:below, before:after] = (done or [pixels])[0].mean()
        done.append(pixels)
    return torch.stack(done, dim=1)


def plain_audio(wave: np.ndarray, config: PretrainConfig, rng: np.random.Generator) -> torch.Tensor:
    """Compute the spectrogram with librosa. The masks and the crop, which take little time, are the package's."""
    audio, augment = config.audio, config.audio_augment
    wave = wave * np.float32(audio_steps.draw_volume(augment, rng))
    mel = librosa.feature.melspectrogram(
        y=wave, sr=audio.sample_rate, n_fft=audio.n_fft, hop_length=audio.hop_length, n_mels=audio.n_mels,
        fmin=0, fmax=audio.sample_rate / 2, power=2.0, pad_mode="reflect",
    )  # fmt: skip
    values = (np.log(mel + np.finfo(np.float32).eps) - audio.mean) / audio.std
    spectrogram = torch.from_numpy(values[None, :, : len(wave) // audio.hop_length].astype(np.float32))
    bands, columns = spectrogram.shape[-2:]
    for width, axis, length in ((augment.frequency_mask, -2, bands), (augment.time_mask, -1, columns)):
        masks = audio_steps.draw_masks(length, width, augment, rng)
        spectrogram = audio_steps.fill_masks(spectrogram, masks, axis=axis)
    crop = audio_steps.draw_crop(bands, columns, augment, rng)
    canvas = audio_steps.canvas_size(bands, columns, augment)
    return audio_steps.resize_crop(spectrogram, crop, canvas=canvas)


# --- the limit ---------------------------------------------------------------------------------------------------


def decode_alone(info: Media, config: PretrainConfig, number: int, *, probed: bool) -> None:
    """Open the file, probed as by PyAV or unprobed as by us, and decode the packets that :func:`read_moment` uses."""
    times, (a1, a2), _ = draw(info, config, number)
    end = max(a1, a2) + config.audio.window_seconds
    video, wanted = info.video, np.unique(times)
    assert video is not None
    with open_media(info.path, unprobed=not probed) as container:
        audio, stream = container.streams.audio[0], container.streams.video[0]
        if min(a1, a2) > 0.3:
            container.seek(int((min(a1, a2) - 0.25) / audio.time_base), stream=audio)
        for frame in decode_audio(read_packets(container, audio, ignore), audio, ignore):
            if frame is not None and frame.time > end:
                break
        for packets, stretch_times in _stretches(container, stream, video, wanted):
            plan = DecodingPlan(track_of(packets, video, stream), stretch_times)
            for _ in decode_video(packets[: np.flatnonzero(plan.needed)[-1] + 1], stream, plan, ignore):
                pass


def open_alone(info: Media, _: int) -> None:
    with open_media(info.path, unprobed=True):
        pass


def ignore(_: str) -> None:
    """Ignore damage: the generated files have none."""


# --- measuring ---------------------------------------------------------------------------------------------------


def turns(variants: dict[str, Callable[[int], Any]], samples: int, rounds: int) -> dict[str, float]:
    """Return the mean over samples of the minimum seconds over each sample's rounds."""
    best = {name: np.full(samples, np.inf) for name in variants}
    for call in variants.values():
        call(0)
    for _ in range(rounds):
        for number in range(samples):
            for name, call in variants.items():
                began = time.thread_time()
                call(number)
                best[name][number] = min(best[name][number], time.thread_time() - began)
    return {name: float(values.mean()) for name, values in best.items()}


def sample_rows(folder: Path, samples: int, rounds: int) -> Iterator[dict[str, Any]]:
    config = make_config("kinetics400")
    for width, height in SIZES:
        original = folder / f"{height}.mp4"
        make_clip(original, width, height)
        info = scan(original)
        ours = PretrainDataset([info], config)
        variants: dict[str, Callable[[int], Any]] = {
            "plain": partial(plain_sample, info, config),
            "ours": lambda k, d=ours: d[SampleKey(0, k, 0)],
            "opening and decoding": partial(decode_alone, info, config, probed=True),
            "limit": partial(decode_alone, info, config, probed=False),
            "opening alone": partial(open_alone, info),
        }
        costs = {}
        for name, options in COPIES.items():
            path = folder / f"{height}-{len(costs)}.mp4"
            began = time.thread_time()
            reencode(scan(original), path, options, on_damage=ignore)
            spent = time.thread_time() - began
            copy = scan(path)
            costs[name] = {
                "seconds to prepare a minute": 60 / info.duration * spent,
                "bytes / original": path.stat().st_size / original.stat().st_size,
                "kB/s": path.stat().st_size / 1000 / info.duration,
                **differences(info, copy, config),
            }
            prepared = PretrainDataset([copy], config)
            variants[name] = lambda k, d=prepared: d[SampleKey(0, k, 0)]
        for name, seconds in (times := turns(variants, samples, rounds)).items():
            yield {
                "file": f"{width}x{height}", "variant": name, "ms": 1000 * seconds, "samples/s": 1 / seconds,
                "speed-up": times["plain"] / seconds, "limit / time": times["limit"] / seconds,
                **costs.get(name, {}),
            }  # fmt: skip


def differences(original: Media, copy: Media, config: PretrainConfig) -> dict[str, float]:
    """Compare a copy with its original over the file: PSNR of whole frames at 112 lines, and log-mel."""
    size = config.data.crop
    assert original.video is not None
    shape = (size, round(size * original.video.width / original.video.height))
    times, (start, end) = np.arange(0.1, original.duration - 0.1, 0.37), original.audio_span or (0.0, 0.0)
    length = round((end - start - 0.1) * config.audio.sample_rate)
    images, spectrograms = [], []
    for info in (original, copy):
        frames, samples = read_moment(info, times=times, audio=(start, length))
        assert frames is not None
        assert samples is not None
        small = torch.from_numpy(frames).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(small, shape, mode="bilinear", antialias=True)
        images.append(small.double())
        wave = torch.from_numpy(samples.astype(np.float32) / np.float32(INT16_SCALE))
        spectrograms.append(log_mel(wave, config.audio))
    error = float((images[0] - images[1]).square().mean())
    apart = (spectrograms[0] - spectrograms[1]).abs()
    return {
        "PSNR, dB": 10 * math.log10(255**2 / error),
        "log-mel, mean difference": float(apart.mean()),
        "log-mel, largest difference": float(apart.max()),
    }


def augment_rows(samples: int, rounds: int) -> Iterator[dict[str, Any]]:
    config = make_config("kinetics400")
    frames = np.random.default_rng(0).integers(0, 255, (8, 360, 640, 3), np.uint8)
    images = [Image.fromarray(f) for f in frames]
    for size in (112, 224):
        views = config.video.replace(size=size)

        def drawn(number: int, size: int = size) -> VideoChoices:
            rng = np.random.default_rng(number)
            return draw_choices(config.video_augment, height=360, width=640, size=size, rng=rng)

        times = turns(
            {
                "plain": lambda k, v=views, d=drawn: plain_video(images, d(k), v),
                "ours": lambda k, v=views, d=drawn: apply_choices(frames, d(k), config=v),
            },
            samples, rounds,
        )  # fmt: skip
        ratio = times["plain"] / times["ours"]
        yield {
            "crop": size, "Pillow, ms": 1000 * times["plain"], "planar, ms": 1000 * times["ours"], "ratio": ratio,
        }  # fmt: skip


def sample_ratios(rows: list[dict[str, Any]]) -> Iterator[Ratio]:
    for file in dict.fromkeys(row["file"] for row in rows):
        ms = {row["variant"]: row["ms"] for row in rows if row["file"] == file}
        large = file == "1280x720"
        yield Ratio(f"samples, plain over ours, {file}", ms["plain"] / ms["ours"], 1.8)
        for limit, bound in (("opening and decoding", 1.6), ("limit", None)):
            yield Ratio(
                f"samples, ours over {limit}, {file}", ms["ours"] / ms[limit], bound, more_is_better=False
            )
        for name, least in (("prepared, --no-fast-decode", 6.0), ("prepared", 9.0)):
            yield Ratio(
                f"samples, plain over {name}, {file}", ms["plain"] / ms[name], least if large else None
            )


def core_rows(rows: list[dict[str, Any]], speeds: list[float]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row["variant"] in ("plain", "ours", *COPIES):
            cores = {
                f"cores for {speed:g} samples/s": math.ceil(speed / row["samples/s"]) for speed in speeds
            }
            yield {
                **{n: row[n] for n in ("file", "variant")},
                "samples/s per core": row["samples/s"],
                **cores,
            }


def table(title: str, rows: list[dict[str, Any]], ratios: Iterable[Ratio] = ()) -> Report:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    report = Report(title, columns, ratios=list(ratios))
    for row in rows:
        values = [row.get(name, "") for name in columns]
        report.add(*(f"{v:.3g}" if isinstance(v, float) else v for v in values))
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20, help="number of samples of each file")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--gpu-samples-per-second", metavar="N", type=float, nargs="+", default=[500.0, 1000.0, 2000.0]
    )
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(sample_rows(Path(folder), options.samples, options.rounds))
    timed = ("file", "variant", "ms", "samples/s", "speed-up", "limit / time")
    copies = [
        {n: v for n, v in row.items() if n in ("file", "variant") or n not in timed}
        for row in rows if row["variant"] in COPIES
    ]  # fmt: skip
    augmented = list(augment_rows(options.samples, options.rounds))
    faster = [
        Ratio(f"augmentation, Pillow over planar, {r['crop']}", r["ratio"], AUGMENT_BOUND) for r in augmented
    ]
    reports = [
        table(
            "Training samples, one core", [{n: row[n] for n in timed} for row in rows], sample_ratios(rows)
        ),
        table("Prepared copies: cost and differences", copies),
        table("Video augmentation, 8 frames of 640x360", augmented, faster),
        table("Cores that keep a GPU busy", list(core_rows(rows, options.gpu_samples_per_second))),
    ]
    finish(reports, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
