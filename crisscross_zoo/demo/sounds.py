"""Kinds of sounds: things that are struck, blown, driven or alive, and textures such as rain and wind.

Each kind is a function of its settings. One set of settings is one individual, such as one dog. The events of a clip
are drawn for each clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import signal

from crisscross_zoo.demo.knobs import Floats, Knobs
from crisscross_zoo.demo.signals import (
    HIGHEST,
    SAMPLE_RATE,
    Rng,
    band,
    bumps,
    buzz,
    curve,
    decay,
    fade,
    gain,
    level,
    line,
    noise,
    partials,
    peak,
    phase,
    place,
    ring,
    samples,
    shaped,
    sparse,
    tilted,
    walk,
)


@dataclass
class Sound:
    """What one thing sounds like over a clip.

    Attributes:
        kind: Name of what makes it: a function of this module, without the underscore.
        wave: (samples,), any level.
        onsets: For each event, its start in seconds, its strength and its pitch, both in [0, 1].
    """

    kind: str
    wave: Floats
    onsets: list[tuple[float, float, float]] = field(default_factory=list)


Event = Callable[[Knobs, Rng], tuple[Floats, float]]
"""Makes one event of an individual: the wave, its peak at 1, and the pitch from 0 to 1."""

Texture = Callable[[Knobs, int, Rng], Floats]
"""Makes a sound that goes on, (samples,)."""


def _height(hertz: float) -> float:
    return min(1.0, max(0.0, math.log2(hertz / 60) / 7))


# --- struck ------------------------------------------------------------------------------------------------------

_BODIES: tuple[tuple[float, ...], ...] = (
    (1, 2.756, 5.404, 8.933, 13.34, 18.64),  # a bar
    (0.5, 1, 1.19, 1.5, 2, 2.52, 2.66, 3.01, 4.17, 5.43, 6.79),  # a bell
    (1, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.5, 3.6, 4.06, 4.6),  # a membrane
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14),  # a string
    (1, 2.32, 4.25, 6.63, 9.38, 12.22),  # a glass
    (1, 3, 5, 7, 9, 11),  # a tube that is closed at one end
    (1, 3.93, 9.5, 16.7),  # a marimba's bar
)


def _modes(knobs: Knobs) -> tuple[Floats, Floats, Floats]:
    """Return a body's modes: frequency ratios, relative decays and levels."""
    if knobs.chance("made-up body", 0.5):
        count = knobs.integer("modes", 4, 20)
        ratios = np.sort(np.exp(knobs.log("body spread", 0.4, 1.6) * np.abs(knobs.normal("ratios", count))))
    else:
        ratios = np.array(knobs.choice("body", _BODIES)) * (1 + 0.01 * knobs.normal("mistuned", 1)[0])
    ratios = ratios / ratios[0]
    decays = ratios ** -knobs.uniform("damping", 0.1, 1.4)
    levels = ratios ** -knobs.uniform("dullness", 0.0, 1.8) * np.exp(
        0.7 * knobs.normal("levels", len(ratios))
    )
    return ratios, decays, levels


def _struck(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    ratios, decays, levels = _modes(knobs)
    hertz = knobs.log("pitch", 50, 3500)
    seconds = knobs.log("decay", 0.05, 4)
    n = samples(min(2.5, seconds * 1.1 + 0.05))
    hit = np.zeros(n)
    width = samples(knobs.log("mallet", 0.0003, 0.006))
    hit[:width] = np.hanning(width + 2)[1:-1]
    hit[: 4 * width] += knobs.uniform("scrape", 0, 0.6) * rng.standard_normal(len(hit[: 4 * width]))
    wave = ring(hit, hertz * ratios, seconds * decays, levels / hertz)
    return peak(wave), _height(hertz)


def _plucked(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    hertz = _note(knobs, rng, 60, 900)
    n = samples(knobs.log("length", 0.3, 2.0))
    orders = np.arange(1, 25)
    stiff = orders * np.sqrt(1 + knobs.log("stiffness", 1e-5, 1e-3) * orders**2)
    levels = np.abs(np.sin(np.pi * orders * knobs.uniform("pluck at", 0.05, 0.5))) * orders ** -knobs.uniform(
        "soft", 0.4, 1.8
    )
    seconds = knobs.log("decay", 0.3, 4)
    wave = np.zeros(n)
    for ratio, amount in zip(stiff, levels, strict=True):
        if ratio * hertz < HIGHEST:
            wave += (
                amount
                * decay(n, seconds / (1 + 0.1 * ratio))
                * np.sin(phase(np.full(n, ratio * hertz)) + rng.uniform(0, 6.3))
            )
    wave = shaped(wave, curve(knobs, "body", 5))
    return peak(wave * fade(n, 0.003, 0.05)), _height(hertz)


def _drum(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    n = samples(knobs.log("length", 0.08, 0.8))
    hertz = knobs.log("pitch", 40, 400)
    bend = 1 + knobs.log("bend", 0.1, 4) * decay(n, knobs.log("bend time", 0.03, 0.3))
    body = np.sin(phase(hertz * bend)) * decay(n, knobs.log("body decay", 0.08, 0.9))
    low = knobs.log("rattle from", 200, 5000)
    rattle = shaped(noise(n, rng), band(low, low * knobs.log("rattle width", 2, 20))) * decay(
        n, knobs.log("rattle decay", 0.03, 0.7)
    )
    share = knobs.uniform("rattle", 0, 1)
    return peak((1 - share) * body + share * level(rattle)), _height(hertz)


def _burst(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A bang, a clap, thunder, a shot, a knock: noise that begins at once and fades."""
    seconds = knobs.log("decay", 0.04, 2.5)
    n = samples(seconds)
    top = knobs.log("top", 300, 7500)
    closing = top * np.exp(-np.linspace(0, knobs.uniform("closing", 0, 3), 12))
    wave = shaped(
        noise(n, rng, knobs.uniform("tilt", -6, 1)),
        band(np.full(12, knobs.log("bottom", 30, 600)), closing.clip(80)),
    )
    rumble = 1 + knobs.uniform("rumble", 0, 0.9) * walk(n, rng, knobs.log("rumble rate", 3, 40))
    return peak(wave * decay(n, seconds) * rumble), _height(top / 4)


# --- music -------------------------------------------------------------------------------------------------------

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10), (0, 4, 7))


def _note(knobs: Knobs, rng: Rng, low: float, high: float) -> float:
    """Return a pitch of the individual's scale near its own, in Hz."""
    scale = knobs.choice("scale", _SCALES)
    steps = scale[rng.integers(len(scale))] + 12 * rng.integers(0, knobs.integer("octaves", 1, 2))
    return min(knobs.log("tonic", low, high) * 2 ** (float(steps) / 12), 3000.0)


def _blown(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A note of a wind or bowed instrument, an organ, a synthesiser."""
    hertz = _note(knobs, rng, 70, 1200)
    n = samples(knobs.log("length", 0.15, 1.5))
    t = np.arange(n) / SAMPLE_RATE
    vibrato = knobs.uniform("vibrato", 0, 0.02) * np.sin(
        2 * np.pi * knobs.uniform("vibrato rate", 4, 7) * t + rng.uniform(0, 6.3)
    )
    bent = (
        hertz
        * (1 + vibrato + 0.003 * walk(n, rng, 5))
        * (1 - knobs.uniform("scoop", 0, 0.1) * decay(n, 0.15))
    )
    orders = np.arange(1.0, 21)
    levels = orders ** -knobs.uniform("dullness", 0.3, 2.5) * np.exp(0.5 * knobs.normal("timbre", 20))
    if knobs.chance("hollow", 0.3):
        levels[1::2] *= 0.08
    wave = level(partials(bent, orders, levels, rng))
    breath = shaped(noise(n, rng), bumps(np.array([hertz * 2]), np.array([hertz * 3]), np.array([1.0])))
    wave = wave + knobs.log("breath", 0.005, 0.4) * level(breath)
    wave *= fade(n, knobs.log("attack", 0.005, 0.2), knobs.log("release", 0.02, 0.3))
    return peak(shaped(wave, curve(knobs, "body", 5))), _height(hertz)


def _chord(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    kind = knobs.choice("instrument", (_plucked, _blown))
    parts = [kind(knobs.child("voice"), rng) for _ in range(knobs.integer("voices", 2, 4))]
    wave = np.zeros(max(len(w) for w, _ in parts))
    for n, (part, _) in enumerate(parts):
        place(wave, part, n * knobs.uniform("strum", 0, 0.04))
    return peak(wave), parts[0][1]


def _modulated(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """Frequency modulation, as synthesisers of games and toys have it."""
    n = samples(knobs.log("length", 0.08, 1.2))
    hertz = knobs.log("pitch", 60, 2500) * 2 ** (0.1 * rng.standard_normal())
    start = knobs.uniform("sweep", -1.5, 1.5)
    bent = hertz * 2 ** (
        start * line(n, 1, 0)
        + knobs.uniform("wobble", 0, 0.3) * np.sin(phase(np.full(n, knobs.log("wobble rate", 2, 30))))
    )
    index = knobs.log("index", 0.1, 8) * line(n, *(0.2 + np.abs(knobs.normal("index over time", 4))))
    other = phase(bent * knobs.choice("ratio", (0.5, 1, 1.41, 2, 3, 3.5, 5.19, 7)))
    wave = np.sin(phase(bent) + index * np.sin(other))
    if knobs.chance("square", 0.25):
        wave = np.tanh(6 * wave)
    wave *= fade(n, knobs.log("attack", 0.002, 0.2), knobs.log("release", 0.02, 0.5))
    top = knobs.log("filter", 600, 7500) * 2 ** (1.5 * knobs.normal("filter over time", 6))
    return peak(shaped(wave, band(np.full(6, 20.0), top.clip(200, 8000)))), _height(hertz)


# --- voices ------------------------------------------------------------------------------------------------------

_VOWELS = np.array([
    [730, 1090, 2440, 3400], [530, 1840, 2480, 3500], [270, 2290, 3010, 3700], [570, 840, 2410, 3300],
    [300, 870, 2240, 3300], [660, 1720, 2410, 3500], [490, 1350, 1690, 3300], [440, 1020, 2240, 3300],
], dtype=np.float64)  # fmt: skip
"""Formants of vowels in Hz (Peterson and Barney 1952, adult men)."""


def _throat(knobs: Knobs, rng: Rng, hertz: Floats) -> Floats:
    """Return what a larynx or syrinx gives at a pitch (n,): pulses, rough or breathy."""
    n = len(hertz)
    rough = 1 + knobs.uniform("jitter", 0, 0.04) * walk(n, rng, 60) + 0.01 * walk(n, rng, 8)
    wave = buzz((hertz * rough).clip(20, 3000))
    if knobs.chance("rasp", 0.45):  # subharmonics and fluttering
        flutter = knobs.log("rasp rate", 18, 120)
        wave = wave * (
            1 + knobs.uniform("rasp depth", 0.2, 1) * np.sign(np.sin(phase(np.full(n, flutter) * rough)))
        )
    wave = shaped(level(wave), tilted(-knobs.uniform("glottis", 3, 14)))
    return level(wave) + knobs.log("breath", 0.01, 1.5) * noise(n, rng, -3)


def _mouth(knobs: Knobs, vowels: Floats) -> Floats:
    """Return gains (parts, 257) of a mouth that goes through formants (parts, 4) in Hz."""
    size = knobs.log("throat size", 0.55, 2.2)
    centres = (vowels * size).clip(80, 7800)
    widths = np.array([80, 110, 160, 240]) * knobs.log("formant width", 0.6, 2.5) * math.sqrt(size)
    levels = np.array([1, 0.6, 0.35, 0.2]) * np.exp(0.4 * knobs.normal("formant levels", 4))
    return bumps(
        centres, np.broadcast_to(widths, centres.shape), np.broadcast_to(levels, centres.shape), floor=0.01
    )


def _call(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A bark, meow, moo, roar, quack, bleat, crow, howl: a voice with one gesture of pitch and mouth."""
    hertz = knobs.log("pitch", 50, 1500) * 2 ** (0.12 * rng.standard_normal())
    n = samples(knobs.log("length", 0.08, 1.5) * 2 ** (0.25 * rng.standard_normal()))
    gesture = knobs.uniform("pitch range", 0.05, 1.2) * knobs.normal("gesture", knobs.integer("turns", 3, 5))
    bent = hertz * 2 ** (
        line(n, *gesture)
        + knobs.uniform("bleat", 0, 0.15) * np.sin(phase(np.full(n, knobs.log("bleat rate", 5, 25))))
    )
    opened = knobs.normal("mouth", (4, 4)) * 0.25
    vowel = _VOWELS[knobs.integer("vowel", 0, len(_VOWELS) - 1)]
    wave = shaped(_throat(knobs, rng, bent.clip(25, 3000)), _mouth(knobs, vowel * np.exp(opened)))
    wave *= fade(n, knobs.log("attack", 0.004, 0.2), knobs.log("release", 0.02, 0.4))
    return peak(wave), _height(hertz)


def _syllable(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A syllable of speech: a consonant's noise, then vowels."""
    hertz = knobs.log("pitch", 75, 380) * 2 ** (0.15 * rng.standard_normal())
    n = samples(rng.uniform(0.7, 1.4) * knobs.log("length", 0.09, 0.35))
    bent = hertz * 2 ** line(n, *(0.12 * rng.standard_normal(3)))
    vowels = _VOWELS[rng.integers(len(_VOWELS), size=3)]
    wave = shaped(_throat(knobs, rng, bent), _mouth(knobs, vowels)) * fade(n, 0.02, 0.05)
    wave = level(wave)
    if rng.random() < 0.75:
        hiss = samples(rng.uniform(0.015, 0.12))
        low = math.exp(rng.uniform(math.log(900), math.log(5500)))
        consonant = level(shaped(noise(hiss, rng), band(low, low * 2.2))) * fade(
            hiss, rng.uniform(0.001, 0.04), 0.01
        )
        wave = np.concatenate([rng.uniform(0.15, 0.9) * consonant, wave])
    return peak(wave), _height(hertz)


def _chirp(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A bird's syllable: a whistle that glides, with few partials."""
    hertz = knobs.log("pitch", 900, 5500) * 2 ** (0.1 * rng.standard_normal())
    n = samples(knobs.log("length", 0.03, 0.6))
    glide = knobs.uniform("glide", 0.02, 0.9) * knobs.normal("gesture", knobs.integer("turns", 2, 5))
    trill = knobs.uniform("trill", -0.3, 0.25)
    if trill > 0:
        glide_line = line(n, *glide) + trill * np.sin(phase(np.full(n, knobs.log("trill rate", 12, 70))))
    else:
        glide_line = line(n, *glide)
    bent = (hertz * 2**glide_line).clip(300, 7400)
    wave = partials(bent, (1, 2, 3), (1, *np.exp(knobs.normal("partials", 2) - 2)), rng)
    wave += knobs.log("breath", 0.003, 0.3) * noise(n, rng)
    wave *= fade(n, 0.3 * n / SAMPLE_RATE * knobs.uniform("attack", 0.05, 1), 0.4 * n / SAMPLE_RATE)
    return peak(wave), _height(hertz)


def _laugh(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """A voice that repeats itself quickly: laughing, sobbing, chattering, a cackle."""
    voice, count = knobs.child("voice"), rng.integers(3, 9)
    period = knobs.log("period", 0.1, 0.4)
    wave = np.zeros(samples(period * float(count) + 0.3))
    height = 0.5
    for n in range(count):
        part, height = (_call if knobs.chance("animal", 0.5) else _syllable)(voice, rng)
        part = part[: samples(period * 0.9)]
        place(wave, part * fade(len(part), 0.01, 0.03) * knobs.uniform("fading", 0.7, 1.02) ** n, n * period)
    return peak(wave), height


# --- air and friction ----------------------------------------------------------------------------------------------


def _whoosh(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """Air: a sneeze, a spray, a zip, something that flies by."""
    n = samples(knobs.log("length", 0.1, 2.0))
    centres = knobs.log("pitch", 200, 5000) * 2 ** (knobs.uniform("glide", 0, 2) * knobs.normal("gesture", 5))
    width = knobs.log("width", 0.1, 3)
    wave = shaped(
        noise(n, rng), bumps(centres[:, None].clip(60, 7800), centres[:, None] * width, np.ones((5, 1)))
    )
    wave *= fade(n, knobs.log("attack", 0.01, 1.0), knobs.log("release", 0.02, 1.0))
    flutter = knobs.log("flutter", 8, 90)
    wave *= 1 + max(0.0, knobs.uniform("flutter depth", -1, 1)) * np.sin(phase(np.full(n, flutter)))
    return peak(wave), _height(float(centres[2]))


def _squeak(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """Friction: a hinge, a brake, a saw, chalk: pulses of a changing rate through a body."""
    n = samples(knobs.log("length", 0.1, 1.5))
    hertz = knobs.log("pitch", 25, 1500)
    bent = hertz * 2 ** (
        knobs.uniform("glide", 0.1, 1.2) * line(n, *knobs.normal("gesture", 4)) + 0.05 * walk(n, rng, 25)
    )
    ratios, decays, levels = _modes(knobs.child("body"))
    wave = ring(
        level(buzz(bent.clip(15, 3000))) + 0.1 * noise(n, rng),
        knobs.log("body pitch", 200, 2500) * ratios[:8],
        0.05 * decays[:8],
        levels[:8],
    )
    return peak(wave * fade(n, 0.03, 0.05)), _height(hertz)


def _crumple(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """Many small impacts at once: a step on gravel, paper, coins, keys, breaking glass, a splash."""
    n = samples(knobs.log("length", 0.08, 1.2))
    rate = knobs.log("rate", 40, 2500) * fade(n, 0.02, n / SAMPLE_RATE) ** 2
    ratios, decays, levels = _modes(knobs.child("body"))
    pitch = knobs.log("pitch", 150, 4000)
    wave = ring(
        sparse(n, rng, rate, knobs.uniform("spread", 3, 14)),
        pitch * ratios[:10],
        knobs.log("decay", 0.004, 0.3) * decays[:10],
        levels[:10],
    )
    return peak(wave * fade(n, 0.001, 0.1)), _height(pitch)


# --- machines ----------------------------------------------------------------------------------------------------


def _beep(knobs: Knobs, rng: Rng) -> tuple[Floats, float]:
    """An alarm, a horn, a telephone, a siren's cycle, a whistle of a train."""
    n = samples(knobs.log("length", 0.05, 1.2))
    hertz = knobs.log("pitch", 180, 3500)
    bent = np.full(n, hertz) * 2 ** (
        knobs.uniform("sweep", 0, 1)
        * knobs.chance("sweeps", 0.4)
        * line(n, *knobs.choice("way", ((0, 1, 0), (0, 1), (1, 0), (0, 0, 1, 1))))
    )
    wave, orders = np.zeros(n), np.arange(1.0, 10)
    levels = orders ** -knobs.uniform("dullness", 0.2, 3)
    for ratio in (1.0, *knobs.choice("tones", ((), (1.26,), (1.335,), (1.19, 1.5), (2.1,)))):
        wave += partials(bent * ratio, orders, levels, rng)
    if knobs.chance("warbles", 0.3):
        wave *= 0.5 + 0.5 * np.sign(np.sin(phase(np.full(n, knobs.log("warble", 8, 40)))))
    return peak(wave * fade(n, 0.005, 0.02)), _height(hertz)


def _engine(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """An engine, a motor, a propeller: a firing rate that changes, harmonics through resonances, noise."""
    speed = knobs.log("pitch", 12, 250) * 2 ** (
        knobs.uniform("revs", 0.02, 0.7) * walk(n, rng, knobs.log("rev rate", 0.2, 1.5))
    )
    cylinders = knobs.integer("cylinders", 1, 6)
    turned = phase(speed / cylinders)
    uneven = sum(
        (
            a * np.sin(k * turned + k)
            for k, a in enumerate(knobs.uniform("uneven", 0, 0.3) * knobs.normal("cylinder", cylinders), 1)
        ),
        np.zeros(n),
    )
    wave = level(buzz((speed * (1 + 0.02 * walk(n, rng, 20))).clip(8, 2000))) * (1 + uneven)
    wave = shaped(wave, tilted(-knobs.uniform("dullness", 2, 10)) * curve(knobs, "muffler", 8))
    hiss = noise(n, rng, knobs.uniform("hiss tilt", -9, 0)) * (
        1 + knobs.uniform("chop", 0, 1) * np.sin(phase(speed))
    )
    return level(wave) + knobs.log("hiss", 0.03, 2) * level(hiss)


def _hum(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """A fan, a vacuum cleaner, a drill, a refrigerator: steady tones in noise."""
    hertz = knobs.log("pitch", 45, 900) * 2 ** (knobs.uniform("drift", 0, 0.1) * walk(n, rng, 0.5))
    ratios = np.concatenate(
        [[1.0], 1 + np.sort(np.abs(knobs.normal("ratios", 7))) * knobs.log("spread", 1, 8)]
    )
    wave = level(partials(hertz, ratios, np.exp(0.8 * knobs.normal("levels", 8)), rng))
    air = shaped(noise(n, rng, knobs.uniform("tilt", -8, 0)), curve(knobs, "air", 7))
    return wave + knobs.log("air", 0.1, 8) * level(air)


def _ticking(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """A clock, a sewing machine, a train, a helicopter, a keyboard: a train of two or more different impacts."""
    rate = knobs.log("rate", 1, 28)
    pattern = [
        _short(knobs.child(f"impact {k}"), rng) * knobs.log(f"level {k}", 0.2, 1)
        for k in range(knobs.integer("impacts", 1, 4))
    ]
    wave, at, k = np.zeros(n), rng.uniform(0, 1 / rate), 0
    while at < n / SAMPLE_RATE:
        place(wave, pattern[k % len(pattern)] * gain(rng.normal(0, 1.5)), at)
        at += (1 + knobs.uniform("uneven", 0, 0.35) * float(rng.uniform(-1, 1))) / rate
        k += 1
    return wave


def _short(knobs: Knobs, rng: Rng) -> Floats:
    wave, _ = knobs.choice("kind", (_struck, _drum, _crumple, _burst))(knobs, rng)
    wave = wave[: samples(knobs.log("cut", 0.02, 0.4))]
    return wave * fade(len(wave), 0.0, 0.01)


# --- textures of nature --------------------------------------------------------------------------------------------


def _wind(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """Wind, surf, breathing, a waterfall: noise whose colour and level move slowly, and together or not."""
    parts = max(8, round(n / SAMPLE_RATE * 25))
    rate = knobs.log("gusts", 0.15, 3)
    move = np.interp(np.linspace(0, 1, parts), np.linspace(0, 1, n), walk(n, rng, rate))
    centres = knobs.log("pitch", 120, 3000) * 2 ** (knobs.uniform("reach", 0, 1.2) * move)
    gains = bumps(
        centres[:, None].clip(50, 7800), centres[:, None] * knobs.log("width", 0.08, 4), np.ones((parts, 1))
    )
    wave = level(shaped(noise(n, rng), gains * curve(knobs, "colour", 5)))
    swell = (
        walk(n, rng, rate)
        if knobs.chance("apart", 0.5)
        else np.interp(np.linspace(0, 1, n), np.linspace(0, 1, parts), move)
    )
    return wave * np.exp(knobs.uniform("swell", 0, 1.3) * swell)


def _grains(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """Rain, fire, frying, applause, hail, leaves: many small impacts, some of them louder."""
    rate = knobs.log("rate", 4, 4000) * np.exp(
        knobs.uniform("gusts", 0, 1) * walk(n, rng, knobs.log("gust rate", 0.3, 3))
    )
    wave = np.zeros(n)
    for layer in range(knobs.integer("layers", 1, 2)):
        part = knobs.child(f"layer {layer}")
        ratios, decays, levels = _modes(part)
        excited = sparse(n, rng, rate, part.uniform("spread", 3, 12))
        wave += level(
            ring(
                excited,
                part.log("pitch", 200, 5000) * ratios[:7],
                part.log("decay", 0.002, 0.08) * decays[:7],
                levels[:7],
            )
        )
    bed = shaped(noise(n, rng, knobs.uniform("bed tilt", -8, 2)), curve(knobs, "bed", 6))
    return level(wave) + knobs.log("bed level", 0.01, 1) * level(bed)


def _bubbles(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """A stream, boiling, pouring, a drip: bubbles, whose pitch rises as they decay (van den Doel 2005)."""
    wave = np.zeros(n)
    rate, centre, spread = (
        knobs.log("rate", 2, 120),
        knobs.log("pitch", 250, 3000),
        knobs.uniform("spread", 0.05, 0.7),
    )
    length = samples(knobs.log("length", 0.02, 0.2))
    for at in rng.uniform(0, n / SAMPLE_RATE, size=rng.poisson(rate * n / SAMPLE_RATE)):
        hertz = centre * math.exp(spread * float(rng.standard_normal()))
        rising = hertz * (1 + knobs.uniform("rise", 0, 0.8) * line(length, 0, 1))
        place(
            wave,
            np.sin(phase(rising.clip(50, 7500)))
            * decay(length, length / SAMPLE_RATE)
            * gain(rng.normal(0, 5)),
            float(at),
        )
    return level(wave) + knobs.log("bed", 0.005, 0.6) * noise(n, rng, knobs.uniform("tilt", -6, 1))


def _insects(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """Crickets, cicadas, frogs in chorus, bees: a tone in pulses, in bouts, by one or many."""
    wave = np.zeros(n)
    for k in range(knobs.integer("many", 1, 3)):
        hertz = knobs.log("pitch", 250, 6500) * (1 + 0.04 * float(rng.standard_normal()))
        rate = knobs.log("pulses", 8, 220)
        tone = partials(
            hertz * (1 + knobs.uniform("unsteady", 0, 0.08) * walk(n, rng, 8)), (1, 2, 3), (1, 0.3, 0.1), rng
        )
        pulses = (0.5 + 0.5 * np.sin(phase(np.full(n, rate) * (1 + 0.01 * k)))) ** knobs.log("sharp", 0.3, 6)
        bouts = signal.lfilter(
            [0.002],
            [1, -0.998],
            (np.sin(phase(np.full(n, knobs.log("bouts", 0.4, 6)))) > knobs.uniform("rest", -1.2, 0.6)).astype(
                float
            ),
        )
        wave += tone * pulses * bouts
    return level(wave) + knobs.log("air", 0.005, 0.5) * noise(n, rng, -3)


def _crowd(knobs: Knobs, n: int, rng: Rng) -> Floats:
    """Many voices, of people or animals, at once."""
    wave = np.zeros(n)
    kind = knobs.choice("of", (_syllable, _call, _chirp, _laugh))
    for k in range(knobs.integer("voices", 3, 8)):
        one = knobs.child(f"voice {k}") if knobs.chance("mixed", 0.5) else knobs.nudged(k, 0.15)
        event, _ = kind(one, rng)
        for at in rng.uniform(0, n / SAMPLE_RATE, size=rng.integers(2, 9)):
            place(wave, event * gain(rng.normal(0, 4)), float(at))
    return wave


# --- individuals ---------------------------------------------------------------------------------------------------

EVENTS: tuple[Event, ...] = (
    _struck, _plucked, _drum, _burst, _blown, _chord, _modulated, _call, _syllable, _chirp, _laugh, _whoosh, _squeak,
    _crumple, _beep,
)  # fmt: skip
TEXTURES: tuple[Texture, ...] = (_engine, _hum, _ticking, _wind, _grains, _bubbles, _insects, _crowd)

_DRAWN: tuple[Event, ...] = (*EVENTS, _call, _call, _syllable, _chirp, _struck)
"""Events as they are drawn: voices and struck bodies, which vary most, more often."""

NUDGE = 0.05
"""Standard deviation of what differs between events of one individual, as a share of a setting's range."""


def sound(knobs: Knobs, n: int, rng: Rng) -> Sound:
    """Return what an individual sounds like over a clip: events in its rhythm, or a texture.

    Args:
        knobs: The individual.
        n: Samples.
        rng: Draws the events of this clip.
    """
    number = knobs.integer("kind", 0, len(_DRAWN) + len(TEXTURES) - 1)
    if number < len(TEXTURES):
        texture = TEXTURES[number]
        return Sound(name_of(texture), peak(_coming_and_going(texture(knobs, n, rng), knobs, rng)))
    kind = _DRAWN[number - len(TEXTURES)]
    found = Sound(name_of(kind), np.zeros(n))
    period = knobs.log("interval", 0.12, 2.2)
    group, pause = knobs.integer("group", 1, 8), knobs.log("pause", 0.2, 2.5)
    jitter = knobs.uniform("irregular", 0, 0.5)
    at, seconds, k = rng.uniform(0.0, 0.6), n / SAMPLE_RATE, 0
    made: list[tuple[Floats, float]] = []
    while at < seconds - 0.1:
        if len(made) < 5:  # some takes of the event, which then return
            made.append(kind(knobs.nudged(int(rng.integers(1 << 30)), NUDGE), rng))
        wave, height = made[-1] if k < len(made) else made[int(rng.integers(len(made)))]
        strength = gain(-abs(float(rng.normal(0, knobs.uniform("dynamics", 0, 6)))))
        place(found.wave, wave * strength, float(at))
        found.onsets.append((float(at), strength, height))
        k += 1
        at += period * (1 + jitter * float(rng.uniform(-1, 1)))
        at += 0.6 * len(wave) / SAMPLE_RATE
        if k % group == 0:
            at += pause * rng.uniform(0.6, 1.4)
    return found


def name_of(kind: Event | Texture) -> str:
    """Return the name of a kind of sound, as in :class:`Sound`."""
    return kind.__name__.removeprefix("_")


def _coming_and_going(wave: Floats, knobs: Knobs, rng: Rng) -> Floats:
    """Return a texture as it is, or a part of it between silences."""
    if not knobs.chance("comes and goes", 0.4):
        return wave
    n, begin, length = len(wave), rng.uniform(0, 0.5), rng.uniform(0.3, 1.0)
    first, last = round(begin * n), min(n, round((begin + length) * n))
    kept = np.zeros(n)
    kept[first:last] = fade(last - first, knobs.log("comes", 0.02, 1), knobs.log("goes", 0.02, 1))
    return wave * kept
