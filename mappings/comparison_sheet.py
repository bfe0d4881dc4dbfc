"""A saved comparison on a sheet: the photos beside each other with what is said about them, for people to keep.

One `Sheet` is written as an accessible PDF (language, title, text as text, a description for each picture) or drawn as
one picture. Neither carries any metadata of the photos: pixels are drawn anew, and the captions say no device.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from mappings.canonical_resources import codes_of
from mappings.comparison_to_observation import components_of, photos_of, verdict_of
from mappings.fhir_time import told_in
from mappings.measurement_to_observation import figures
from mappings.photo_caption import caption, title
from mappings.photo_to_pdf import FONT
from mappings.terms import Json

if TYPE_CHECKING:
    from fpdf import FPDF
    from PIL import Image, ImageDraw, ImageFont

NO_DIAGNOSIS: Final = (
    "Differences of colour between photographs. Not a diagnosis: light, pressure and focus differ too."
)
_LEFT_OUT: Final = ("Device", "Note")
_MARGIN, _GAP = 12.0, 4.0  # mm
_WIDE, _EDGE = 1600, 40  # pixels of a drawn sheet and its margin
_TALLEST = 2  # times its column's width
_INK, _PALE = (28, 32, 38), (96, 104, 116)


@dataclass(frozen=True, slots=True)
class Plate:
    """A picture as JPEG, with the lines below it; `alt` says what it shows."""

    jpeg: bytes
    alt: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """`heading` names the patient, as far as the site lets it leave; `footer` says where it comes from."""

    title: str
    heading: str
    plates: tuple[Plate, ...]
    findings: tuple[str, ...]
    footer: str


def comparison_sheet(
    observation: Mapping[str, Any],
    photos: Sequence[tuple[Mapping[str, Any], bytes, str]],
    pictures: Sequence[tuple[str, bytes, str]],
    *,
    measured: Sequence[Json] = (),
    heading: str,
    footer: str,
    zone: tzinfo,
) -> Sheet:
    """`photos` are (Media, bytes, MIME type) in the order shown, `pictures` (code of picture-derivation, bytes, MIME
    type), `measured` the measurements of these photos; times are told in `zone`. Raises CannotFit for a picture that
    cannot be decoded."""
    from mappings.photo_fit import as_jpeg

    resource = dict(observation)
    versions = [version for _, version in photos_of(resource)]
    plates = [
        Plate(as_jpeg(data, kind), f"Photo {number}: {title(media)}", _photo_lines(number, media, version, zone))
        for number, ((media, data, kind), version) in enumerate(zip(photos, versions, strict=True), 1)
    ]
    wording = codes_of("picture-derivation")
    plates += [Plate(as_jpeg(data, kind), wording[code], (wording[code],)) for code, data, kind in pictures]
    name = f"Comparison of {len(photos)} clinical photographs"
    return Sheet(name, heading, tuple(plates), tuple(findings(resource, measured, zone)), footer)


def _photo_lines(number: int, media: Mapping[str, Any], version: int, zone: tzinfo) -> tuple[str, ...]:
    known = [line for line in caption(media, zone) if not line.startswith(_LEFT_OUT)]
    return (f"Photo {number}", *known, f"Media/{media['id']}, version {version}")


def findings(observation: Json, measured: Sequence[Json], zone: tzinfo) -> Iterator[str]:
    """What was found, how, what was measured on which photo, and by whom all was kept, a sentence each."""
    if verdict := verdict_of(observation):
        yield f"Verdict: {codes_of('comparison-verdict')[verdict]}."
        yield from components_of(observation, "reason")
        yield f"Method: {observation['method']['text']}."
        for method in components_of(observation, "change-method"):
            yield f"Regions that differ: {components_of(observation, 'regions')[0]}, by {method}. {NO_DIAGNOSIS}"
    else:
        yield "Looked at beside each other; nothing was computed."
    numbers = {media_id: number for number, (media_id, _) in enumerate(photos_of(observation), 1)}
    for one in measured:
        media_id, by = photos_of(one)[0][0], one["performer"][0].get("display", "its author")
        yield f"Measured on photo {numbers[media_id]} by {by}: {figures(one)} (Observation/{one['id']})."
    if measured:
        yield "± is two standard uncertainties, about 95 %."
    for note in observation.get("note", ()):
        yield f"Note by {note['authorReference'].get('display', 'its author')}: {note['text']}"
    kept_by = observation["performer"][0].get("display", "its author")
    kept_at = told_in(observation["issued"], zone)
    yield f"Saved by {kept_by} at {kept_at} as Observation/{observation['id']}."


# --- as PDF ---------------------------------------------------------------------------------------------------------


def sheet_to_pdf(sheet: Sheet, *, at: datetime) -> bytes:
    """A4, two pictures beside each other; the text below them runs on to further pages."""
    pdf = _document(sheet, at)
    width = (pdf.w - 2 * _MARGIN - _GAP) / 2
    for first, second in _pairs(sheet.plates):
        row = [one for one in (first, second) if one]
        sizes = [_shown(one, width) for one in row]
        tallest = max(down + 4.2 * len(one.lines) for (_, down), one in zip(sizes, row, strict=True)) + _GAP
        if pdf.will_page_break(tallest):
            pdf.add_page()
        top = pdf.get_y()
        for column, (one, (across, down)) in enumerate(zip(row, sizes, strict=True)):
            x = _MARGIN + column * (width + _GAP)
            pdf.image(io.BytesIO(one.jpeg), x=x, y=top, w=across, h=down, alt_text=one.alt)
            pdf.set_xy(x, top + down + 1)
            _write(pdf, one.lines, x, width, 8, 4.2)
        pdf.set_xy(_MARGIN, top + tallest)
    _write(pdf, sheet.findings, _MARGIN, pdf.w - 2 * _MARGIN, 9, 4.8)
    return bytes(pdf.output())


def _document(sheet: Sheet, at: datetime) -> FPDF:
    from fpdf import FPDF, ViewerPreferences

    class Document(FPDF):
        def header(self) -> None:
            self.set_xy(_MARGIN, _MARGIN)
            _write(self, [sheet.heading] if sheet.heading else [], _MARGIN, self.w - 2 * _MARGIN, 11, 6)
            _write(self, [sheet.title], _MARGIN, self.w - 2 * _MARGIN, 9, 6)

        def footer(self) -> None:
            self.set_xy(_MARGIN, -_MARGIN)
            _write(self, [f"{sheet.footer} Page {self.page_no()}."], _MARGIN, self.w - 2 * _MARGIN, 7, 4)

    pdf = Document(format="A4", unit="mm")
    pdf.add_font("sheet", fname=str(FONT))
    pdf.set_auto_page_break(True, margin=_MARGIN + 8)
    pdf.set_lang("en")
    pdf.set_title(f"{sheet.title}")
    pdf.set_producer("DermBridge")
    pdf.set_creation_date(at)
    pdf.viewer_preferences = ViewerPreferences(display_doc_title=True)
    pdf.add_page()
    return pdf


def _write(pdf: FPDF, lines: Sequence[str], x: float, width: float, size: float, line: float) -> None:
    pdf.set_font("sheet", size=size)
    for text in lines:
        pdf.set_x(x)
        pdf.multi_cell(width, line, text, align="L", new_x="LEFT", new_y="NEXT")


def _shown(plate: Plate, width: float) -> tuple[float, float]:
    """(width, height) of a picture in a column: a strip of a photo gets no further down than two widths."""
    across, down = _opened(plate).size
    share = min(width / across, _TALLEST * width / down)
    return share * across, share * down


# --- as one picture -------------------------------------------------------------------------------------------------


def sheet_to_picture(sheet: Sheet, *, format: str = "PNG") -> bytes:
    """1600 pixels wide; `format` is PNG or JPEG. Nothing but pixels is written."""
    from PIL import Image, ImageDraw

    height = _draw(None, sheet)
    drawn = Image.new("RGB", (_WIDE, height), "white")
    _draw(ImageDraw.Draw(drawn), sheet)
    out = io.BytesIO()
    drawn.save(out, format, **({"quality": 90} if format == "JPEG" else {"optimize": False}))
    return out.getvalue()


def _draw(canvas: ImageDraw.ImageDraw | None, sheet: Sheet) -> int:
    """Draw it, or only measure it; the height in pixels."""
    from PIL import Image

    full, width, y = _WIDE - 2 * _EDGE, (_WIDE - 3 * _EDGE) // 2, _EDGE
    y = _text(canvas, sheet.heading, _EDGE, y, full, 34, _INK) if sheet.heading else y
    y = _text(canvas, sheet.title, _EDGE, y, full, 26, _PALE) + _EDGE // 2
    for row in _pairs(sheet.plates):
        ends = []
        for column, plate in enumerate(one for one in row if one):
            x = _EDGE + column * (width + _EDGE)
            across, down = (max(1, round(edge)) for edge in _shown(plate, width))
            if canvas:
                shown = _opened(plate).convert("RGB").resize((across, down), Image.Resampling.LANCZOS)
                canvas._image.paste(shown, (x, y))  # the canvas was made from it
            below = y + down + 8
            for line in plate.lines:
                below = _text(canvas, line, x, below, width, 22, _PALE)
            ends.append(below)
        y = max(ends) + _EDGE // 2
    for line in sheet.findings:
        y = _text(canvas, line, _EDGE, y, full, 24, _INK) + 6
    return _text(canvas, sheet.footer, _EDGE, y + 10, full, 18, _PALE) + _EDGE


def _text(
    canvas: ImageDraw.ImageDraw | None, text: str, x: int, y: int, width: int, size: int, ink: tuple[int, int, int]
) -> int:
    """Broken at words; where the next line begins."""
    font, line = _font(size), ""
    for word in [*text.split(), ""]:
        if line and (not word or font.getlength(f"{line} {word}") > width):
            if canvas:
                canvas.text((x, y), line, font=font, fill=ink)
            y, line = y + round(size * 1.35), word
        else:
            line = f"{line} {word}".strip()
    return y


def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(FONT), size)


def _opened(plate: Plate) -> Image.Image:
    from PIL import Image

    return Image.open(io.BytesIO(plate.jpeg))


def _pairs(plates: Sequence[Plate]) -> Iterator[tuple[Plate, Plate | None]]:
    for number in range(0, len(plates), 2):
        yield plates[number], plates[number + 1] if number + 1 < len(plates) else None
