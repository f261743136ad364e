"""Settings are checked by their types, and errors name the allowed values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import torch

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate.protocols import TABLE
from crisscross_zoo.media.encode import CopyOptions
from crisscross_zoo.numerics import DTYPES
from crisscross_zoo.pretrain.presets import PRESETS
from crisscross_zoo.settings import (
    FIXED,
    PRECISIONS,
    Count,
    OneOf,
    Positive,
    Range,
    Settings,
    check,
    check_count,
    pick_device,
)
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS

PETS = {"cat": 9, "dog": 1}


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    size: Count = 8
    pair: tuple[Positive, Positive] = (1.0, 2.0)
    steps: tuple[Count, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Middle(Settings):
    inner: Inner = field(default_factory=Inner)
    rate: Annotated[float, Range(least=0, below=1)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    name: Annotated[str, FIXED] = "outer"
    pet: Annotated[str, OneOf(PETS)] = "cat"
    mode: Literal["fast", "slow"] = "fast"
    loud: bool = False
    limit: Positive | None = None
    any_number: float = 0.0
    middle: Middle = field(default_factory=Middle)
    spare: Annotated[Inner | None, FIXED] = None


@pytest.mark.parametrize(
    ("span", "words", "inside", "outside"),
    [
        (Range(), "", (0, -1e300, 5), (math.inf, -math.inf, math.nan)),
        (Range(2), "at least 2", (2, 1e9), (1, 1.99, math.inf)),
        (Range(above=0), "above 0", (1e-300, 7), (0, -1, math.nan)),
        (Range(16, 4096), "16 to 4096", (16, 4096), (15, 4097)),
        (Range(least=0, below=1), "at least 0 and below 1", (0, 0.999), (-0.1, 1)),
        (Range(above=0, most=1), "above 0 and at most 1", (0.1, 1), (0, 1.1)),
    ],
    ids=repr,
)
def test_a_range_has_its_numbers_and_prints_them(
    span: Range, words: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert str(span) == words
    assert [x for x in (*inside, *outside) if x in span] == [*inside]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"middle.inner.size": 0}, "middle.inner.size=0 is out of range; pass a whole number, at least 1"),
        ({"middle.inner.size": 8.0}, "middle.inner.size=8.0 is not a whole number; pass a whole number, at"),
        ({"middle.inner.size": True}, "middle.inner.size=True is not a whole number"),
        ({"middle.inner.size": None}, "middle.inner.size=None is not a whole number"),
        ({"middle.inner.pair": 1.0}, "middle.inner.pair=1.0 is not 2 values; pass 2 values"),
        ({"middle.inner.pair": (1.0,)}, "middle.inner.pair=(1.0,) is not 2 values"),
        ({"middle.inner.pair": (1.0, 0.0)}, "middle.inner.pair=0.0 is out of range; pass a number, above 0"),
        ({"middle.inner.steps": 3}, "middle.inner.steps=3 is not a list; pass a list"),
        ({"middle.inner.steps": [1, 2, 0]}, "middle.inner.steps=0 is out of range"),
        ({"middle.rate": math.nan}, "middle.rate=nan is out of range; pass a number, at least 0 and below 1"),
        ({"any_number": math.inf}, "any_number=inf is out of range; pass a number"),
        ({"any_number": "1" * 99}, f"any_number='{'1' * 59} is not a number; pass a number"),
        ({"limit": 0}, "limit=0 is out of range; pass a number, above 0"),
        ({"pet": "dgo"}, "pet='dgo' is not known; did you mean 'dog'? (choose from cat, dog)"),
        ({"pet": ["dog"]}, "pet=['dog'] is not a str; pass a str"),
        ({"mode": "slwo"}, "mode='slwo' is not known; did you mean 'slow'? (choose from fast, slow)"),
        ({"loud": 1}, "loud=1 is not True or False; pass True or False"),
    ],
)
def test_a_value_that_a_type_does_not_allow(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer().override(changes)
    assert str(caught.value).startswith(line)


def test_what_is_made_is_checked_as_what_is_changed() -> None:
    with pytest.raises(ConfigError, match=r"^size=0 is out of range"):
        Inner(size=0)
    with pytest.raises(ConfigError, match=r"^size=0 is out of range"):
        Inner().replace(size=0)
    with pytest.raises(ConfigError, match=r"^inner=3 is not Inner\(\.\.\.\); pass Inner\(\.\.\.\)"):
        Middle(inner=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("lod", "did you mean 'loud'? (choose from pet, mode, loud, limit, any_number, middle)"),
        ("name", "choose from pet, "),
        ("spare", "choose from pet, "),
        ("spare.size", "choose from middle, middle.inner"),
        ("midle.rate", "did you mean 'middle'? (choose from middle, middle.inner)"),
        ("middle.inner.siez", "did you mean 'middle.inner.size'? (choose from middle.inner.size, "),
        ("middle.__class__", "choose from middle.inner, middle.rate"),
        ("", "choose from pet, "),
    ],
)
def test_a_setting_that_is_not_there(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer().override({name: 1})
    assert caught.value.reason == f"Outer has no setting {name!r}"
    assert caught.value.remedy.startswith(remedy)


def test_an_override_changes_what_it_names_together_and_nothing_else() -> None:
    before = Outer(spare=Inner(size=3))
    after = before.override(
        {
            "middle.inner.size": 2,
            "middle.rate": 0,
            "spare.pair": [3, 4],
            "limit": 5.0,
            "middle.inner.steps": [1],
        }
    )
    assert before == Outer(spare=Inner(size=3))
    middle = Middle(inner=Inner(size=2, steps=(1,)), rate=0)
    assert after == Outer(limit=5.0, middle=middle, spare=Inner(size=3, pair=(3, 4)))
    assert before.override({}) == before
    whole = before.override({"middle.rate": 0.25, "middle": middle})
    assert whole == before.replace(middle=middle.replace(rate=0.25))
    assert before.names() == [
        "pet", "mode", "loud", "limit", "any_number", "middle", "middle.inner", "middle.rate",
        "middle.inner.size", "middle.inner.pair", "middle.inner.steps", "spare.size", "spare.pair", "spare.steps",
    ]  # fmt: skip


def test_lists_are_as_good_as_tuples() -> None:
    listed = Inner(pair=[3.0, 4.0], steps=[1])  # type: ignore[arg-type]
    assert listed == Inner(pair=(3.0, 4.0), steps=(1,))
    assert hash(listed) == hash(Inner(pair=(3.0, 4.0), steps=(1,)))


def test_plain_json_leaves_none_out() -> None:
    assert Middle().to_dict() == {"inner": {"size": 8, "pair": [1.0, 2.0], "steps": []}, "rate": 0.5}
    assert Outer().to_dict().keys() == {"name", "pet", "mode", "loud", "any_number", "middle"}


@pytest.mark.parametrize(
    "settings",
    [
        Outer(limit=1.0, spare=Inner(steps=(2, 3))),
        CopyOptions(fps=16),
        *TABLE,
        *PRESETS.values(),
        *VIDEO_AUGMENTS.values(),
        *AUDIO_AUGMENTS.values(),
    ],
    ids=lambda settings: settings.title,
)
def test_settings_survive_json(settings: Settings) -> None:
    plain = json.loads(json.dumps(settings.to_dict(), allow_nan=False))
    assert type(settings).from_dict(plain) == settings


def test_a_dictionary_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^Inner has no field 'sizes'; did you mean 'size'"):
        Outer.from_dict({"spare": {"sizes": 3}})
    with pytest.raises(ConfigError, match=r"^spare=3 is not Inner"):
        Outer.from_dict({"spare": 3})


def test_a_count_may_be_omitted() -> None:
    check_count("workers", None, least=0)
    check_count("workers", 0, least=0)
    with pytest.raises(ConfigError, match=r"^workers=-1 is out of range; pass a whole number, at least 0$"):
        check_count("workers", -1, least=0)


def test_the_rules_of_a_type_with_none_hold_inside_it() -> None:
    hint = Annotated[int | None, Range(0)]
    assert [check("n", value, hint) for value in (None, 0)] == [None, 0]
    with pytest.raises(ConfigError, match="n=-5 is out of range; pass a whole number, at least 0"):
        check("n", -5, hint)


def test_every_precision_has_its_dtype() -> None:
    assert tuple(DTYPES) == PRECISIONS


# --- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "allowed", "picked"),
    [
        ({"cuda", "mps"}, ("cuda", "mps"), "cuda"),
        ({"mps"}, ("cuda", "mps"), "mps"),
        ({"mps"}, ("cuda",), "cpu"),
        (set(), ("cuda", "mps"), "cpu"),
    ],
)
def test_auto_takes_the_first_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, there: set[str], allowed: tuple[str, ...], picked: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    tried: list[str] = []
    monkeypatch.setattr(torch, "empty", lambda size, device: tried.append(device) or torch.zeros(size))
    pick_device("auto", auto=allowed)
    assert tried == [picked]


def test_a_device_is_one_of_torchs() -> None:
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    for device in ("quantum", torch.device("cuda:99")):
        with pytest.raises(ConfigError) as caught:
            pick_device(device)
        line = str(caught.value)
        assert line.startswith(f"device='{device}' cannot be used (")
        assert line.endswith("); pass 'auto' or 'cpu'")
        assert "\n" not in line
