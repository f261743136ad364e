"""What the augmentations do, and how often: frozen settings and the paper's sets of them. Standard library only.

Tables S1 and S2 have the numbers. Which operations are used when is in Tables S3 and S4, whose captions are swapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import NotNegative, Positive, Range, Ratio, Settings, Whole

MAX_HUE = 0.5
"""Half a turn of the hue, the most that makes sense."""

_Area = Annotated[float, Range(above=0, most=1)]
_Canvas = Annotated[float, Range(1)]


@dataclass(frozen=True, kw_only=True)
class VideoAugment(Settings):
    """What :func:`augment_video` does, and how often. The defaults are those of pretraining (Table S1).

    Attributes:
        area: Least and largest share of the frame's area that the crop keeps; uniform. Table S1: from 0.08.
        aspect: Least and largest width / height of the crop; log-uniform.
        flip: Probability of mirroring left and right, 0 to 1.
        brightness: Brightness is multiplied by a factor in [max(0, 1 - x), 1 + x); uniform. 0 is off.
        contrast: The same for the distance from the frame's mean grey level. 0 is off.
        saturation: The same for the distance from the pixel's grey level. 0 is off.
        hue: Largest turn of the hue, as a share of the full circle, either way; uniform. 0 (off) to 0.5.
        grey: Probability of turning the clip grey, 0 to 1.
        blur: Probability of a Gaussian blur with a kernel of 2 (size // 20) + 1 pixels, 0 to 1.
        blur_sigma: Least and largest standard deviation of the blur in pixels; uniform (SimCLR).
        cutout: Largest side in pixels of the square that is set to the mean of the normalised first frame. 0 is off.
        released: Do as the released code does. The blur is vertical only: the two numbers of ``blur_sigma`` are
            taken as the horizontal and the vertical sigma, and the result is cut to whole grey levels. The cutout
            multiplies by the mean instead of setting to it.
    """

    area: tuple[_Area, _Area] = (0.08, 1.0)
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    flip: Ratio = 0.5
    brightness: NotNegative = 0.4
    contrast: NotNegative = 0.4
    saturation: NotNegative = 0.4
    hue: Annotated[float, Range(0, MAX_HUE)] = 0.2
    grey: Ratio = 0.2
    blur: Ratio = 0.5
    blur_sigma: tuple[Positive, Positive] = (0.1, 2.0)
    cutout: Whole = 20
    released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("area", "aspect", "blur_sigma"):
            least, most = getattr(self, name)
            if least > most:
                raise ConfigError(
                    f"{name}={(least, most)!r} is not a range", remedy="pass two numbers, the smaller first"
                )


@dataclass(frozen=True, kw_only=True)
class AudioAugment(Settings):
    """How much each step of the audio augmentation may change (Table S2).

    Attributes:
        volume: Volume jitter: the wave is multiplied by a factor from 1 - volume to 1 + volume; 0 is off.
        frequency_mask: Largest width of a frequency mask, in mel bands; 0 is off.
        time_mask: Largest width of a time mask, in spectrogram columns; 0 is off.
        masks: Number of masks of each kind; they may overlap.
        time_warp: Time warp: how far a point in time is moved at most, in columns; 0 is off.
        crop: Random resize crop: lowest and highest size of the crop, relative to the spectrogram; 0 0 is off.
        canvas: Size of the canvas of zeros that is cropped, relative to the spectrogram: frequency, time.
        released: Draw mask widths, mask positions and the warp as the released code does, not as the paper says.
    """

    volume: Annotated[float, Range(least=0, below=1)] = 0.2
    frequency_mask: Whole = 10
    time_mask: Whole = 20
    masks: Whole = 2
    time_warp: Whole = 0
    crop: tuple[NotNegative, NotNegative] = (0.6, 1.5)
    canvas: tuple[_Canvas, _Canvas] = (1.0, 1.5)
    released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops and not 0 < self.crop[0] <= self.crop[1]:
            raise ConfigError(
                f"crop={self.crop!r} is out of range",
                remedy="pass the lower number first, both above 0, or 0 0 for off",
            )

    @property
    def crops(self) -> bool:
        """Whether the random resize crop is on: ``crop`` is not (0, 0)."""
        return self.crop != (0, 0)


VIDEO_AUGMENTS: dict[str, VideoAugment] = {
    "pretraining": VideoAugment(),
    "linear": VideoAugment(blur=0.0),
    "finetuning": VideoAugment(blur=0.0),
    "standard": VideoAugment(area=(0.7, 1.0), grey=0.0, blur=0.0, cutout=0),
}
"""Augmentations by the training they belong to.

"pretraining", "linear" (evaluation) and "finetuning" use the numbers of Table S1 and the columns of the visual
summary, whose caption is printed under the audio one (Tables S3 and S4 have each other's): the last two have no
blur. "standard" is the weak augmentation of the released code, which no table of the paper holds.
"""


AUDIO_AUGMENTS: dict[str, AudioAugment] = {
    "pretraining": AudioAugment(),
    "linear": AudioAugment(time_warp=20),
    "standard": AudioAugment(volume=0.1, masks=0, crop=(0.0, 0.0)),
}
"""Named settings.

``"pretraining"``: the numbers of Table S2 and the operations that the table captioned S4 ticks for pretraining,
which are all but the time warp. ``"linear"``: the same with the time warp, as ticked for linear evaluation.
``"standard"``: volume jitter alone, at half the range; of the released code, in no table.
"""
