"""The presets are the paper's table, and objectives, the released settings and overrides change them as they should."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.loss import needed_views
from crisscross_zoo.pretrain.presets import OBJECTIVES, PRESETS, make_config

# Table S10: batch, epoch, epochs, LARC, video rates, audio rates, predictor rates
TABLE = {
    "kinetics-sound": (512, 220_000, 100, False, (2e-4, 0), (2e-4, 0), (2e-3, 2e-3)),
    "kinetics400": (2048, 1_000_000, 100, True, (2e-4, 1e-4), (2e-4, 1e-4), (2e-3, 2e-3)),
    "audioset": (2048, 3_500_000, 100, True, (1e-4, 0), (1e-4, 0), (1e-3, 1e-3)),
}


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_table_s10(name: str) -> None:
    config = PRESETS[name]
    o = config.optim
    found = (
        o.batch_size, config.data.epoch_size, o.epochs, o.larc, (o.video_lr, o.video_final_lr),
        (o.audio_lr, o.audio_final_lr), (o.video_predictor_lr, o.audio_predictor_lr),
    )  # fmt: skip
    assert found == TABLE[name]
    assert (o.weight_decay, o.betas, o.warmup_epochs, o.larc_trust, o.larc_eps) == (
        1e-4,
        (0.9, 0.999),
        2,
        1e-3,
        1e-8,
    )
    assert (config.heads.projection, config.heads.prediction_hidden) == (2048, 512)
    assert (config.data.crop, config.data.relaxation, config.data.loose_sync) == (112, "mild", False)
    assert config.video == VideoConfig()
    assert config.audio == AudioConfig()
    assert config.views == VideoConfig(size=112)
    assert vars(config.loss) == dict.fromkeys(vars(config.loss), 1.0)
    assert config.preset == name


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ("crisscross", (1, 1, 1, 1, 1)),
        ("intra", (1, 0, 0, 1, 1)),
        ("sync", (0, 1, 0, 1, 1)),
        ("async", (0, 0, 1, 1, 1)),
        ("intra+sync", (1, 1, 0, 1, 1)),
        ("intra+async", (1, 0, 1, 1, 1)),
        ("sync+async", (0, 1, 1, 1, 1)),
        ("v1v2", (1, 0, 0, 1, 0)),
        ("a1a2", (1, 0, 0, 0, 1)),
    ],
)
def test_objectives(objective: str, weights: tuple[float, ...]) -> None:
    config = make_config("kinetics400", objective=objective)
    assert tuple(vars(config.loss).values()) == weights
    assert needed_views(**vars(config.loss))
    assert config.objective == objective
    assert len(OBJECTIVES) == 9


def test_single_modalities_take_the_rates_of_section_g1() -> None:
    video = make_config("kinetics400", objective="v1v2").optim
    assert (video.video_lr, video.video_final_lr, video.video_predictor_lr) == (1e-4, 5e-5, 1e-3)
    audio = make_config("kinetics-sound", objective="a1a2").optim
    assert (audio.audio_lr, audio.audio_final_lr, audio.audio_predictor_lr) == (1e-5, 0, 1e-4)


def test_overrides_are_applied_after_the_released_settings() -> None:
    config = make_config("audioset", released=True)
    assert config.loss.intra_weight == 0.5
    assert config.data.loose_sync
    assert config.video_augment.released
    assert config.audio_augment.released
    config = make_config("audioset", released=True, overrides={"loss.intra_weight": 1.0, "seed": 3})
    assert (config.loss.intra_weight, config.seed) == (1.0, 3)
    assert make_config("audioset", released=True, objective="sync").loss.intra_weight == 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"optim.batch": 4}, "no setting 'optim.batch'; did you mean 'optim.batch_size'"),
        ({"optm.batch_size": 4}, "no setting 'optm.batch_size'; did you mean 'optim'"),
        ({"sed": 4}, "did you mean 'seed'"),
        ({"objective": "intra"}, "no setting 'objective'"),
        ({"seed": -1}, "seed=-1"),
        ({"optim.batch_size": 1}, "optim.batch_size=1 is out of range; pass a whole number, at least 2"),
        ({"optim.video_lr": -1.0}, "optim.video_lr=-1"),
        ({"optim.video_lr": float("nan")}, "optim.video_lr=nan"),
        ({"optim.video_lr": "1"}, "optim.video_lr='1' is not a number; pass a number, at least 0"),
        ({"loss.sync_weight": -1.0}, "loss.sync_weight=-1"),
        ({"optim.precision": "fp8"}, "fp32, bf16"),
        ({"optim.betas": (0.9, 2.0)}, "optim.betas=2"),
        ({"data.relaxation": "mid"}, "did you mean 'mild'"),
        ({"run.max_failed": 2.0}, "run.max_failed=2.0 is out of range; pass a number, 0 to 1"),
        ({"data.loose_sync": True, "data.relaxation": "medium"}, "for relaxation 'mild' alone"),
        ({"heads.projection": 0}, "heads.projection=0"),
        ({"run.keep": 0}, "run.keep=0"),
        (
            {"optim.betas": (0.9, 1.0)},
            "optim.betas=1.0 is out of range; pass a number, at least 0 and below 1",
        ),
        ({"run.compile": True, "run.checkpoint_activations": True}, "do not go together"),
        ({"video_augment.flip": 2.0}, "video_augment.flip=2"),
    ],
)
def test_impossible_settings_are_refused(overrides: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_config("kinetics-sound", overrides=overrides)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'kinetics400'"):
        make_config("kinetics40")
    with pytest.raises(ConfigError, match=r"did you mean 'intra\+sync'"):
        make_config("kinetics400", objective="intra-sync")


def test_all_settings_but_those_of_the_run_decide_the_result() -> None:
    one, other = make_config("audioset"), make_config("audioset", overrides={"run.workers": 1, "run.keep": 7})
    assert one.decisive() == other.decisive()
    for field in dataclasses.fields(one):
        assert (field.name in one.decisive()) == (field.name != "run")
