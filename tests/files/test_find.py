import os
from pathlib import Path

import pytest

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.files.find import VIDEO_SUFFIXES, common_folder, find_media


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in (
        "a.mp4",
        "sub/b.WAV",
        "sub/deep/c.mkv",
        "notes.txt",
        ".hidden.mp4",
        ".git/d.mp4",
        "odd[1].mp4",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_are_searched_for_media(tree):
    assert find_media(["tree"]) == ["tree/a.mp4", "tree/odd[1].mp4", "tree/sub/b.WAV", "tree/sub/deep/c.mkv"]


def test_patterns_lists_and_files_mix_each_file_once(tree):
    (tree / "list.txt").write_text("tree/notes.txt\n\ntree/a.mp4\n")
    found = find_media(["tree/a.mp4", "tree/**/*.mkv"], list_file="list.txt")
    assert found == ["tree/a.mp4", "tree/sub/deep/c.mkv", "tree/notes.txt"]


def test_lists_have_comments_and_stray_blanks(tree):
    (tree / "list.txt").write_text("# mine\n\n  tree/a.mp4  \n")
    assert find_media([], list_file="list.txt") == ["tree/a.mp4"]


def test_folders_are_searched_for_the_given_suffixes(tree):
    assert find_media(["tree"], suffixes=VIDEO_SUFFIXES) == [
        "tree/a.mp4",
        "tree/odd[1].mp4",
        "tree/sub/deep/c.mkv",
    ]


def test_a_list_may_begin_with_a_byte_order_mark(tree):
    (tree / "list.txt").write_bytes(b"\xef\xbb\xbftree/a.mp4\r\n")
    assert find_media([], list_file="list.txt") == ["tree/a.mp4"]


def test_linked_folders_are_searched_once(tree):
    (tree / "tree" / "loop").symlink_to(tree / "tree")
    (tree / "outside").mkdir()
    (tree / "outside" / "o.mp4").touch()
    (tree / "tree" / "zz").symlink_to(tree / "outside")
    found = find_media(["tree"])
    assert "tree/zz/o.mp4" in found
    assert len(found) == 5


def test_names_too_long_are_kept_for_their_own_error(tree):
    assert find_media(["x" * 300 + ".mp4"]) == ["x" * 300 + ".mp4"]


def test_a_file_with_magic_in_its_name_is_a_file(tree):
    assert find_media(["tree/odd[1].mp4"]) == ["tree/odd[1].mp4"]


def test_a_folder_may_begin_as_a_url_does(tree):
    (tree / "http-clips").mkdir()
    (tree / "http-clips" / "a.mp4").touch()
    assert find_media(["http-clips/*.mp4"]) == ["http-clips/a.mp4"]


def test_a_missing_file_is_kept_for_its_own_error(tree):
    assert find_media(["gone.mp4"]) == ["gone.mp4"]


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["tree/.git"], {}, None),
        (["empty"], {}, "has no media files"),
        (["tree/*.ogg"], {}, "matches no file"),
        ([], {}, "no input"),
        ([], {"list_file": "none.txt"}, r"none.txt: cannot be read \(No such file or directory\)"),
    ],
)
def test_nothing_to_do_is_an_error(tree, inputs, options, message):
    (tree / "empty").mkdir()
    if message is None:
        assert find_media(inputs) == ["tree/.git/d.mp4"]
        return
    with pytest.raises(ConfigError, match=message):
        find_media(inputs, **options)


def test_the_common_folder_of_a_folder_is_itself(tree):
    assert common_folder(["tree"]) == tree / "tree"
    assert common_folder(["tree/a.mp4", "tree/sub/b.WAV"]) == tree / "tree"
    assert common_folder(["tree/sub/b.WAV"]) == tree / "tree" / "sub"
    assert common_folder(["tree/sub/b.WAV", "tree/sub/../a.mp4"]) == tree / "tree"


LISTED = "tree/a.mp4\ntree/sub/b.WAV\n"


@pytest.mark.parametrize(
    "data",
    [
        LISTED.encode(),
        LISTED.encode("utf-8-sig"),
        LISTED.encode("utf-16"),
        b"\xfe\xff" + LISTED.encode("utf-16-be"),
        LISTED.encode("utf-32"),
        LISTED.replace("\n", "\r\n").encode(),
        LISTED.replace("\n", "\r\n").encode("utf-16"),
        LISTED.replace("\n", "\r").encode(),
    ],
    ids=["utf-8", "utf-8 mark", "utf-16", "utf-16-be", "utf-32", "CRLF", "utf-16 CRLF", "CR"],
)
def test_lists_are_read_in_any_unicode(tree, data):
    (tree / "list.txt").write_bytes(data)
    assert find_media([], list_file="list.txt") == ["tree/a.mp4", "tree/sub/b.WAV"]


def test_a_list_may_name_files_of_any_bytes(tree):
    name = os.fsencode(tree) + b"/caf\xe9.mp4"  # Latin-1
    Path(os.fsdecode(name)).touch()
    separator = tree / "a\u2028b.mp4"  # Unicode's, which ends no line of a list
    separator.touch()
    (tree / "list.txt").write_bytes(name + b"\n" + os.fsencode(separator) + b"\n")
    assert find_media([], list_file="list.txt") == [os.fsdecode(name), str(separator)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("tree/a.mp4\ncafé.mp4\n".encode("latin-1"), "line 2 is not UTF-8, and there is no file"),
        (LISTED.encode("utf-16-le"), "line 1 has a NUL byte: the list is not text, or it is UTF-16 without"),
        (b"tree/a.mp4\n\ntree/a.mp4\0tree/sub/b.WAV\0", "line 3 has a NUL byte"),
        (
            "a\nb".encode("utf-16") + b"\0",
            "line 2 is not UTF-16-LE, as the byte order mark states",
        ),
    ],
    ids=["latin-1", "utf-16 without mark", "find -print0", "cut off"],
)
def test_a_list_that_cannot_be_read_is_named_with_its_line(tree, data, message):
    (tree / "list.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        find_media([], list_file="list.txt")
    assert str(caught.value).startswith("list.txt: ")
    assert "\n" not in str(caught.value)
