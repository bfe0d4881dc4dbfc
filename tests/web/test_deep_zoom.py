"""Large photos in tiles over HTTP: one audited description, tiles for those who asked for it, sharp where one looks."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from adapter.bridge import Bridge
from adapter.capture.deep_zoom import OVERLAP, TILE, keep_tiles, levels_of
from adapter.capture.inspection import MAX_PIXELS
from adapter.capture.renditions import upright
from adapter.db.tables import audit_event, binary
from adapter.records import get
from tests.web.conftest import Browser

SIZE = (3000, 1100)


@pytest.fixture(scope="module")
def photo() -> bytes:
    """Fine detail everywhere, stored on its side."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(60, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6  # turn clockwise to see it
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0, exif=exif)
    return out.getvalue()


@pytest.fixture
def photo_id(clinician: Browser, photo: bytes) -> str:
    answer = clinician.capture(photo)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _address(about: dict[str, object], level: int, column: int, row: int) -> str:
    return str(about["url"]).format(level=level, column=column, row=row)


def _tile(browser: Browser, about: dict[str, object], *place: int) -> Image.Image:
    answer = browser.get(_address(about, *place))
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_tiles_put_together_are_the_photo_upright_at_full_resolution(
    clinician: Browser, photo_id: str, photo: bytes
) -> None:
    about = clinician.get(f"/captures/{photo_id}/tiles").json()
    assert (about["width"], about["height"]) == SIZE
    whole = Image.new("RGB", SIZE)
    for row in range(-(-SIZE[1] // TILE)):
        for column in range(-(-SIZE[0] // TILE)):
            left, top = max(0, column * TILE - OVERLAP), max(0, row * TILE - OVERLAP)
            whole.paste(_tile(clinician, about, 0, column, row), (left, top))
    expected, _ = upright(photo, max(SIZE), max_pixels=MAX_PIXELS)
    apart = np.asarray(whole, np.float32) - np.asarray(expected, np.float32)
    assert 10 * np.log10(255**2 / np.mean(apart**2)) > 38  # dB: what the eye takes for the same


def test_each_level_is_half_the_one_before_and_the_last_is_no_larger_than_the_display(
    clinician: Browser, photo_id: str
) -> None:
    about = clinician.get(f"/captures/{photo_id}/tiles").json()
    assert about["levels"] == levels_of(*SIZE) == 3
    assert _tile(clinician, about, 2, 1, 0).size == (750 - TILE + OVERLAP, 275)
    assert clinician.get(_address(about, 3, 0, 0)).status_code == 404
    assert clinician.get(_address(about, 0, 6, 0)).status_code == 404


def test_tiles_are_cut_once_and_lie_sealed(clinician: Browser, bridge: Bridge, photo_id: str) -> None:
    first, again = (clinician.get(f"/captures/{photo_id}/tiles").json() for _ in range(2))
    assert first == again
    with bridge.db.snapshot() as tx:
        kept = select(func.count()).where(
            binary.c.security_context == f"Media/{photo_id}", binary.c.rendition == "tiles"
        )
        assert tx.execute(kept).scalar_one() == 1
    for file in (bridge.settings.data_dir / "blobs").rglob("*"):
        assert not file.is_file() or b"0/0_0.jpg" not in file.read_bytes()


def test_two_who_cut_at_once_keep_one(clinician: Browser, bridge: Bridge, photo_id: str) -> None:
    for cut in (b"first", b"second"):
        sealed = bridge.vault.seal(cut)
        with bridge.db.transaction() as tx:
            keep_tiles(tx, bridge, f"Media/{photo_id}", sealed, [get(tx, "Media", photo_id)])
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).where(binary.c.rendition == "tiles")).scalar_one() == 1


def test_one_look_at_full_resolution_is_one_entry_and_no_tile_is_given_without_it(
    clinician: Browser, colleague: Browser, bridge: Bridge, photo_id: str
) -> None:
    def told() -> int:
        with bridge.db.snapshot() as tx:
            return tx.execute(select(func.count()).select_from(audit_event)).scalar_one()

    about = clinician.get(f"/captures/{photo_id}/tiles").json()
    before = told()
    _tile(clinician, about, 0, 0, 0)
    assert told() == before
    assert clinician.get(f"/captures/{photo_id}/tiles/{'0' * 32}/0/0/0").status_code == 404
    assert colleague.get(_address(about, 0, 0, 0)).status_code == 404
    assert colleague.get(f"/captures/{photo_id}/tiles").status_code == 404
    clinician.get(f"/captures/{photo_id}/tiles")
    assert told() > before


def test_a_photo_no_larger_than_its_display_has_one_level(clinician: Browser) -> None:
    out = io.BytesIO()
    Image.new("RGB", (1200, 900), (120, 100, 90)).save(out, "JPEG")
    small = clinician.capture(out.getvalue()).json()["id"]
    assert clinician.get(f"/captures/{small}/tiles").json()["levels"] == 1
