"""What the bounded child does of a comparison: decode, align, find changes, draw."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from adapter.capture.deep_zoom import tiles_of
from adapter.compare.alignment import Alignment, align
from adapter.compare.changes import find_changes
from adapter.compare.files import change_json
from adapter.compare.landmarks import align_by_landmarks
from adapter.compare.lattice import lattice
from adapter.compare.prepared import Prepared, prepare
from adapter.compare.render import aligned_jpeg, aligned_whole, change_png, moved, overlay_jpeg
from adapter.measure.child import SHOWN, labelled_jpeg, normalised, shot_of

_KEPT = 24
_prepared: OrderedDict[str, Prepared] = OrderedDict()
_threads = ThreadPoolExecutor(2)


def compare(request: dict[str, Any], contents: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """`{"photos": [left id, right id], "max_pixels", "landmarks", "make"}` and both files. `make` "pictures": what was
    found and, with a verdict that allows it, the pictures aligned (JPEG), overlay (JPEG) and change (PNG), all in
    LEFT's frame; "tiles": a description of the tiles of the aligned picture in all its pixels, and these (ZIP);
    "normalised": the aligned picture in the colours that RIGHT's card tells (JPEG).

    `landmarks` are pairs of points placed by hand, or None. A photo seen lately is not decoded again. Raises what
    `prepare` and `align_by_landmarks` raise.
    """
    photos = zip(request["photos"], contents, strict=True)
    asked = [_threads.submit(_prepare, photo_id, content, request["max_pixels"]) for photo_id, content in photos]
    left, right = (one.result() for one in asked)
    alignment = _align(left, right, request["landmarks"])
    if request["make"] == "tiles":
        about, tiles = tiles_of(aligned_whole(alignment, contents[1], max_pixels=request["max_pixels"]))
        return about, [tiles]
    if request["make"] == "normalised":
        shot = shot_of(request["photos"][1], contents[1], max_pixels=request["max_pixels"])
        return {}, [labelled_jpeg(moved(alignment, normalised(shot), SHOWN))]
    answer = alignment.as_json() | {"width": left.size[0], "height": left.size[1], "change": None}
    if alignment.skin_map is None:
        return answer, []
    drawn = [_threads.submit(draw, alignment) for draw in (aligned_jpeg, overlay_jpeg)]
    change = find_changes(alignment)
    pictures = [*(one.result() for one in drawn), change_png(alignment, change)]
    return answer | {"change": change_json(change), "lattice": lattice(alignment.skin_map)}, pictures


def _align(left: Prepared, right: Prepared, landmarks: Any) -> Alignment:
    return align_by_landmarks(left, right, landmarks) if landmarks else align(left, right)


def _prepare(photo_id: str, content: bytes, max_pixels: int) -> Prepared:
    found = _prepared.pop(photo_id, None) or prepare(content, max_pixels=max_pixels)
    _prepared[photo_id] = found
    if len(_prepared) > _KEPT:
        _prepared.popitem(last=False)
    return found
