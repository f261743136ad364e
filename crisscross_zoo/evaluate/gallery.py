"""A gallery of retrieval results: queries beside their nearest neighbours (Figures S1 and S2).

The gallery is one HTML page that needs neither a network nor other files, and a PNG and a PDF of the same grid for
papers. Each file is read once, however often it is shown: a few seconds from its middle.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import os
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.errors import ConfigError, InputError, MediaError
from crisscross_zoo.files.atomic import atomic_path, write_atomically
from crisscross_zoo.settings import check_choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crisscross_zoo.media.tracks import Media

DIRECTIONS = ("video-to-video", "audio-to-audio", "video-to-audio", "audio-to-video")
"""Modality of the query and modality of the gallery."""

PAGE_FILE = "index.html"

CLIP_BOX = (112, 224)
"""Maximum height and width of a clip, in pixels."""

POSTER_BOX = (192, 384)
"""Maximum height and width of the still image, in pixels."""

CLIP_FPS = 16
"""Maximum frame rate of a clip, in fps; the rate used is the file's own rate divided by a whole number."""

CLIP_SAMPLE_RATE = 48_000
"""Sample rate of a clip's audio, in Hz."""

SPECTROGRAM_DECIBELS = 80.0
"""Dynamic range of a spectrogram, from its loudest to its darkest value, in dB."""

FIGURE_QUERIES = 40
"""Maximum number of queries in a PNG or PDF, which show the first ones; the page has all."""

_READ_BYTES = 256 << 20  # of decoded frames at once
_JPEG_QUALITY = 82
_TEMPLATE = Path(__file__).with_name("gallery.html")

Kind = Literal["video", "audio"]
Verdict = Literal["right", "wrong", "unknown"]
Images = npt.NDArray[np.uint8]
"""One RGB image (H, W, 3), or the frames of a clip (T, H, W, 3)."""


@dataclass(frozen=True)
class Item:
    """One file.

    Attributes:
        path: Path of the file.
        label: Name of its class; None if unknown.
    """

    path: str
    label: str | None


@dataclass(frozen=True)
class Hit:
    """A neighbour of a query.

    Attributes:
        item: The file.
        similarity: Cosine similarity of its features and the query's.
    """

    item: Item
    similarity: float


@dataclass(frozen=True)
class Query:
    """A query file and its nearest neighbours.

    Attributes:
        item: The file.
        hits: Its neighbours, nearest first.
    """

    item: Item
    hits: tuple[Hit, ...]


def verdict(query: Item, hit: Item) -> Verdict:
    """Return whether a hit has the query's class: "right", "wrong", or "unknown" if either has no label."""
    if query.label is None or hit.label is None:
        return "unknown"
    return "right" if query.label == hit.label else "wrong"


def write_gallery(
    out: Path,
    directions: Mapping[str, Sequence[Query]],
    *,
    title: str,
    facts: Mapping[str, str],
    seconds: float = 3.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write ``index.html``, and for each direction ``<direction>.png`` and ``<direction>.pdf``.

    The page contains everything that it shows, including images and clips (VP9 and Opus), once per file: 50 to 100 kB
    a file. Figures have the first :data:`FIGURE_QUERIES` queries. Each output is written atomically.

    Args:
        out: Output folder, created if needed.
        directions: Queries by direction, one of :data:`DIRECTIONS`, in the order in which they are shown.
        title: Title of the page.
        facts: Facts about the experiment that the page lists, by name, such as data set, weights, R@1, date.
        seconds: Maximum length of a clip, taken from the middle of its file.
        on_progress: Called with the number of files read and the number of files.

    Returns:
        A line for each file that could not be read, or not completely. A tile without an image shows the file's name.

    Raises:
        ConfigError: matplotlib is not installed, a direction is not known, or ``seconds`` is not above 0.
        InputError: there is no query, or a similarity is not finite.
        OSError: a file cannot be written.
    """
    _check_matplotlib()
    _check(directions, seconds)
    wanted = _wanted(directions)
    previews: dict[str, _Preview] = {}
    for done, (path, kinds) in enumerate(wanted.items()):
        if on_progress is not None:
            on_progress(done, len(wanted))
        previews[path] = _preview(path, kinds, seconds)
    if on_progress is not None:
        on_progress(len(wanted), len(wanted))
    names = _short_names(wanted)
    page = _page(directions, previews, names, title=title, facts=facts)
    write_atomically(Path(out) / PAGE_FILE, page)
    for direction, queries in directions.items():
        _write_figure(Path(out) / direction, direction, queries, previews, names)
    return [line for path, preview in previews.items() if (line := preview.message(path))]


def _check_matplotlib() -> None:
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise ConfigError(
            "galleries need matplotlib", remedy='pip install "crisscross-zoo[evaluate]"'
        ) from None


def _check(directions: Mapping[str, Sequence[Query]], seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"seconds={seconds!r} is out of range", remedy="pass a number above 0")
    if not directions:
        raise InputError("no direction to show", remedy=f"pass one or more of {', '.join(DIRECTIONS)}")
    for direction, queries in directions.items():
        check_choice("direction", direction, DIRECTIONS)
        if not queries:
            raise InputError(f"{direction} has no queries", remedy="pass one or more, or leave it out")
        for query in queries:
            for hit in query.hits:
                if not math.isfinite(hit.similarity):
                    raise InputError(
                        f"similarity {hit.similarity!r} of {hit.item.path!r}", remedy="pass finite numbers"
                    )


class _Use(NamedTuple):
    """The modality in which a direction's queries are shown, and that of its hits."""

    query: Kind
    hit: Kind


_USES: dict[str, _Use] = {
    "video-to-video": _Use("video", "video"),
    "audio-to-audio": _Use("audio", "audio"),
    "video-to-audio": _Use("video", "audio"),
    "audio-to-video": _Use("audio", "video"),
}


def _wanted(directions: Mapping[str, Sequence[Query]]) -> dict[str, set[Kind]]:
    """Return every file, in the order of first use, with the modalities in which it is shown."""
    wanted: dict[str, set[Kind]] = {}
    for direction, queries in directions.items():
        use = _USES[direction]
        for query in queries:
            wanted.setdefault(query.item.path, set()).add(use.query)
            for hit in query.hits:
                wanted.setdefault(hit.item.path, set()).add(use.hit)
    return wanted


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return paths relative to the files' common folder, so that the page does not reveal the layout of a disk."""
    paths = list(paths)
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some are relative, or on another drive
        return {path: Path(path).name for path in paths}
    return {path: (os.path.relpath(path, common) if common else path) for path in paths}


# --- previews of files ---------------------------------------------------------------------------------------------


@dataclass
class _Preview:
    """A small preview of a file.

    Attributes:
        poster: A frame as JPEG; None unless the file is shown as video and has a video stream.
        spectrogram: JPEG; None unless the file is shown as audio and has an audio stream.
        clip: WebM; None if the file has neither.
        has_audio: Whether the clip has audio.
        problems: Why the file cannot be shown as video or as audio, by kind.
        note: What else could not be read.
    """

    poster: bytes | None = None
    spectrogram: bytes | None = None
    clip: bytes | None = None
    has_audio: bool = False
    problems: dict[Kind, str] = field(default_factory=dict)
    note: str = ""

    def image(self, kind: Kind) -> bytes | None:
        """Return the image that represents the file as this kind."""
        return self.poster if kind == "video" else self.spectrogram

    def message(self, path: str) -> str:
        """Return a line about what could not be read; empty if everything could."""
        reasons = dict.fromkeys([*self.problems.values(), *([self.note] if self.note else [])])
        return " ".join(f"{path}: {'; '.join(reasons)}".split()) if reasons else ""


def _preview(path: str, kinds: set[Kind], seconds: float) -> _Preview:
    """Read the preview of a file; whatever cannot be read is among its problems."""
    from crisscross_zoo.media.encode import preview_clip
    from crisscross_zoo.media.scan import scan

    try:
        info = scan(path)
    except MediaError as error:
        return _Preview(problems=dict.fromkeys(sorted(kinds), error.reason))
    preview = _Preview()
    if "video" in kinds and info.video_span is None:
        preview.problems["video"] = info.lacks("video").reason
    if "audio" in kinds and info.audio_span is None:
        preview.problems["audio"] = info.lacks("audio").reason
    kinds = kinds - set(preview.problems)
    if not kinds:
        return preview
    start, length = _middle(info, kinds, seconds)
    frames: Images | None = None
    wave: npt.NDArray[np.float32] | None = None
    fps = Fraction(1)
    if "video" in kinds:
        try:
            frames, poster, fps = _read_frames(info, start, length)
            preview.poster = _jpeg(poster)
        except MediaError as error:
            preview.problems["video"] = error.reason
    if info.audio_span is not None and ("audio" in kinds or frames is not None):
        try:
            wave = _read_audio(info, start, length, CLIP_SAMPLE_RATE)
            if "audio" in kinds:
                config = AudioConfig()
                preview.spectrogram = _jpeg(
                    _spectrogram(_read_audio(info, start, length, config.sample_rate), config)
                )
        except MediaError as error:
            if "audio" in kinds:
                preview.problems["audio"] = error.reason
            else:
                preview.note = f"shown without audio: {error.reason}"
    if frames is not None or wave is not None:
        preview.has_audio = wave is not None
        preview.clip = preview_clip(frames, wave, fps=fps, sample_rate=CLIP_SAMPLE_RATE)
    return preview


def _middle(info: Media, kinds: set[Kind], seconds: float) -> tuple[float, float]:
    """Return start and length of the clip, in seconds: the middle of the time that all wanted streams cover."""
    from crisscross_zoo.media.windows import centred_starts

    spans = {"video": info.video_span, "audio": info.audio_span}
    wanted = [span for kind in sorted(kinds, reverse=True) if (span := spans[kind]) is not None]
    span = max(s for s, _ in wanted), min(e for _, e in wanted)
    if span[0] >= span[1]:
        span = wanted[0]
    start = float(centred_starts(np.array([sum(span) / 2]), span, seconds)[0])
    return start, min(seconds, span[1] - start)


def _read_frames(info: Media, start: float, length: float) -> tuple[Images, Images, Fraction]:
    """Return the frames of the clip (T, H, W, 3), one frame for the poster (H, W, 3), and the frame rate in fps."""
    from crisscross_zoo.media.seek import read_moment
    from crisscross_zoo.media.windows import whole_units

    rate = info.video.rate if info.video else CLIP_FPS
    fps = Fraction(rate).limit_denominator(1001) / max(1, math.ceil(rate / CLIP_FPS - 0.01))
    count = max(1, whole_units(length, float(fps)))
    times = start + np.arange(count) / float(fps)
    pixels = info.video.width * info.video.height if info.video else 1
    at_once = max(1, _READ_BYTES // max(1, 3 * pixels))
    pieces: list[Images] = []
    poster: Images | None = None
    size = (0, 0)
    for first in range(0, count, at_once):
        frames, _ = read_moment(info, times=times[first : first + at_once])
        assert frames is not None
        if not pieces:
            size = _size_within(CLIP_BOX, frames.shape[1:3], even=True)
        pieces.append(_resized(frames, size))
        if first <= count // 2 < first + at_once:
            best = frames[count // 2 - first : count // 2 - first + 1]
            poster = _resized(best, _size_within(POSTER_BOX, best.shape[1:3]))[0]
    assert poster is not None
    return np.concatenate(pieces), poster, fps


def _size_within(
    box: tuple[int, int], size: tuple[int, ...], *, even: bool = False, enlarge: bool = False
) -> tuple[int, int]:
    """Return height and width of an image that is scaled to fit into a box, with its aspect ratio kept."""
    scale = min(box[0] / size[0], box[1] / size[1], *([] if enlarge else [1.0]))
    step = 2 if even else 1
    height, width = (max(step, step * round(side * scale / step)) for side in size)
    return height, width


def _resized(frames: Images, size: tuple[int, int]) -> Images:
    import torch
    import torch.nn.functional as F

    if frames.shape[1:3] == size:
        return frames
    images = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)
    images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _read_audio(info: Media, start: float, length: float, sample_rate: int) -> npt.NDArray[np.float32]:
    from crisscross_zoo.media.decode import INT16_SCALE
    from crisscross_zoo.media.seek import read_moment

    samples = max(1, round(length * sample_rate))
    _, wave = read_moment(info, times=None, audio=(start, samples), sample_rate=sample_rate)
    assert wave is not None
    scaled: npt.NDArray[np.float32] = wave.astype(np.float32) / np.float32(INT16_SCALE)
    return scaled.clip(-1, 1)


def _spectrogram(wave: npt.NDArray[np.float32], config: AudioConfig) -> Images:
    """Return the coloured log-mel spectrogram, low frequencies at the bottom: (80, T, 3), uint8."""
    import matplotlib as mpl
    import torch

    from crisscross_zoo.transforms.mel import log_mel

    wave = np.pad(wave, (0, max(0, config.n_fft - len(wave))))
    mel = log_mel(torch.from_numpy(wave), config)[0].numpy()[::-1]
    depth = SPECTROGRAM_DECIBELS / 10 * math.log(10) / config.std
    loudest = max(float(mel.max()), depth + (math.log(config.log_offset) - config.mean) / config.std)
    colours = mpl.colormaps["magma"](np.clip((mel - loudest) / depth + 1, 0, 1), bytes=True)
    pixels: Images = np.ascontiguousarray(colours[..., :3])
    return pixels


def _jpeg(pixels: Images) -> bytes:
    from PIL import Image  # comes with matplotlib

    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return memory.getvalue()


# --- the page ------------------------------------------------------------------------------------------------------


def _page(
    directions: Mapping[str, Sequence[Query]],
    previews: Mapping[str, _Preview],
    names: Mapping[str, str],
    *,
    title: str,
    facts: Mapping[str, str],
) -> bytes:
    template = _TEMPLATE.read_text(encoding="utf-8")
    indices = {path: index for index, path in enumerate(previews)}

    def shown(item: Item) -> dict[str, Any]:
        return {"file": indices[item.path], "label": item.label}

    data = {
        "facts": [[str(name), str(value)] for name, value in facts.items()],
        "files": [
            {
                "name": names[path],
                "poster": _data_uri("image/jpeg", preview.poster),
                "spectrogram": _data_uri("image/jpeg", preview.spectrogram),
                "clip": _data_uri("video/webm" if preview.poster else "audio/webm", preview.clip),
                "sound": preview.has_audio,
                "problems": preview.problems,
            }
            for path, preview in previews.items()
        ],
        "directions": [
            {
                "name": direction,
                **_USES[direction]._asdict(),
                "queries": [
                    {
                        **shown(query.item),
                        "hits": [
                            {**shown(hit.item), "similarity": round(float(hit.similarity), 4)}
                            for hit in query.hits
                        ],
                    }
                    for query in queries
                ],
            }
            for direction, queries in directions.items()
        ],
    }
    values = {
        "policy": _policy(template),
        "title": html.escape(_printable(title)),
        # No "<" is left, so that no text can end the script element or begin a comment.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template).encode("utf-8")


def _policy(template: str) -> str:
    """Return a policy that allows the page's own script and style, by hash, and nothing else.

    No file name can become a script, and the page cannot use the network.
    """

    def hashes(tag: str) -> str:
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.S)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts
        )

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _data_uri(mime: str, data: bytes | None) -> str | None:
    return None if data is None else f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _printable(text: str) -> str:
    """Return the text as one line, without the surrogates that represent undecodable bytes of file names."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


# --- the figures ---------------------------------------------------------------------------------------------------

# In inches, and the font in points.
_TILE = (1.0, 0.75)
_GAP = 0.12
_CAPTION = 0.34
_MARGIN = 0.1
_HEADING = 0.2
_FONT = 6.5
_DPI = 192
_FIGURE_BOX = (144, 192)  # pixels of a tile: _TILE * _DPI

_QUERY_COLOUR = "#000000"
_COLOURS: dict[Verdict, str] = {"right": "#1a7f37", "wrong": "#c62828", "unknown": "#6b7480"}
_MARKS: dict[Verdict, str] = {"right": "✓", "wrong": "✗", "unknown": "?"}

# TrueType fonts, which publishers require; images are not merged into one.
_STYLE: Any = {
    "pdf.fonttype": 42,
    "image.composite_image": False,
    "text.usetex": False,
    "font.family": "DejaVu Sans",
    "axes.unicode_minus": False,
}


def _write_figure(
    stem: Path,
    direction: str,
    queries: Sequence[Query],
    previews: Mapping[str, _Preview],
    names: Mapping[str, str],
) -> None:
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = _figure(direction, queries, previews, names)
        metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
        for form, values in metadata.items():
            with atomic_path(stem.with_name(f"{stem.name}.{form}")) as temporary:
                figure.savefig(temporary, format=form, dpi=_DPI, metadata=values)


def _figure(
    direction: str, queries: Sequence[Query], previews: Mapping[str, _Preview], names: Mapping[str, str]
) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    use = _USES[direction]
    shown = queries[:FIGURE_QUERIES]
    hits = max(len(query.hits) for query in shown)
    step = _TILE[0] + _GAP
    pitch = _TILE[1] + _CAPTION
    footer = f"the first {len(shown)} of {len(queries)} queries" if len(shown) < len(queries) else ""
    width = 2 * _MARGIN + step * (1 + hits) + (_GAP if hits else 0) - _GAP
    height = 2 * _MARGIN + _HEADING + pitch * len(shown) + (_HEADING if footer else 0)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, text, fontsize=_FONT, va="top", ha="center", parse_math=False, **style)

    def draw(x: float, y: float, item: Item, kind: Kind, colour: str, line: float) -> None:
        from matplotlib.patches import Rectangle

        image = previews[item.path].image(kind)
        if image is None:
            axes.add_patch(Rectangle((x, y), *_TILE, facecolor="#ececec", edgecolor="none"))
            write(
                x + _TILE[0] / 2, y + 0.22, _lines(names[item.path], 2) + "\ncannot be shown", color="#555555"
            )
        else:
            extent = (x, x + _TILE[0], y + _TILE[1], y)
            axes.imshow(_tile_image(image, kind), extent=extent, aspect="auto", interpolation="none")
        axes.add_patch(Rectangle((x, y), *_TILE, fill=False, edgecolor=colour, linewidth=line))

    def name_of(item: Item) -> str:
        return names[item.path] if item.label is None else item.label

    def column(rank: int) -> float:  # rank 0 is the query
        return _MARGIN + step * rank + (_GAP if rank else 0)

    for rank in range(1 + hits):
        heading = f"query ({use.query})" if rank == 0 else f"rank {rank}" + f" ({use.hit})" * (rank == 1)
        write(column(rank) + _TILE[0] / 2, _MARGIN, heading, color="#444444")
    for row, query in enumerate(shown):
        y = _MARGIN + _HEADING + pitch * row
        below = y + _TILE[1] + 0.05
        draw(column(0), y, query.item, use.query, _QUERY_COLOUR, 3.0)
        write(column(0) + _TILE[0] / 2, below, _lines(name_of(query.item), 2), weight="bold")
        for rank, hit in enumerate(query.hits, start=1):
            is_ = verdict(query.item, hit.item)
            draw(column(rank), y, hit.item, use.hit, _COLOURS[is_], 2.0)
            middle = column(rank) + _TILE[0] / 2
            write(middle, below, f"{_MARKS[is_]} {hit.similarity:.2f}", color=_COLOURS[is_], weight="bold")
            write(middle, below + 0.115, _lines(name_of(hit.item), 1))
    if footer:
        write(width / 2, height - _MARGIN - 0.1, footer, color="#444444")
    # Last, since every imshow changes the limits.
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


def _tile_image(image: bytes, kind: Kind) -> Images:
    """Decode a JPEG for a tile: a frame is placed on white with its aspect ratio kept, a spectrogram fills the tile."""
    from PIL import Image

    pixels: Images = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    if kind == "audio":
        narrow: Images = _resized(pixels[None], (pixels.shape[0], _FIGURE_BOX[1]))[0]
        return narrow
    height, width = _size_within(_FIGURE_BOX, pixels.shape[:2], enlarge=True)
    tile = np.full((*_FIGURE_BOX, 3), 255, np.uint8)
    top, left = (_FIGURE_BOX[0] - height) // 2, (_FIGURE_BOX[1] - width) // 2
    tile[top : top + height, left : left + width] = _resized(pixels[None], (height, width))[0]
    return tile


def _lines(text: str, most: int) -> str:
    """Break a name into at most ``most`` lines of a tile's width."""
    return "\n".join(textwrap.wrap(_printable(text), width=20, max_lines=most, placeholder="…"))
