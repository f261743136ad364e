"""The paper's settings by value: section E, Table S11, and the additions of the released code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate.protocols import (
    COSTS,
    PROTOCOLS,
    TABLE,
    ClipsConfig,
    FinetuneConfig,
    LayerConfig,
    ProtocolConfig,
    RetrievalConfig,
    SvmConfig,
    make_protocol,
)


def get(protocol: str, dataset: str, setup: str | None = None, **options: Any) -> dict[str, Any]:
    return make_protocol(protocol, dataset, setup=setup, **options).to_dict()


def test_the_costs_are_those_of_section_e1() -> None:
    assert COSTS == (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 1)
    assert SvmConfig().costs == COSTS


CLIPS = {
    # protocol, data set, setup: modality, training clips, test clips, frames, seconds, pooling
    ("linear", "ucf101", "8-frame"): ("video", 25, 10, 8, None, "linear"),
    ("linear", "ucf101", "32-frame"): ("video", 10, 10, 32, None, "linear"),
    ("linear", "hmdb51", "8-frame"): ("video", 25, 10, 8, None, "linear"),
    ("linear", "hmdb51", "32-frame"): ("video", 10, 10, 32, None, "linear"),
    ("linear", "kinetics400", "8-frame"): ("video", 1, 10, 8, None, "linear"),
    ("linear", "esc50", "2s"): ("audio", 10, 10, None, 2.0, "linear"),
    ("linear", "esc50", "5s"): ("audio", 10, 1, None, 5.0, "linear"),
    ("linear", "dcase", "2s"): ("audio", 60, 60, None, 2.0, "linear"),
    ("fusion", "kinetics-sound", "2s"): ("both", 10, 10, 32, 2.0, "fusion"),
    ("finetune", "ucf101", "8-frame"): ("video", 10, 10, 8, None, "max"),
    ("finetune", "ucf101", "32-frame"): ("video", 10, 10, 32, None, "max"),
    ("finetune", "hmdb51", "8-frame"): ("video", 10, 10, 8, None, "max"),
    ("finetune", "hmdb51", "32-frame"): ("video", 10, 10, 32, None, "max"),
    ("retrieval", "ucf101", "2s"): ("video", 10, 10, 32, None, "linear"),
    ("retrieval", "hmdb51", "2s"): ("video", 10, 10, 32, None, "linear"),
    ("retrieval", "esc50", "2s"): ("audio", 10, 10, None, 2.0, "linear"),
    ("retrieval", "kinetics400", "video"): ("video", 10, 10, 32, None, "linear"),
    ("retrieval", "kinetics400", "audio"): ("audio", 10, 10, None, 2.0, "linear"),
    ("retrieval", "kinetics400", "both"): ("both", 10, 10, 32, 2.0, "linear"),
}


def test_the_table_has_every_setup_of_the_paper() -> None:
    assert {(c.protocol, c.dataset, c.setup) for c in TABLE if c.dataset != "folder"} == set(CLIPS)
    assert {c.protocol for c in TABLE} == set(PROTOCOLS) == {"linear", "fusion", "finetune", "retrieval"}
    assert {c.protocol for c in TABLE if c.dataset == "folder"} == set(PROTOCOLS)
    assert len({(c.protocol, c.dataset, c.setup) for c in TABLE}) == len(TABLE)


@pytest.mark.parametrize("key", CLIPS, ids="-".join)
def test_clips_are_those_of_section_e(key: tuple[str, str, str]) -> None:
    modality, train, test, frames, seconds, pooling = CLIPS[key]
    config = make_protocol(*key[:2], setup=key[2])
    assert config.modality == modality
    clips = config.clips
    assert (clips.train, clips.test, clips.pooling) == (train, test, pooling)
    if frames is not None:
        assert (clips.frames, clips.fps, clips.size) == (frames, 16, 224)
    if seconds is not None:
        assert clips.seconds == seconds
    assert clips.augment is True
    assert (config.select, config.released, config.seed) == ("train", False, 0)
    trained = [
        name for name in ("svm", "layer", "finetune", "retrieval") if getattr(config, name) is not None
    ]
    layered = key in {
        ("linear", "ucf101", "32-frame"), ("linear", "hmdb51", "32-frame"), ("linear", "dcase", "2s"),
        ("linear", "kinetics400", "8-frame"),
    }  # fmt: skip
    wanted = key[0] if key[0] in ("finetune", "retrieval") else "layer" if layered else "svm"
    assert trained == [wanted]
    assert clips.normalize == ("l2" if key[1] == "dcase" else "none")


TABLE_S11 = {
    # data set, frames: batch size, epochs, milestones, learning rate, gamma, weight decay, momentum, dropout
    ("ucf101", 8): (64, 20, (6, 10, 14), 0.0005, 0.3, 0.0, 0.9, 0.0),
    ("ucf101", 32): (32, 20, (8, 12, 16), 0.00007, 0.3, 0.0, 0.9, 0.0),
    ("hmdb51", 8): (64, 20, (6, 10, 14), 0.0005, 0.1, 0.0, 0.9, 0.0),
    ("hmdb51", 32): (32, 20, (8, 12, 16), 0.0001, 0.3, 0.0, 0.9, 0.0),
}

AUDIOSET = {
    # the released configs for backbones pretrained on AudioSet
    ("ucf101", 8): (64, 20, (8, 12, 16), 0.00007, 0.1, 0.0, 0.9, 0.1),
    ("ucf101", 32): (32, 20, (8, 12, 16), 0.00007, 0.3, 0.0, 0.9, 0.0),
    ("hmdb51", 8): (64, 20, (8, 12, 16), 0.0001, 0.1, 0.0, 0.9, 0.5),
    ("hmdb51", 32): (32, 20, (6, 10, 14), 0.0001, 0.1, 0.0, 0.9, 0.5),
}


def finetuning(config: ProtocolConfig) -> tuple[Any, ...]:
    f = config.finetune
    assert f is not None
    return (
        f.batch_size, f.epochs, f.milestones, f.lr, f.gamma, f.weight_decay, f.momentum, f.dropout
    )  # fmt: skip


@pytest.mark.parametrize("key", TABLE_S11, ids=lambda key: f"{key[0]}-{key[1]}")
def test_finetuning_has_the_values_of_table_s11_and_of_the_released_configs(key: tuple[str, int]) -> None:
    name, frames = key
    for pretrained_on in (None, "Kinetics400", "Kinetics-Sound", "generated clips"):
        config = make_protocol("finetune", name, setup=f"{frames}-frame", pretrained_on=pretrained_on)
        assert finetuning(config) == TABLE_S11[key]
        assert config.source == "section E.2 and Table S11"
    config = make_protocol("finetune", name, setup=f"{frames}-frame", pretrained_on="AudioSet")
    assert finetuning(config) == AUDIOSET[key]
    assert "AudioSet" in config.source


def test_the_pretraining_data_set_only_matters_to_finetuning() -> None:
    for protocol, dataset in (("linear", "ucf101"), ("retrieval", "hmdb51"), ("fusion", "kinetics-sound")):
        assert get(protocol, dataset) == get(protocol, dataset, pretrained_on="AudioSet")


def test_the_layers_settings_are_those_of_avid_and_for_dcase_of_the_released_code() -> None:
    avid = {
        "lr": 1e-4, "weight_decay": 0, "batch_size": 128, "epochs": 12, "milestones": [6, 9], "gamma": 0.1,
        "dropout": 0, "batch_norm": True,
    }  # fmt: skip
    for dataset, setup in (("ucf101", "32-frame"), ("hmdb51", "32-frame"), ("kinetics400", None)):
        assert get("linear", dataset, setup)["layer"] == avid
        assert "AVID" in get("linear", dataset, setup)["source"]
    dcase = get("linear", "dcase")
    assert dcase["layer"] == {
        "lr": 0.007, "weight_decay": 1e-5, "batch_size": 512, "epochs": 200, "milestones": [], "gamma": 0.1,
        "dropout": 0.1, "batch_norm": False,
    }  # fmt: skip
    assert "released code" in dcase["source"]


def test_retrieval_counts_at_1_5_and_20() -> None:
    for dataset in ("ucf101", "hmdb51", "esc50", "folder"):
        assert get("retrieval", dataset)["retrieval"] == {"ks": [1, 5, 20]}


def test_released_chooses_on_the_test_files_and_takes_the_codes_clips() -> None:
    for setup, test in (("2s", 1), ("5s", 1)):
        config = make_protocol("linear", "esc50", setup=setup, released=True)
        assert (config.released, config.select) == (True, "test")
        assert (config.clips.train, config.clips.test, config.clips.normalize) == (100, test, "l2-time")
    dcase = make_protocol("linear", "dcase", released=True)
    assert (dcase.clips.seconds, dcase.clips.train, dcase.clips.test) == (1.0, 60, 60)
    plain, released = get("linear", "ucf101"), get("linear", "ucf101", released=True)
    assert {k: v for k, v in released.items() if plain[k] != v} == {"released": True, "select": "test"}


def test_overrides_come_last() -> None:
    config = make_protocol(
        "linear",
        "esc50",
        released=True,
        overrides={"clips.train": 5, "select": "train", "svm.costs": (0.1, 1.0)},
    )
    assert (config.clips.train, config.clips.normalize) == (5, "l2-time")
    assert config.select == "train"
    assert config.svm is not None
    assert config.svm.costs == (0.1, 1.0)
    finetune = make_protocol(
        "finetune", "ucf101", pretrained_on="AudioSet", overrides={"finetune.lr": 1.0}
    ).finetune
    assert finetune is not None
    assert (finetune.lr, finetune.dropout) == (1.0, 0.1)


def test_an_override_changes_one_setting_and_not_the_table() -> None:
    config = make_protocol("linear", "ucf101")
    before = config.to_dict()
    changed = config.override({"clips.size": 112, "seed": 4}).to_dict()
    assert config.to_dict() == before == get("linear", "ucf101")
    assert changed.pop("seed") == 4
    assert changed["clips"].pop("size") == 112
    assert before.pop("seed") == 0
    assert before["clips"].pop("size") == 224
    assert changed == before


@pytest.mark.parametrize("config", TABLE, ids=lambda c: f"{c.protocol}-{c.dataset}-{c.setup}")
def test_every_name_it_gives_can_be_overridden(config: ProtocolConfig) -> None:
    values = config.to_dict()
    names = config.names()
    for name in names:
        section, _, field = name.rpartition(".")
        value = (values[section] if section else values)[field]
        again = config.override({name: tuple(value) if isinstance(value, list) else value})
        assert again == config
    sections = [s for s in ("clips", "svm", "layer", "finetune", "retrieval") if s in values]
    assert {n for n in names if "." in n} == {f"{s}.{f}" for s in sections for f in values[s]}
    assert "seed" in names


def test_the_first_setup_is_the_default() -> None:
    firsts = {("linear", "ucf101"): "8-frame", ("linear", "esc50"): "2s", ("finetune", "hmdb51"): "8-frame"}
    for (protocol, dataset), setup in firsts.items():
        assert make_protocol(protocol, dataset).setup == setup


@pytest.mark.parametrize("config", TABLE, ids=lambda c: f"{c.protocol}-{c.dataset}-{c.setup}")
def test_settings_are_plain_json(config: ProtocolConfig) -> None:
    plain = config.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert None not in plain.values()
    assert plain["clips"]["train"] == config.clips.train


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("lineer", "ucf101"), "protocol='lineer' is not known; did you mean 'linear'?"),
        (
            ("linear", "ucf11"),
            "the paper has no linear on 'ucf11'; did you mean 'ucf101'? (choose from ucf101, hmdb51,",
        ),
        (("fusion", "esc50"), "the paper has no fusion on 'esc50'"),
        (
            ("linear", "esc50", "5"),
            "linear on esc50 has no setup '5'; did you mean '5s'? (choose from 2s, 5s)",
        ),
        (
            ("linear", "folder", "both"),
            "linear on folder has no setup 'both'; choose from video, audio; for both, use 'fusion'",
        ),
    ],
)
def test_an_unknown_name_gets_the_nearest_right_one(words: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_protocol(*words[:2], setup=words[2] if len(words) > 2 else None)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("svm.cost", "svm.costs"), ("clip.train", "clips"), ("clips.trian", "clips.train"),
        ("layer.lr", None), ("clips", None), ("dataset", None), ("source", None), ("protocol", None),
        ("select.train", None), ("__class__.x", None), ("", None),
    ],
)  # fmt: skip
def test_an_unknown_setting_is_refused(name: str, nearest: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        make_protocol("linear", "ucf101", overrides={name: 1})
    assert f"linear on ucf101 (8-frame) has no setting {name!r}" in str(caught.value)
    assert nearest is None or f"did you mean {nearest!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ClipsConfig(train=0), "train=0 is out of range; pass a whole number, at least 1"),
        (lambda: ClipsConfig(fps=float("nan")), "fps=nan is out of range; pass a number, at least 0.001"),
        (lambda: ClipsConfig(seconds=float("inf")), "seconds=inf is out of range"),
        (lambda: SvmConfig(costs=()), "svm.costs is empty; pass one number or more"),
        (lambda: SvmConfig(costs=(1.0, 0.0)), "costs=0.0 is out of range"),
        (lambda: SvmConfig(tolerance=2), "tolerance=2 is out of range; pass a number, 1e-09 to 1"),
        (lambda: LayerConfig(lr=-1), "lr=-1 is out of range"),
        (lambda: LayerConfig(batch_size=1), "batch_size=1 is out of range; pass a whole number, at least 2"),
        (lambda: LayerConfig(dropout=1.0), "dropout=1.0 is out of range; pass a number, 0 to 0.99"),
        (lambda: FinetuneConfig(momentum=1.0), "momentum=1.0 is out of range"),
        (lambda: FinetuneConfig(gamma=1.5), "gamma=1.5 is out of range; pass a number, 0 to 1"),
        (lambda: FinetuneConfig(epochs=0), "epochs=0 is out of range; pass a whole number, at least 1"),
        (lambda: RetrievalConfig(ks=(1, 0)), "ks=0 is out of range; pass a whole number, at least 1"),
        (
            lambda: make_protocol("linear", "esc50", overrides={"select": "tests"}),
            "select='tests' is not known; did you mean 'test'?",
        ),
        (
            lambda: make_protocol("linear", "esc50", overrides={"clips.train": 0}),
            "clips.train=0 is out of range; pass a whole number, at least 1",
        ),
        (lambda: make_protocol("linear", "esc50", overrides={"seed": -1}), "seed=-1 is out of range"),
        (
            lambda: make_protocol("linear", "esc50", overrides={"modality": "video"}),
            "linear on esc50 (2s) has no setting 'modality'",
        ),
        (
            lambda: make_protocol("linear", "esc50", overrides={"released": True}),
            "linear on esc50 (2s) has no setting 'released'",
        ),
    ],
)
def test_the_error_for_a_value_out_of_range_states_the_range(make: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(line)


def test_a_layer_sees_new_clips_in_every_epoch_except_for_dcase_whose_code_extracts_once() -> None:
    redrawn = {(c.dataset, c.setup) for c in TABLE if c.clips.epochs == 0}
    assert redrawn == {("ucf101", "32-frame"), ("hmdb51", "32-frame"), ("kinetics400", "8-frame")}
    assert {c.clips.epochs for c in TABLE if c.layer is None or c.dataset == "dcase"} == {1}
    config = make_protocol("linear", "kinetics400")
    for value in (-1, 1.5):
        with pytest.raises(ConfigError, match=r"clips\.epochs=.* is (out of range|not a whole number)"):
            config.override({"clips.epochs": value})
    with pytest.raises(ConfigError, match=r"clips\.epochs=0 is for linear layers; leave it out, or pass 1"):
        make_protocol("linear", "ucf101", setup="8-frame", overrides={"clips.epochs": 0})
