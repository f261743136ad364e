from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crisscross_zoo.config import AudioConfig, VideoConfig, config_from_dict
from crisscross_zoo.errors import ConfigError


def test_the_defaults_are_the_papers_inputs():
    assert VideoConfig().window_seconds == 0.5
    assert AudioConfig().clip_samples == 32_000
    assert AudioConfig().columns_per_second == 100


@pytest.mark.parametrize(
    "config", [VideoConfig(depth=10, mean=(0.1, 0.2, 0.3)), AudioConfig(pooling="fusion")]
)
def test_a_config_survives_json(config):
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_changed_copy_is_checked():
    config = VideoConfig()
    assert config.replace(size=112).size == 112
    assert config.size == 224
    with pytest.raises(ConfigError, match="size=0"):
        config.replace(size=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "modality=None"),
        ({"modality": "vidoe"}, "did you mean 'video'"),
        ({"modality": "video", "dephts": 18}, "VideoConfig has no field 'dephts'; did you mean 'depth'"),
        ({"modality": "video", "sample_rate": 16000}, "no field 'sample_rate'"),
        ({"modality": "video", "depth": 50}, "choose from 10, 18, 34"),
        ({"modality": "audio", "pooling": "linaer"}, "did you mean 'linear'"),
        ({"modality": "audio", "pooling": "mean"}, r"pooling='mean' is not known; did you mean 'avg'\? "),
        (
            {"modality": "audio", "width": 64.0},
            "width=64.0 is not a whole number; pass a whole number, at least 1",
        ),
        ({"modality": "audio", "width": True}, "not a whole number"),
        ({"modality": "audio", "std": 0.0}, "out of range"),
        ({"modality": "audio", "seconds": float("nan")}, "out of range"),
        ({"modality": "video", "std": [0, 0, 0]}, "std=0 is out of range; pass a number, above 0"),
        ({"modality": "video", "mean": ["a"]}, r"mean=\['a'\] is not 3 values; pass 3 values"),
        ({"modality": "video", "mean": [0.1, 0.2, "0.3"]}, "mean='0.3' is not a number"),
        ({"modality": "video", "mean": 0.5}, "mean=0.5 is not 3 values"),
        ({"modality": "video", "std": [1.0, 1.0, float("inf")]}, "std=inf is out of range"),
        (
            {"modality": "video", "crop_ratio": 2.0},
            "crop_ratio=2.0 is out of range; pass a number, above 0 and at most 1",
        ),
    ],
)
def test_a_wrong_field_is_refused_with_what_was_meant(fields, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(fields)


def test_configs_and_errors_do_not_import_torch():
    code = "import sys, crisscross_zoo.config, crisscross_zoo.errors; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
