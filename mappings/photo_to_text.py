"""A photo, or the way to it, as text an EHR files as a note: XHTML or RTF with the image inside, or a note with a link.

XHTML keeps to what Oracle Health leaves standing when it converts to RTF: images as `data:` addresses, no style sheets,
no script (fhir.cerner.com, "Common issues"). RTF 1.9.1 embeds the JPEG as hex (`\\jpegblip`).
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from mappings.photo_fit import read_jpeg

_TWIPS_PER_PIXEL = 15  # at 96 dots to the inch
_WIDEST = 9000  # twips that fit on a page


def photo_to_xhtml(jpeg: bytes, *, heading: str, lines: Sequence[str]) -> bytes:
    """An XHTML document in UTF-8 with the JPEG inside."""
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    data = base64.b64encode(jpeg).decode()
    return (
        '<?xml version="1.0" encoding="UTF-8"?><html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head><title>{html.escape(heading)}</title></head><body><p><b>{html.escape(heading)}</b></p>{said}"
        f'<p><img alt="{html.escape(heading)}" src="data:image/jpeg;base64,{data}"/></p></body></html>'
    ).encode()


def photo_to_rtf(jpeg: bytes, *, heading: str, lines: Sequence[str]) -> bytes:
    """An RTF document with the JPEG inside. Raises CannotFit when it is no JPEG."""
    picture = read_jpeg(jpeg)
    width = min(picture.width * _TWIPS_PER_PIXEL, _WIDEST)
    height = round(picture.height * width / picture.width)
    said = "".join(f"{_rtf(line)}\\par\n" for line in lines)
    return (
        f"{{\\rtf1\\ansi\\deff0{{\\fonttbl{{\\f0 Arial;}}}}\n\\b {_rtf(heading)}\\b0\\par\n{said}"
        f"{{\\pict\\jpegblip\\picw{picture.width}\\pich{picture.height}"
        f"\\picwgoal{width}\\pichgoal{height}\n{jpeg.hex()}}}\\par}}"
    ).encode("ascii")


def photo_to_note(*, heading: str, lines: Sequence[str], link: str) -> bytes:
    """Plain text in UTF-8 that says there is a photo and where to see it."""
    seen = f"Open the photo: {link}" if link else "The photo is kept in DermBridge; open it from the patient's chart."
    return "\n".join([heading, *lines, "", seen, ""]).encode()


def _rtf(text: str) -> str:
    return "".join(_rtf_character(each) for each in text)


def _rtf_character(character: str) -> str:
    if character in "\\{}":
        return "\\" + character
    if character < "\x80":
        return character
    units = character.encode("utf-16-le")
    codes = [int.from_bytes(units[at : at + 2], "little", signed=True) for at in range(0, len(units), 2)]
    return "".join(f"\\u{code}?" for code in codes)
