"""A large photo in tiles, so that a phone decodes what it shows and not 48 megapixels: made when somebody first looks
closer than the display rendition allows, then kept sealed like every rendition.

The tiles of a photo are one Binary: a ZIP whose members, `0/3_2.jpg` being column 3 and row 2 of the full resolution,
are stored as they are, so that one tile costs the decryption of its own chunks. Level n is halved n times.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from adapter import governance
from adapter.access import SYSTEM
from adapter.bounded import BoundedChild
from adapter.bridge import Bridge
from adapter.capture.rendition import DEFAULT_SIZES
from adapter.errors import NotFound
from adapter.records import Stored, get, new_id
from adapter.records.binaries import OpenBinary, create_binary, find_rendition, open_binary, whole_blob
from adapter.records.confinement import patient_of
from adapter.records.vault import SealedBlob

if TYPE_CHECKING:
    from PIL import Image

TILE, OVERLAP = 510, 1
"""Pixels of a tile's edge, and what it shows of its neighbours at each side, so that no seam is seen."""
RENDITION = "tiles"
_ABOUT = "about.json"
_CONTENT_TYPE = "application/zip"
_QUALITY = 90
_TOP = DEFAULT_SIZES["display"]

# Two, as for comparisons: one huge photo does not keep everybody waiting.
_CHILDREN = [BoundedChild("adapter.capture.deep_zoom:cut", seconds=60, memory=4 << 30, nice=0) for _ in range(2)]


def describe_tiles(bridge: Bridge, media_id: str) -> dict[str, int]:
    """`{"width", "height", "tile", "overlap", "levels"}`; the tiles are cut now if nobody looked so closely before.

    Raises what `renditions.upright` raises.
    """
    context = f"Media/{media_id}"
    with bridge.db.snapshot() as tx:
        if known := find_description(tx, bridge, context):
            return known
        clean = find_rendition(tx, context, None)
        if clean is None:
            raise NotFound("this photo has no picture here")
        opened, patient_id = open_binary(tx, bridge.vault, clean), patient_of(get(tx, "Media", media_id).resource)
    child = _CHILDREN[hash(media_id) % len(_CHILDREN)]
    about, (content,) = child.call({"max_pixels": bridge.settings.max_pixels}, opened.read())
    sealed = bridge.vault.seal(content)
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, f"patient:{patient_id}")  # nobody moves or destroys the photo between look and write
        keep_tiles(tx, bridge, context, sealed, [get(tx, "Media", media_id)])
    return about


def find_description(tx: Connection, bridge: Bridge, context: str) -> dict[str, int] | None:
    """Of the tiles of `Media/x` or `Comparison/x`, None while they are not cut."""
    row = find_rendition(tx, context, RENDITION)
    if row is None:
        return None
    about: dict[str, int] = json.loads(_member(open_binary(tx, bridge.vault, row), _ABOUT))
    return about


def keep_tiles(tx: Connection, bridge: Bridge, context: str, sealed: SealedBlob, of: Sequence[Stored]) -> None:
    """What `cut` made of the photos `of`, which are one patient's; once, however many asked for it meanwhile."""
    if find_rendition(tx, context, RENDITION):
        return
    at, patient_id = bridge.now(), patient_of(of[0].resource)
    bridge.vault.keep(tx, sealed, content_type=_CONTENT_TYPE, patient_id=patient_id, at=at)
    row = whole_blob(sealed, binary_id=new_id(at), content_type=_CONTENT_TYPE, security_context=context, at=at)
    create_binary(tx, replace(row, rendition=RENDITION))
    references = [one.version_reference for one in of]
    governance.audit(tx, bridge, "photo-derived", SYSTEM, patient_id=patient_id, references=references)


def open_tile(tx: Connection, bridge: Bridge, context: str, level: int, column: int, row: int) -> bytes:
    """A JPEG. Raises NotFound."""
    tiles = find_rendition(tx, context, RENDITION)
    if tiles is None:
        raise NotFound("this is not in tiles; ask for its description first")
    return _member(open_binary(tx, bridge.vault, tiles), f"{level}/{column}_{row}.jpg")


def _member(tiles: OpenBinary, name: str) -> bytes:
    try:
        with zipfile.ZipFile(_Seekable(tiles)) as archive:
            return archive.read(name)
    except KeyError:
        raise NotFound("there is no such tile") from None


class _Seekable(io.RawIOBase):
    """An open Binary as `zipfile` reads it: only the chunks asked for are decrypted."""

    def __init__(self, opened: OpenBinary) -> None:
        self._opened, self._at = opened, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._opened.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._opened.size if size < 0 else min(self._at + size, self._opened.size)
        found = b"".join(self._opened.iter(self._at, stop)) if stop > self._at else b""
        self._at += len(found)
        return found


def levels_of(width: int, height: int) -> int:
    """How often a photo is halved until the display rendition shows as much."""
    return next(count for count in range(32) if max(width, height) >> count <= _TOP) + 1


# --- in the child ---------------------------------------------------------------------------------------------------


def cut(request: dict[str, Any], contents: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The task of the child: one photo in, all its tiles out, upright and in sRGB as every rendition."""
    from adapter.capture.renditions import upright

    picture, _ = upright(contents[0], 1 << 30, max_pixels=request["max_pixels"])
    about, content = tiles_of(picture)
    return about, [content]


def tiles_of(picture: Image.Image) -> tuple[dict[str, int], bytes]:
    """The description and the ZIP."""
    levels = levels_of(*picture.size)
    about = {"width": picture.width, "height": picture.height, "tile": TILE, "overlap": OVERLAP, "levels": levels}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_ABOUT), json.dumps(about))
        for level in range(levels):
            picture = picture.reduce(2) if level else picture
            for name, tile in _tiles(picture):
                archive.writestr(zipfile.ZipInfo(f"{level}/{name}.jpg"), _jpeg(tile))
    return about, out.getvalue()


def _tiles(picture: Image.Image) -> list[tuple[str, Image.Image]]:
    columns, rows = (-(-edge // TILE) for edge in picture.size)
    return [(f"{x}_{y}", picture.crop(_box(picture, x, y))) for y in range(rows) for x in range(columns)]


def _box(picture: Image.Image, x: int, y: int) -> tuple[int, int, int, int]:
    left, top = max(0, x * TILE - OVERLAP), max(0, y * TILE - OVERLAP)
    right, bottom = min(picture.width, (x + 1) * TILE + OVERLAP), min(picture.height, (y + 1) * TILE + OVERLAP)
    return left, top, right, bottom


def _jpeg(tile: Image.Image) -> bytes:
    content = io.BytesIO()
    tile.save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return content.getvalue()
