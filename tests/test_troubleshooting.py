"""docs/troubleshooting.md: a paragraph for every error class, with messages that the package really gives."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import re
import shutil
import signal
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from make_media import make_media

from crisscross_zoo import FeatureExtractor, Features, errors, load_encoder
from crisscross_zoo.errors import CrissCrossError
from crisscross_zoo.evaluate.layer import LayerTraining
from crisscross_zoo.evaluate.protocols import LayerConfig
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.extract import ray as extract_ray
from crisscross_zoo.files.atomic import writing
from crisscross_zoo.media.clips import Sampling, read_files
from crisscross_zoo.media.scan import scan
from crisscross_zoo.pretrain.data import PretrainDataset
from crisscross_zoo.pretrain.presets import make_config
from crisscross_zoo.weights import load, manifest, origin
from crisscross_zoo.weights.convert import convert_checkpoint
from crisscross_zoo.workers import pool
from crisscross_zoo.workers.samples import SampleKey

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CLIP = ROOT / "examples" / "clip.mp4"
CLASSES = {
    name: c
    for name, c in inspect.getmembers(errors, inspect.isclass)
    if issubclass(c, CrissCrossError) and c.__module__ == errors.__name__
}


def section(name: str) -> str:
    """Return the text below the heading of an error class."""
    (found,) = re.findall(rf"^##+ {name}\n(.*?)(?=^##+ |\Z)", TEXT, re.M | re.S)
    return found


# --- a case of each; the working directory is empty ---------------------------------------------------------------


def extract(path: str, modality: str = "video", **options: object) -> None:
    FeatureExtractor("demo", modality, **options)(path)


def unreadable() -> None:
    Path("notes.mp4").write_text("Buy milk.\n")
    extract("notes.mp4")


def no_stream() -> None:
    make_media("song.m4a", seconds=1, video=None)
    extract("song.m4a")


def truncated() -> None:
    make_media("half.mp4", seconds=4, container_options={"movflags": "faststart"})
    data = Path("half.mp4").read_bytes()
    Path("half.mp4").write_bytes(data[: len(data) // 2])
    extract("half.mp4", strict=True)


def crash() -> None:
    class Dying(pool._WorkerProcess):
        def _start(self):
            process = super()._start()
            os.kill(process.pid, signal.SIGSEGV)
            process.wait()
            return process

    sampling = Sampling(video=load_encoder("video", "demo").config, audio=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_WorkerProcess", Dying)
        shutil.copy(CLIP, "odd.mkv")
        ((_, _, error),) = read_files(["odd.mkv"], sampling, workers=1)
    raise error


def nan_loss() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    training = LayerTraining(4, 2, LayerConfig(batch_size=4))
    training.train_epoch(Rows.of(rows * np.float32(np.inf)), np.zeros(8, int))


def refused() -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            origin.download(f"http://127.0.0.1:{server.server_port}/weights.zip", Path("weights.partial"))
        finally:
            server.shutdown()


def altered() -> None:
    Path("demo_video.safetensors").write_bytes(b"altered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "BUNDLED_FOLDER", Path())
        load_encoder("video", "demo")


def lfs_pointer() -> None:
    Path("model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    load_encoder("video", "./model.safetensors")


def other_modality() -> None:
    shutil.copy(load.BUNDLED_FOLDER / "demo_audio.safetensors", "model.safetensors")
    load_encoder("video", "./model.safetensors")


def broken_manifest() -> None:
    Path("mine.json").write_text('{"checkpoints": [')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(manifest.MANIFEST_VARIABLE, "mine.json")
        load_encoder("video", "demo")


def moved_data_set() -> None:
    info = scan(CLIP)
    config = make_config("demo")
    moved = [dataclasses.replace(info, path=f"{number}.mp4") for number in range(10)]
    PretrainDataset(moved, config)[SampleKey(0, 0, 0)]


def no_folder() -> None:
    Path("taken").write_text("")
    convert_checkpoint(load.BUNDLED_FOLDER / "demo_video.safetensors", "taken/model.safetensors")


def full_disk() -> None:
    with writing("feats"):
        raise OSError(errno.ENOSPC, "No space left on device")


def dying_workers() -> None:
    cluster = extract_ray._Cluster(None, None, {}, on_message=str)
    for _ in range(extract_ray._START_ATTEMPTS):
        cluster._note_loss(
            extract_ray._WorkerState(None), RuntimeError("The actor died:\nits process was killed")
        )


CASES: dict[str, Callable[[], object]] = {
    "ConfigError": lambda: load_encoder("video", "demo", pooling="avrage"),
    "InputError": lambda: load_encoder("video", "demo").preprocess(np.zeros((8, 240, 320, 3), np.float32)),
    "MediaNotFoundError": lambda: extract("vidoe.mp4"),
    "UnreadableMediaError": unreadable,
    "NoStreamError": no_stream,
    "TruncatedMediaError": truncated,
    "DecoderCrashError": crash,
    "OutputError": lambda: Features.load("feats.csv"),
    "StorageError": full_disk,
    "ClusterError": dying_workers,
    "TrainingError": nan_loss,
    "UnknownWeightsError": lambda: load_encoder("video", "audioste"),
    "WeightsNotAvailableError": lambda: load_encoder("audio", local_files_only=True, cache_dir="cache"),
    "DownloadError": refused,
    "ChecksumError": altered,
    "CheckpointError": lfs_pointer,
    "OtherModalityError": other_modality,
    "ManifestError": broken_manifest,
    "MediaError": moved_data_set,
    "WeightsError": no_folder,
    "CrissCrossError": lambda: load_encoder("video", "audioste"),
}
PATHS = {"DownloadError": "https://example.org/weights.zip"}  # in place of a server of the test's own


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_has_its_paragraph_and_a_true_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CLASSES[name]) as caught:
        CASES[name]()
    assert type(caught.value) is CLASSES[name] or name == "CrissCrossError"
    (shown,) = re.findall(r"```text\n(.*)\n```", section(name))
    message = f"{caught.value.reason}; {caught.value.remedy}"
    if name == "StorageError":
        message = re.sub(r"\(.* MB free\)", "(DISK)", message)
    assert shown in (message, f"{PATHS.get(name, caught.value.path)}: {message}")
    paragraph = section(name).split("```\n")[1]
    assert len(paragraph.split()) > 20


def test_it_names_no_class_that_is_not_there() -> None:
    assert set(re.findall(r"\b[A-Z]\w+Error\b", TEXT)) - {"FileNotFoundError", "ValueError"} == set(CLASSES)
