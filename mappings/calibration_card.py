"""The card that lies beside the skin: markers that tell the scale, patches that tell the colour of the light, a ruler.

Its layout is `tables/calibration_card.toml`, in millimetres. `card_svg` and `card_pdf` draw it at true size.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final, Literal

SVG: Final = "image/svg+xml"
_TABLE = tomllib.loads((files("mappings") / "tables" / "calibration_card.toml").read_text("utf-8"))
REVISION: Final[int] = _TABLE["revision"]
SIZE: Final[tuple[float, float]] = tuple(_TABLE["size"])
_MODULES = 7  # five bits and the black border around them
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_A4, _FIRST, _PITCH = (210.0, 297.0), (15.0, 20.0), (94.4, 66.0)
_CAPTION = (
    f"DermBridge calibration card {REVISION}. Print at 100 %, without fitting to the page, on matt paper or plastic.",
    "The ruler must measure 50 mm. Lay it flat beside the lesion, in the plane of the skin, without reflections.",
)


@dataclass(frozen=True, slots=True)
class Square:
    """A marker (`name` is its ArUco id) or a colour patch; `at` is its upper left corner, all in mm."""

    name: str
    at: tuple[float, float]
    edge: float
    srgb: tuple[int, int, int] = _BLACK
    bits: tuple[str, ...] = ()

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """Clockwise from the upper left, as detectors of ArUco markers tell them."""
        (x, y), edge = self.at, self.edge
        return ((x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge))


def _squares(kind: Literal["markers", "patches"]) -> tuple[Square, ...]:
    rows = _TABLE[kind]
    return tuple(
        Square(
            str(row.get("id", row.get("name"))),
            tuple(row["at"]),
            rows["edge"],
            tuple(row.get("srgb", _BLACK)),
            tuple(row.get("bits", ())),
        )
        for row in rows["each"]
    )


MARKERS: Final = _squares("markers")
PATCHES: Final = _squares("patches")


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    fill: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Words:
    x: float
    y: float
    height: float
    text: str


def card_svg() -> bytes:
    """One card, sized in mm."""
    width, height = SIZE
    shapes = "".join(_as_svg(shape) for shape in _drawing())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges">{shapes}</svg>'
    ).encode()


def card_pdf() -> bytes:
    """An A4 page of eight cards with what to mind when printing; always the same bytes."""
    from fpdf import FPDF

    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(datetime(2026, 11, 1, tzinfo=UTC))
    pdf.set_title("DermBridge calibration card")
    pdf.set_auto_page_break(False)
    pdf.add_page()
    pdf.set_font("Helvetica", size=8)
    for line, text in enumerate(_CAPTION):
        pdf.text(_FIRST[0], 10 + 4 * line, text)
    for number in range(8):
        left, top = _FIRST[0] + _PITCH[0] * (number % 2), _FIRST[1] + _PITCH[1] * (number // 2)
        for shape in _drawing():
            if isinstance(shape, _Words):
                pdf.set_font("Helvetica", size=shape.height * 72 / 25.4)
                pdf.text(left + shape.x, top + shape.y, shape.text)
            else:
                pdf.set_fill_color(*shape.fill)
                pdf.rect(left + shape.x, top + shape.y, shape.width, shape.height, style="F")
        pdf.set_draw_color(200)
        pdf.rect(left, top, *SIZE)
    return bytes(pdf.output())


def _drawing() -> Iterator[_Box | _Words]:
    yield _Box(0, 0, *SIZE, _WHITE)
    for marker in MARKERS:
        yield _Box(*marker.at, marker.edge, marker.edge, _BLACK)
        module = marker.edge / _MODULES
        for row, bits in enumerate(marker.bits, start=1):
            for column, bit in enumerate(bits, start=1):
                if bit == "1":
                    yield _Box(marker.at[0] + column * module, marker.at[1] + row * module, module, module, _WHITE)
    for patch in PATCHES:
        yield _Box(*patch.at, patch.edge, patch.edge, patch.srgb)
    yield from _ruler()
    yield _Words(18, 8, 2.6, f"DermBridge calibration card {REVISION}")


def _ruler() -> Iterator[_Box | _Words]:
    """Millimetres along the lower edge, which lies against the lesion."""
    ruler, stroke = _TABLE["ruler"], 0.15
    for millimetre in range(int(ruler["to"] - ruler["from"]) + 1):
        length = 5.0 if millimetre % 10 == 0 else 3.8 if millimetre % 5 == 0 else 2.6
        x = ruler["from"] + millimetre
        yield _Box(x - stroke / 2, ruler["y"] - length, stroke, length, _BLACK)
        if millimetre % 10 == 0:
            yield (
                _Words(x - 3.0, ruler["y"] - 3.0, 2.2, str(millimetre))
                if millimetre
                else _Words(x + 0.4, 50, 2.2, "mm")
            )


def _as_svg(shape: _Box | _Words) -> str:
    if isinstance(shape, _Words):
        place = f'x="{shape.x:g}" y="{shape.y:g}" font-family="sans-serif" font-size="{shape.height}"'
        return f"<text {place}>{shape.text}</text>"
    fill = "#{:02x}{:02x}{:02x}".format(*shape.fill)
    return f'<rect x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" height="{shape.height:g}" fill="{fill}"/>'
