"""PNG, WebP and TIFF: complete or refused, everything but the picture gone."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from adapter.capture.inspection import inspect
from adapter.errors import DermBridgeError, TooLarge, Unprocessable, UnsupportedMedia

ORIENTATION = 0x0112


def clean(data: bytes) -> bytes:
    return inspect(data).view.assemble(data)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_nothing_but_pixels_and_orientation_survives(format_, orientation, photo, opened, secrets):
    original = photo(format_, orientation=orientation)
    left = clean(original)
    assert [secret for secret in secrets if secret in left] == []
    assert opened(left).tobytes() == opened(original).tobytes()
    assert inspect(left).orientation == orientation
    assert {"GPS position", "device serial number", "owner or author name"} <= set(inspect(original).removed)
    if format_ != "TIFF":
        assert dict(opened(left).getexif()) == ({ORIENTATION: orientation} if orientation > 1 else {})


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_with_its_reason(format_, share, photo):
    whole = photo(format_)
    with pytest.raises(Unprocessable, match="truncated"):
        inspect(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_what_follows_the_picture_is_cut(format_, photo):
    original = photo(format_)
    assert b"appended" not in clean(original + b"appended secret")


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_the_size_limit_holds(format_, photo):
    with pytest.raises(TooLarge):
        inspect(photo(format_), max_pixels=1000)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_an_animation_is_refused(format_, scene):
    content = io.BytesIO()
    scene().save(content, format_, save_all=True, append_images=[scene(mode="L").convert("RGB")])
    with pytest.raises(Unprocessable, match="animation"):
        inspect(content.getvalue())


def test_a_png_with_a_wrong_checksum_is_refused(photo):
    broken = bytearray(photo("PNG"))
    broken[broken.index(b"IDAT") + 10] ^= 1
    with pytest.raises(Unprocessable, match="checksum"):
        inspect(bytes(broken))


@pytest.mark.parametrize("name", [b"prIv", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"sPLT", b"eXIf"])
def test_a_png_chunk_that_shapes_no_pixel_is_dropped(name, photo):
    original = photo("PNG")
    original = original[:33] + chunk(name, b"hidden serial 4711") + original[33:]
    assert b"hidden serial" not in clean(original)


def test_a_png_with_an_unknown_critical_chunk_is_refused(photo):
    original = photo("PNG")
    with pytest.raises(Unprocessable, match="no standard decoder"):
        inspect(original[:33] + chunk(b"CRIT", b"") + original[33:])


def test_png_colour_and_transparency_chunks_stay(photo, scene, opened):
    original = photo("PNG", scene(mode="P"), transparency=3, dpi=(300, 300), icc_profile=b"")
    left = opened(clean(original))
    assert left.info["transparency"] == 3
    assert left.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_orientation_that_imagemagick_wrote_as_text_is_kept(request):
    path = request.path.parents[2] / "data" / "malformed" / "exif_imagemagick_orientation.png"
    assert inspect(path.read_bytes()).orientation == inspect(clean(path.read_bytes())).orientation == 3


def test_a_webp_tells_its_new_size_and_flags(photo):
    left = clean(photo("WEBP"))
    assert int.from_bytes(left[4:8], "little") == len(left) - 8
    assert left[12:16] == b"VP8X"
    assert left[20] & 0x0C == 0
    assert clean(photo("WEBP", orientation=6))[20] & 0x0C == 0x08


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 60}])
def test_webp_transparency_survives(options, photo, scene, opened):
    image = scene(mode="RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    original = photo("WEBP", image, **options)
    assert opened(clean(original)).tobytes() == opened(original).tobytes()


def test_webp_headers_that_disagree_are_refused(photo):
    forged = bytearray(photo("WEBP"))
    forged[24] += 1
    with pytest.raises(Unprocessable, match="disagree"):
        inspect(bytes(forged))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_stays_valid_in_place(compression, photo, opened, secrets):
    original = photo("TIFF", compression=compression)
    left = clean(original)
    assert opened(left).tobytes() == opened(original).tobytes()
    assert not [secret for secret in secrets if secret in left]
    tags = set(opened(left).tag_v2)
    assert not tags & {700, 33723, 34665, 34853, 305, 306, 315, 316, 270, 271, 272}


def test_a_tiff_whose_pixels_are_missing_is_refused(photo, opened):
    original = photo("TIFF")
    (offset,) = opened(original).tag_v2[273]
    with pytest.raises(DermBridgeError, match="truncated"):
        inspect(original[: offset + 100])


def test_a_tiff_of_several_pages_is_refused(scene):
    content = io.BytesIO()
    scene().save(content, "TIFF", save_all=True, append_images=[scene()])
    with pytest.raises(Unprocessable, match="several pages"):
        inspect(content.getvalue())


def test_a_tiff_thumbnail_page_is_dropped(scene):
    content = io.BytesIO()
    preview = scene(24, 16)
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    scene().save(content, "TIFF", save_all=True, append_images=[preview])
    found = inspect(content.getvalue())
    assert "embedded thumbnail" in found.removed
    assert getattr(Image.open(io.BytesIO(clean(content.getvalue()))), "n_frames", 1) == 1


def test_a_camera_raw_file_is_refused_by_name(photo):
    with pytest.raises(UnsupportedMedia, match="camera raw"):
        inspect(photo("TIFF", exif=None, tiffinfo={50706: b"\x01\x04\0\0"}))


def test_tiff_tiles_larger_than_the_picture_explains_are_refused():
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 4)]
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    with pytest.raises(TooLarge, match="tiles"):
        inspect(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(4))


def test_jpeg_strips_with_metadata_of_their_own_are_refused(photo):
    original = bytearray(photo("TIFF", compression="jpeg"))
    marker = original.index(b"\xff\xc0")
    original[marker : marker + 2] = b"\xff\xe1"
    with pytest.raises(UnsupportedMedia, match="JPEG strips"):
        inspect(bytes(original))
