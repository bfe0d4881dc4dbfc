"""Photos as a PDF: one to a page, or several on a contact sheet. The JPEG bit-stream is embedded untouched.

The PDF is a function of its arguments: the same photo gives the same bytes, so that a read-back can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mappings.photo_fit import as_jpeg, read_jpeg

if TYPE_CHECKING:
    from fpdf import FPDF

PDF: Final = "application/pdf"
_MARGIN, _HEADING, _LINE = 12.0, 10.0, 4.2  # mm
_ANGLES: Final = {1: 0, 3: 180, 6: 270, 8: 90}  # EXIF orientation -> degrees counter-clockwise


@dataclass(frozen=True, slots=True)
class Plate:
    """One photo with the lines that stand below it."""

    jpeg: bytes
    lines: tuple[str, ...] = ()


def photos_to_pdf(
    plates: Sequence[Plate], *, heading: str, title: str, at: datetime, columns: int = 1, rows: int = 1
) -> bytes:
    """An A4 PDF of `columns` x `rows` photos to a page, `heading` (the patient) on every page.

    `at` becomes the PDF's creation date. Raises CannotFit when a photo is no JPEG.
    """
    from fpdf import FPDF

    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(at)
    pdf.set_title(_latin(title))
    pdf.set_producer("DermBridge")
    pdf.set_auto_page_break(False)
    cell = ((pdf.w - 2 * _MARGIN) / columns, (pdf.h - 2 * _MARGIN - _HEADING) / rows)
    for number, plate in enumerate(plates):
        place = number % (columns * rows)
        if place == 0:
            _start_page(pdf, heading)
        x = _MARGIN + cell[0] * (place % columns)
        y = _MARGIN + _HEADING + cell[1] * (place // columns)
        _put(pdf, plate, x, y, cell[0] - 2, cell[1] - 2)
    return bytes(pdf.output())


def _start_page(pdf: FPDF, heading: str) -> None:
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 10)
    pdf.set_xy(_MARGIN, _MARGIN)
    pdf.cell(0, 5, _latin(heading))


def _put(pdf: FPDF, plate: Plate, x: float, y: float, width: float, height: float) -> None:
    """Place the photo upright in its cell, as large as it goes, its lines below."""
    picture = read_jpeg(plate.jpeg)
    jpeg = plate.jpeg
    if picture.orientation not in _ANGLES:  # mirrored: no rotation makes it upright
        jpeg = as_jpeg(jpeg, "image/jpeg", upright=True)
        picture = read_jpeg(jpeg)
    angle = _ANGLES[picture.orientation]
    shown = (picture.height, picture.width) if angle in {90, 270} else (picture.width, picture.height)
    room = height - _LINE * len(plate.lines) - 2
    scale = min(width / shown[0], room / shown[1])
    box = (shown[0] * scale, shown[1] * scale)
    stored = (picture.width * scale, picture.height * scale)
    centre = (x + box[0] / 2, y + box[1] / 2)
    with pdf.rotation(angle, *centre):
        pdf.image(jpeg, x=centre[0] - stored[0] / 2, y=centre[1] - stored[1] / 2, w=stored[0], h=stored[1])
    pdf.set_font("Helvetica", "", 8)
    for number, line in enumerate(plate.lines):
        pdf.set_xy(x, y + box[1] + 2 + _LINE * number)
        pdf.cell(width, _LINE, _latin(line))


def _latin(text: str) -> str:
    """What the PDF's built-in fonts can write (PDF 1.7 annex D); anything else becomes a question mark."""
    return text.encode("latin-1", "replace").decode("latin-1")
