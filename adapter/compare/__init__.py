"""Two photographs of the same skin: where each point of one is in the other, and what changed.

    prepare(bytes) -> Prepared          decode, once per photo
    align(left, right) -> Alignment     the map, and whether it may be trusted
    find_changes(alignment) -> Change   what differs, ranked

The names are looked up when first used, so that importing this room costs no NumPy and no OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapter.compare.alignment import Alignment as Alignment
    from adapter.compare.alignment import align as align
    from adapter.compare.changes import Change as Change
    from adapter.compare.changes import find_changes as find_changes
    from adapter.compare.files import compare_files as compare_files
    from adapter.compare.landmarks import align_by_landmarks as align_by_landmarks
    from adapter.compare.pictures import raise_labels_of_pictures as raise_labels_of_pictures
    from adapter.compare.prepared import Prepared as Prepared
    from adapter.compare.prepared import prepare as prepare
    from adapter.compare.render import aligned_jpeg as aligned_jpeg
    from adapter.compare.render import change_png as change_png
    from adapter.compare.render import overlay_jpeg as overlay_jpeg
    from adapter.compare.saved import withdraw_torn as withdraw_torn

_MODULE_OF = {
    "Alignment": "alignment",
    "align": "alignment",
    "Change": "changes",
    "find_changes": "changes",
    "compare_files": "files",
    "align_by_landmarks": "landmarks",
    "Prepared": "prepared",
    "prepare": "prepared",
    "raise_labels_of_pictures": "pictures",
    "withdraw_torn": "saved",
    "aligned_jpeg": "render",
    "change_png": "render",
    "overlay_jpeg": "render",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
