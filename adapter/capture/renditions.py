"""Display and thumbnail copies of a photo: upright, sRGB, opaque, free of metadata, the same bytes for the same input.

Decoders only ever see the clean copy: no EXIF, no second pictures, no animation, so whole classes of decoder trouble
never reach them. The structural walk has bounded pixels, frames, tiles and passes before; `bounded.py` adds a limit on
time and memory for what no structure check can foresee.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Mapping
from typing import cast

from PIL import Image, ImageCms, ImageFile
from pillow_heif import register_heif_opener

from adapter.capture.formats import ImageFormat
from adapter.capture.inspection import MAX_PIXELS, Inspection, inspect
from adapter.capture.rendition import DEFAULT_SIZES, Rendition
from adapter.errors import Unprocessable

CONTENT_TYPE = "image/jpeg"
QUALITY = 85

register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_DECODERS = {
    ImageFormat.JPEG: "JPEG",
    ImageFormat.PNG: "PNG",
    ImageFormat.HEIC: "HEIF",
    ImageFormat.WEBP: "WEBP",
    ImageFormat.TIFF: "TIFF",
}
_TURNED_BY_DECODER = frozenset({ImageFormat.HEIC, ImageFormat.TIFF})
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# What Pillow and the libraries under it raise for bad pixels, gathered from their sources and from fuzzing. Want of
# memory is told by who limits it (adapter.bounded).
_DECODER_ERRORS = (
    OSError,
    AssertionError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
    UserWarning,
    Image.DecompressionBombWarning,
)


def render(
    data: bytes, sizes: Mapping[str, int] = DEFAULT_SIZES, *, max_pixels: int = MAX_PIXELS
) -> dict[str, Rendition]:
    """One rendition per name, its longest edge at most `sizes[name]` pixels (never enlarged), from one decoding pass.

    Raises what `inspect` raises, and Unprocessable when the pixels cannot be decoded.
    """
    picture, _ = upright(data, max(sizes.values()), max_pixels=max_pixels)
    renditions: dict[str, Rendition] = {}
    for name, edge in sorted(sizes.items(), key=lambda item: -item[1]):
        picture = _fitted(picture, edge)
        renditions[name] = Rendition(_encoded(picture), CONTENT_TYPE, picture.width, picture.height)
    return renditions


def upright(data: bytes, edge: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Inspection]:
    """The photo as it is meant to be seen: upright, sRGB, opaque, the longest edge at most `edge`; errors as `render`.

    Its pixels cover the photo exactly: pixel (x, y) of n across is centred at (x + 0.5) * width / n - 0.5.
    """
    found = inspect(data, max_pixels=max_pixels)
    try:
        return _decode(found, found.view.assemble(data), edge), found
    except _DECODER_ERRORS as error:
        raise Unprocessable(
            f"The pixels of this {found.format.label} photo cannot be decoded. Export it again from its source."
        ) from error


def _decode(found: Inspection, clean: bytes, edge: int) -> Image.Image:
    """Upright sRGB pixels, the longest edge at most `edge`."""
    with Image.open(io.BytesIO(clean), formats=[_DECODERS[found.format]]) as image:
        scale = min(1.0, edge / max(image.size))
        drafted = image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        profile = image.info.get("icc_profile")
        picture = _fitted(_resizable(image), edge, drafted[1] if drafted else None)
    if found.orientation in _UPRIGHT and found.format not in _TURNED_BY_DECODER:
        picture = picture.transpose(_UPRIGHT[found.orientation])
    picture = _srgb(_opaque(picture), profile)
    picture.info.clear()
    return picture


def _resizable(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be resampled: L, RGB, CMYK or, when anything is transparent, RGBA."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("I", "F"):
        return _stretched(image.convert("F"))
    if image.mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """32-bit grey has no agreed white: the darkest pixel becomes black, the brightest white."""
    low, high = cast(tuple[float, float], image.getextrema())
    scale = 255 / (high - low or 1)
    return image.point(lambda value: value * scale - low * scale).convert("L")


def _fitted(picture: Image.Image, edge: int, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """`box` is the part that holds the photo: a JPEG scaled while decoding is rounded up to whole pixels."""
    width, height = box[2:] if box else picture.size
    scale = min(1.0, edge / max(width, height))
    if scale == 1 and (width, height) == picture.size:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, box)


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A"))
    return paper


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Through the embedded ICC profile when it fits the pixels; phones tag Display P3, which looks dull untreated."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space == _PROFILE_SPACES.get(picture.mode):
                return _converted(picture, source)
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile must not cost the photo
    return picture.convert("RGB")


def _converted(picture: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    return converted if converted is not None else picture.convert("RGB")


def _encoded(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, progressive=True)
    return content.getvalue()
