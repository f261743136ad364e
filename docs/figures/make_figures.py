"""Draw the figures of the documentation: `python docs/figures/make_figures.py` (`pip install ".[plot]"`).

Shapes, positions and curves come from the package's own modules and from the demo's log; none is typed in. Each figure
is written twice, for a light and for a dark page, without background. The same versions give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from crisscross_zoo import CrissCross, FeatureExtractor, load_encoder
from crisscross_zoo.encoders.encoder import Encoder
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.windows import (
    centred_starts,
    dense_starts,
    frame_times,
    real_windows,
    uniform_starts,
)
from crisscross_zoo.pretrain.loss import PAIRS
from crisscross_zoo.pretrain.relaxation import RELAXATIONS, ViewStarts, view_starts

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parent / "demo" / "weights" / "audio"
CLIP = HERE.parents[1] / "examples" / "clip.mp4"

INK = {"": "#2a2f3a", "-dark": "#dfe3ea"}
"""Colour of text and lines, by the suffix of a figure's name."""

VIDEO, AUDIO, OTHER = "#4c8fd6", "#e08a2e", "#2fa37c"
"""Colours that are legible on white and on black."""

STYLE = {
    "svg.hashsalt": "crisscross-zoo",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
VIDEO_SECONDS, AUDIO_SECONDS = 0.5, 2.0


def bare(figure: Figure, width: float, height: float) -> Any:
    """Return axes that fill the figure and count in inches from the top left, without a frame."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def box(
    axes: Any, x: float, y: float, width: float, height: float, color: str, *, dashed: bool = False
) -> None:
    """Draw a rounded box with its upper left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.06"
    fill = FancyBboxPatch(
        (x, y), width, height, boxstyle=style, color=color, alpha=0.0 if dashed else 0.22, lw=0
    )
    edge = FancyBboxPatch(
        (x, y), width, height, boxstyle=style, fill=False, ec=color, lw=1.2, ls="--" if dashed else "-"
    )
    axes.add_patch(fill)
    axes.add_patch(edge)


def bar(axes: Any, window: tuple[float, float], y: float, height: float, color: str, text: str = "") -> None:
    """Draw a window on a time line, ``y`` in its middle, with a name on it."""
    axes.barh(y, window[1] - window[0], height, window[0], color=color, alpha=0.45, ec=color, lw=1.2)
    axes.text(sum(window) / 2, y, text, ha="center", va="center")


def time_axis(axes: Any, seconds: float, title: str) -> None:
    """Make the horizontal axis one of seconds, and hide the vertical one."""
    axes.set(xlim=(-0.02 * seconds, 1.02 * seconds), yticks=[])
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines["left"].set_visible(False)


def architecture(figure: Figure, width: float, height: float) -> None:
    """Draw both encoders, with the shape after each stage, and the heads that pretraining puts behind them."""
    axes = bare(figure, width, height)
    model = CrissCross().eval()
    column = (width - 0.15) / 2
    for number, (modality, color) in enumerate((("video", VIDEO), ("audio", AUDIO))):
        encoder: Encoder = getattr(model, f"{modality}_backbone")
        config = encoder.config
        if config.modality == "video":
            name, shape = "R(2+1)D", (3, config.frames, config.size, config.size)
            about = f"{config.frames} frames at {config.fps:g} fps"
        else:
            name, shape = "ResNet", (1, config.n_mels, round(config.seconds * config.columns_per_second))
            about = f"{config.seconds:g} s of log-mel"
        with torch.inference_mode():
            x = torch.zeros(1, *shape)
            maps = encoder.forward_intermediates(x)
            rows = [(about, shape), *((stage, tuple(m.shape[1:])) for stage, m in maps.items())]
            rows.append((f"pooling {config.pooling}", tuple(encoder(x).shape[1:])))
            mean = maps["conv5x"].flatten(2).mean(2)
            embedding = getattr(model, f"{modality}_projector")(mean)
            prediction = getattr(model, f"{modality}_predictor")(embedding)
        left = number * (column + 0.15)
        millions = sum(p.numel() for p in encoder.parameters()) / 1e6
        head = f"{modality.capitalize()}: {name}-{config.depth}"
        axes.text(left + column / 2, 0.16, head, ha="center", va="center", weight="bold", fontsize=10)
        axes.text(left + column / 2, 0.36, f"{millions:.1f} M parameters", ha="center", va="center")
        y = 0.55
        for place, (stage, size) in enumerate(rows):
            text = " \N{MULTIPLICATION SIGN} ".join(map(str, size))
            ends = place in (0, len(rows) - 1)
            box(axes, left + 0.02, y, column - 0.04, 0.44, color)
            weight = "bold" if ends else "normal"
            axes.text(left + column / 2, y + 0.13, stage, ha="center", va="center", weight=weight)
            axes.text(left + column / 2, y + 0.31, text, ha="center", va="center")
            y += 0.53
        box(axes, left + 0.02, y + 0.1, column - 0.04, 0.82, color, dashed=True)
        heads = (
            "in pretraining, after conv5x",
            f"mean {mean.shape[1]}",
            f"projector {embedding.shape[1]}",
            f"predictor {prediction.shape[1]}",
        )
        for place, line in enumerate(heads):
            axes.text(
                left + column / 2, y + 0.22 + 0.19 * place, line, ha="center", va="center", fontsize=8.5
            )


def windows(figure: Figure, *_: float) -> None:
    """Draw the windows of a file of 6 s: one modality, both on one grid, and a given number of clips."""
    span, seconds = (0.0, 6.0), {"video": VIDEO_SECONDS, "audio": AUDIO_SECONDS}
    alone, both, spread = figure.subplots(3, sharex=True, height_ratios=(2.2, 6, 4))
    for y, (modality, color) in enumerate((("video", VIDEO), ("audio", AUDIO))):
        starts = dense_starts(span, seconds[modality], seconds[modality])
        for number, window in enumerate(real_windows(starts, span, seconds[modality])):
            bar(alone, tuple(window), -y, 0.75, color, str(number))
    time_axis(alone, span[1], "one modality: video, or audio, end to end")
    centres = dense_starts(span, VIDEO_SECONDS, 1.0) + VIDEO_SECONDS / 2
    for modality, color in (("audio", AUDIO), ("video", VIDEO)):
        starts = centred_starts(centres, span, seconds[modality])
        for row, window in enumerate(real_windows(starts, span, seconds[modality])):
            bar(both, tuple(window), -row, 0.75, color)
    for row, centre in enumerate(centres):
        both.text(centre, -row, str(row), ha="center", va="center")
    time_axis(both, span[1], "--modality both --stride 1: row i of each has one centre")
    starts = uniform_starts(span, AUDIO_SECONDS, 4, 100)
    for row, window in enumerate(real_windows(starts, span, AUDIO_SECONDS)):
        bar(spread, tuple(window), -row, 0.75, AUDIO, str(row))
    time_axis(spread, span[1], "--modality audio --clips 4: evenly spread")
    spread.set(xlabel="seconds")


def damaged(phrase: str) -> None:
    """Raise an error for a damaged example clip."""
    raise ValueError(f"{CLIP}: {phrase}")


def rows(figure: Figure, *_: float) -> None:
    """Draw the example clip's frames and log-mel, the feature vectors below them, and the windows of one row."""
    features = FeatureExtractor("demo", modality="both")(CLIP)
    media, encoder = scan(CLIP), load_encoder("audio", "demo")
    pairs = ((features.video, features.video_windows), (features.audio, features.audio_windows))
    (video, video_windows), (audio, audio_windows) = pairs
    assert video is not None
    assert video_windows is not None
    assert audio is not None
    assert audio_windows is not None
    shots = [
        frame[::2, ::2] for _, frame in read_frames(media, video_windows.mean(axis=1), on_damage=damaged)
    ]
    wave = np.concatenate([samples for _, samples in read_audio(media, 16_000, on_damage=damaged)])
    mel = encoder.preprocess(wave[: 6 * 16_000] / np.float32(2**15))[0]
    chosen = len(video) // 2
    axes = figure.subplots(4, sharex=True, height_ratios=(2.1, 2.4, 2.1, 2.4))
    shown = (
        ("frames", np.concatenate(shots, axis=1), VIDEO, video_windows[chosen]),
        (f"video\n{video.shape}", standardized(video).T, VIDEO, video_windows[chosen]),
        ("log-mel", mel.numpy(), AUDIO, audio_windows[chosen]),
        (f"audio\n{audio.shape}", standardized(audio).T, AUDIO, video_windows[chosen]),
    )
    for place, (name, image, color, window) in enumerate(shown):
        ax = axes[place]
        flat = image.ndim == 2
        limits = (-2, 2) if place % 2 else (None, None)
        ax.imshow(
            image, aspect="auto", extent=(0, 6, 0, 1), origin="lower" if place == 2 else "upper",
            cmap=("viridis" if place % 2 else "magma") if flat else None, vmin=limits[0], vmax=limits[1],
            interpolation="nearest",
        )  # fmt: skip
        ax.add_patch(
            FancyBboxPatch(
                (window[0], 0), window[1] - window[0], 1, boxstyle="square,pad=0", fill=False, ec=color, lw=3,
                clip_on=False, zorder=3,
            )
        )  # fmt: skip
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.set(yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.tick_params(length=0 if place < 3 else 3)
    start, end = video_windows[chosen]
    audio_window = "[{:g}, {:g}) s".format(*audio_windows[chosen])
    axes[0].set_title(
        f"row {chosen}: video clip [{start:g}, {end:g}) s, audio clip {audio_window}", loc="left", fontsize=9
    )
    axes[3].set(xlabel="seconds")


def standardized(features: np.ndarray) -> np.ndarray:
    """Return features (n, D) with mean 0 and deviation 1 in each column that varies; constant columns are dropped."""
    kept = features[:, features.std(axis=0) > 0]
    return (kept - kept.mean(axis=0)) / kept.std(axis=0)


def draw_views(axes: Any, views: ViewStarts, *, names: bool = True) -> None:
    """Draw the four views of a file, those of a modality in two rows."""
    places = (("v1", 0, VIDEO), ("v2", 1, VIDEO), ("a1", 2, AUDIO), ("a2", 3, AUDIO))
    for name, row, color in places:
        start = getattr(views, name)
        window = (start, start + (VIDEO_SECONDS if name[0] == "v" else AUDIO_SECONDS))
        bar(axes, window, -row, 0.8, color, name if names else "")


def views(figure: Figure, *_: float) -> None:
    """Draw the four views of one file, with the times of the frames."""
    axes = figure.subplots()
    found = view_starts(
        "mild",
        video_span=(0.0, 4.0),
        audio_span=(0.0, 4.0),
        video_seconds=VIDEO_SECONDS,
        audio_seconds=AUDIO_SECONDS,
        rng=np.random.default_rng(1),
    )
    draw_views(axes, found)
    times = frame_times(np.array([found.v1, found.v2]), (0.0, 4.0), 8, 16.0)
    for row, frames in enumerate(times):
        axes.plot(frames, np.full(len(frames), -row - 0.47), "|", ms=5, color=VIDEO)
    time_axis(axes, 4.0, "two video views (8 frames each), two audio views")
    axes.set(xlabel="seconds")


def relaxation(figure: Figure, *_: float) -> None:
    """Draw the views of a file of 10 s under each relaxation."""
    names = [name for name in RELAXATIONS if name != "mixed"]
    for axes, name in zip(figure.subplots(len(names), sharex=True), names, strict=True):
        found = view_starts(
            name,
            video_span=(0.0, 10.0),
            audio_span=(0.0, 10.0),
            video_seconds=VIDEO_SECONDS,
            audio_seconds=AUDIO_SECONDS,
            rng=np.random.default_rng(3),
        )
        draw_views(axes, found, names=False)
        for row, view in enumerate(("v1", "v2", "a1", "a2")):
            axes.text(getattr(found, view) - 0.1, -row, view, ha="right", va="center", fontsize=8)
        apart = f"views {found.v2 - found.v1:.3g} s and {found.a2 - found.a1:.3g} s apart"
        time_axis(axes, 10.0, f"{name}: {apart}")
        axes.set(xlim=(-0.5, 10.2))
    axes.set(xlabel="seconds")


def loss(figure: Figure, width: float, height: float) -> None:
    """Draw the six pairs of views and the three terms that they belong to."""
    axes = bare(figure, width, height)
    corners = {"v1": (0.55, 0.5), "v2": (width - 0.55, 0.5), "a1": (0.55, 2.5), "a2": (width - 0.55, 2.5)}
    terms = {"intra": (OTHER, "-"), "sync": (VIDEO, "--"), "async": (AUDIO, ":")}
    seen: dict[str, list[str]] = {term: [] for term in terms}
    for name, pair in PAIRS.items():
        (x, y), (u, v) = (corners[view] for view in pair)
        term = "intra" if pair[0][0] == pair[1][0] else "sync" if pair[0][1] == pair[1][1] else "async"
        seen[term].append(name)
        color, line = terms[term]
        axes.plot((x, u), (y, v), color=color, ls=line, lw=3, zorder=1)
        inwards = 1 if x < width / 2 else -1
        at, right, down = {"intra": (0.5, 0, -0.16), "sync": (0.5, 0.35, 0), "async": (0.25, 0.35, -0.05)}[
            term
        ]
        place = (
            x + at * (u - x) + inwards * right,
            y + at * (v - y) + (down if y == corners["v1"][1] else -down),
        )
        axes.text(*place, term, ha="center", va="center", weight="bold", color=color, fontsize=10)
    for view, (x, y) in corners.items():
        color = VIDEO if view[0] == "v" else AUDIO
        axes.plot(x, y, "o", ms=40, color=color, zorder=2)
        axes.text(x, y, view, ha="center", va="center", color="white", weight="bold", fontsize=12, zorder=3)
    for place, (term, (color, line)) in enumerate(terms.items()):
        y = 3.25 + 0.28 * place
        axes.plot((0.2, 0.75), (y, y), color=color, ls=line, lw=3)
        pairs = " + ".join(f"L({pair[:2]}, {pair[2:]})" for pair in seen[term])
        text = f"{term} = {pairs}" if term == "intra" else f"{term} = ({pairs}) / 2"
        axes.text(0.9, y, text, va="center")


def curves(figure: Figure, *_: float) -> None:
    """Draw the loss and the spread of the embeddings in the run that the demo weights come from."""
    with (WEIGHTS / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    dim = json.loads((WEIGHTS / "config.json").read_text())["heads"]["projection"]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in log]

    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    steps = column("step")
    above.plot(steps, column("v1v2"), color=VIDEO, label="v1v2")
    above.plot(steps, column("a1a2"), color=AUDIO, label="a1a2")
    above.plot(steps, column("sync"), color=OTHER, label="sync")
    above.plot(steps, column("async_"), color=OTHER, ls=":", label="async")
    above.plot(steps, column("total"), color=mpl.rcParams["text.color"], lw=2, label="total")
    above.set(ylabel="loss")
    for name, color in (("video", VIDEO), ("audio", AUDIO)):
        below.plot(steps, np.array(column(f"{name}_std")) * dim**0.5, color=color, label=name)
    below.axhline(1, color=mpl.rcParams["text.color"], lw=0.8, ls="--")
    below.set(ylabel="std times √D", xlabel="step", ylim=(0, 1.1))
    for axes in (above, below):
        axes.legend(frameon=False, ncols=2, fontsize=8.5)


FIGURES: dict[str, tuple[Callable[[Figure, float, float], None], float, float]] = {
    "architecture": (architecture, 4.4, 5.3),
    "rows": (rows, 6.6, 3.2),
    "windows": (windows, 4.4, 4.6),
    "views": (views, 4.4, 2.1),
    "relaxation": (relaxation, 4.4, 5.2),
    "loss": (loss, 4.4, 4.0),
    "curves": (curves, 4.4, 3.8),
}
"""Function, width and height in inches: narrow, so that a telephone shows them without making them much smaller."""


def main() -> None:
    """Write all of them, or the ones named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; default: all")
    parser.add_argument("--out", type=Path, default=HERE, help="folder (default: docs/figures)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or FIGURES:
        draw, width, height = FIGURES[name]
        for suffix, ink in INK.items():
            lines = dict.fromkeys(
                ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
            )
            with mpl.rc_context({**STYLE, **lines}):
                figure = Figure(
                    figsize=(width, height), layout=None if draw in (architecture, loss) else "constrained"
                )
                draw(figure, width, height)
                figure.savefig(
                    options.out / f"{name}{suffix}.svg",
                    transparent=True,
                    metadata={"Date": None, "Creator": None},
                )


if __name__ == "__main__":
    main()
