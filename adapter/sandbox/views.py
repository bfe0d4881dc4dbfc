"""Regional and close-up "photographs" that show nobody: skin tones, texture and moles drawn from a seed.

They carry what a phone writes (capture time with zone, orientation, make, GPS), so that a demo shows it being read and
being taken away again.
"""

from __future__ import annotations

import io
import random
from datetime import datetime

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter
from PIL.TiffImagePlugin import IFDRational

_TONES = ((238, 207, 180), (214, 168, 132), (160, 112, 80), (104, 72, 52))


def draw_view(
    seed: int, *, taken_at: datetime, lesion_growth: float = 1.0, size: tuple[int, int] = (2016, 1512)
) -> bytes:
    """A JPEG as a phone would save it. The same seed gives the same skin; `lesion_growth` scales its main mole."""
    chance = random.Random(seed)  # noqa: S311 (a picture, not a secret)
    tone = chance.choice(_TONES)
    skin = _shade(Image.new("RGB", size, tone), chance)
    draw = ImageDraw.Draw(skin)
    for _ in range(24):
        _mole(draw, chance, size, tone, radius=chance.uniform(3, 12))
    _mole(draw, chance, size, tone, radius=46 * lesion_growth, at=(size[0] * 0.52, size[1] * 0.47))
    skin = ImageChops.add(skin.filter(ImageFilter.GaussianBlur(2)), _pores(size, chance), scale=1, offset=-128)
    file = io.BytesIO()
    skin.save(file, "JPEG", quality=90, exif=_exif(taken_at))
    return file.getvalue()


def _shade(skin: Image.Image, chance: random.Random) -> Image.Image:
    """Light that falls off from a point somewhere near the middle."""
    width, height = skin.size
    left, top = int(chance.uniform(0, width / 2)), int(chance.uniform(0, height / 2))
    light = (
        Image.radial_gradient("L")
        .resize((width * 3 // 2, width * 3 // 2))
        .crop((left, top, left + width, top + height))
    )
    return Image.composite(Image.eval(skin, lambda value: int(value * 0.72)), skin, light)


def _pores(size: tuple[int, int], chance: random.Random) -> Image.Image:
    """Fine texture around mid-grey, to be added to the skin."""
    small = (size[0] // 3, size[1] // 3)
    noise = Image.frombytes("L", small, chance.randbytes(small[0] * small[1]))
    soft = Image.eval(noise.filter(ImageFilter.GaussianBlur(1)), lambda value: 128 + (value - 128) // 3)
    return Image.merge("RGB", [soft.resize(size)] * 3)


def _mole(
    draw: ImageDraw.ImageDraw,
    chance: random.Random,
    size: tuple[int, int],
    tone: tuple[int, int, int],
    *,
    radius: float,
    at: tuple[float, float] | None = None,
) -> None:
    x, y = at or (chance.uniform(0, size[0]), chance.uniform(0, size[1]))
    stretch = chance.uniform(0.8, 1.3)
    for shrink, darkness in ((1.0, 0.62), (0.7, 0.5), (0.4, 0.42)):
        r = radius * shrink
        colour = tuple(int(part * darkness) for part in tone)
        draw.ellipse((x - r * stretch, y - r, x + r * stretch, y + r), fill=colour)


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
