"""HEIC: the primary picture stays in place, every other item leaves the tables and its bytes are blanked."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image, ImageOps

from adapter.capture.inspection import inspect
from adapter.errors import DermBridgeError, TooLarge, Unprocessable, UnsupportedMedia

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


def clean(data: bytes) -> bytes:
    return inspect(data).view.assemble(data)


def test_exif_and_xmp_are_gone_from_tables_and_bytes(photo, opened, secrets):
    original = photo("HEIF")
    left = clean(original)
    assert all(secret in original and secret not in left for secret in secrets)
    assert b"Exif" not in left
    assert b"application/rdf+xml" not in left
    assert opened(left).tobytes() == opened(original).tobytes()
    assert len(left) == len(original)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_the_container_and_kept_there(orientation, photo, scene, opened):
    original = photo("HEIF", orientation=orientation)
    found = inspect(original)
    assert found.orientation == orientation
    assert (found.width, found.height) == opened(original).size == opened(clean(original)).size
    turned = ImageOps.exif_transpose(_tagged(scene(), orientation))
    for corner in ((4, 4), (-5, 4), (4, -5), (-5, -5)):
        assert _near(_at(opened(clean(original)), corner), _at(turned, corner))


def _tagged(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image


def _at(image: Image.Image, corner: tuple[int, int]) -> tuple[int, ...]:
    x, y = corner
    return image.getpixel((x % image.width, y % image.height))


def _near(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("size", [(97, 65), (130, 70)])
def test_odd_sizes_are_those_of_the_clean_aperture(size, photo, scene, opened):
    original = photo("HEIF", scene(*size))
    found = inspect(original)
    assert (found.width, found.height) == opened(original).size == size


def test_tiles_stay(photo, scene, opened):
    original = photo("HEIF", scene(200, 150), tile_size=64)
    assert b"grid" in original
    assert opened(clean(original)).tobytes() == opened(original).tobytes()


def test_transparency_stays(photo, scene, opened):
    image = scene(mode="RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    original = photo("HEIF", image)
    assert opened(original).mode == "RGBA"
    assert opened(clean(original)).tobytes() == opened(original).tobytes()


def test_thumbnails_and_further_pictures_are_gone(scene, opened):
    content = io.BytesIO()
    second = Image.new("RGB", (64, 64), "yellow")
    first = scene(256, 160)
    first.info["thumbnails"] = [64]
    first.save(content, "HEIF", save_all=True, append_images=[second])
    original = content.getvalue()
    assert len(pillow_heif.open_heif(original)) == 2
    assert {"further pictures", "embedded thumbnail"} <= set(inspect(original).removed)
    assert len(pillow_heif.open_heif(clean(original))) == 1
    assert opened(clean(original)).tobytes() == opened(original).tobytes()


def test_an_iphone_photo_loses_depth_gain_map_and_thumbnail():
    original = (PHOTOS / "iphone_13_pro_max.HEIC").read_bytes()
    found = inspect(original)
    assert {"embedded thumbnail", "auxiliary pictures (depth, gain map)", "XMP", "maker note"} <= set(found.removed)
    assert found.device == "Apple iPhone 13 Pro Max"
    assert (found.width, found.height, found.orientation) == (3024, 4032, 6)
    left = pillow_heif.open_heif(clean(original))
    assert not left.info.get("aux")
    assert not left.info.get("thumbnails")
    assert b"Apple" not in clean(original).replace(b"Apple Computer", b"").replace(b"Copyright Apple Inc.", b"")
    assert left.info.get("icc_profile")


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6, 0.999])
def test_a_truncated_heic_is_refused_with_its_reason(share, photo):
    whole = photo("HEIF")
    with pytest.raises(Unprocessable, match="truncated"):
        inspect(whole[: int(len(whole) * share)])


def test_trailing_boxes_are_cut_and_strange_ones_become_filler(photo, opened):
    original = photo("HEIF")
    video = struct.pack(">I4s", 8 + 20, b"mpvd") + b"motion photo video.."
    assert clean(original + video) == clean(original)
    ftyp_size = int.from_bytes(original[:4], "big")
    meta_size = int.from_bytes(original[ftyp_size : ftyp_size + 4], "big")
    at = ftyp_size + meta_size
    mdat_at = original.index(b"mdat") - 4
    assert at == mdat_at, "the sample has its tables right before its pixels"


def test_the_size_limit_holds(photo):
    with pytest.raises(TooLarge):
        inspect(photo("HEIF"), max_pixels=1000)


def test_a_grid_that_claims_more_than_its_tiles_is_refused(photo, scene):
    original = photo("HEIF", scene(200, 150), tile_size=64)
    forged = original.replace(
        struct.pack(">BBBBHH", 0, 0, 2, 3, 200, 150), struct.pack(">BBBBHH", 0, 0, 9, 9, 200, 150)
    )
    assert forged != original
    with pytest.raises(Unprocessable, match="disagree"):
        inspect(forged)


def test_a_picture_that_is_not_hevc_is_refused(photo):
    with pytest.raises(UnsupportedMedia, match="HEVC"):
        inspect(photo("HEIF").replace(b"hvc1", b"av01"))


def test_pixels_outside_the_media_box_are_refused(photo):
    original = photo("HEIF")
    with pytest.raises(DermBridgeError):
        inspect(original.replace(b"mdat", b"junk"))
