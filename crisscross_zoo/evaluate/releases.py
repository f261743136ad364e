"""The classes and file counts of released data sets, and what a copy on disk lacks.

The paper's results are for complete data sets. Of Kinetics only the classes are compared, because the videos that can
still be downloaded differ from copy to copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crisscross_zoo.evaluate.datasets import Fold, LabelledData
from crisscross_zoo.text import counted

_SHOWN = 10
"""Maximum number of names in a line; ``result.json`` has all."""


@dataclass(frozen=True)
class Release:
    """A data set as it was released.

    Attributes:
        title: Its name in text.
        classes: Names of its classes; empty if unknown.
        files: Numbers of training and test files by fold; empty if unknown.
        each: Number of files that a fold has of each class, training and test together, if all classes have the same.
    """

    title: str
    classes: tuple[str, ...]
    files: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    each: int | None = None


def release_of(name: str) -> Release | None:
    """Return the release of a data set of :data:`~crisscross_zoo.evaluate.datasets.DATASETS`; None if unknown."""
    if name == "kinetics400":
        from torchvision.models.video import R3D_18_Weights

        return Release("Kinetics400", tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"]))
    return _RELEASES.get(name)


def find_missing(data: LabelledData, folds: Mapping[int, Fold]) -> dict[str, Any]:
    """Compare a data set on disk with its release.

    Args:
        data: The data set.
        folds: The folds to evaluate, by number.

    Returns:
        Plain JSON types. Empty if nothing differs, or if the release is unknown. Otherwise "classes", the missing
        classes; "other_classes", classes that are not in the release; "files", by fold, as
        ``{"train": [here, released], "test": [here, released]}``; and "files_of_class", as ``[here, released]``, for
        classes with another number of files.
    """
    release = release_of(data.name)
    if release is None:
        return {}
    missing: dict[str, Any] = {
        "classes": sorted({*release.classes} - {*data.classes}),
        "other_classes": sorted({*data.classes} - {*release.classes}),
        "files": {},
        "files_of_class": {},
    }
    for number, fold in folds.items():
        if number not in release.files:
            continue
        here, released = (len(fold.train), len(fold.test)), release.files[number]
        if here != released:
            pairs = zip(("train", "test"), here, released, strict=True)
            missing["files"][str(number)] = {side: [count, whole] for side, count, whole in pairs}
        if release.each is not None:
            counts = Counter(sample.label for sample in (*fold.train, *fold.test))
            for label, name in enumerate(data.classes):
                if counts[label] != release.each:
                    missing["files_of_class"][name] = [counts[label], release.each]
    return missing if any(missing.values()) else {}


def describe_missing(name: str, missing: Mapping[str, Any]) -> list[str]:
    """Return the differences that :func:`find_missing` found as lines of text; ``name`` is the data set's."""
    release = release_of(name)
    if not missing or release is None:
        return []
    lines, whole = [], len(release.classes)
    if gone := missing["classes"]:
        lines.append(f"{whole - len(gone)} of the {whole} classes of {release.title}, without {_names(gone)}")
    if other := missing["other_classes"]:
        lines.append(f"{counted(len(other), 'class')} that {release.title} does not have: {_names(other)}")
    for fold, sides in missing["files"].items():
        (train, all_train), (test, all_test) = sides["train"], sides["test"]
        lines.append(
            f"fold {fold} has {train} of {all_train} training files and {test} of {all_test} test files"
        )
    if partial := missing["files_of_class"]:
        lines.append(
            "files of a class: "
            + _names([f"{name} {here} of {released}" for name, (here, released) in partial.items()])
        )
    return lines


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


_ESC50 = """
 dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds
water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing
footsteps laughing brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing
door_wood_creaks can_opening washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking helicopter
chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw
"""
_UCF101 = """
 ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball
BasketballDunk BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling
BoxingPunchingBag BoxingSpeedBag BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling
CricketShot CuttingInKitchen Diving Drumming Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch
FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups HandstandWalking HeadMassage HighJump
HorseRace HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack JumpRope Kayaking Knitting
LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing PlayingCello
PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar PlayingTabla PlayingViolin
PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing Rowing SalsaSpin
ShavingBeard Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings
SumoWrestling Surfing Swing TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing
UnevenBars VolleyballSpiking WalkingWithDog WallPushups WritingOnBoard YoYo
"""
_HMDB51 = """
 brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat fall_floor
fencing flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour pullup punch push pushup
ride_bike ride_horse run shake_hands shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand
swing_baseball sword sword_exercise talk throw turn walk wave
"""
_DCASE = "bus busystreet office openairmarket park quietstreet restaurant supermarket tube tubestation"

_RELEASES: dict[str, Release] = {
    "esc50": Release("ESC-50", tuple(_ESC50.split()), dict.fromkeys(range(1, 6), (1600, 400)), 40),
    "ucf101": Release("UCF101", tuple(_UCF101.split()), {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}),
    "hmdb51": Release("HMDB51", tuple(_HMDB51.split()), dict.fromkeys((1, 2, 3), (3570, 1530)), 100),
    "dcase": Release("DCASE2013", tuple(_DCASE.split()), {1: (100, 100)}, 20),
}
