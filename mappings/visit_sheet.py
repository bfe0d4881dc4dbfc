"""All photographs of a visit as one PDF: a contact sheet, or a report with what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from mappings.fhir_time import told_in
from mappings.photo_caption import caption, patient_line
from mappings.photo_fit import JPEG, as_jpeg
from mappings.photo_to_pdf import Plate, photos_to_pdf

Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Photos to a page, the longer side of each in pixels, and the lines of its caption that are left out."""

    columns: int
    rows: int
    max_edge: int
    without: tuple[str, ...] = ()


LAYOUTS: Final[Mapping[str, Layout]] = {  # by code of picture-derivation
    "contact-sheet": Layout(columns=3, rows=4, max_edge=720, without=("View", "Device", "Note")),
    "visit-report": Layout(columns=1, rows=2, max_edge=1280),
}


def visit_sheet(
    layout: str,
    photos: Sequence[tuple[Resource, bytes | None]],
    *,
    patient: Resource,
    encounter: Resource,
    at: datetime,
    zone: tzinfo,
) -> bytes:
    """An A4 PDF; `photos` are (Media, JPEG upright, or None when it cannot be shown) in the order shown; times
    are told in `zone`.

    Who and which visit stand on every page. Raises CannotFit for a picture that is no JPEG.
    """
    wanted = LAYOUTS[layout]
    count = f"{len(photos)} photograph{'s' if len(photos) > 1 else ''}"
    return photos_to_pdf(
        [_plate(number, media, jpeg, wanted, zone) for number, (media, jpeg) in enumerate(photos, 1)],
        heading=patient_line(patient),
        below=f"{visit_line(encounter, zone)}: {count}",
        title="Clinical photographs of a visit",
        at=at,
        columns=wanted.columns,
        rows=wanted.rows,
    )


def visit_line(encounter: Resource, zone: tzinfo) -> str:
    """`Visit V-4711 of 2026-11-23`; only what is known."""
    number = next((one["value"] for one in encounter.get("identifier", []) if one.get("value")), None)
    day = told_in(str(encounter.get("period", {}).get("start", "")), zone)[:10]
    return " ".join(filter(None, ["Visit", number, f"of {day}" if day else ""]))


def _plate(number: int, media: Resource, jpeg: bytes | None, layout: Layout, zone: tzinfo) -> Plate:
    lines = [line for line in caption(media, zone) if line.partition(":")[0] not in layout.without]
    if jpeg is None:
        return Plate(None, (f"Photo {number} cannot be shown here", *lines))
    return Plate(as_jpeg(jpeg, JPEG, max_edge=layout.max_edge), (f"Photo {number}", *lines))
