"""Photos as a PDF: one to a page, or several on a contact sheet. The JPEG bit-stream is embedded untouched.

The PDF is a function of its arguments: the same photo gives the same bytes, so that a read-back can be compared. Its
font has the letters of every European language: a name that became question marks identifies nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fpdf import FPDF

PDF: Final = "application/pdf"
FONT: Final = files("mappings") / "fonts" / "DejaVuSans.ttf"
_MARGIN, _HEADING, _LINE = 12.0, 10.0, 4.2  # mm
_ANGLES: Final = {1: 0, 3: 180, 6: 270, 8: 90}  # EXIF orientation -> degrees counter-clockwise


@dataclass(frozen=True, slots=True)
class Plate:
    """One photo with the lines that stand below it, or None in its place."""

    jpeg: bytes | None
    lines: tuple[str, ...] = ()


def photos_to_pdf(
    plates: Sequence[Plate],
    *,
    heading: str,
    title: str,
    at: datetime,
    below: str = "",
    columns: int = 1,
    rows: int = 1,
) -> bytes:
    """An A4 PDF of `columns` x `rows` photos to a page, `heading` (the patient) and `below` it on every page.

    `at` becomes the PDF's creation date. Raises CannotFit when a photo is no JPEG.
    """
    pdf = open_pdf(title, at)
    pdf.set_auto_page_break(False)
    cell = ((pdf.w - 2 * _MARGIN) / columns, (pdf.h - 2 * _MARGIN - _HEADING) / rows)
    for number, plate in enumerate(plates):
        place = number % (columns * rows)
        if place == 0:
            _start_page(pdf, heading, below)
        x = _MARGIN + cell[0] * (place % columns)
        y = _MARGIN + _HEADING + cell[1] * (place // columns)
        _put(pdf, plate, x, y, cell[0] - 2, cell[1] - 2)
    return bytes(pdf.output())


def open_pdf(title: str, at: datetime) -> FPDF:
    """An empty A4 document in millimetres that writes with the font "sheet"; `at` is its creation date."""
    from fpdf import FPDF

    pdf = FPDF(format="A4", unit="mm")
    pdf.add_font("sheet", fname=str(FONT))
    pdf.set_lang("en")
    pdf.set_title(title)
    pdf.set_producer("DermBridge")
    pdf.set_creation_date(at)
    return pdf


def _start_page(pdf: FPDF, heading: str, below: str) -> None:
    pdf.add_page()
    pdf.set_font("sheet", size=10)
    pdf.set_xy(_MARGIN, _MARGIN)
    pdf.cell(0, 5, heading)
    if below:
        pdf.set_font("sheet", size=8)
        pdf.set_xy(_MARGIN, _MARGIN + 5)
        pdf.cell(0, 4, f"{below}, page {pdf.page_no()}")


def _put(pdf: FPDF, plate: Plate, x: float, y: float, width: float, height: float) -> None:
    """Place the photo upright in its cell, as large as it goes, its lines below."""
    pdf.set_font("sheet", size=8)
    lines = [part for line in plate.lines for part in _broken(pdf, line, width)]
    down = 0.0 if plate.jpeg is None else _draw(pdf, plate.jpeg, x, y, width, height - _LINE * len(lines) - 2)
    for number, line in enumerate(lines):
        pdf.set_xy(x, y + down + 2 + _LINE * number)
        pdf.cell(width, _LINE, line)


def _broken(pdf: FPDF, line: str, width: float) -> list[str]:
    """At most four lines of a caption, broken at words."""
    parts: Any = pdf.multi_cell(width, _LINE, line, align="L", dry_run=True, output="LINES")
    return list(parts) if len(parts) <= 4 else [*parts[:3], f"{parts[3]} ..."]


def _draw(pdf: FPDF, jpeg: bytes, x: float, y: float, width: float, room: float) -> float:
    """How far down it goes."""
    from mappings.photo_fit import as_jpeg, read_jpeg

    picture = read_jpeg(jpeg)
    if picture.orientation not in _ANGLES:  # mirrored: no rotation makes it upright
        jpeg = as_jpeg(jpeg, "image/jpeg", upright=True)
        picture = read_jpeg(jpeg)
    angle = _ANGLES[picture.orientation]
    shown = (picture.height, picture.width) if angle in {90, 270} else (picture.width, picture.height)
    scale = min(width / shown[0], room / shown[1])
    box = (shown[0] * scale, shown[1] * scale)
    stored = (picture.width * scale, picture.height * scale)
    centre = (x + box[0] / 2, y + box[1] / 2)
    with pdf.rotation(angle, *centre):
        pdf.image(jpeg, x=centre[0] - stored[0] / 2, y=centre[1] - stored[1] / 2, w=stored[0], h=stored[1])
    return box[1]
