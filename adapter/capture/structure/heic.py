"""HEIC: the primary picture and what it is made of stay, byte for byte and in place; every other item goes.

EXIF, XMP, thumbnails, depth and gain maps and further pictures are taken out of the item tables and their bytes are
blanked; `irot` and `imir` keep the picture upright. A `free` box fills the room in `meta`, so no offset moves.
"""

from __future__ import annotations

from collections import Counter

from adapter.capture import exif
from adapter.capture.structure.boxes import HEIC, Box, Reference, boxes
from adapter.capture.structure.heic_meta import Meta, read_meta
from adapter.capture.structure.heic_rewrite import rewritten
from adapter.capture.structure.model import TRAILER, Structure, check_pixels, malformed, truncated, unpack
from adapter.errors import TooLarge, UnsupportedMedia
from adapter.records.clean_view import CleanView, Keep, Literal, Segment

_CODED, _DERIVED = b"hvc1", frozenset({b"grid", b"iden"})
_ALPHA = (b"urn:mpeg:hevc:2015:auxid:1\0", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
_MAX_EXIF = 1 << 20
MAX_PICTURES = 2  # the primary picture and its alpha plane
# Orientation as (mirrored left-right, then quarter turns clockwise); EXIF numbers them so (CIPA DC-008, tag 274).
_ORIENTATIONS = {(0, 0): 1, (1, 0): 2, (0, 2): 3, (1, 2): 4, (1, 3): 5, (0, 1): 6, (1, 1): 7, (0, 3): 8}


def walk(data: bytes, max_pixels: int) -> Structure:
    top = boxes(data, 0, len(data))
    meta = read_meta(data, top)
    width, height, orientation = _shape(data, meta, max_pixels)
    kept_ids = _check_parts(data, meta, max_pixels)
    extents = {id_: _extents(meta, id_) for id_ in kept_ids}
    block = _exif_block(data, meta)
    facts = exif.read(block)
    view, dropped = _view(data, top, meta, extents)
    return Structure(
        width=width,
        height=height,
        orientation=orientation,
        exif=block,
        facts=facts,
        has_icc=any(
            box.name == b"colr" and data[box.body : box.body + 4] in (b"prof", b"rICC")
            for box in meta.properties_of(meta.primary_id)
        ),
        dropped=tuple(_kinds(meta, kept_ids, bool(facts.kinds))) + dropped,
        view=view,
    )


def _shape(data: bytes, meta: Meta, max_pixels: int) -> tuple[int, int, int]:
    """Stored width and height (after the clean aperture) and orientation of the primary picture."""
    width, height = _declared(data, meta, meta.primary_id)
    check_pixels(HEIC, width, height, max_pixels)
    mirrored = turns = 0
    for box in meta.properties_of(meta.primary_id):
        if box.name == b"clap":
            w_n, w_d, h_n, h_d = unpack(HEIC, ">IIII", data, box.body)
            if not w_d or not h_d or not 0 < w_n <= width * w_d or not 0 < h_n <= height * h_d:
                raise malformed(HEIC, "its clean aperture lies outside the picture")
            width, height = round(w_n / w_d), round(h_n / h_d)
        elif box.name == b"irot":
            angle = unpack(HEIC, ">B", data, box.body)[0] & 3
            turns = (turns - angle) % 4
            width, height = (height, width) if angle % 2 else (width, height)
        elif box.name == b"imir":
            axis = unpack(HEIC, ">B", data, box.body)[0] & 1
            mirrored, turns = mirrored ^ 1, (-turns + (0 if axis else 2)) % 4
    orientation = _ORIENTATIONS[mirrored, turns]
    return (height, width, orientation) if orientation >= 5 else (width, height, orientation)


def _declared(data: bytes, meta: Meta, id_: int) -> tuple[int, int]:
    for box in meta.properties_of(id_):
        if box.name == b"ispe":
            _, width, height = unpack(HEIC, ">III", data, box.body)
            return width, height
    raise malformed(HEIC, "a picture in it does not declare its size")


def _check_parts(data: bytes, meta: Meta, max_pixels: int) -> set[int]:
    """The ids the primary picture needs: itself, its tiles, its alpha plane; bounded so that no grid of grids and no
    tile used a thousand times costs more than the declared picture."""
    pictures = [meta.primary_id]
    pictures += [
        ref.from_id for ref in meta.references if ref.from_id != meta.primary_id and _is_alpha(data, meta, ref)
    ]
    if len(pictures) > MAX_PICTURES:
        raise malformed(HEIC, "its picture has more than one alpha plane")
    uses: Counter[int] = Counter()
    for id_ in pictures:
        inputs = _check_derivation(data, meta, id_, max_pixels)
        uses.update(inputs or [id_])
    sizes = {id_: _declared(data, meta, id_) for id_ in uses}
    pixels = sum(times * sizes[id_][0] * sizes[id_][1] for id_, times in uses.items())
    if pixels > 3 * max_pixels:
        raise TooLarge("This HEIC file is made of tiles that together exceed the size limit. Send a smaller version.")
    return {*pictures, *uses}


def _check_derivation(data: bytes, meta: Meta, id_: int, max_pixels: int) -> list[int]:
    inputs = meta.inputs_of(id_)
    types = {meta.items[part].type if part in meta.items else b"" for part in inputs}
    own = meta.items[id_].type if id_ in meta.items else b""
    if own == _CODED and not inputs:
        return []
    if own not in _DERIVED or types != {_CODED}:
        raise UnsupportedMedia("This HEIC file does not hold a plain HEVC photo. Export it as JPEG.")
    if own == b"grid":
        _check_grid(data, meta, id_, len(inputs), max_pixels)
    return inputs


def _check_grid(data: bytes, meta: Meta, id_: int, tiles: int, max_pixels: int) -> None:
    """ISO/IEC 23008-12 section 6.6.2.3: what the grid says must agree with its tiles and its declared size."""
    payload = b"".join(data[start:stop] for start, stop in _extents(meta, id_))
    _, flags, rows, columns = unpack(HEIC, ">BBBB", payload, 0)
    width, height = unpack(HEIC, ">II" if flags & 1 else ">HH", payload, 4)
    check_pixels(HEIC, width, height, max_pixels)
    if (rows + 1) * (columns + 1) != tiles or (width, height) != _declared(data, meta, id_):
        raise malformed(HEIC, "its grid and its tiles disagree")


def _is_alpha(data: bytes, meta: Meta, ref: Reference) -> bool:
    if ref.box.name != b"auxl" or meta.primary_id not in ref.to_ids:
        return False
    auxiliary = (box for box in meta.properties_of(ref.from_id) if box.name == b"auxC")
    return any(data.startswith(_ALPHA, box.body + 4) for box in auxiliary)


def _extents(meta: Meta, id_: int) -> list[tuple[int, int]]:
    """The byte ranges in the file that hold an item, proven to be inside."""
    row = meta.locations.get(id_)
    if row is None or not row.extents:
        raise truncated(HEIC, "a part of the picture has no place in the file")
    if row.is_external or row.method > 1 or (row.method == 1 and meta.idat is None):
        raise malformed(HEIC, "a part of the picture lies outside the file")
    rooms = [(meta.idat.body, meta.idat.stop)] if row.method == 1 and meta.idat else meta.media
    base = rooms[0][0] if row.method == 1 else 0
    ranges = [(base + offset, base + offset + length) for offset, length in row.extents]
    if not all(any(low <= start < stop <= high for low, high in rooms) for start, stop in ranges):
        raise truncated(HEIC, "a part of the picture does not lie where the file holds pictures")
    return ranges


def _exif_block(data: bytes, meta: Meta) -> bytes | None:
    """The TIFF structure inside the Exif item (ISO/IEC 23008-12 Annex A.2.1); None when absent or out of bounds."""
    ids = [item.id for item in meta.items.values() if item.type == b"Exif"]
    row = meta.locations.get(ids[0]) if ids else None
    if row is None or row.method != 0 or row.is_external:
        return None
    payload = b"".join(data[offset : offset + min(length, _MAX_EXIF)] for offset, length in row.extents[:8])
    return payload[4 + int.from_bytes(payload[:4], "big") :]


def _kinds(meta: Meta, kept_ids: set[int], has_exif_kinds: bool) -> list[str]:
    by_reference = {ref.from_id: ref.box.name for ref in meta.references if ref.box.name in (b"thmb", b"auxl")}
    by_type = {b"mime": "XMP", b"Exif": exif.SETTINGS, b"uri ": "application data"}
    by_name = {b"thmb": exif.THUMBNAIL, b"auxl": "auxiliary pictures (depth, gain map)"}
    kinds: list[str] = []
    tiles = {tile for ref in meta.references if ref.box.name == b"dimg" for tile in ref.to_ids}
    for id_, item in meta.items.items():
        if id_ in kept_ids or id_ in tiles or (item.type == b"Exif" and has_exif_kinds):
            continue
        default = by_type.get(item.type, "further pictures")
        kinds.append(by_name.get(by_reference.get(id_, b""), default))
    return kinds


def _view(
    data: bytes, top: list[Box], meta: Meta, extents: dict[int, list[tuple[int, int]]]
) -> tuple[CleanView, tuple[str, ...]]:
    ranges = [part for parts in extents.values() for part in parts]
    outside = [part for part in ranges if not meta.box.start <= part[0] < meta.box.stop]
    last = max([meta.box.stop, *[stop for _, stop in outside]])
    needed = [box for box in top if box.start < last]
    kept = list(outside)
    patches: dict[int, list[Segment]] = {meta.box.start: rewritten(data, meta, set(extents), ranges)}
    dropped: list[str] = [TRAILER] * (len(needed) < len(top))
    for box in needed:
        if box.name == b"ftyp":
            kept.append((box.start, box.stop))
        elif box.name in (b"mdat", b"free", b"skip"):
            kept.append((box.start, box.body))
        elif box is not meta.box:
            patches[box.start] = [Keep(box.start, 4), Literal(b"free"), Keep(box.start + 8, box.body - box.start - 8)]
            dropped.append("application data")
    try:
        return CleanView.in_place(data, kept, patches, stop=needed[-1].stop), tuple(dropped)
    except ValueError as error:
        raise malformed(HEIC, str(error)) from error
