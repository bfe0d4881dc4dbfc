"""A photo as PDF, note, DICOM and HL7 v2: what arrives is what was taken."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pillow_heif import open_heif
from pydicom.encaps import generate_frames

from mappings.hl7v2.er7 import Message
from mappings.hl7v2.photo_message import MessageProfile, PhotoMessage, photo_message
from mappings.photo_caption import caption, patient_line
from mappings.photo_fit import JPEG, CannotFit, as_jpeg, read_jpeg
from mappings.photo_to_dicom import DERMOSCOPIC, VL_PHOTOGRAPHIC, DicomPlace, photo_to_dicom
from mappings.photo_to_pdf import Plate, photos_to_pdf
from mappings.photo_to_text import photo_to_note, photo_to_rtf, photo_to_xhtml
from mappings.terms import DCM, LATERALITY, SNOMED
from mappings.visit_sheet import visit_sheet
from tests.pdf_text import pdf_text

DATA = Path(__file__).parents[1] / "data"
PHOTO = (Path(__file__).parents[1] / "docker" / "photo.jpg").read_bytes()
AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
MRN, VISIT = "urn:oid:2.16.840.1.113883.19.5", "urn:oid:2.16.840.1.113883.19.5.1"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "identifier": [{"system": MRN, "value": "47|11"}],
    "name": [{"family": "Müller^Doe", "given": ["Jane", "Q"]}],
    "birthDate": "1970-01-01",
    "gender": "female",
}
MEDIA: dict[str, Any] = {
    "createdDateTime": "2026-11-23T09:00:00+01:00",
    "modality": {"coding": [{"system": DCM, "code": "DMS"}]},
    "bodySite": {
        "coding": [{"system": SNOMED, "code": "36141000"}],
        "text": "Skin of cheek, left",
        "extension": [{"url": LATERALITY, "valueCodeableConcept": {"coding": [{"system": SNOMED, "code": "7771000"}]}}],
    },
}
DEVICE = {"Manufacturer": "ACME", "ManufacturerModelName": "D1", "DeviceSerialNumber": "7", "SoftwareVersions": "2"}


def image(mode: str = "RGB", size: tuple[int, int] = (800, 600), **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image(exif=exif)


def dicom(content: bytes = PHOTO, content_type: str = JPEG, **place: Any) -> pydicom.Dataset:
    asked = DicomPlace(**({"patient_id": "4711", "issuer": "HOSP", "admission_id": "V1"} | place))
    written = photo_to_dicom(
        content, content_type, media=MEDIA, patient=PATIENT, place=asked, idempotency_key="m1/1/pacs", at=AT
    )
    return pydicom.dcmread(io.BytesIO(written))


def test_a_jpeg_that_fits_keeps_its_very_bytes() -> None:
    assert as_jpeg(PHOTO, JPEG, max_bytes=len(PHOTO), max_edge=10_000, baseline=True, upright=True) is PHOTO


@given(limit=st.integers(250_000, 500_000), edge=st.integers(640, 900))
@settings(max_examples=8, deadline=None)
def test_a_photo_made_to_fit_fits(limit: int, edge: int) -> None:
    fitted = as_jpeg(image(size=(1000, 700), quality=97), JPEG, max_bytes=limit, max_edge=edge)
    picture = read_jpeg(fitted)
    assert len(fitted) <= limit
    assert max(picture.width, picture.height) <= edge


def test_a_photo_that_cannot_fit_is_refused_rather_than_spoilt() -> None:
    with pytest.raises(CannotFit, match="does not fit"):
        as_jpeg(image(), JPEG, max_bytes=2_000)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8 no photo", b"GIF89a"])
def test_what_is_no_jpeg_is_refused(content: bytes) -> None:
    with pytest.raises(CannotFit):
        read_jpeg(content)


def test_turning_upright_changes_the_sides() -> None:
    picture = read_jpeg(as_jpeg(turned(6), JPEG, upright=True))
    assert (picture.width, picture.height, picture.orientation) == (600, 800, 1)


def test_a_pdf_holds_the_very_bit_stream_and_is_the_same_each_time() -> None:
    plates = [Plate(PHOTO, tuple(caption(MEDIA, UTC)))]
    first, again = (photos_to_pdf(plates, heading=patient_line(PATIENT), title="Photo", at=AT) for _ in range(2))
    assert first == again
    assert PHOTO in first


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_that_lies_on_its_side_is_turned_by_the_page(orientation: int) -> None:
    content = turned(orientation)
    assert content in photos_to_pdf([Plate(content)], heading="", title="", at=AT)


def test_a_contact_sheet_puts_several_photos_on_each_page() -> None:
    sheet = photos_to_pdf([Plate(PHOTO, ("one",))] * 5, heading="Doe", title="", at=AT, columns=2, rows=2)
    assert sheet.count(b"/Type /Page\n") == 2


def test_a_name_of_any_european_language_stands_on_the_page_as_it_is_written() -> None:
    named = "Świętosławska, Łucja | Ελένη | Ђорђе | born 1970-01-01"
    assert named in pdf_text(photos_to_pdf([Plate(PHOTO)], heading=named, title="", at=AT))


def test_what_a_caption_says_is_broken_into_lines_instead_of_running_into_the_next_photo() -> None:
    said = "Note: " + "asymmetric, darker than in May, " * 20
    sheet = photos_to_pdf([Plate(PHOTO, (said,))] * 2, heading="", title="", at=AT, columns=2)
    lines = [line for line in pdf_text(sheet).splitlines() if line]
    assert len(lines) == 8 and lines[3].endswith(" ...") and max(map(len, lines)) < 70


@pytest.mark.parametrize(("layout", "pages"), [("contact-sheet", 2), ("visit-report", 7)])
def test_a_visit_is_one_pdf_that_says_on_every_page_whose_and_which_it_is(layout: str, pages: int) -> None:
    media = MEDIA | {"deviceName": "C1"}
    photos = [(media, PHOTO)] * 12 + [(media, None)]
    visit = {"identifier": [{"value": "V-1"}], "period": {"start": "2026-11-23T08:00:00Z"}}
    pdf = visit_sheet(layout, photos, patient=PATIENT, encounter=visit, at=AT, zone=UTC)
    text = pdf_text(pdf)
    assert pdf.count(b"/Type /Page\n") == text.count(patient_line(PATIENT)) == pages
    assert f"Visit V-1 of 2026-11-23: 13 photographs, page {pages}" in text and "Photo 12\n" in text
    assert "Photo 13 cannot be shown here" in text and ("Device: C1" in text) == (layout == "visit-report")


def test_a_visits_pdf_tells_the_times_of_the_place_and_names_its_zone() -> None:
    visit = {"period": {"start": "2026-11-22T23:30:00Z"}}
    taken = ("2026-11-22T23:40:00Z", "2026-07-01T23:40:00Z", "2025-06")
    photos = [({"createdDateTime": each}, PHOTO) for each in taken]
    said = {"patient": PATIENT, "encounter": visit, "at": AT}
    text = pdf_text(visit_sheet("contact-sheet", photos, **said, zone=ZoneInfo("Europe/Zurich")))
    told = ("Visit of 2026-11-23:", "Taken: 2026-11-23 00:40 CET", "Taken: 2026-07-02 01:40 CEST", "Taken: 2025-06")
    assert [each for each in told if each not in text] == []
    elsewhere = pdf_text(visit_sheet("contact-sheet", photos, **said, zone=ZoneInfo("America/Sao_Paulo")))
    assert "Taken: 2026-11-22 20:40 UTC-03" in elsewhere


def test_dicom_encapsulates_the_very_bit_stream() -> None:
    dataset = dicom()
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    assert frame[: len(PHOTO)] == PHOTO and set(frame[len(PHOTO) :]) <= {0}
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert (dataset.PhotometricInterpretation, dataset.LossyImageCompression) == ("YBR_FULL_422", "01")
    assert list(dataset.ImageType) == ["ORIGINAL", "PRIMARY"]


def test_dicom_says_whose_and_where() -> None:
    dataset = dicom()
    assert (dataset.PatientID, dataset.IssuerOfPatientID, dataset.AdmissionID) == ("4711", "HOSP", "V1")
    assert str(dataset.PatientName) == "Müller Doe^Jane Q"
    region = dataset.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.CodingSchemeDesignator) == ("36141000", "SCT")
    assert (dataset.ImageLaterality, dataset.StudyDate, dataset.TimezoneOffsetFromUTC) == ("L", "20261123", "+0100")


def test_the_same_photo_for_the_same_patient_is_the_same_object() -> None:
    first, again, other = dicom(), dicom(), dicom(patient_id="4712")
    assert (first.SOPInstanceUID, first.StudyInstanceUID) == (again.SOPInstanceUID, again.StudyInstanceUID)
    assert other.StudyInstanceUID != first.StudyInstanceUID


def test_dermoscopy_is_claimed_only_with_a_named_device() -> None:
    assert dicom().SOPClassUID == VL_PHOTOGRAPHIC and dicom().Modality == "XC"
    named = dicom(equipment=DEVICE, dermoscope={"ContactMethod": "CONTACT", "ImmersionMedia": "ALCOHOL"})
    assert (named.SOPClassUID, named.Modality, named.RecognizableVisualFeatures) == (DERMOSCOPIC, "DMS", "YES")


@pytest.mark.parametrize(
    ("content", "interpretation"),
    [
        (image("L"), "MONOCHROME2"),
        (image(progressive=True), "YBR_FULL_422"),
        (image("CMYK"), "YBR_FULL_422"),
        (image(keep_rgb=True), "RGB"),
        (turned(6), "YBR_FULL_422"),
    ],
)
def test_what_dicom_does_not_know_is_re_encoded_and_says_so(content: bytes, interpretation: str) -> None:
    dataset = dicom(content)
    kept = read_jpeg(content).is_baseline and read_jpeg(content).orientation == 1 and read_jpeg(content).components < 4
    assert dataset.PhotometricInterpretation == interpretation
    assert dataset.ImageType[0] == ("ORIGINAL" if kept else "DERIVED")
    assert read_jpeg(next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))).is_baseline


def test_notes_carry_the_photo_or_the_way_to_it_and_escape_what_people_wrote() -> None:
    said = {"heading": "<Doe> & {Co}", "lines": ["ä\\b 中"]}
    assert base64.b64encode(PHOTO) in (xhtml := photo_to_xhtml(PHOTO, **said))
    assert b"<Doe>" not in xhtml
    rtf = photo_to_rtf(PHOTO, **said)
    assert PHOTO.hex().encode() in rtf and b"\\{Co\\}" in rtf and b"\\u228?" in rtf
    assert b"https://d/photos/1" in photo_to_note(link="https://d/photos/1", **said)


def message(event: str = "ORU^R01", **changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "event": event,
        "control_id": "c1",
        "document_id": "doc-1",
        "at": AT,
        "taken_at": None,
        "patient": PATIENT,
        "encounter": {"identifier": [{"system": VISIT, "value": "V1"}]},
        "content": PHOTO,
        "lines": caption(MEDIA, UTC),
    }
    profile = MessageProfile(authorities={MRN: "HOSP", VISIT: "HOSP"})
    return photo_message(PhotoMessage(**facts | changes), profile)


@pytest.mark.parametrize("event", ["ORU^R01", "MDM^T02", "MDM^T04", "MDM^T10", "MDM^T11"])
def test_hl7apy_finds_the_message_valid(event: str) -> None:
    text = message(event).decode()
    assert parse_message(text, find_groups=True, validation_level=VALIDATION_LEVEL.TOLERANT).validate()


def test_the_receiver_reads_the_very_photo_and_whose_it_is() -> None:
    read = Message.parse(message())
    pid, obx, pv1 = read.find("PID"), read.find("OBX"), read.find("PV1")
    assert pid and obx and pv1
    assert (pid.text(3, 1), pid.text(3, 4), pid.text(5, 1)) == ("47|11", "HOSP", "Müller^Doe")
    assert base64.b64decode(obx.text(5, 5)) == PHOTO
    assert pv1.text(19) == "V1"


def test_a_cancellation_carries_no_photo() -> None:
    cancelled = Message.parse(message("MDM^T11", parent_id="doc-0"))
    txa = cancelled.find("TXA")
    assert not cancelled.all("OBX") and txa is not None
    assert (txa.text(12), txa.text(13), txa.text(19)) == ("doc-1", "doc-0", "CA")


WRITTEN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60).filter(
    lambda text: text != '""' and bool(text.strip()) == bool(text)  # HL7's null; blanks alone say nothing
)


@given(name=WRITTEN, note=WRITTEN)
@settings(max_examples=60, deadline=None)
def test_whatever_people_wrote_comes_out_as_written(name: str, note: str) -> None:
    patient = PATIENT | {"name": [{"family": name}]}
    read = Message.parse(message(patient=patient, lines=[note], content=b"x"))
    assert (read.all("PID")[0].first(5).value(), read.all("OBX")[1].first(5).value()) == (name, note)


def test_a_phones_display_p3_is_told_to_dicom_and_looks_the_same_there() -> None:
    """A real photo of an iPhone, re-encoded as JPEG: its profile goes with it, so its colours do."""
    content = (DATA / "photos" / "iphone_13_pro_max.HEIC").read_bytes()
    with open_heif(content).to_pillow() as photo:
        profile = photo.info["icc_profile"]
        wanted = np.asarray(_in_srgb(photo, profile).resize((64, 48)), float)
    found = dicom(content, "image/heic")
    assert found.ICCProfile.rstrip(b"\0") == profile.rstrip(b"\0")
    assert len(found.ICCProfile) % 2 == 0
    assert b"Display P3" in profile
    with Image.open(io.BytesIO(next(generate_frames(found.PixelData)))) as encoded:
        assert encoded.info["icc_profile"] == profile
        shown = np.asarray(_in_srgb(encoded, found.ICCProfile).resize((64, 48)), float)
        plain = np.asarray(encoded.convert("RGB").resize((64, 48)), float)
    assert np.abs(shown - wanted).mean() < 1.5
    assert np.abs(plain - wanted).mean() > np.abs(shown - wanted).mean()


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image.convert("RGB"), source, ImageCms.createProfile("sRGB"))
    assert converted is not None
    return converted
