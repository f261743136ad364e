"""Settings of the augmentations, frozen, and the paper's sets of them. Standard library only.

Tables S1 and S2 have the numbers. Tables S3 and S4, whose captions are swapped, list the operations of each training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import NotNegative, Positive, Range, Ratio, Settings, Whole

MAX_HUE = 0.5
"""Half a turn of the hue, the largest useful value."""

_Area = Annotated[float, Range(above=0, most=1)]
_Canvas = Annotated[float, Range(1)]


@dataclass(frozen=True, kw_only=True)
class VideoAugment(Settings):
    """Operations of :func:`augment_video` and their probabilities. The defaults are those of pretraining (Table S1).

    Attributes:
        area: Smallest and largest fraction of the frame's area that the crop keeps; uniform. Table S1: from 0.08.
        aspect: Smallest and largest width / height of the crop; log-uniform.
        flip: Probability of a horizontal flip, 0 to 1.
        brightness: Brightness is multiplied by a factor in [max(0, 1 - x), 1 + x); uniform. 0 is off.
        contrast: The same for the distance from the frame's mean grey level. 0 is off.
        saturation: The same for the distance from the pixel's grey level. 0 is off.
        hue: Largest turn of the hue, as a fraction of the full circle, either way; uniform. 0 (off) to 0.5.
        grey: Probability of turning the clip grey, 0 to 1.
        blur: Probability of a Gaussian blur with a kernel of 2 (size // 20) + 1 pixels, 0 to 1.
        blur_sigma: Smallest and largest standard deviation of the blur in pixels; uniform (SimCLR).
        cutout: Largest side in pixels of the square that is set to the mean of the normalised first frame. 0 is off.
        released: Behave as the released code. The blur is vertical only: the two values of ``blur_sigma`` are
            taken as the horizontal and the vertical sigma, and the result is truncated to integer grey levels. The
            cutout multiplies pixels by the mean instead of replacing them.
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
    """Operations of the audio augmentation and their largest changes (Table S2).

    Attributes:
        volume: Volume jitter: the wave is multiplied by a factor from 1 - volume to 1 + volume; 0 is off.
        frequency_mask: Largest width of a frequency mask, in mel bands; 0 is off.
        time_mask: Largest width of a time mask, in spectrogram columns; 0 is off.
        masks: Number of masks of each kind; they may overlap.
        time_warp: Time warp: the largest distance that a column is moved, in columns; 0 is off.
        crop: Random resize crop: smallest and largest size of the crop, relative to the spectrogram; 0 0 is off.
        canvas: Size of the canvas of zeros that is cropped, relative to the spectrogram: frequency, time.
        released: Draw mask widths, mask positions and the warp as the released code does, not as in the paper.
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
"""Video augmentations, by training.

"pretraining", "linear" (evaluation) and "finetuning" use the numbers of Table S1 and the operations of the visual
summary (the captions of Tables S3 and S4 are swapped); "linear" and "finetuning" have no blur. "standard" is the weak
augmentation of the released code, which is in no table of the paper.
"""


AUDIO_AUGMENTS: dict[str, AudioAugment] = {
    "pretraining": AudioAugment(),
    "linear": AudioAugment(time_warp=20),
    "standard": AudioAugment(volume=0.1, masks=0, crop=(0.0, 0.0)),
}
"""Audio augmentations, by training.

``"pretraining"``: the numbers of Table S2 and the operations that the table captioned S4 ticks for pretraining,
which are all but the time warp. ``"linear"``: the same with the time warp, as ticked for linear evaluation.
``"standard"``: volume jitter alone, at half the range, as in the released code; it is in no table.
"""
