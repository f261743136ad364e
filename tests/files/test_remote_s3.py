"""Inputs and outputs in a bucket of a real S3 server (moto's, on loopback), through s3fs and the command line."""

# ruff: noqa: E402 - s3_server needs moto, which may not be installed

import csv
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import needs
import pytest
import torch
from make_media import make_media

needs.package("s3fs", extra="dev")
needs.package("moto.server", extra="dev")

import fsspec
from s3_server import Fault, running_s3
from s3fs import S3FileSystem

from crisscross_zoo.cli.extract import main
from crisscross_zoo.cli.pretrain import main as pretrain
from crisscross_zoo.errors import OutputError
from crisscross_zoo.files import remote
from crisscross_zoo.files.find import find_media
from crisscross_zoo.files.store import RemoteFolder, open_folder

pytestmark = pytest.mark.integration

BUCKET = "bucket"
NAMES = ("a.mp4", "sub/b.mp4")
OUTPUTS = ["out/a.npz", "out/index.csv", "out/sub/b.npz"]
ODD_NAMES = (
    "a b.mp4", " c.mp4", "d+e.mp4", "f#g.mp4", "h%20i.mp4", "j%2Fk.mp4", "größe 漢字.mp4", "l&m=n;o.mp4", "p::q.mp4",
    "r[1].mp4", "s?t.mp4", "u'v\".mp4", "w\\x.mp4",
)  # fmt: skip
ALWAYS = 1000

TREE = ["s3://bucket/in/", "--out", "s3://bucket/out/"]
OPTIONS = ["--weights", "demo", "--device", "cpu", "--batch-size", "1"]
LIST = "prefix=in/"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = make_media(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=0.56, size=(112, 112), audio=None)
    return path.read_bytes()


@pytest.fixture(scope="module")
def server(clip):
    """A server with NAMES in s3://bucket/in/."""
    with running_s3() as server:
        server.make_bucket(BUCKET)
        for name in NAMES:
            server.put(BUCKET, f"in/{name}", clip)
        yield server


@pytest.fixture(scope="module")
def whole(server):
    """The outputs of TREE without faults, by key."""
    with pytest.MonkeyPatch.context() as patch:
        log_in(server, patch)
        assert extract(*TREE) == 0
    assert server.keys(BUCKET, "out/") == OUTPUTS
    return outputs(server)


@pytest.fixture
def s3(server, whole, monkeypatch):
    """The server, with the inputs alone, found by boto's variables, for clients that retry only a little."""
    for key in server.keys(BUCKET):
        if not key.startswith("in/"):
            server.remove(BUCKET, key)
    server.forget()
    log_in(server, monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(S3FileSystem, "retries", 2)
    monkeypatch.setattr(remote, "_PAUSE", 0.05)
    return server


def log_in(server, monkeypatch, **environment):
    for name, value in {**server.environment(), **environment}.items():
        monkeypatch.setenv(name, value)


def extract(*arguments):
    """Run the command as in a process of its own, without cached logins and listings."""
    torch.set_num_threads(1)  # the networks are small, and the server needs a core
    S3FileSystem.clear_instance_cache()
    return main([*arguments, *OPTIONS, "--workers", "0"])


def outputs(s3):
    return {key: s3.get(BUCKET, key) for key in s3.keys(BUCKET, "out/")}


# --- objects --------------------------------------------------------------------------------------------------------


def test_odd_names_go_there_and_back(s3, clip, capsys):
    for name in ODD_NAMES:
        s3.put(BUCKET, f"odd/{name}", clip)
    for shard in range(2):
        assert extract("s3://bucket/odd/", "--out", "s3://bucket/out/", "--shard", f"{shard}/2") == 0
    assert extract("s3://bucket/odd/", "--out", "s3://bucket/out/") == 0
    assert "0 files done, 13 already there" in capsys.readouterr().out
    expected = sorted(name.replace(".mp4", ".npz") for name in ODD_NAMES)
    assert s3.keys(BUCKET, "out/") == sorted(["out/index.csv", *(f"out/{name}" for name in expected)])
    rows = list(csv.DictReader(s3.get(BUCKET, "out/index.csv").decode().splitlines()))
    assert [(r["input"], r["output"]) for r in rows] == [
        (f"s3://bucket/odd/{name.replace('.npz', '.mp4')}", name) for name in expected
    ]
    # Each can also be named itself.
    for name in ODD_NAMES:
        assert find_media([f"s3://bucket/odd/{name}"]) == [f"s3://bucket/odd/{name}"]


def test_listings_of_several_pages_are_complete(s3, clip):
    """S3 returns 1,000 keys per page."""
    for k in range(1001):
        s3.put(BUCKET, f"many/notes/{k}.txt", b"not media")
        s3.put(BUCKET, f"out/notes/{k}.txt", b"someone else's")
    s3.put(BUCKET, "many/z/a.mp4", clip)
    s3.put(BUCKET, "many/z/b.mp4", clip)
    tree = ["s3://bucket/many/", "--out", "s3://bucket/out/"]
    s3.faults = [
        Fault("slow", "GET", "continuation-token"),
        Fault("cut", "GET", "continuation-token", after=1),
    ]
    assert extract(*tree) == 0
    assert s3.count("GET", "continuation-token") >= 3
    assert s3.get(BUCKET, "out/index.csv").count(b"s3://bucket/many/z/") == 2
    assert find_media(["s3://bucket/many/*/?.mp4"]) == [
        "s3://bucket/many/z/a.mp4",
        "s3://bucket/many/z/b.mp4",
    ]


def test_large_outputs_are_uploaded_in_parts(s3, monkeypatch):
    """s3fs uploads parts from 100 MiB on; here parts have S3's smallest size, from 10 MiB on."""
    smallest = functools.partialmethod(S3FileSystem._pipe_file, chunksize=5 * 2**20)
    monkeypatch.setattr(S3FileSystem, "_pipe_file", smallest)
    S3FileSystem.clear_instance_cache()
    folder = open_folder("s3://bucket/out/")
    assert isinstance(folder, RemoteFolder)
    data = bytes(range(256)) * (11 * 2**12)
    s3.faults = [Fault("reset", "PUT", "partNumber=2"), Fault("slow", "POST", "uploadId")]
    folder.write("large.npz", data)
    assert s3.get(BUCKET, "out/large.npz") == data
    assert s3.count("PUT", "partNumber=2") == 2
    s3.remove(BUCKET, "out/large.npz")
    s3.faults = [Fault("slow", "PUT", "partNumber=3", times=ALWAYS)]
    with pytest.raises(OutputError, match=r"cannot be written \(.*reduce your request rate.*\); try again"):
        folder.write("large.npz", data)
    assert s3.keys(BUCKET, "out/") == []


def test_large_inputs_are_downloaded_in_parts(s3, whole, monkeypatch):
    """s3fs 2026.3 and later does this, and gives up if a part is cut off; the download is then restarted."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 512})
    for after in range(3):
        s3.faults = [Fault("cut", "GET", "bucket/in/sub/b.mp4", after=after)]
        assert extract("s3://bucket/in/sub/b.mp4", "--out", "s3://bucket/out/sub/") == 0
        assert s3.get(BUCKET, "out/sub/b.npz") == whole["out/sub/b.npz"]
        s3.remove(BUCKET, "out/sub/b.npz")


# --- faults ---------------------------------------------------------------------------------------------------------

FAULTS = [
    ("slow", "GET", "bucket/in/sub/b.mp4"),
    ("reset", "GET", "bucket/in/sub/b.mp4"),
    ("cut", "GET", "bucket/in/sub/b.mp4"),
    ("slow", "PUT", "bucket/out/sub/b.npz"),
    ("reset", "PUT", "bucket/out/sub/b.npz"),
    ("lost", "PUT", "bucket/out/sub/b.npz"),
    ("cut", "PUT", "bucket/out/index.csv"),
    ("slow", "GET", LIST),
    ("cut", "GET", LIST),
]


@pytest.mark.parametrize(("kind", "method", "fragment"), FAULTS)
def test_a_temporary_fault_has_no_effect(s3, whole, kind, method, fragment, capsys):
    s3.faults = [Fault(kind, method, fragment)]
    assert extract(*TREE) == 0
    assert s3.faults[0].times == 0
    assert outputs(s3) == whole
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "method", "fragment", "message"),
    [
        ("slow", "GET", "bucket/in/sub/b.mp4", "s3://bucket/in/sub/b.mp4: cannot be fetched"),
        ("cut", "GET", "bucket/in/sub/b.mp4", "s3://bucket/in/sub/b.mp4: cannot be fetched"),
        ("slow", "PUT", "bucket/out/sub/b.npz", "s3://bucket/out/sub/b.npz: cannot be written"),
        ("reset", "PUT", "bucket/out/sub/b.npz", "s3://bucket/out/sub/b.npz: cannot be written"),
        ("slow", "PUT", "bucket/out/index.csv", "s3://bucket/out/index.csv: cannot be written"),
        ("slow", "GET", LIST, "s3://bucket/in/: cannot be listed"),
        ("reset", "GET", "prefix=out/&", "s3://bucket/out: cannot be listed"),
        ("reset", "HEAD", "bucket", "s3://bucket/out"),
    ],
)
def test_a_permanent_fault_is_one_line_and_the_run_can_be_resumed(
    s3, whole, kind, method, fragment, message, capsys
):
    s3.faults = [Fault(kind, method, fragment, times=ALWAYS)]
    assert extract(*TREE) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.endswith("try again: finished work is kept")
    for key, data in outputs(s3).items():
        if key.endswith(".npz"):
            assert data == whole[key]  # or missing
    assert len(s3.requests) < 100
    s3.forget()
    assert extract(*TREE) == 0
    assert outputs(s3) == whole
    assert capsys.readouterr().err == ""


def test_an_interrupted_run_resumes(s3, whole):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    s3.faults = [Fault("reset", "PUT", "bucket/out/sub/b.npz", then=interrupt)]
    assert extract(*TREE) == 130
    assert extract(*TREE) == 0
    assert outputs(s3) == whole


def test_objects_that_vanish_or_change_after_they_were_listed(s3, clip, capsys):
    for name in "abc":
        s3.put(BUCKET, f"going/{name}.mp4", clip)
    tree = ["s3://bucket/going/", "--out", "s3://bucket/out/"]
    s3.faults = [
        Fault("call", "GET", "going/a.mp4", then=lambda: s3.remove(BUCKET, "going/a.mp4")),
        Fault("call", "GET", "going/b.mp4", then=lambda: s3.put(BUCKET, "going/b.mp4", clip + b"more")),
    ]
    assert extract(*tree) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "crisscross-extract: error: s3://bucket/going/a.mp4: no such object; check the URL"
    (failure,) = map(json.loads, s3.get(BUCKET, "out/failed.jsonl").splitlines())
    assert failure["path"] == "s3://bucket/going/a.mp4"
    # The object that was read is not the one that was listed: the next run reads it again.
    assert extract(*tree) == 0
    assert "1 file done, 1 already there, 0 failed" in capsys.readouterr().out
    assert s3.keys(BUCKET, "out/") == ["out/b.npz", "out/c.npz", "out/index.csv"]
    # An output that vanishes is written again.
    before = outputs(s3)
    s3.faults = [Fault("call", "GET", "out/c.npz", then=lambda: s3.remove(BUCKET, "out/c.npz"))]
    assert extract(*tree) == 0
    assert "1 file done, 1 already there, 0 failed" in capsys.readouterr().out
    assert outputs(s3) == before


def test_lists_of_shards_outlive_a_listing_that_fails(s3, whole, capsys):
    """Before, the shards' lists were taken for missing, and removed."""
    s3.faults = [Fault("slow", "PUT", "bucket/out/index.csv", times=ALWAYS)]
    assert [extract(*TREE, "--shard", f"{shard}/2") for shard in range(2)] == [0, 1]
    assert "out/index.csv: cannot be written" in capsys.readouterr().err
    lists = ["out/.parts/0-of-2/index.csv", "out/.parts/1-of-2/index.csv"]
    assert s3.keys(BUCKET, "out/.parts/") == lists
    one = ["s3://bucket/in/a.mp4", "--out", "s3://bucket/out/"]
    s3.faults = [Fault("slow", "GET", "prefix=out/.parts/&", times=ALWAYS)]
    assert extract(*one) == 1
    assert "s3://bucket/out/.parts: cannot be listed" in capsys.readouterr().err
    assert s3.keys(BUCKET, "out/.parts/") == lists
    s3.forget()
    assert extract(*one) == 0
    assert outputs(s3) == whole


# --- rights and what is missing ---------------------------------------------------------------------------------------

READS = [
    [url, "--out", "here/"] for url in ("s3://bucket/in/", "s3://bucket/in/*.mp4", "s3://bucket/in/a.mp4")
]
WRITES = ["a.mp4", "--out", "s3://bucket/out/"]


WRONG = [
    ({"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "PermissionError"),
    ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "PermissionError"),
    ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "NoCredentialsError"),
]


@pytest.mark.parametrize("arguments", [*READS, WRITES])
def test_credentials_missing_or_wrong(s3, clip, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_bytes(clip)
    with s3.guarded("s3:*") as user:
        for environment, message in WRONG:
            log_in(s3, monkeypatch, **{**user, **environment})
            assert extract(*arguments) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert message in line
            assert line.endswith("; check your credentials and rights")
            assert s3.keys(BUCKET, "out/") == []
        log_in(s3, monkeypatch, **user)
        assert extract(*arguments) == 0


def test_rights_that_are_not_enough(s3, whole, monkeypatch, capsys):
    reading = ("s3:HeadBucket", "s3:ListBucket", "s3:GetObject")
    with s3.guarded(*reading) as user:
        log_in(s3, monkeypatch, **user)
        assert extract("s3://bucket/in/a.mp4", "--out", "s3://bucket/out/a.npz") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert (
            "s3://bucket/out/a.npz: cannot be written (PermissionError: Access Denied); check your cr" in line
        )
    s3.put(BUCKET, "out/failed.jsonl", b'{"path": "s3://bucket/in/gone.mp4"}\n')
    with s3.guarded(*reading, "s3:PutObject") as user:
        log_in(s3, monkeypatch, **user)
        assert extract(*TREE) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "s3://bucket/out/failed.jsonl: cannot be removed (PermissionError" in line
    with s3.guarded("s3:GetObject") as user:  # S3 does not report missing objects to users who may not list
        log_in(s3, monkeypatch, **user)
        assert not remote.is_gone("s3://bucket/in/gone.mp4")
    log_in(s3, monkeypatch)
    assert remote.is_gone("s3://bucket/in/gone.mp4")
    assert extract(*TREE) == 0
    assert outputs(s3) == whole


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["s3://nowhere/in/", "--out", "here/"],
            1,
            "s3://nowhere/in/: there is no bucket 'nowhere'; check the URL",
        ),
        (["s3://nowhere/*.mp4", "--out", "here/"], 1, "there is no bucket 'nowhere'; check the URL"),
        (["s3://nowhere/a.mp4", "--out", "here/"], 1, "there is no bucket 'nowhere'; check the URL"),
        ([*TREE[:2], "s3://nowhere/out/"], 2, "there is no bucket 'nowhere'; create it, or check the URL"),
        (
            ["s3://bucket/gone.mp4", "--out", "here/"],
            1,
            "s3://bucket/gone.mp4: no such object; check the URL",
        ),
        (["s3://bucket/gone/", "--out", "here/"], 1, "s3://bucket/gone/: no such object; check the URL"),
        (["s3://bucket/gone/*.mp4", "--out", "here/"], 2, "matches no file; check the pattern"),
        (["s3://bucket/in/***/b.mp4", "--out", "here/"], 2, "cannot be listed (ValueError: Invalid pattern"),
        (["s3://Not_A_Bucket!/a.mp4", "--out", "here/"], 1, "cannot be fetched (ParamValidationError"),
    ],
)
def test_what_is_not_there_is_one_line(s3, arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # earlier failures must not stop a run from starting
        assert extract(*arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert len(s3.requests) < 50


def test_no_server_is_one_line(s3, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    log_in(s3, monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    for arguments in (TREE, WRITES):
        assert extract(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("; check the connection and the endpoint, and try again: finished work is kept")
    log_in(s3, monkeypatch, AWS_ENDPOINT_URL="127.0.0.1:1")
    assert extract(*TREE) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be listed (ValueError: Invalid endpoint: 127.0.0.1:1); check the URL" in line


# --- processes --------------------------------------------------------------------------------------------------------


def test_shards_in_processes_of_their_own(s3, whole):
    """One process finds the server by boto's variable, one by fsspec's."""
    command = [sys.executable, "-m", "crisscross_zoo.cli.extract", *TREE, *OPTIONS, "--quiet"]
    boto = {**os.environ, **s3.environment(), "OMP_NUM_THREADS": "1"}
    of_fsspec = {**boto, "FSSPEC_S3_ENDPOINT_URL": boto["AWS_ENDPOINT_URL"]}
    del of_fsspec["AWS_ENDPOINT_URL"]
    s3.faults = [Fault("cut", "GET", "bucket/in/a.mp4"), Fault("reset", "PUT", "bucket/out/sub/b.npz")]
    running = [
        subprocess.Popen(
            [*command, "--workers", str(shard), "--shard", f"{shard}/2"],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for shard, env in enumerate((boto, of_fsspec))
    ]
    errors = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert errors == ["", ""]
    assert [fault.times for fault in s3.faults] == [0, 0]
    assert extract(*TREE) == 0  # merges the shards' lists
    assert outputs(s3) == whole


def test_pretraining_reads_local_files(s3, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("videos.txt").write_text("s3://bucket/in/a.mp4\n")
    for url, inputs in (
        ("s3://bucket/in/", ["s3://bucket/in/"]),
        ("s3://bucket/in/", ["s3://bucket/in/", "--layout", "audioset"]),
        ("s3://bucket/in/*.mp4", ["s3://bucket/in/*.mp4"]),
        ("s3://bucket/in/a.mp4", ["--list", "videos.txt"]),
    ):
        assert pretrain(["index", *inputs, "--out", "index.parquet"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.endswith(f"{url}: pretraining reads local files; copy them, and pass the copies")
