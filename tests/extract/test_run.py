import dataclasses

import pytest
from make_media import make_media

from crisscross_zoo import Features, extract_files
from crisscross_zoo.errors import ConfigError, MediaNotFoundError, UnknownWeightsError, UnreadableMediaError
from crisscross_zoo.extract.options import ExtractKeywords, ExtractOptions
from crisscross_zoo.extract.report import (
    FileDone,
    FileFailed,
    FileNote,
    FileSkipped,
    Message,
    Progress,
    Summary,
)

DEMO = {"weights": "demo", "device": "cpu", "workers": 0, "clips": 1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    (folder / "sub").mkdir()
    for name in ("a.mp4", "sub/b.mp4"):
        make_media(folder / name, seconds=1.5, size=(96, 64))
    (folder / "bad.mp4").write_text("no media")
    return folder


def kinds(events):
    return [type(event) for event in events if not isinstance(event, Progress)]


def test_a_folder_is_extracted_once_and_reported_file_by_file(tree, tmp_path):
    out, events = tmp_path / "out", []
    summary = extract_files(tree, out, on_event=events.append, **DEMO)
    assert sorted(map(str, kinds(events))) == sorted(map(str, [FileDone, FileDone, FileFailed, Summary]))
    assert events[-1] is summary
    assert [e for e in events if isinstance(e, Progress)][-1] == Progress(
        files=3, of=3, clips=2, known=2, opened=2
    )
    assert (summary.done, summary.skipped, summary.clips, summary.interrupted) == (2, 0, 2, False)
    assert [(f.path, f.output) for f in summary.files] == [
        (str(tree / name), str(out / name).replace(".mp4", ".npz")) for name in ("a.mp4", "sub/b.mp4")
    ]
    assert isinstance(summary.failed[str(tree / "bad.mp4")], UnreadableMediaError)
    assert f"2 files done, 0 already there, 1 failed (see {out / 'failed.jsonl'}); 2 clips (took" in str(
        summary
    )
    done = next(e for e in events if isinstance(e, FileDone) and e.path == str(tree / "a.mp4"))
    assert str(done) == f"{tree / 'a.mp4'} -> {out / 'a.npz'}: video 1 row x 128"
    assert Features.load(done.output).video.shape == (1, 128)

    events.clear()
    again = extract_files(tree, out, on_event=events.append, **DEMO)
    assert (again.done, again.skipped, again.clips) == (0, 2, 0)
    assert kinds(events) == [FileSkipped, FileSkipped, FileFailed, Summary]
    assert str(events[0]).endswith("a.npz: video 1 row x 128, already there")

    events.clear()
    other = extract_files(tree / "sub", out / "sub", on_event=events.append, **{**DEMO, "clips": 2})
    assert (other.done, other.skipped, other.clips) == (1, 0, 2)
    note = (
        "note: 1 output with other settings, weights or versions of the input: extracted again and replaced"
    )
    assert events[0] == Message(note)


def test_a_shard_takes_its_files_and_skipped_audio_is_reported(tree, tmp_path):
    (tmp_path / "in").mkdir()
    make_media(tmp_path / "in" / "s.wav", video=None, audio="pcm_s16le", seconds=1)
    events = []
    inputs = [tree / "a.mp4", tree / "sub", tmp_path / "in"]
    (tmp_path / "in" / "a.mp4").write_bytes((tree / "a.mp4").read_bytes())
    summary = extract_files(inputs, tmp_path / "out", root="/", shard=(0, 3), on_event=events.append, **DEMO)
    assert summary.inputs == summary.done == 1
    assert FileNote(str(tmp_path / "in"), "1 audio file skipped (modality='video')") in events
    assert Message("shard 0 of 3 (--shard): 1 of 3 files") in events


def test_files_of_other_suffixes_are_skipped_and_counted_once(tree, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes((tree / "a.mp4").read_bytes())
    for name in ("1.png", "2.PNG", "3.png", "notes.txt", "README", "s.wav"):
        (tmp_path / "in" / name).touch()
    events = []
    extract_files(tmp_path / "in", tmp_path / "out", on_event=events.append, **DEMO)
    assert [event.text for event in events if isinstance(event, FileNote)] == [
        (
            "1 audio file skipped (modality='video'); "
            "5 files skipped because of the suffix (.png, no suffix, .txt)"
        )
    ]


def test_one_files_summary_has_the_span_of_its_rows(tree, tmp_path):
    summary = extract_files(tree / "a.mp4", tmp_path / "a.npz", **(DEMO | {"clips": None}))
    start = f"{tmp_path / 'a.npz'}: video 3 rows x 128, 0.0 to 1.5 s of {tree / 'a.mp4'} (took "
    assert str(summary).startswith(start)
    again = extract_files(tree / "a.mp4", tmp_path / "a.npz", **(DEMO | {"clips": None}))
    assert str(again).endswith(f"video 3 rows x 128 of {tree / 'a.mp4'}: already there with these settings")


def test_a_bad_file_alone_raises_nothing(tree, tmp_path):
    summary = extract_files(tree / "bad.mp4", tmp_path / "x.npz", **DEMO)
    assert (summary.done, list(summary.failed)) == (0, [str(tree / "bad.mp4")])
    summary = extract_files("gone.mp4", tmp_path / "x.npz", **DEMO)
    assert isinstance(summary.failed["gone.mp4"], MediaNotFoundError)
    assert summary.to_dict()["failures"] == [
        {
            "path": "gone.mp4", "modality": "video", "error": "MediaNotFoundError", "reason": "no such file",
            "remedy": "check the path",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": (3, 3)}, "the last is 2/3"),
        ({"format": "pt"}, "format='pt' is not known"),
        ({"engine": "dask"}, "engine='dask' is not known"),
        ({"on_error": "raise"}, "on_error='raise' is not known"),
        ({"stride": 1.0}, "stride and clips exclude each other"),
        ({"address": "auto"}, "--address goes with --engine ray"),
        ({"poling": "avg"}, "there is no option 'poling'; did you mean 'pooling'"),
        ({"shard": "0/2"}, "shard='0/2' is not"),
        ({"shard": (0,)}, "shard=.* is not 2 values"),
        ({"overwrite": "no"}, "overwrite='no' is not True or False"),
    ],
)
def test_bad_usage_raises(tree, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        extract_files(tree, tmp_path / "out", **(DEMO | changes))
    assert not (tmp_path / "out").exists()


def test_options_and_keywords_are_the_same():
    fields = {field.name: field.type for field in dataclasses.fields(ExtractOptions)}
    del fields["modality"]
    keywords = {n: getattr(t, "__forward_arg__", t) for n, t in ExtractKeywords.__annotations__.items()}
    assert keywords == fields
    assert ExtractOptions("both", size=112).keywords()["size"] == 112


@pytest.mark.parametrize(("has", "notes"), [(False, 1), (True, 0), (None, 0)])
def test_bfloat16_on_a_processor_without_it_is_noted(has, notes, tree, tmp_path, monkeypatch):
    monkeypatch.setattr("crisscross_zoo.extract.extractor.cpu_has_bfloat16", lambda: has)
    events = []
    extract_files(tree, tmp_path / "out", precision="bf16", on_event=events.append, **DEMO)
    assert sum("no bfloat16 instructions" in str(event) for event in events) == notes


def test_a_callback_that_raises_leaves_the_lists_whole(tree, tmp_path):
    def fail(event):
        if isinstance(event, FileDone):
            raise KeyError(event.path)

    with pytest.raises(KeyError):
        extract_files(tree, tmp_path / "out", on_event=fail, **DEMO)
    assert len((tmp_path / "out" / "index.csv").read_text().splitlines()) == 2
    events = []
    extract_files(tree, tmp_path / "out", on_event=events.append, **DEMO)
    assert kinds(events).count(FileSkipped) == 1


def test_the_summary_of_a_run_that_stopped_counts_what_is_not_done(tree, tmp_path):
    paths = [tree / "bad.mp4", tree / "a.mp4", tree / "sub" / "b.mp4"]
    summary = extract_files(paths, tmp_path / "out", on_error="stop", **DEMO)
    outputs = list((tmp_path / "out").rglob("*.npz"))
    assert list(summary.failed) == [str(tree / "bad.mp4")]
    assert str(summary).endswith(f"stopped, {2 - len(outputs)} not done")


def test_an_empty_out_is_refused(tree):
    with pytest.raises(ConfigError, match="--out is empty; name a file or a folder"):
        extract_files(tree, "", **DEMO)


def test_names_with_newlines_stay_one_line(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    make_media(folder / "a\nb.mp4", seconds=1.5, size=(96, 64))
    (folder / "c\rd\x85\u2028.mp4").write_text("no media")
    events = []
    extract_files(folder, tmp_path / "out", on_event=events.append, **DEMO)
    lines = [str(event) for event in events]
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert any(r"a\nb.mp4 -> " in line for line in lines)
    assert any(r"c\rd\x85\u2028.mp4: " in line for line in lines)


def test_what_stops_a_run_before_its_first_file_writes_no_lists(tree, tmp_path):
    with pytest.raises(UnknownWeightsError):
        extract_files(tree, tmp_path / "out", **(DEMO | {"weights": "nothing-of-this-name"}))
    assert not (tmp_path / "out" / "index.csv").exists()
