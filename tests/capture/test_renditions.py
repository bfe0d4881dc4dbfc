"""Renditions are upright, sRGB, opaque, never enlarged and free of metadata."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageStat

from adapter.capture.renditions import render
from adapter.errors import DermBridgeError, Unprocessable

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
SMALL = {"display": 48, "thumbnail": 16}


def mean_difference(left: Image.Image, right: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(left.convert("RGB"), right.convert("RGB"))).mean)


def picture(data: bytes, edge: int = 1280, **options: object) -> Image.Image:
    return Image.open(io.BytesIO(render(data, {"it": edge}, **options)["it"].content))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_sample_renders_like_the_upright_reference(orientation, opened):
    upright = picture((PHOTOS / "landscape_1.jpg").read_bytes(), 320)
    turned = picture((PHOTOS / f"landscape_{orientation}.jpg").read_bytes(), 320)
    assert turned.size == upright.size == (320, 240)
    assert mean_difference(turned, upright) < 6


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_renders_upright(format_, orientation, photo, scene):
    upright = picture(photo(format_, scene(), orientation=1))
    lying = scene() if orientation == 1 else scene().transpose(_INVERSE[orientation])
    assert mean_difference(picture(photo(format_, lying, orientation=orientation)), upright) < 4


# How an upright scene must be stored so that the orientation tag turns it back (TIFF 6.0 tag 274).
_INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_sizes_bound_the_longest_edge_and_never_enlarge(photo, scene):
    renditions = render(photo("JPEG", scene(96, 64)), {"large": 500, "small": 24})
    assert {name: (one.width, one.height) for name, one in renditions.items()} == {"large": (96, 64), "small": (24, 16)}
    assert {one.content_type for one in renditions.values()} == {"image/jpeg"}


def test_a_thin_strip_keeps_at_least_one_pixel(photo, scene):
    assert picture(photo("PNG", scene(400, 2)), 16).size == (16, 1)


def test_the_large_photo_is_decoded_at_reduced_scale_with_the_same_look(photo, scene):
    assert mean_difference(picture(photo("JPEG", scene(1200, 800)), 150), scene(150, 100)) < 6


def test_nothing_of_the_metadata_reaches_a_rendition(photo, secrets):
    for one in render(photo("JPEG", orientation=6), SMALL).values():
        assert not [secret for secret in (*secrets, b"Exif", b"ICC_PROFILE", b"http://") if secret in one.content]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_pixel_mode_becomes_rgb_of_the_same_look(mode, photo, scene):
    image = scene().quantize(16) if mode == "P" else scene(mode=mode)
    assert mean_difference(picture(photo("TIFF", image)), image.convert("RGB")) < 5


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_keeps_its_shades(mode, photo):
    """16 bits scale to 8; 32 bits have no agreed white, so the brightest pixel becomes it."""
    ramp = Image.linear_gradient("L")
    wide = ramp.convert("F").point(lambda value: value * 257.0).convert("I")
    image = Image.frombytes("I;16", wide.size, _sixteen_bits(wide)) if mode == "I;16" else wide.convert(mode)
    assert mean_difference(picture(photo("TIFF", image)), ramp) < 3


def _sixteen_bits(image: Image.Image) -> bytes:
    return b"".join(value.to_bytes(2, "little") for (value,) in struct.iter_unpack("<i", image.tobytes()))


def test_sixteen_bit_colour_png_renders(scene):
    rows = b"".join(b"\0" + bytes([200, 0, 100, 0, 50, 0]) * 8 for _ in range(4))
    body = b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in (
            (b"IHDR", struct.pack(">IIBBBBB", 8, 4, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    assert _close(picture(b"\x89PNG\r\n\x1a\n" + body).getpixel((3, 2)), (200, 100, 50))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "HEIF"])
def test_transparency_becomes_white_paper(format_, photo, scene):
    image = scene(mode="RGBA")
    image.putalpha(0)
    assert _close(picture(photo(format_, image)).getpixel((20, 20)), (255, 255, 255))


def _close(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 4 for a, b in zip(left, right, strict=True))


def test_an_embedded_profile_is_converted_to_srgb(photo):
    """A LAB profile does not fit RGB pixels and is ignored; a wide-gamut one changes them as littleCMS says."""
    pixels = Image.new("RGB", (32, 32), (200, 120, 100))
    wide = _wide_gamut()
    expected = ImageCms.profileToProfile(
        pixels, ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    found = picture(photo("PNG", pixels, icc_profile=wide)).getpixel((9, 9))
    assert _close(found, expected.getpixel((9, 9)))
    assert not _close(found, (200, 120, 100))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert _close(picture(photo("PNG", pixels, icc_profile=lab)).getpixel((9, 9)), (200, 120, 100))


def _wide_gamut() -> bytes:
    """The sRGB profile with the red and green primaries exchanged for larger ones (Display P3, D50-adapted XYZ)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2919, 0.6922, 0.0419),
        b"bXYZ": (0.1572, 0.0666, 0.7841),
    }
    for name, values in primaries.items():
        row = profile.index(name, 128)
        (offset,) = struct.unpack_from(">I", profile, row + 4)
        struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in values))
    return bytes(profile)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 128])
def test_a_broken_profile_does_not_cost_the_photo(profile, photo):
    assert picture(photo("JPEG", icc_profile=profile)).size == (96, 64)


def test_undecodable_pixels_are_refused_in_words(photo):
    broken = bytearray(photo("WEBP"))
    at = broken.index(b"VP8 ") + 18
    broken[at : at + 40] = b"\xff" * 40
    broken[at - 10 : at - 7] = struct.pack("<I", 5 << 5)[:3]
    with pytest.raises(Unprocessable, match="cannot be decoded"):
        render(bytes(broken))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_photos_render_or_are_refused(photo, data):
    broken = bytearray(photo(data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "HEIF"]))))
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=5)):
        broken[at] = data.draw(st.integers(0, 255))
    try:
        renditions = render(bytes(broken), SMALL)
    except DermBridgeError:
        return
    assert renditions.keys() == SMALL.keys()
