"""The JPEG of a one-page PDF comes out bit for bit; anything that leaves a doubt stays in, with the reason."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NumberObject, StreamObject

from adapter.capture.pdf_photo import photo_in_pdf, take_out
from adapter.errors import Unprocessable
from mappings.photo_to_pdf import Plate, photos_to_pdf

AT = datetime(2026, 3, 2, tzinfo=UTC)


def jpeg(shade: int = 90, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (64, 48), shade).save(out, "JPEG", comment=b"as the camera wrote it")
    return out.getvalue()


def pdf(*photos: bytes, change: Callable[[PdfWriter], object] | None = None, columns: int = 1) -> bytes:
    """A page for each photo, as our own transform writes it, and whatever `change` does to it."""
    plates = [Plate(one, ("Left cheek",)) for one in photos]
    made = photos_to_pdf(plates, heading="Doe, Jane", title="t", at=AT, columns=columns)
    if change is None:
        return made
    writer, out = PdfWriter(clone_from=io.BytesIO(made)), io.BytesIO()
    change(writer)
    writer.write(out)
    return out.getvalue()


def picture(writer: PdfWriter) -> Any:
    resources: Any = writer.pages[0]["/Resources"]
    return next(iter(resources["/XObject"].values())).get_object()


def taken(content: bytes) -> bytes:
    return take_out({}, [content])[1][0]


@pytest.mark.long
def test_the_jpeg_comes_out_of_the_child_bit_for_bit_with_a_word_about_where_it_was() -> None:
    content, said = photo_in_pdf(pdf(jpeg(), change=lambda writer: writer.pages[0].rotate(90)))
    assert content == jpeg()
    assert "turned by 90 degrees" in said and "not copied" in said
    with pytest.raises(Unprocessable, match="2 pages"):
        photo_in_pdf(pdf(jpeg(1), jpeg(2)))


def test_it_comes_out_of_a_form_and_of_a_second_filter() -> None:
    def into_form(writer: PdfWriter) -> None:
        page, form = writer.pages[0], StreamObject()
        form |= {NameObject("/Subtype"): NameObject("/Form"), NameObject("/Resources"): page["/Resources"]}
        drawn = DictionaryObject({NameObject("/Fm0"): writer._add_object(form)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): drawn})

    assert taken(pdf(jpeg(), change=into_form)) == jpeg()
    packed = pdf(jpeg(), change=lambda writer: writer.pages[0].compress_content_streams())
    assert taken(packed) == jpeg()


def _without_picture(writer: PdfWriter) -> None:
    del writer.pages[0]["/Resources"]["/XObject"]  # type: ignore[attr-defined]


def _masked(writer: PdfWriter) -> None:
    picture(writer)[NameObject("/Mask")] = ArrayObject([NumberObject(0), NumberObject(9)])


def _no_jpeg(writer: PdfWriter) -> None:
    picture(writer)[NameObject("/Filter")] = NameObject("/JPXDecode")


def _inline(writer: PdfWriter) -> None:
    contents = writer.pages[0].get_contents()
    assert contents is not None
    contents.set_data(contents.get_data() + b"\nBI /W 1 /H 1 /BPC 8 /CS /G ID \x00 EI\n")
    writer.pages[0][NameObject("/Contents")] = writer._add_object(contents)


@pytest.mark.parametrize(
    ("photos", "change", "why"),
    [
        ([jpeg()], lambda writer: writer.encrypt("", "owner", algorithm="RC4-128"), "encrypted"),
        ([jpeg(1), jpeg(2)], None, "2 pages"),
        ([jpeg()], _without_picture, "shows no pictures"),
        ([jpeg()], _inline, "shows 2 pictures"),
        ([jpeg()], _no_jpeg, "no JPEG"),
        ([jpeg()], _masked, "parts hidden"),
        ([jpeg(9, "CMYK")], None, "other colours"),
    ],
)
def test_what_leaves_a_doubt_stays_in_its_pdf(
    photos: Sequence[bytes], change: Callable[[PdfWriter], object] | None, why: str
) -> None:
    with pytest.raises(Unprocessable, match=why):
        taken(pdf(*photos, change=change))


def test_two_photos_on_one_page_stay_there() -> None:
    with pytest.raises(Unprocessable, match="shows 2 pictures"):
        taken(pdf(jpeg(1), jpeg(2), columns=2))


@given(st.data())
def test_damage_is_told_as_such_or_does_no_harm(data: st.DataObject) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).save(out, "PDF")
    whole = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with_end = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(Unprocessable):
        taken(with_end)
