"""The gallery: one self-contained page, safe with any file names, that plays the clips it shows."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import matplotlib as mpl
import needs
import numpy as np
import pytest
from evaluate.headless import Browser
from make_media import make_media, read_number
from PIL import Image

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.evaluate import gallery
from crisscross_zoo.evaluate.gallery import DIRECTIONS, Hit, Item, Query, verdict, write_gallery
from crisscross_zoo.media.encode import preview_clip

pytestmark = pytest.mark.integration

FACTS = {"Data set": "UCF101, split 1", "R@1": "88.1 %"}
SLASH = "\N{DIVISION SLASH}"  # which names may have
HOSTILE = (
    f"<{SLASH}script><img src=x onerror=alert(1)>.mp4",
    "<!--<script>.mp4",
    "\"quotes' & $x^2$.mp4",
    "\N{RIGHT-TO-LEFT OVERRIDE}4pm.שלום",
    "🎸 {{data}}.mp4",
    "new\nline.mp4",
)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, and the text of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))
        scripts = self.texts["script"]
        self.data: dict[str, Any] = json.loads(scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    @property
    def policy(self) -> str:
        return next(
            value for _, name, value in self.attributes if name == "content" and "default-src" in value
        )


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.split(";base64,")[1])


def clip_of(file: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Frames (T, H, W, 3) and audio (samples,) of a file's clip in the page."""
    data = decoded(file["clip"])
    with av.open(io.BytesIO(data)) as container:
        kinds = {stream.type for stream in container.streams}
    frames = wave = None
    if "video" in kinds:
        with av.open(io.BytesIO(data)) as container:
            frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    if "audio" in kinds:
        with av.open(io.BytesIO(data)) as container:
            wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return frames, wave


def query(item: Item, *hits: tuple[Item, float]) -> Query:
    return Query(item, tuple(Hit(hit, similarity) for hit, similarity in hits))


def write(out: Path, directions: dict[str, list[Query]], **options: Any) -> list[str]:
    return write_gallery(out, directions, title="Neighbours", facts=FACTS, **options)


def one(path: Path | str, label: str | None = None) -> list[Query]:
    return [query(Item(str(path), label))]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Five small clips: two of one class, two of another, one of no known class."""
    folder = tmp_path_factory.mktemp("clips")
    labels = ("piano", "piano", "drums", "drums", None)
    return [
        Item(str(make_media(folder / f"{number}.mp4", seconds=2.5 + number / 4)), label)
        for number, label in enumerate(labels)
    ]


@pytest.fixture(scope="module")
def directions(items: list[Item]) -> dict[str, list[Query]]:
    piano, piano2, drums, drums2, other = items
    queries = [
        query(piano, (piano2, 0.912), (drums, 0.5), (other, -0.25)),
        query(drums, (piano2, 0.75), (drums2, 0.7), (piano, 0.1)),
        query(drums2, (drums, 0.99), (other, 0.4), (piano, 0.3)),
        query(other, (drums, 0.6), (piano, 0.2), (piano2, 0.1)),
    ]
    return dict.fromkeys(DIRECTIONS, queries)


@pytest.fixture(scope="module")
def written(directions: dict[str, list[Query]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery") / "out"
    assert write(out, directions) == []
    return out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    items = [
        Item(str(make_media(folder / name, seconds=0.4, container_format="mp4")), label)
        for name, label in zip(HOSTILE, ("</script><script>alert(2)</script>", *HOSTILE[1:]), strict=True)
    ]
    broken = folder / f"<{SLASH}b>broken.mp4"
    broken.write_bytes(b"no media")
    items.append(Item(str(broken), "<i>"))
    queries = [query(item, *((hit, 0.5) for hit in items)) for item in items]
    write_gallery(
        folder / "out",
        {"video-to-audio": queries},
        title="</title><script>alert(3)</script>{{data}}",
        facts={"<b>": "</dl><script>alert(4)</script>"},
    )
    return folder / "out" / "index.html"


# --- the page is all there is --------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(written: Path) -> None:
    page = Page(written / "index.html")
    links = [(t, v) for t, name, v in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert [(tag, value) for tag, value in links if not value.startswith("#")] == []
    assert {"link", "iframe", "object", "embed", "base"} & set(page.tags) == set()
    assert not re.search(r"\burl\(|@import|fetch\(|XMLHttpRequest|innerHTML|eval\(", page.texts["style"][0])
    assert not re.search(r"fetch\(|import\(|XMLHttpRequest|HTML\b|eval\(", page.texts["script"][1])


def test_the_policy_allows_the_page_s_own_script_alone(written: Path) -> None:
    page = Page(written / "index.html")
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    digest = {
        tag: base64.b64encode(hashlib.sha256(page.texts[tag][-1].encode()).digest()).decode()
        for tag in ("script", "style")
    }
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest['script']}'",
        "style-src": f"'sha256-{digest['style']}'",
        "img-src": "data:",
        "media-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]


def test_hostile_names_are_inert(hostile: Path, written: Path) -> None:
    page = Page(hostile)
    assert page.tags == Page(written / "index.html").tags
    assert [file["name"] for file in page.data["files"][: len(HOSTILE)]] == list(HOSTILE)
    assert page.data["directions"][0]["queries"][0]["label"] == "</script><script>alert(2)</script>"
    assert page.data["facts"] == [["<b>", "</dl><script>alert(4)</script>"]]
    assert page.texts["h1"] == ["</title><script>alert(3)</script>{{data}}"]
    assert {p.name for p in hostile.parent.iterdir()} == {
        "index.html",
        "video-to-audio.png",
        "video-to-audio.pdf",
    }


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.mp4")
    folder = tmp_path / "clips"
    folder.mkdir()
    make_media(tmp_path / "a.mp4", seconds=0.2).rename(folder / name)
    write(tmp_path, {"video-to-video": one(folder / name)})
    assert Page(tmp_path / "index.html").data["files"][0]["name"] == name


def test_the_page_does_not_tell_where_files_lie(written: Path, items: list[Item]) -> None:
    folder = str(Path(items[0].path).parent)
    assert folder not in (written / "index.html").read_text()
    assert Page(written / "index.html").data["files"][0]["name"] == "0.mp4"


# --- what it holds -------------------------------------------------------------------------------------------------


def test_every_file_is_held_once(written: Path, items: list[Item]) -> None:
    text = (written / "index.html").read_text()
    files = Page(written / "index.html").data["files"]
    assert len(files) == len(items)
    assert text.count("data:video/webm") == len(items)
    assert text.count("data:image/jpeg") == 2 * len(items)  # a poster and a spectrogram for each
    for file in files:
        with av.open(io.BytesIO(decoded(file["clip"]))) as container:
            assert container.format.name == "matroska,webm"
            assert [s.codec_context.name for s in container.streams] == ["vp9", "opus"]
        assert Image.open(io.BytesIO(decoded(file["poster"]))).size == (192, 64)
        assert Image.open(io.BytesIO(decoded(file["spectrogram"]))).height == 80


def test_queries_and_hits_are_as_given(written: Path, directions: dict[str, list[Query]]) -> None:
    data = Page(written / "index.html").data
    assert data["facts"] == [list(fact) for fact in FACTS.items()]
    assert [(d["name"], f"{d['query']}-to-{d['hit']}") for d in data["directions"]] == [
        (name, name) for name in directions
    ]
    first = data["directions"][0]["queries"][0]
    assert [first["file"], first["label"]] == [0, "piano"]
    assert [(hit["label"], hit["similarity"]) for hit in first["hits"]] == [
        ("piano", 0.912),
        ("drums", 0.5),
        (None, -0.25),
    ]


def test_the_same_gallery_has_the_same_bytes(
    written: Path, directions: dict[str, list[Query]], tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []
    write(tmp_path, directions, on_progress=lambda *counts: done.append(counts))
    names = {"index.html", *(f"{d}.{form}" for d in DIRECTIONS for form in ("png", "pdf"))}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert {n for n in names if (tmp_path / n).read_bytes() != (written / n).read_bytes()} == set()
    assert done == [(n, 5) for n in range(6)]


def test_a_clip_is_the_middle_of_the_file(tmp_path: Path) -> None:
    samples = np.zeros((6 * 16_000, 1), np.int16)
    samples[3 * 16_000 :] = 9000  # a step would be lost, so:
    samples[3 * 16_000 :, 0] = (9000 * np.sin(np.arange(3 * 16_000) * 0.3)).astype(np.int16)
    path = make_media(
        tmp_path / "a.mp4", seconds=6, samples=samples, sample_rate=16_000, layout="mono", size=(192, 64)
    )
    write(
        tmp_path, {"video-to-audio": [query(Item(str(path), None), (Item(str(path), None), 1.0))]}, seconds=2
    )
    (file,) = Page(tmp_path / "index.html").data["files"]
    frames, wave = clip_of(file)
    assert frames is not None
    assert wave is not None
    # Every second frame of 25 fps, from second 2 on.
    assert [read_number(frame) for frame in frames] == list(range(50, 100, 2))
    assert read_number(np.asarray(Image.open(io.BytesIO(decoded(file["poster"]))))) == 74
    assert len(wave) / 48_000 == pytest.approx(2, abs=0.05)
    assert (
        np.abs(wave[: round(0.95 * 48_000)]).max() < 0.01 < 0.2 < np.abs(wave[round(1.05 * 48_000) :]).max()
    )
    # The log-mel of those 2 seconds: dark, then bright.
    mel = np.asarray(Image.open(io.BytesIO(decoded(file["spectrogram"])))).astype(int).sum(-1)
    assert mel.shape == (80, 200)
    assert mel[:, :90].max() < 120 < 500 < mel[:, 110:].max()
    # 764 Hz is in the lower half, and low frequencies are at the bottom.
    assert mel[:, 150].argmax() > 40


def test_large_frames_are_scaled_down_with_their_aspect_ratio(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.mp4", seconds=0.4, size=(640, 360))
    write(tmp_path, {"video-to-video": one(path)})
    (file,) = Page(tmp_path / "index.html").data["files"]
    frames, _ = clip_of(file)
    assert frames is not None
    assert frames.shape[1:3] == (112, 200)
    assert Image.open(io.BytesIO(decoded(file["poster"]))).size == (341, 192)


def test_large_frames_are_read_in_several_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_media(tmp_path / "a.mp4", seconds=2)
    write(tmp_path / "whole", {"video-to-video": one(path)})
    monkeypatch.setattr(gallery, "_READ_BYTES", 3 * 192 * 64 * 4)
    write(tmp_path / "pieces", {"video-to-video": one(path)})
    whole, pieces = ((tmp_path / n / "index.html").read_bytes() for n in ("whole", "pieces"))
    assert whole == pieces


# --- files of all kinds --------------------------------------------------------------------------------------------


def test_rotated_silent_short_and_audio_only_files(tmp_path: Path) -> None:
    paths = {
        "rotated": make_media(tmp_path / "rotated.mp4", seconds=0.4, rotation=90),
        "silent": make_media(tmp_path / "silent.mp4", seconds=0.4, audio=None),
        "short": make_media(tmp_path / "short.mp4", seconds=0.04),
        "audio": make_media(tmp_path / "audio.wav", seconds=0.4, video=None, audio="pcm_s16le"),
        "blip": make_media(tmp_path / "blip.wav", seconds=0.01, video=None, audio="pcm_s16le"),
    }
    directions = {
        "video-to-video": [query(Item(str(paths[name]), None)) for name in ("rotated", "silent", "short")],
        "audio-to-audio": [query(Item(str(paths[name]), None)) for name in ("audio", "blip")],
    }
    assert write(tmp_path / "out", directions) == []
    files = dict(zip(paths, Page(tmp_path / "out" / "index.html").data["files"], strict=True))
    clips = {name: clip_of(file) for name, file in files.items()}
    shapes = {name: None if frames is None else frames.shape for name, (frames, _) in clips.items()}
    assert shapes == {
        "rotated": (5, 112, 38, 3),  # upright: 64 wide and 192 high, scaled down
        "silent": (5, 64, 192, 3),
        "short": (1, 64, 192, 3),
        "audio": None,
        "blip": None,
    }
    has_audio = {name: wave is not None for name, (_, wave) in clips.items()}
    assert has_audio == {"rotated": True, "silent": False, "short": True, "audio": True, "blip": True}
    assert {name: file["sound"] for name, file in files.items()} == has_audio
    assert files["audio"]["clip"].startswith("data:audio/webm;")


def test_what_cannot_be_read_is_noted_in_a_line_and_the_rest_is_shown(tmp_path: Path) -> None:
    good = make_media(tmp_path / "good.mp4", seconds=0.4)
    silent = make_media(tmp_path / "silent.mp4", seconds=0.4, audio=None)
    audio = make_media(tmp_path / "audio.wav", seconds=0.4, video=None, audio="pcm_s16le")
    unknown = make_media(tmp_path / "unknown.mkv", seconds=0.4, audio="libopus", sample_rate=48_000)
    unknown.write_bytes(unknown.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
    broken = tmp_path / "bro\nken.mp4"
    broken.write_bytes(good.read_bytes()[:300])
    found = [(Item(str(p), "x"), 0.5) for p in (good, silent, audio, unknown, broken, tmp_path / "gone.mp4")]
    queries = [query(found[0][0], *found)]
    notes = write(tmp_path / "out", {"video-to-video": queries, "audio-to-audio": queries})
    assert [note.split(": ")[0] for note in notes] == [
        str(silent),
        str(audio),
        str(unknown),
        str(broken).replace("\n", " "),
        str(tmp_path / "gone.mp4"),
    ]
    assert notes[0].endswith(": has no audio stream")
    assert notes[1].endswith(": has no video stream")
    assert "its audio stream cannot be decoded" in notes[2]
    assert not [note for note in notes if "\n" in note]
    files = {f["name"]: f for f in Page(tmp_path / "out" / "index.html").data["files"]}
    shown = {name: [bool(f["poster"]), bool(f["spectrogram"]), bool(f["clip"])] for name, f in files.items()}
    assert shown == {
        "good.mp4": [True, True, True],
        "silent.mp4": [True, False, True],
        "audio.wav": [False, True, True],
        "unknown.mkv": [True, False, True],
        "bro\nken.mp4": [False, False, False],
        "gone.mp4": [False, False, False],
    }
    assert files["gone.mp4"]["problems"] == dict.fromkeys(("audio", "video"), "no such file")


# --- figures -------------------------------------------------------------------------------------------------------

GREEN, RED, GREY = (26, 127, 55), (198, 40, 40), (107, 116, 128)


def colours(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}


def test_right_is_green_wrong_is_red_and_unknown_is_grey(items: list[Item], tmp_path: Path) -> None:
    piano, piano2, drums, _, other = items
    cases = {piano2: ("right", GREEN), drums: ("wrong", RED), other: ("unknown", GREY)}
    for hit, (word, colour) in cases.items():
        assert verdict(piano, hit) == word
        write(tmp_path, {"audio-to-video": [query(piano, (hit, 0.5))]})
        assert {GREEN, RED, GREY} & colours(tmp_path / "audio-to-video.png") == {colour}
    assert verdict(other, piano) == verdict(other, other) == "unknown"


def test_a_pdf_has_fonts_that_publishers_accept(written: Path) -> None:
    for direction in DIRECTIONS:
        data = (written / f"{direction}.pdf").read_bytes()
        assert data[:5] == b"%PDF-"
        assert b"/Type3" not in data
        assert b"/Type0" in data or b"/TrueType" in data


def test_long_galleries_have_their_first_queries_in_the_figure(
    directions: dict[str, list[Query]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = directions["video-to-video"]
    heights = []
    for most in (4, 2, 1):
        monkeypatch.setattr(gallery, "FIGURE_QUERIES", most)
        write(tmp_path, {"video-to-video": queries})
        heights.append(Image.open(tmp_path / "video-to-video.png").height)
        assert len(Page(tmp_path / "index.html").data["directions"][0]["queries"]) == 4
    row = heights[1] - heights[2]
    footer = gallery._HEADING * gallery._DPI  # a line states that there are more
    assert row > 0.75 * gallery._DPI
    assert heights[0] - heights[1] == pytest.approx(2 * row - footer, abs=2)


def test_matplotlib_s_settings_are_left_as_they_were(items: list[Item], tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    write(tmp_path, {"video-to-video": [query(items[0])]})
    assert dict(mpl.rcParams) == before


# --- what is refused -----------------------------------------------------------------------------------------------


def test_without_matplotlib_nothing_is_written(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'pip install "crisscross-zoo\[evaluate\]"'):
        write(tmp_path / "out", {"video-to-video": [query(items[0])]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "similarity", "seconds", "message"),
    [
        ("video-to-vidoe", 0.5, 3.0, "did you mean 'video-to-video'"),
        ("video-to-video", 0.5, 0.0, "seconds=0.0 is out of range"),
        ("video-to-video", 0.5, float("nan"), "seconds=nan is out of range"),
        ("video-to-video", float("nan"), 3.0, "similarity nan"),
    ],
)
def test_arguments_are_checked_first(
    name: str, similarity: float, seconds: float, message: str, tmp_path: Path
) -> None:
    item = Item("nothing.mp4", None)
    with pytest.raises((ConfigError, InputError), match=message):
        write(tmp_path / "out", {name: [query(item, (item, similarity))]}, seconds=seconds)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("directions", [{}, {"video-to-video": []}])
def test_no_queries(directions: dict[str, list[Query]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no direction|has no queries"):
        write(tmp_path, directions)


@pytest.mark.parametrize(
    ("frames", "wave", "fps", "rate", "message"),
    [
        (None, None, 15, 48_000, "neither"),
        (np.zeros((1, 3, 4, 3), np.uint8), None, 15, 48_000, "3 x 4 pixels"),
        (np.zeros((1, 4, 4, 3), np.float32), None, 15, 48_000, "frames are float32"),
        (np.zeros((1, 4, 4, 3), np.uint8), None, 0, 48_000, "fps=0"),
        (None, np.zeros(9, np.float64), 15, 48_000, "the wave is float64"),
        (None, np.zeros(0, np.float32), 15, 48_000, "empty"),
        (None, np.full(9, np.nan, np.float32), 15, 48_000, "the wave is"),
        (None, np.zeros(9, np.float32), 15, 44_100, "sample_rate=44100"),
    ],
)
def test_a_preview_s_arrays_are_checked(frames: Any, wave: Any, fps: float, rate: int, message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        preview_clip(frames, wave, fps=fps, sample_rate=rate)


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(needs.chromium(), tmp_path_factory.mktemp("chromium") / "profile") as started:
        yield started


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Browser]:
    """The gallery, newly opened in a wide window; it must report no errors."""
    browser.errors.clear()
    browser.point_nowhere()
    browser.open(written / "index.html")
    yield browser
    assert browser.errors == []


ROWS = "[...document.querySelectorAll('.row')].map((row) => +row.dataset.query)"
COUNT = "document.querySelector('[aria-live=polite]').textContent"
FOCUS = "document.activeElement.getAttribute('aria-label')"
PLAYING = "document.querySelectorAll('video, audio').length"
PRESSED = (
    "[...document.querySelectorAll('.tile[aria-pressed=true]')].map((t) => t.getAttribute('aria-label'))"
)


def plays(browser: Browser, kind: str, *, muted: bool) -> None:
    """Check that exactly one clip plays, of this kind, and that its time advances."""
    browser.wait(f"document.querySelector('{kind}')?.currentTime > 0.05")
    before = browser.run(f"document.querySelector('{kind}').currentTime")
    browser.wait(f"document.querySelector('{kind}').currentTime !== {before}")
    assert browser.run(PLAYING) == 1
    assert browser.run(f"document.querySelector('{kind}').muted") is muted
    assert browser.run(f"document.querySelector('{kind}').error") is None
    assert len(browser.run(PRESSED)) == 1


def test_a_page_without_classes_shows_none(browser: Browser, items: list[Item], tmp_path: Path) -> None:
    first, second = (Item(item.path, None) for item in items[:2])
    write_gallery(tmp_path, {"video-to-video": [Query(first, (Hit(second, 0.5),))]}, title="t", facts={})
    browser.errors.clear()
    browser.open(tmp_path / "index.html")
    shown = "[...document.querySelectorAll('.judged, #legend-unknown, .mark')].filter((n) => n.offsetParent).length"
    assert browser.run(shown) == 0
    assert "not known" not in browser.run("document.getElementById('panel').innerText")
    fraction = "document.querySelector('.hits li').offsetWidth / document.querySelector('.row').offsetWidth"
    assert 0.1 < browser.run(fraction) < 0.2  # one neighbour does not fill the row
    assert browser.errors == []


def test_the_page_describes_what_it_shows(page: Browser) -> None:
    labels = page.run("[...document.querySelectorAll('.tile')].map((t) => t.getAttribute('aria-label'))")
    assert labels[:4] == [
        "query 1, piano, 0.mp4",
        "rank 1, piano, right, similarity 0.91",
        "rank 2, drums, wrong, similarity 0.50",
        "rank 3, 4.mp4, class not known, similarity -0.25",
    ]
    marks = page.run("[...document.querySelectorAll('.row:first-child .mark')].map((m) => m.textContent[0])")
    assert marks == ["✓", "✗", "?"]
    borders = page.run(
        "[...document.querySelectorAll('.row:first-child .tile')].map((t) => getComputedStyle(t).borderTopColor)"
    )
    assert borders == [f"rgb{c}" for c in ((0, 0, 0), GREEN, RED, GREY)]
    assert page.run("[document.documentElement.lang, document.title]") == ["en", "Neighbours"]
    assert page.run("[...document.querySelectorAll('h1, h2')].map((h) => h.textContent)") == [
        "Neighbours",
        "Video to video",
    ]
    assert page.run("[...document.querySelectorAll('dt, dd')].map((d) => d.textContent)") == [
        "Data set",
        "UCF101, split 1",
        "R@1",
        "88.1 %",
    ]
    assert page.run(COUNT) == "4 of 4 queries"
    page.wait("[...document.images].slice(0, 8).every((i) => i.complete && i.naturalWidth > 0)")


def test_pointing_plays_muted_until_the_pointer_leaves(page: Browser) -> None:
    assert page.run(PLAYING) == 0
    page.point(".tile", 1)
    plays(page, "video", muted=True)
    page.wait("getComputedStyle(document.querySelector('video')).opacity === '1'")
    page.point(".tile", 2)
    page.wait(f"{PRESSED}[0]?.startsWith('rank 2')")
    assert page.run(PLAYING) == 1
    page.point_nowhere()
    page.wait(f"{PLAYING} === 0")
    assert page.run(PRESSED) == []


def test_clicking_plays_to_the_end_and_clicking_again_stops(page: Browser) -> None:
    page.click(".tile", 0)
    page.point_nowhere()  # a clicked clip keeps playing
    plays(page, "video", muted=True)
    page.point(".tile", 2)  # and hovering over another clip does not interrupt it
    plays(page, "video", muted=True)
    assert page.run(PRESSED) == ["query 1, piano, 0.mp4"]
    page.wait(f"{PLAYING} === 0")
    page.click(".tile", 1)
    page.wait(f"{PRESSED}[0]?.startsWith('rank 1')")
    page.click(".tile", 1)
    page.wait(f"{PLAYING} === 0")


def test_audio_is_played_when_it_is_switched_on(page: Browser) -> None:
    switch = "document.getElementById('audio-switch')"
    assert page.run(f"{switch}.getAttribute('aria-pressed')") == "false"
    page.click("#audio-switch")
    assert page.run(f"{switch}.getAttribute('aria-pressed')") == "true"
    assert page.run(f"{switch}.innerText.trim()") == "Audio on"
    page.point(".tile", 1)
    plays(page, "video", muted=False)
    page.click("#audio-switch")
    page.click("[data-name=audio-to-audio]")
    assert page.run(PLAYING) == 0
    page.point(".tile", 1)
    plays(page, "audio", muted=True)
    page.wait("document.querySelector('[aria-pressed=true] .head').offsetLeft > 0")
    page.click(".tile", 1)
    plays(page, "audio", muted=False)  # a click on an audio clip plays it with audio
    page.wait(f"{PLAYING} === 0")


def test_keys(page: Browser) -> None:
    page.run("document.querySelector('#audio-switch').focus()")
    page.press("Tab")
    assert page.run(FOCUS) == "query 1, piano, 0.mp4"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    plays(page, "video", muted=True)
    page.press("Escape")
    assert page.run(PLAYING) == 0
    page.press("ArrowRight")
    assert page.run(FOCUS) == "rank 1, piano, right, similarity 0.91"
    page.press(" ")
    plays(page, "video", muted=True)
    page.press(" ")
    assert page.run(PLAYING) == 0
    page.press("ArrowDown")
    assert page.run(FOCUS) == "rank 1, piano, wrong, similarity 0.75"
    page.press("ArrowLeft")
    page.press("ArrowUp")
    assert page.run(FOCUS) == "query 1, piano, 0.mp4"
    for _ in range(4):
        page.press("Tab")
    assert page.run(FOCUS) == "query 2, drums, 2.mp4"


def test_tabs_go_by_arrow_keys(page: Browser) -> None:
    chosen = "[...document.querySelectorAll('[role=tab][aria-selected=true]')].map((t) => t.textContent)"
    page.run("document.querySelector('[role=tab]').focus()")
    for key, expected in (
        ("ArrowRight", "Audio to audio"),
        ("End", "Audio to video"),
        ("ArrowRight", "Video to video"),
        ("ArrowLeft", "Audio to video"),
        ("Home", "Video to video"),
    ):
        page.press(key)
        assert page.run(chosen) == [expected]
        assert page.run("document.activeElement.textContent") == expected
        assert page.run("document.querySelector('h2').textContent") == expected
        assert page.run("document.querySelectorAll('[role=tab][tabindex=\"0\"]').length") == 1
    page.press("End")
    tiles = "document.querySelectorAll('.row:first-child .tile')"
    assert page.run(f"[...{tiles}].map((t) => t.className)") == ["tile audio", *["tile video"] * 3]


def test_filters(page: Browser) -> None:
    assert page.run("[...document.getElementById('class').options].map((o) => o.text)") == [
        "all 2",
        "drums",
        "piano",
        "not known",
    ]
    for label, nearest, rows in (
        ("=drums", "all", [2, 3]),
        ("=drums", "right", [3]),
        ("=drums", "wrong", [2]),
        ("=piano", "wrong", []),
        ("*", "right", [1, 3]),
        ("*", "wrong", [2]),
        ("?", "all", [4]),
        ("*", "all", [1, 2, 3, 4]),
    ):
        page.choose("#class", label)
        page.choose("#nearest", nearest)
        assert page.run(ROWS) == rows
        assert page.run(COUNT) == f"{len(rows)} of 4 queries"
        assert page.run("document.getElementById('none').offsetHeight > 0") is (not rows)
    page.choose("#class", "=piano")
    page.click("[data-name=audio-to-video]")  # the choice stays
    assert page.run(ROWS) == [1]
    page.choose("#nearest", "wrong")
    page.click("#reset")
    assert page.run(ROWS) == [1, 2, 3, 4]


def test_calm_pages_do_not_play_by_themselves(browser: Browser, written: Path) -> None:
    browser.errors.clear()
    browser.open(written / "index.html", prefers_reduced_motion="reduce")
    browser.point(".tile", 1)
    browser.run("new Promise((done) => setTimeout(done, 400))")
    assert browser.run(PLAYING) == 0
    browser.click(".tile", 1)
    plays(browser, "video", muted=True)
    assert browser.errors == []


@pytest.mark.parametrize("width", [320, 390, 820])
def test_narrow_windows(browser: Browser, written: Path, width: int) -> None:
    browser.errors.clear()
    browser.open(written / "index.html", width=width, height=800, touch=True)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("Math.min(...[...document.querySelectorAll('.tile')].map((t) => t.offsetWidth))") > 70
    browser.tap(".tile", 1)
    plays(browser, "video", muted=True)
    browser.click("[data-name=video-to-audio]")
    browser.tap(".tile", 1)
    plays(browser, "audio", muted=False)
    assert browser.errors == []


def test_colours_follow_the_system(browser: Browser, written: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(written / "index.html", prefers_color_scheme=scheme)
        look = browser.run(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('.query .tile')).borderTopColor]"
        )
        grounds.append(look)
    assert grounds == [["rgb(255, 255, 255)", "rgb(0, 0, 0)"], ["rgb(15, 18, 22)", "rgb(255, 255, 255)"]]


def test_hostile_names_are_text_in_the_browser(browser: Browser, hostile: Path) -> None:
    browser.errors.clear()
    browser.open(hostile)
    browser.wait("document.querySelectorAll('.row').length === 7")
    for which in (1, 2):
        browser.click(".tile", which)
        plays(browser, "audio", muted=False)
    assert browser.run("document.querySelectorAll('#rows script, #rows i, #rows b b, header b').length") == 0
    titles = browser.run("[...document.querySelectorAll('.query .tile')].map((t) => t.title)")
    assert titles[:6] == list(HOSTILE)
    assert titles[6].startswith(f"<{SLASH}b>broken.mp4: ")
    heads = browser.run("[...document.querySelectorAll('h3')].map((h) => h.textContent)")
    assert heads == ["</script><script>alert(2)</script>", *HOSTILE[1:], "<i>"]
    assert browser.errors == []
    # Were a name ever to become markup, the policy would still not run it.
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\">')")
    browser.wait("document.querySelector('img[src=x]').complete")
    assert browser.run("window.hit") is None
    assert any("Content Security Policy" in error for error in browser.errors)


def test_broken_files_have_a_placeholder(browser: Browser, hostile: Path) -> None:
    browser.open(hostile)
    missing = "document.querySelector('.row:last-child .query .tile')"
    assert browser.run(f"[{missing}.tagName, {missing}.getAttribute('role')]") == ["DIV", "img"]
    assert browser.run(f"{missing}.innerText").startswith(f"<{SLASH}b>broken.mp4\n")
    assert f"<{SLASH}b>broken.mp4" in browser.run(f"{missing}.getAttribute('aria-label')")
