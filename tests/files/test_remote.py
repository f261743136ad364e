import csv
import json
import subprocess
import sys
from pathlib import Path

import fsspec
import needs
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from make_media import make_media

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.cli.extract import main
from crisscross_zoo.errors import ConfigError, MediaNotFoundError, OutputError, UnreadableMediaError
from crisscross_zoo.extract.lists import Lists
from crisscross_zoo.extract.outputs import mirror
from crisscross_zoo.files import remote
from crisscross_zoo.files.find import find_media
from crisscross_zoo.files.store import LocalFolder, open_folder

needs.package("fsspec", extra="remote")

NAMES = ("a.mp4", "sub/b.mp4", "sub/deep/c.mp4")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for k, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make_media(folder / name, seconds=1 + k, size=(96, 64), audio=None)
    (folder / "notes.txt").write_text("not media")
    return folder


@pytest.fixture
def store(tree):
    """The same tree at memory://, which is emptied afterwards."""
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/in", recursive=True)
    memory.pipe("/in/.hidden/d.mp4", b"hidden")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def extract(*arguments):
    return main([*map(str, arguments), "--weights", "demo", "--device", "cpu", "--workers", "0"])


def test_folders_and_patterns_are_listed_as_local_ones(store):
    assert find_media(["memory://in"]) == [f"memory://in/{n}" for n in NAMES]
    assert find_media(["memory://in/"]) == [f"memory://in/{n}" for n in NAMES]
    assert find_media(["memory://in/sub/*.mp4"]) == ["memory:///in/sub/b.mp4"]
    assert find_media(["memory://in/a.mp4", "memory://gone.mp4"]) == [
        "memory://in/a.mp4",
        "memory://gone.mp4",
    ]
    with pytest.raises(ConfigError, match="matches no file"):
        find_media(["memory://in/*.ogg"])


def test_names_with_brackets_are_no_patterns(store, tree):
    store.pipe("/in[1]/sub[2]/a[3].mp4", (tree / "a.mp4").read_bytes())
    url = "memory://in[1]/sub[2]/a[3].mp4"
    assert find_media([url]) == find_media(["memory://in[1]"]) == [url]
    for _ in range(2):
        assert extract("memory://in[1]", "--out", "memory://out") == 0
        assert names(store) == ["index.csv", "sub[2]/a[3].npz"]


def test_file_urls_are_local_paths(tree):
    assert find_media([f"file://{tree}"]) == [str(tree / n) for n in NAMES]


def test_a_copy_has_the_same_name_and_is_removed(store):
    with remote.local_copy("memory://in/a.mp4") as local:
        assert Path(local).name == "a.mp4"
        assert Path(local).read_bytes() == store.cat("/in/a.mp4")
    assert not Path(local).parent.exists()
    with remote.local_copy("here.mp4") as local:
        assert local == "here.mp4"
    with pytest.raises(MediaNotFoundError, match="no such object"), remote.local_copy("memory://gone.mp4"):
        pass


def test_a_signed_query_is_not_in_the_copys_name(monkeypatch):
    class Web:
        def get_file(self, name, local):
            Path(local).write_text(name)

    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (Web(), url))
    url = f"https://host/in/a.mp4?signature={'x' * 300}"
    with remote.local_copy(url) as local:
        assert Path(local).name == "a.mp4"
        assert Path(local).read_text() == url


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://host/in/a.mp4?Signature=x/y.z&Expires=1", "https://host/in/a.mp4"),
        ("https://host/in/a.mp4?X-Amz-Date=1&id=2&X-Amz-Signature=3", "https://host/in/a.mp4?id=2"),
        ("https://host/watch?v=a.mp4", "https://host/watch?v=a.mp4"),
        ("https://host/a.mp4?sp=5&expires=1", "https://host/a.mp4?sp=5&expires=1"),
        ("https://host/get.php?id=7", "https://host/get.php?id=7"),
        ("https://host.com?x=1", "https://host.com?x=1"),
        ("s3://bucket/a.mp4?b", "s3://bucket/a.mp4?b"),
        ("a.mp4?b", "a.mp4?b"),
    ],
)
def test_a_signature_does_not_identify_a_file(url, bare):
    assert remote.unsigned(url) == bare


def test_a_signed_urls_output_is_named_after_the_file():
    url = "https://host/in/a.mp4?signature=x/y.z"
    root, out = Path(remote.absolute("https://host/in")), LocalFolder(Path("/out"))
    assert mirror([url], root, out, ".npz") == {url: "a.npz"}


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (None, MediaNotFoundError, "no such object"),
        (404, MediaNotFoundError, "no such object"),
        (403, UnreadableMediaError, r"cannot be fetched \(AnswerError: 403\); check the URL, its signature"),
    ],
)
def test_the_answer_of_a_web_server_is_reported(monkeypatch, status, error, text):
    class AnswerError(Exception):
        pass

    class Web:
        def info(self, name):
            cause = None
            if status is not None:
                cause = AnswerError(str(status))
                cause.status = status
            raise FileNotFoundError(name) from cause

        modified = info

    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (Web(), url))
    with pytest.raises(error, match=text):
        remote.source_of("https://host/a.mp4")


def test_a_file_at_a_url_has_the_features_of_the_file(store, tree):
    extractor = FeatureExtractor("demo", device="cpu")
    local, at_url = extractor(tree / "a.mp4"), extractor("memory://in/a.mp4")
    np.testing.assert_array_equal(local.video, at_url.video)
    source = at_url.metadata["source"]
    assert source == extractor.identity("memory://in/a.mp4")["source"]
    assert (source["path"], source["bytes"]) == ("memory://in/a.mp4", (tree / "a.mp4").stat().st_size)
    store.pipe("/in/bad.mp4", b"words " * 500)
    with pytest.raises(UnreadableMediaError) as caught:
        extractor("memory://in/bad.mp4")
    assert str(caught.value).startswith("memory://in/bad.mp4: ")


def names(store):
    return sorted(n.removeprefix("/out/") for n in store.find("/out"))


def test_a_remote_folder_to_a_remote_folder(store, tree, tmp_path, capsys):
    store.pipe("/in/bad.mp4", b"words " * 500)
    assert extract("memory://in", "--out", "memory://out") == 1
    assert names(store) == ["a.npz", "failed.jsonl", "index.csv", "sub/b.npz", "sub/deep/c.npz"]
    assert extract(tree, "--out", tmp_path / "local") == 0
    for name in ("a.npz", "sub/deep/c.npz"):
        store.get_file(f"/out/{name}", str(tmp_path / "fetched.npz"))
        fetched, local = Features.load(tmp_path / "fetched.npz"), Features.load(tmp_path / "local" / name)
        np.testing.assert_array_equal(fetched.video, local.video)
    rows = list(csv.DictReader(store.cat("/out/index.csv").decode().splitlines()))
    assert [(r["input"], r["output"]) for r in rows] == [
        (f"memory://in/{n}", n.replace(".mp4", ".npz")) for n in NAMES
    ]
    assert json.loads(store.cat("/out/failed.jsonl"))["path"] == "memory://in/bad.mp4"
    # Again: nothing is redone, until an input changes.
    before = {n: store.cat(f"/out/{n}") for n in names(store)}
    capsys.readouterr()
    assert extract("memory://in", "--out", "memory://out") == 1
    assert "0 files done, 3 already there, 1 failed" in capsys.readouterr().out
    assert {n: store.cat(f"/out/{n}") for n in names(store)} == before
    store.pipe("/in/a.mp4", (tree / "sub" / "b.mp4").read_bytes())
    store.rm("/in/bad.mp4")
    assert extract("memory://in", "--out", "memory://out") == 0
    assert "1 file done, 2 already there, 0 failed" in capsys.readouterr().out
    assert "failed.jsonl" not in names(store)


def test_shards_write_to_one_remote_folder(store):
    for k in range(2):
        assert extract("memory://in", "--out", "memory://out", "--shard", f"{k}/2") == 0
        assert ("index.csv" in names(store)) == (k == 1)
    index = store.cat("/out/index.csv")
    assert len(index.splitlines()) == 1 + 3
    assert extract("memory://in", "--out", "memory://out") == 0
    assert names(store) == ["a.npz", "index.csv", "sub/b.npz", "sub/deep/c.npz"]
    assert store.cat("/out/index.csv") == index


def test_decoding_processes_fetch_and_leave_nothing(tree, tmp_path, monkeypatch):
    """``local://`` is a store like others, which every process can read."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    urls = [f"local://{tree / n}" for n in NAMES]
    command = [sys.executable, "-m", "crisscross_zoo.cli.extract", *urls, "--out", str(tmp_path / "out"), "--weights",
               "demo", "--device", "cpu", "--workers", "2", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npz", "index.csv", "sub"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["memory://gone/", "--out", "memory://out"], 1, "memory://gone/: no such object"),
        (["nowhere://in/", "--out", "out"], 2, "nothing installed opens it"),
        (
            ["memory://in", "--out", "nowhere://out"],
            2,
            "nothing installed opens it (Protocol not known: nowhere); check the URL",
        ),
        (["memory://in", "--out", "hf://datasets/me/feats"], 2, "every file would be a commit"),
        (["memory://in", "--out", "https://host/feats/"], 2, "a web server takes no files"),
        (["memory://in", "--out", "memory://out[1]"], 2, "choose another --out"),
        (["memory://in", "--out", "memory://out", "--format", "npy"], 2, "use npz or safetensors"),
    ],
)
def test_bad_usage_is_one_line(store, arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert extract(*arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_store_that_fails_is_one_line(store, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise PermissionError("Access Denied\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "pipe_file", refuse)
        assert extract("memory://in/a.mp4", "--out", "memory://out/") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "cannot be written (PermissionError: Access Denied)" in lines[0]
    assert extract("memory://in/a.mp4", "--out", "memory://out/") == 0
    before = store.cat("/out/a.npz")
    monkeypatch.setattr(type(store), "get_file", refuse)
    assert extract("memory://in/a.mp4", "--out", "memory://out/") == 1
    assert "memory://out/a.npz: cannot be fetched (PermissionError" in capsys.readouterr().err
    assert store.cat("/out/a.npz") == before  # the store's error, not the input's: the output is kept
    with (
        pytest.raises(UnreadableMediaError, match="cannot be fetched"),
        remote.local_copy("memory://in/a.mp4"),
    ):
        pass
    lists = Lists(open_folder("memory://out"))
    monkeypatch.setattr(type(store), "find", refuse)
    with pytest.raises(OutputError, match="cannot be listed"):
        lists.write()
    with pytest.raises(OutputError, match="cannot be listed"):
        Lists(open_folder("memory://out"))


def test_folders_that_cannot_be_listed_are_not_skipped(tree, monkeypatch):
    """fsspec's own glob() skips them, and so does its find() for stores like ``local://`` without their own."""
    ls = LocalFileSystem.ls

    def refuse(self, path, *args, **kwargs):
        if path.endswith("/deep"):
            raise PermissionError("Access Denied")
        return ls(self, path, *args, **kwargs)

    urls = [f"local://{tree}{pattern}" for pattern in ("", "/**/*.mp4", "/*/*/*.mp4")]
    assert [len(find_media([url])) for url in urls] == [3, 3, 1]
    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    for url in urls:
        with pytest.raises(UnreadableMediaError, match="cannot be listed"):
            find_media([url])
    assert len(find_media([f"local://{tree}/*/*.mp4"])) == 1  # this folder need not be listed


def test_an_old_failure_that_cannot_be_looked_up_stays(store):
    """Such a failure does not stop a run."""
    unknown = b'{"path": "nowhere://in/a.mp4"}\n'
    store.pipe("/out/failed.jsonl", unknown + b'{"path": "memory://in/gone.mp4"}\n')
    assert extract("memory://in/a.mp4", "--out", "memory://out/") == 0
    assert store.cat("/out/failed.jsonl") == unknown
