"""Regional and close-up "photographs" that show nobody: skin from light to dark, with moles, drawn from a seed.

They carry what a phone writes (capture time with zone, orientation, make, GPS), so that a demo shows it being read and
being taken away again.
"""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

Plane = NDArray[np.float32]  # (height, width)

_TONES = np.array(  # skin in even light, from light to dark (sRGB)
    [(241, 211, 190), (228, 184, 156), (207, 158, 128), (173, 123, 95), (130, 90, 69), (96, 67, 54)], np.float32
)
_REDNESS = np.array([0.010, -0.012, -0.009], np.float32)  # what more blood under the skin does to each channel
_PIGMENT = np.array([-0.42, -0.56, -0.62], np.float32)  # what a mole at full strength does
_WIDTH = 2016  # lengths below are pixels of a picture this wide


def draw_view(
    seed: int, *, taken_at: datetime, lesion_growth: float = 1.0, size: tuple[int, int] = (2016, 1512)
) -> bytes:
    """A JPEG as a phone would save it. The same seed gives the same skin; `lesion_growth` scales its main mole."""
    chance = np.random.default_rng(seed)
    scale = size[0] / _WIDTH
    tone = _tone(float(chance.uniform(0, len(_TONES) - 1)))
    relief = _clouds(chance, size, 3) * 0.016 + _clouds(chance, size, 9) * 0.012 + _lines(chance, size) * 0.008
    blood, pigment = _clouds(chance, size, 260 * scale), np.zeros((size[1], size[0]), np.float32)
    for _ in range(26):
        at = chance.uniform(0, size[0]), chance.uniform(0, size[1])
        _add_mole(pigment, chance, at, radius=float(chance.uniform(3, 11)) * scale, strength=chance.uniform(0.25, 0.75))
    main = (size[0] * 0.52, size[1] * 0.47)
    _add_mole(pigment, chance, main, radius=52 * scale * lesion_growth, strength=0.95)
    skin = tone * (1 + blood[..., None] * _REDNESS) * (1 + pigment[..., None] * _PIGMENT)
    lit = skin * (_light(chance, size) * (1 + relief))[..., None]
    file = io.BytesIO()
    Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90, exif=_exif(taken_at))
    return file.getvalue()


def _tone(place: float) -> NDArray[np.float32]:
    """Between the listed tones, `place` 0 being the lightest."""
    lower = int(place)
    upper = min(lower + 1, len(_TONES) - 1)
    return np.asarray(_TONES[lower] + (_TONES[upper] - _TONES[lower]) * np.float32(place - lower), np.float32)


def _clouds(chance: np.random.Generator, size: tuple[int, int], grain: float) -> Plane:
    """Smooth noise about zero, most of it within one; `grain` is the size of its features in pixels."""
    few = (max(2, round(size[0] / grain)), max(2, round(size[1] / grain)))
    noise = Image.fromarray(chance.standard_normal((few[1], few[0]), np.float32))
    return np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float32)


def _lines(chance: np.random.Generator, size: tuple[int, int]) -> Plane:
    """The fine criss-cross of skin: noise drawn out along two directions."""
    side = max(size) * 3 // 4  # at half the size, with room to turn
    room = (side - size[0] // 2) // 2
    found = np.zeros((size[1], size[0]), np.float32)
    for across, angle in ((14, 28), (11, -37)):
        noise = Image.fromarray(chance.standard_normal((max(2, side // 3), max(2, side // across)), np.float32))
        drawn = noise.resize((side, side), Image.Resampling.BILINEAR).rotate(angle, Image.Resampling.BILINEAR)
        box = (room, room, room + size[0] // 2, room + size[1] // 2)
        found += np.asarray(drawn.crop(box).resize(size, Image.Resampling.BILINEAR), np.float32)
    return found


def _light(chance: np.random.Generator, size: tuple[int, int]) -> Plane:
    """A rounded part of the body under one lamp: brightest beside the middle, darker towards two edges."""
    across, down = np.meshgrid(
        np.linspace(-1, 1, size[0], dtype=np.float32), np.linspace(-1, 1, size[1], dtype=np.float32)
    )
    lamp, tilt = float(chance.uniform(-0.25, 0.25)), float(chance.uniform(-0.3, 0.3))
    turned = down + tilt * across - lamp
    light = 1.02 - 0.17 * turned**2 - 0.05 * (across - lamp) ** 2
    return np.asarray(light, np.float32)


def _add_mole(
    pigment: Plane, chance: np.random.Generator, at: tuple[float, float], *, radius: float, strength: float
) -> None:
    """Darken around `at`: an uneven outline with a soft edge, a little patchy inside."""
    reach = int(radius * 2.2) + 2
    x, y = int(at[0]), int(at[1])
    rows = slice(max(0, y - reach), max(0, min(pigment.shape[0], y + reach)))
    columns = slice(max(0, x - reach), max(0, min(pigment.shape[1], x + reach)))
    down, across = np.mgrid[rows, columns].astype(np.float32)
    wobble, patches, stretch = (
        chance.uniform(0, 2 * np.pi, 3),
        chance.uniform(0, 2 * np.pi, 2),
        chance.uniform(0.8, 1.25),
    )
    across, down = (across - at[0]) / (radius * stretch), (down - at[1]) * stretch / radius
    angle: Any = np.arctan2(down, across)
    outline = 1 + sum(0.09 / n * np.sin(n * angle + turn) for n, turn in zip((1, 2, 3), wobble, strict=True))
    distance = np.hypot(across, down) / outline
    edge = 1 / (1 + np.exp((distance - 1) * 9))
    inside = 0.86 + 0.14 * np.sin(3.1 * across + patches[0]) * np.sin(2.7 * down + patches[1])
    pigment[rows, columns] = np.maximum(pigment[rows, columns], (strength * edge * inside).astype(np.float32))


def _exif(taken_at: datetime) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Sandbox", "Phone 1"
    private = exif.get_ifd(ExifTags.IFD.Exif)
    private[ExifTags.Base.DateTimeOriginal] = taken_at.strftime("%Y:%m:%d %H:%M:%S")
    offset = taken_at.strftime("%z")
    private[ExifTags.Base.OffsetTimeOriginal] = f"{offset[:3]}:{offset[3:5]}"
    private[ExifTags.Base.BodySerialNumber] = "SN-0000-SANDBOX"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
    gps[ExifTags.GPS.GPSLatitude] = (IFDRational(47), IFDRational(22), IFDRational(0))
    gps[ExifTags.GPS.GPSLongitude] = (IFDRational(8), IFDRational(32), IFDRational(0))
    return exif
