"""The table of results in each of its formats, and the paper's numbers in it."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.errors import OutputError
from crisscross_zoo.evaluate.protocols import make_protocol
from crisscross_zoo.evaluate.report import (
    COLUMNS,
    find_results,
    report_rows,
    to_csv,
    to_html,
    to_markdown,
    write_report,
)
from crisscross_zoo.evaluate.results import published


def number(mean: float, std: float = 0.0) -> dict[str, float]:
    return {"mean": mean, "std": std}


def fold(**changes: Any) -> dict[str, Any]:
    return {
        "train_files": 6,
        "test_files": 3,
        "of_train_files": 6,
        "of_test_files": 3,
        "failed": [],
        "damaged": [],
        "chosen_on": "train",
        **changes,
    }


def make_result(**changes: Any) -> dict[str, Any]:
    """A result as an evaluation writes it, with the fields that the report reads."""
    return {
        "protocol": "linear", "dataset": "ucf101", "setup": "8-frame", "select": "train", "released": False,
        "weights": {"video": {"id": "kinetics400", "sha256": "0" * 64}}, "root": "/data/ucf101",
        "published": None, "run": None, "shared_content": {}, "changed": {}, "absent": [],
        "incomplete": {}, "chance": {"1": 1 / 101, "5": 5 / 101},
        "folds": {"1": fold(top1=0.75)},
        "top1": number(0.75), "top5": number(1.0), "clip_top1": number(0.5),
        **changes,
    }  # fmt: skip


def make_retrieval(**changes: Any) -> dict[str, Any]:
    recall = {
        "video-to-video": {"1": number(0.5), "5": number(0.625)},
        "audio-to-video": {"1": number(0.25), "5": number(0.375)},
    }
    made = make_result(protocol="retrieval", dataset="folder", setup="both", root="/data/my pets", **changes)
    made["recall"], made["chance"] = recall, {"1": 0.125, "5": 0.5}
    del made["folds"]["1"]["chosen_on"]
    for name in ("top1", "top5", "clip_top1"):
        del made[name]
    return made


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_row_has_every_column() -> None:
    (row,) = report_rows([make_result()])
    assert row == {
        "protocol": "linear", "data set": "ucf101", "setup": "8-frame", "weights": "kinetics400",
        "metric": "top-1", "%": 75.0, "std": None, "paper": None, "chance": 0.99, "folds": "1",
        "test files": 3,
        "chosen on": "training", "notes": None,
    }  # fmt: skip
    assert tuple(row) == COLUMNS


def test_several_folds_have_a_deviation_and_a_sum_of_files() -> None:
    (row,) = report_rows(
        [
            make_result(
                folds={"1": fold(), "2": fold(test_files=4), "3": fold()},
                top1=number(0.123456, 0.0246),
                published={"value": 91.5, "metric": "top-1 accuracy in %", "note": None},
            )
        ]
    )
    assert (row["%"], row["std"], row["paper"]) == (12.35, 2.46, 91.5)
    assert (row["folds"], row["test files"]) == ("1, 2, 3", 10)


def test_everything_that_qualifies_a_number_is_noted() -> None:
    failed = [{"path": "x.avi"}, {"path": "y.avi"}]
    (row,) = report_rows(
        [
            make_result(
                folds={"1": fold(failed=failed, chosen_on="test"), "2": fold(failed=failed[:1], chosen_on="test")},
                shared_content={"1": 2, "2": 5}, released=True, select="test",
                changed={"clips.train": 3}, absent=["1 of 9 files of list.txt not found"],
            )
        ]
    )  # fmt: skip
    assert row["notes"] == (
        "2 files failed; 7 test files also in training; follows the released code; clips.train 3;"
        " 1 of 9 files of list.txt not found"
    )
    assert row["chosen on"] == "test"


def test_retrieval_has_a_row_for_each_number_and_chooses_nothing() -> None:
    rows = report_rows(
        [make_retrieval(published={"value": 1.0, "metric": "R@1", "note": None}, select="test")]
    )
    assert {row["metric"]: row["%"] for row in rows} == {
        "R@1, video-to-video": 50.0, "R@5, video-to-video": 62.5,
        "R@1, audio-to-video": 25.0, "R@5, audio-to-video": 37.5,
    }  # fmt: skip
    assert len(rows) == 4
    assert {row["chosen on"] for row in rows} == {"nothing"}
    assert {row["paper"] for row in rows} == {None}  # what is published is top-1
    assert {row["data set"] for row in rows} == {"my pets"}
    assert {row["metric"][:3]: row["chance"] for row in rows} == {"R@1": 12.5, "R@5": 50.0}


def test_an_incomplete_data_set_is_noted_and_older_results_are_read() -> None:
    incomplete = {
        "classes": ["YoYo"], "other_classes": [], "files_of_class": {},
        "files": {"1": {"train": [9000, 9537], "test": [3783, 3783]}},
    }  # fmt: skip
    (row,) = report_rows([make_result(incomplete=incomplete)])
    assert row["notes"] == (
        "100 of the 101 classes of UCF101, without YoYo;"
        " fold 1 has 9000 of 9537 training files and 3783 of 3783 test files"
    )
    before = {k: v for k, v in make_result().items() if k not in ("incomplete", "chance")}
    (row,) = report_rows([before])
    assert (row["notes"], row["chance"]) == (None, None)


def test_weights_of_both_modalities_are_named_once() -> None:
    def row(video: str, audio: str) -> Any:
        weights = {"video": {"id": video}, "audio": {"id": audio}}
        return report_rows([make_result(weights=weights)])[0]["weights"]

    assert row("demo", "demo") == "demo"
    assert row("audioset", "demo") == "audioset, demo"


def test_rows_are_in_the_order_of_protocol_data_set_setup_and_weights() -> None:
    results = [
        make_result(setup="32-frame"), make_retrieval(), make_result(dataset="hmdb51"),
        make_result(weights={"video": {"id": "audioset"}}), make_result(),
    ]  # fmt: skip
    keys = [(r["protocol"], r["data set"], r["setup"], r["weights"]) for r in report_rows(results)]
    assert keys[:4] == [
        ("linear", "hmdb51", "8-frame", "kinetics400"),
        ("linear", "ucf101", "32-frame", "kinetics400"),
        ("linear", "ucf101", "8-frame", "audioset"),
        ("linear", "ucf101", "8-frame", "kinetics400"),
    ]
    assert {key[0] for key in keys[4:]} == {"retrieval"}


# --- formats -----------------------------------------------------------------------------------------------------


@pytest.fixture
def odd_rows() -> list[dict[str, Any]]:
    """Rows whose names have special characters of every format."""
    return report_rows(
        [
            make_result(dataset="folder", root='/data/cats|dogs "<b>&amp;<i>", 1', folds={"1": fold(), "2": fold()}),
            make_result(published={"value": 91.5, "metric": "top-1", "note": None}),
        ]
    )  # fmt: skip


def test_markdown_has_a_line_a_row_and_escapes_its_bars(odd_rows: list[dict[str, Any]]) -> None:
    head, rule, *lines = to_markdown(odd_rows).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == list(COLUMNS)
    assert rule == "|" + " --- |" * len(COLUMNS)
    assert len(lines) == 2
    cells = [cell.strip() for cell in lines[0].replace(r"\|", "BAR").strip("|").split("|")]
    assert cells == [
        "linear", 'catsBARdogs "<b>&amp;<i>", 1', "8-frame", "kinetics400", "top-1", "75.0", "0.0", "", "1.0", "1, 2",
        "6", "training", "",
    ]  # fmt: skip
    assert " 91.5 |" in lines[1]


def test_csv_reads_back(odd_rows: list[dict[str, Any]]) -> None:
    reader = csv.DictReader(io.StringIO(to_csv(odd_rows)))
    assert reader.fieldnames == list(COLUMNS)
    for found, row in zip(reader, odd_rows, strict=True):
        assert found == {name: "" if value is None else str(value) for name, value in row.items()}


class Table(HTMLParser):
    """Collects the cells by row, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.heads: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "th":
            self.heads.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_html_is_a_complete_page_and_escapes_its_text(odd_rows: list[dict[str, Any]]) -> None:
    page = Table()
    page.feed(to_html(odd_rows))
    page.close()
    assert page.open == []
    head, first, second = page.rows
    assert head == list(COLUMNS)
    assert page.heads == [{"scope": "col"}] * len(COLUMNS)
    assert first[1] == 'cats|dogs "<b>&amp;<i>", 1'
    assert first[7] == ""
    assert second[5:8] == ["75.0", "", "91.5"]
    assert not page.tags & {
        "b",
        "i",
        "script",
        "link",
        "img",
    }  # no name has become a tag, and nothing is fetched


def test_a_script_in_a_name_is_text() -> None:
    rows = report_rows([make_result(weights={"video": {"id": "</td><script>alert(1)</script>"}})])
    text = to_html(rows)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize(
    ("name", "make"),
    [("t.md", to_markdown), ("t.csv", to_csv), ("t.html", to_html)],
    ids=lambda v: str(v)[:6],
)
def test_the_suffix_decides_the_format(
    name: str, make: Any, odd_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_report(odd_rows, tmp_path / name)
    text = (tmp_path / name).read_text()
    assert text == make(odd_rows).rstrip("\n") + "\n"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "line"), [
    ("table.htm", "a report cannot be written as '.htm'; did you mean '.html'? (choose from .md, .csv, .html)"),
    ("table", "a report cannot be written as 'a name without suffix'; choose from .md, .csv, .html"),
])  # fmt: skip
def test_another_suffix_is_refused(name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write_report([], tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {line}"
    assert list(tmp_path.iterdir()) == []


# --- results on disk ---------------------------------------------------------------------------------------------


def test_results_are_found_in_folders_and_each_counts_once(tmp_path: Path) -> None:
    one = write_result(tmp_path / "a" / "one", make_result())
    write_result(tmp_path / "a" / "two", make_result(setup="32-frame"))
    other = write_result(tmp_path / "b", make_retrieval())
    found = find_results([tmp_path / "a", other / "result.json", one, str(one)])
    assert [r["setup"] for r in found] == ["8-frame", "32-frame", "both"]
    assert found[0] == make_result()


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OutputError, match=r"has no result\.json; name the --out of an evaluation"):
            find_results([path])


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '"folds"', "{}", '{"folds": {"1": {}}}', "\udcff",
        json.dumps({k: v for k, v in make_result().items() if k != "published"}),
        json.dumps(make_result(top1={"mean": "high"})),
        json.dumps(make_result(folds=[1])),
        json.dumps(make_result(weights=None)),
    ],
)  # fmt: skip
def test_a_damaged_result_is_an_error(text: str, tmp_path: Path) -> None:
    path = write_result(tmp_path / "out", make_result()) / "result.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(OutputError, match=r"result\.json: is not a result, or is damaged \(\w+\); leave"):
        find_results([tmp_path])


# --- the paper's numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "weights", "value"),
    [
        (("finetune", "ucf101", "32-frame"), {"video": "kinetics400"}, 91.5),
        (("finetune", "hmdb51", "32-frame"), {"video": "audioset"}, 67.4),
        (("linear", "esc50", "5s"), {"audio": "kinetics400"}, 86.8),
        (("linear", "esc50", "5s"), {"audio": "kinetics-sound"}, 82.8),
        (("linear", "dcase", "2s"), {"audio": "audioset"}, 97.0),
        # setups of the paper's exploration, without published results for these weights
        (("finetune", "ucf101", "8-frame"), {"video": "kinetics400"}, None),
        (("linear", "esc50", "2s"), {"audio": "kinetics400"}, None),
        # results that the manifest does not have
        (("linear", "ucf101", "32-frame"), {"video": "kinetics400"}, None),
        (("retrieval", "ucf101", "2s"), {"video": "kinetics400"}, None),
        (("fusion", "kinetics-sound", "2s"), {"video": "audioset", "audio": "audioset"}, None),
        # a user's own weights and data
        (("finetune", "ucf101", "32-frame"), {"video": "demo"}, None),
        (("finetune", "ucf101", "32-frame"), {"video": "random:0"}, None),
        (("finetune", "ucf101", "32-frame"), {"video": "someone/encoder"}, None),
        (("linear", "folder", "audio"), {"audio": "kinetics400"}, None),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else "",
)
def test_the_papers_number_is_that_of_the_same_weights_and_setup(
    words: tuple[str, str, str], weights: dict[str, str], value: float | None
) -> None:
    found = published(make_protocol(words[0], words[1], setup=words[2]), weights)
    if value is None:
        assert found is None
    else:
        assert found is not None
        assert found["value"] == value
        assert "accuracy in %" in found["metric"]


def test_a_users_own_encoder_has_no_number_in_the_paper() -> None:
    encoder = VideoEncoder(VideoConfig(depth=10, width=8))
    encoder.weights_id = "kinetics400"  # trained further since
    assert published(make_protocol("finetune", "ucf101", setup="32-frame"), {"video": encoder}) is None
