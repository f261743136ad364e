"""Each example runs as its docstring says, in its own folder, and makes what it promises."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest
import torch

from crisscross_zoo import FeatureExtractor, Features, load_encoder
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.encode import write_clip
from crisscross_zoo.media.scan import scan

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIP = EXAMPLES / "clip.mp4"


def run(name: str, *arguments: str, folder: Path, code: int = 0) -> str:
    """Run an example in ``folder``, as a script but in this process, and return what it printed."""
    printed, ended = io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as end:
            ended = end.code
    assert (ended or 0) == code, printed.getvalue()
    return printed.getvalue()


def damage(phrase: str) -> None:
    pytest.fail(phrase)


def test_the_clip_is_what_its_script_makes(tmp_path: Path) -> None:
    run("make_clip.py", "made.mp4", folder=tmp_path)
    shipped, made = scan(CLIP), scan(tmp_path / "made.mp4")
    assert shipped.size < 200_000
    for media in (shipped, made):
        assert media.video is not None
        assert media.audio is not None
        assert (media.video.codec, media.audio.codec) == ("h264", "aac")
        assert media.video.span == pytest.approx((0, 6), abs=0.001)
        assert media.audio.span == pytest.approx((0, 6), abs=0.03)  # a frame of AAC
    times = np.arange(0.02, 6, 0.5)
    for (n, ours), (m, theirs) in zip(
        read_frames(made, times, on_damage=damage), read_frames(shipped, times, on_damage=damage), strict=True
    ):
        assert n == m
        assert ours.shape == (240, 320, 3)
        assert np.abs(ours.astype(float) - theirs).mean() < 3  # grey levels; the encoder's version may differ
    first, second = (
        np.concatenate([s for _, s in read_audio(m, 16_000, on_damage=damage)]) for m in (made, shipped)
    )
    length = min(len(first), len(second))
    assert np.corrcoef(first[:length], second[:length])[0, 1] > 0.99


def test_the_clip_changes_in_video_and_audio() -> None:
    frames = [f.astype(float) for _, f in read_frames(scan(CLIP), np.arange(0.0, 6, 0.5), on_damage=damage)]
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(frames)) > 1
    audio = np.concatenate([s for _, s in read_audio(scan(CLIP), 16_000, on_damage=damage)])
    seconds = np.split(audio[: 6 * 16_000].astype(float), 6)
    spectra = [np.abs(np.fft.rfft(s)) for s in seconds]
    similar = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(spectra)]
    assert max(similar) < 0.95


def test_folder_features(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.mp4").write_bytes(CLIP.read_bytes())
    (tmp_path / "in" / "b.mp4").write_text("not a video")
    printed = run("folder_features.py", "in", "--out", "out", "--size", "112", folder=tmp_path, code=1)
    features = Features.load(tmp_path / "out" / "deep" / "a.npz")
    assert features.video is not None
    assert features.audio is not None
    assert (features.video.shape, features.audio.shape) == ((12, 128), (12, 1728))
    assert len(np.unique(features.video, axis=0)) == 12
    assert not (tmp_path / "out" / "b.npz").exists()
    assert re.search(r"^error: in.b\.mp4: .*FFmpeg", printed, re.M)


def test_training_script(tmp_path: Path) -> None:
    printed = run("training_script.py", "--steps", "3", folder=tmp_path)
    steps = re.findall(r"^step \d: loss (\S+), parameters without a gradient: (\d+)$", printed, re.M)
    assert len(steps) == 3
    assert float(steps[-1][0]) < 0.8 * float(steps[0][0])
    assert {without for _, without in steps} == {"0"}


def test_plot_features(tmp_path: Path) -> None:
    printed = run("plot_features.py", str(CLIP), "--out", "plot.png", folder=tmp_path)
    assert "video: float32 (12, 128)" in printed
    assert "audio: float32 (12, 576)" in printed
    from matplotlib.image import imread

    image = imread(tmp_path / "plot.png")
    assert image.shape == (600, 960, 4)
    drawn = (image[..., :3].max(axis=-1) - image[..., :3].min(axis=-1)) > 0.3  # the two coloured lines
    assert drawn.sum() > 1000


def clip_of(path: Path, frames: np.ndarray, hertz: float, *, noise: float = 0.0, level: float = 0.2) -> None:
    """Write 1.5 s of ``frames`` (12, H, W, 3), or of one frame (H, W, 3) repeated, and of a tone in noise."""
    video = np.broadcast_to(frames, (12, *frames.shape[-3:])).astype(np.uint8)
    t = np.arange(24_000) / 16_000
    wave = level * np.sin(2 * np.pi * hertz * t) + noise * np.random.default_rng(0).standard_normal(len(t))
    write_clip(path, video, wave.clip(-1, 1).astype(np.float32), fps=8, sample_rate=16_000)


def test_linear_probe_tells_classes_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, level in (("loud noise", 0.3), ("a tone", 0.0)):
        for number in range(8):
            wave = level * rng.standard_normal(24_000) + 0.2 * np.sin(
                2 * np.pi * 300 * np.arange(24_000) / 16_000
            )
            frames = np.full((12, 32, 32, 3), 90, np.uint8)
            path = tmp_path / label / f"{number}.mp4"
            write_clip(path, frames, wave.clip(-1, 1).astype(np.float32), fps=8, sample_rate=16_000)
    (tmp_path / "a tone" / "broken.mp4").write_bytes(b"no media")
    lines = run("linear_probe.py", str(tmp_path), "--modality", "audio", "--clips", "2", folder=tmp_path)
    assert "failed: " in lines
    assert "4 files held out, 4 right" in lines
    assert "  loud noise: 2 of 2" in lines


def test_finetune_tells_classes_apart(tmp_path: Path) -> None:
    for label, colour in (("blue", (30, 30, 180)), ("red", (180, 30, 30))):
        for number in range(8):
            frame = np.full((48, 64, 3), colour) + 4 * number
            clip_of(tmp_path / "in" / label / f"{number}.mp4", frame, 300)
    lines = run("finetune.py", "in", "--epochs", "3", "--out", "out", folder=tmp_path)
    assert len(re.findall(r"^epoch \d: loss \d", lines, re.M)) == 3
    assert "4 files held out, 4 right" in lines
    tuned, before = load_encoder("video", str(tmp_path / "out")), load_encoder("video", "demo")
    assert tuned.config == before.config
    assert not np.allclose(tuned.conv1[0].weight.detach(), before.conv1[0].weight.detach())


def test_a_dataloader_preprocesses_in_its_workers(tmp_path: Path) -> None:
    for number in range(3):
        clip_of(tmp_path / "in" / f"{number}.mp4", np.full((48, 64, 3), 60 * number), 300)
    command = [sys.executable, EXAMPLES / "dataloader.py", "in", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    names = ", ".join(str(Path("in", f"{number}.mp4")) for number in range(3))
    assert done.stdout == f"(3, 128) of {names}\n"


def test_retrieval_by_each_modality_and_by_both(tmp_path: Path) -> None:
    red, grain = (
        np.full((48, 64, 3), (200, 40, 40)),
        np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3)),
    )
    clip_of(tmp_path / "query.mp4", red, 300)
    clip_of(tmp_path / "in" / "seen.mp4", red, 2000, noise=0.2)
    clip_of(tmp_path / "in" / "heard.mp4", grain, 300)
    clip_of(tmp_path / "in" / "alike.mp4", red + np.array((-10, 10, 10)), 300, level=0.15)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no media")
    lines = run("retrieval.py", "query.mp4", "in", "--clips", "1", "-k", "2", folder=tmp_path)
    found = dict(re.findall(r"^by (\w+): (\w+)\.mp4 \d", lines, re.M))
    assert found == {"video": "seen", "audio": "heard", "both": "alike"}
    assert re.search(r"^failed: in.broken\.mp4", lines, re.M)


def test_events_are_aligned_by_time(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("start,end,label\n1.0,1.5,one\n0.25,0.75,two\n9,10,none\n")
    (tmp_path / "events.srt").write_text(
        "1\n00:00:01,000 --> 00:00:01,500\none\n\n2\n00:00:00,250 --> 00:00:00,750\ntwo\nlines\n\n"
    )
    features = FeatureExtractor("demo", modality="both", stride=0.5)(CLIP)
    assert features.video is not None
    assert features.audio is not None
    assert features.audio_windows is not None
    overlap = [max(0.0, min(end, 0.75) - max(start, 0.25)) for start, end in features.audio_windows]
    for name, labels in (("events.csv", ["one", "two", "none"]), ("events.srt", ["one", "two lines"])):
        printed = run("align_events.py", str(CLIP), name, "--stride", "0.5", folder=tmp_path)
        assert f"video: ({len(labels)}, 128), {len(labels) - 2} events outside the file" in printed
        with np.load(tmp_path / "events.npz") as events:
            assert events["label"].tolist() == labels
            assert events["start"][:2].tolist() == [1.0, 0.25]
            assert events["end"][:2].tolist() == [1.5, 0.75]
            # Video windows of 0.5 s lie end to end: the first event is one of them, the second is half of two.
            np.testing.assert_allclose(events["video"][0], features.video[2], atol=1e-5)
            np.testing.assert_allclose(events["video"][1], features.video[:2].mean(axis=0), atol=1e-5)
            mean = np.average(features.audio, axis=0, weights=overlap)
            np.testing.assert_allclose(events["audio"][1], mean, atol=1e-5)
            assert np.isnan(events["video"][2:]).all()


@pytest.mark.parametrize(("modality", "width"), [("video", 128), ("audio", 1728)])
def test_export_to_onnx(tmp_path: Path, modality: str, width: int) -> None:
    onnxruntime = needs.package("onnxruntime", extra="onnx")
    needs.package("onnxscript", extra="onnx")
    printed = run("export_onnx.py", str(CLIP), "--modality", modality, "--out", "x.onnx", folder=tmp_path)
    lines = re.findall(r"^batch of (\d): \((\d), (\d+)\), largest difference (\S+) of", printed, re.M)
    assert [line[:3] for line in lines] == [("3", "3", str(width)), ("1", "1", str(width))]
    assert max(float(line[3]) for line in lines) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    (clips,) = session.get_inputs()
    assert isinstance(clips.shape[0], str)  # any number of clips
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *clips.shape[1:])).astype(np.float32)
    encoder = load_encoder(modality, "demo")  # type: ignore[arg-type]
    expected = encoder(torch.from_numpy(x)).detach().numpy()
    (found,) = session.run(None, {clips.name: x})
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_datasets_map(tmp_path: Path) -> None:
    datasets = needs.package("datasets", extra="examples")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(CLIP.read_bytes())
    (tmp_path / "in" / "b.mp4").write_bytes(b"no media")
    printed = run("datasets_map.py", "in", "--out", "out", folder=tmp_path)
    assert re.search(r"^in.a\.mp4: \(12, 128\)$", printed, re.M)
    good, bad = datasets.load_from_disk(tmp_path / "out")
    features = FeatureExtractor("demo")(CLIP)
    np.testing.assert_array_equal(np.array(good["video"], np.float32), features.video)
    np.testing.assert_array_equal(good["windows"], features.video_windows)
    assert good["error"] is None
    assert "FFmpeg" in bad["error"]
    assert bad["video"] == []


def test_notebook(tmp_path: Path) -> None:
    nbclient, nbformat = (
        needs.package("nbclient", extra="examples"),
        needs.package("nbformat", extra="examples"),
    )
    needs.package("ipykernel", extra="examples")
    notebook = nbformat.read(EXAMPLES / "explore.ipynb", as_version=4)
    assert [c.id for c in notebook.cells if c.get("outputs") or c.get("execution_count")] == []
    (tmp_path / "clip.mp4").write_bytes(CLIP.read_bytes())
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "".join(o.text for o in outputs if o.get("name") == "stdout")
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
    assert "audio: float32 (23, 576), 0.000 to 6.000 s" in printed
    scenes = re.findall(r"^\w+: within the scenes (\S+) and (\S+), across (\S+)$", printed, re.M)
    assert len(scenes) == 2
    assert all(min(float(a), float(b)) > float(c) for a, b, c in scenes)
    nearest = re.findall(r"^\w+: 32 files, (\d+) of them nearest", printed, re.M)
    assert len(nearest) == 2
    assert all(int(n) >= 8 for n in nearest)  # by chance 3


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("datasets_map", "datasets"),
        ("export_onnx", "onnxruntime"),
        ("export_onnx", "onnxscript"),
        ("linear_probe", "sklearn"),
        ("plot_features", "matplotlib"),
        ("retrieval", "sklearn"),
    ],
)
def test_a_missing_package_is_named_in_one_line(tmp_path: Path, name: str, package: str) -> None:
    if package == "onnxscript":
        needs.package("onnxruntime", extra="onnx")  # which is named first
    script = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_path({str(EXAMPLES / name)!r} + '.py')"
    command = [sys.executable, "-c", script, "in"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"({package}|scikit-learn) is not installed.*pip install \S.*", line)
    assert done.returncode == 1


def test_every_example_is_short_and_run_here() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert {
        s.name: len(s.read_text().splitlines()) for s in scripts if len(s.read_text().splitlines()) >= 60
    } == {}
    assert {s.name for s in scripts} == set(
        re.findall(r'(?:run\(|EXAMPLES / )"(\w+\.py)"', Path(__file__).read_text())
    )
    assert {n.name for n in EXAMPLES.glob("*.ipynb")} == {"explore.ipynb"}


def test_every_example_is_in_the_recipes() -> None:
    recipes = (EXAMPLES.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| .* `examples/([\w.]+)` \|", recipes, re.M))
    assert named == {p.name for p in EXAMPLES.iterdir() if p.suffix in (".py", ".ipynb")}
