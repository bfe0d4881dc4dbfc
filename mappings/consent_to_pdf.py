"""A Consent as a page people can file and read. A function of its arguments: the same Consent gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mappings.consent_lines import consent_lines


def consent_to_pdf(consent: Mapping[str, Any], *, heading: str) -> bytes:
    """An A4 PDF; `heading` (the patient) stands above what was agreed."""
    from fpdf import FPDF

    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(datetime(1970, 1, 1, tzinfo=UTC))
    pdf.set_title("Consent to clinical photography")
    pdf.set_producer("DermBridge")
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 14)
    pdf.cell(0, 10, "Consent to clinical photography", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", "B", 10)
    pdf.cell(0, 8, _latin(heading), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", "", 10)
    for line in consent_lines(consent):
        pdf.multi_cell(0, 6, _latin(line), new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def _latin(text: str) -> str:
    """What the PDF's built-in fonts can write (PDF 1.7 annex D)."""
    return text.encode("latin-1", "replace").decode("latin-1")
