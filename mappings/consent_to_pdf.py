"""A Consent as a page people can file and read. A function of its arguments: the same Consent gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from mappings.consent_lines import consent_lines
from mappings.photo_to_pdf import open_pdf

TITLE: Final = "Consent to clinical photography"


def consent_to_pdf(consent: Mapping[str, Any], *, heading: str, zone: tzinfo) -> bytes:
    """An A4 PDF; `heading` (the patient) stands above what was agreed."""
    pdf = open_pdf(TITLE, datetime(1970, 1, 1, tzinfo=UTC))
    pdf.add_page()
    for size, line, text in (
        (14, 10, TITLE),
        (11, 8, heading),
        *((10, 6, each) for each in consent_lines(consent, zone)),
    ):
        pdf.set_font("sheet", size=size)
        pdf.multi_cell(0, line, text, align="L", new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())
