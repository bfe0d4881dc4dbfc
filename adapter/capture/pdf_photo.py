"""The photo in a one-page PDF, which is how many EHRs keep one: the JPEG that it embeds, bit for bit.

A PDF is taken apart in a bounded child, and only where there is no doubt which picture is meant (ISO 32000-2, 8.9).
"""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adapter.bounded import BoundedChild
from adapter.errors import Unprocessable

if TYPE_CHECKING:
    from pypdf import PageObject
    from pypdf.generic import DictionaryObject, StreamObject

PDF = "application/pdf"
_COLOURS = frozenset({"/DeviceRGB", "/DeviceGray", "/CalRGB", "/CalGray", "/ICCBased"})
_DEEPEST = 5
"""Forms within forms."""
_MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_child = BoundedChild("adapter.capture.pdf_photo:take_out", seconds=10, memory=1 << 30, nice=0)


def photo_in_pdf(content: bytes) -> tuple[bytes, str]:
    """The JPEG, and a sentence that says where it was. Raises Unprocessable, saying why it stays in its PDF."""
    about, (jpeg,) = _child.call({}, content)
    turned = f", which shows it turned by {about['turned']} degrees" if about["turned"] else ""
    return jpeg, f"taken out of a PDF of one page{turned}; what stands around it there was not copied"


def take_out(_request: dict[str, Any], contents: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The task of the child: `{"turned": degrees clockwise}` and the JPEG."""
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its warnings quote the document
    try:
        page = _only_page(contents[0])
        return {"turned": page.rotation % 360}, [_jpeg(_only_picture(page))]
    except (PyPdfError, zlib.error, *_MALFORMED) as error:
        raise Unprocessable("this PDF is damaged; open it there") from error


def _only_page(content: bytes) -> PageObject:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted:
        raise Unprocessable("this PDF is encrypted, so its photo stays in it; open it there")
    if len(reader.pages) != 1:
        raise Unprocessable(f"this PDF has {len(reader.pages)} pages, not one with a photo; open it there")
    return reader.pages[0]


def _only_picture(page: PageObject) -> StreamObject:
    """However often it is drawn."""
    found = {id(one): one for one in _pictures(_value(page, "/Resources", {}), _DEEPEST)}
    contents = page.get_contents()
    done = [] if contents is None else [operator for _, operator in contents.operations]
    inline = done.count(b"INLINE IMAGE")
    if len(found) != 1 or inline:
        shown = len(found) + inline or "no"
        raise Unprocessable(f"this PDF shows {shown} pictures, not one photo; open it there")
    return next(iter(found.values()))


def _pictures(resources: DictionaryObject, depth: int) -> Iterator[StreamObject]:
    """Those of the page and of the forms on it."""
    if depth == 0:
        raise ValueError("forms within forms without end")
    for reference in _value(resources, "/XObject", {}).values():
        one = reference.get_object()
        if one["/Subtype"] == "/Image":
            yield one
        elif "/Resources" in one:
            yield from _pictures(one["/Resources"].get_object(), depth - 1)


def _jpeg(picture: StreamObject) -> bytes:
    """As it was embedded. Raises Unprocessable for a picture that only the PDF's own words make what it looks like."""
    filters = _value(picture, "/Filter", [])
    names = filters if isinstance(filters, list) else [filters]
    if not names or names[-1] != "/DCTDecode":
        raise Unprocessable("the picture in this PDF is no JPEG, so it cannot be copied as it is; open it there")
    colours = _value(picture, "/ColorSpace", "/DeviceRGB")
    space = colours[0] if isinstance(colours, list) else colours
    if {"/SMask", "/Mask", "/Decode"} & set(picture) or space not in _COLOURS:
        raise Unprocessable("this PDF shows its picture with parts hidden or in other colours; open it there")
    return picture.get_data()


def _value(dictionary: DictionaryObject, name: str, default: Any) -> Any:
    """Also where it is referred to: `get` would give the reference."""
    return dictionary[name] if name in dictionary else default  # noqa: SIM401
