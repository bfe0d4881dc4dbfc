"""Real photos into a real archive (Orthanc) by STOW-RS and C-STORE, back bit for bit, and judged by dciodvfy.

Needs Debian's orthanc, orthanc-dicomweb and dicom3tools; without them the tests are skipped with that sentence.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pydicom.uid
import pytest
from PIL import Image

from connectors.contract import Connector, DeliveryError, Parcel, Receipt, Retry
from connectors.dicom_object import frame, rejection
from connectors.knobs import DicomPolicy
from connectors.photos_found import NotThisPatient, PhotoGone, PhotoSource, open_photo_sources
from connectors.profile import build_profile
from connectors.registry import open_connector
from mappings.document_to_dicom import ENCAPSULATED_PDF, document_of, document_to_dicom
from mappings.photo_fit import read_jpeg
from mappings.photo_to_dicom import VL_PHOTOGRAPHIC, DicomPlace, photo_to_dicom
from mappings.photo_to_pdf import PDF, Plate, photos_to_pdf
from mappings.terms import DCM, LATERALITY, PICTURE_DERIVATION, SNOMED, URI

pytestmark = pytest.mark.real

TESTS = Path(__file__).parents[2]
MRN, VISIT = "urn:oid:2.16.840.1.113883.19.5", "urn:oid:2.16.840.1.113883.19.5.1"


def can_read(file: Path) -> bool:
    """Whether a decoder finds a whole picture in it and nothing to complain of."""
    try:
        with warnings.catch_warnings(action="error"), Image.open(file) as image:
            image.load()
            return image.format == "JPEG"
    except (OSError, ValueError, SyntaxError, UserWarning):
        return False


PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MORE = os.environ.get("DERMBRIDGE_PHOTOS", "")  # a folder of JPEGs, all of which are then tried
ALL = sorted(Path(MORE or TESTS / "data" / "photos").rglob("*.jp*g"), key=lambda file: file.stat().st_size)
PHOTOS = [file for file in ALL if can_read(file)] if MORE else ALL[-8:]
PHOTOS.append(TESTS / "docker" / "photo.jpg")
DEVICE = {"Manufacturer": "ACME", "ManufacturerModelName": "D1", "DeviceSerialNumber": "7", "SoftwareVersions": "2"}


def needed(condition: bool, what: str) -> None:
    if not condition:
        reason = f"no {what} here: apt-get install orthanc orthanc-dicomweb dicom3tools"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    program = shutil.which("Orthanc")
    needed(program is not None and PLUGIN.exists(), "Orthanc with DICOMweb")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = {"http": first.getsockname()[1], "dicom": second.getsockname()[1]}
    settings = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": ports["http"],
        "DicomPort": ports["dicom"],
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomCheckCalledAet": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(200):
            try:
                httpx.get(f"http://127.0.0.1:{ports['http']}/system", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield ports
    finally:
        process.terminate()
        process.wait()


def parcel(content: bytes, number: str = "1", patient: str = "4711", **changes: Any) -> Parcel:
    sha1 = base64.b64encode(hashlib.sha1(content).digest()).decode()
    made = Parcel(
        delivery_id=f"d{number}",
        idempotency_key=f"m{number}/1/pacs",
        media={
            "resourceType": "Media",
            "id": f"m{number}",
            "identifier": [{"system": URI, "value": f"urn:uuid:0d6c4f4e-7f0e-4f4e-9f0e-{int(number):012}"}],
            "status": "completed",
            "subject": {"reference": "Patient/p1"},
            "createdDateTime": "2026-11-23T09:00:00+01:00",
            "modality": {"coding": [{"system": DCM, "code": "DMS"}]},
            "bodySite": {
                "coding": [{"system": SNOMED, "code": "36141000"}],
                "extension": [
                    {"url": LATERALITY, "valueCodeableConcept": {"coding": [{"system": SNOMED, "code": "7771000"}]}}
                ],
            },
            "content": {"contentType": "image/jpeg", "size": len(content), "hash": sha1},
        },
        patient={
            "resourceType": "Patient",
            "id": "p1",
            "identifier": [{"system": MRN, "value": patient}],
            "name": [{"family": "Müller", "given": ["Jane"]}],
            "birthDate": "1970-01-01",
            "gender": "female",
        },
        encounter={
            "id": "e1",
            "identifier": [{"system": VISIT, "value": "V-1"}],
            "subject": {"reference": "Patient/p1"},
        },
        content=lambda: content,
        content_type="image/jpeg",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1_b64=sha1,
        filename=f"m{number}.jpg",
    )
    return replace(made, **changes)


@pytest.fixture(params=["dicomweb", "dicom-cstore"])
def archive(request: pytest.FixtureRequest, orthanc: dict[str, int]) -> Iterator[Connector]:
    table: dict[str, Any] = {
        "name": "pacs",
        "kind": request.param,
        "dicom": {"patient_id_system": MRN, "issuer": "HOSP", "visit_system": VISIT, "equipment": DEVICE},
    }
    if request.param == "dicomweb":
        table |= {"base_url": f"http://127.0.0.1:{orthanc['http']}/dicom-web"}
    else:
        table |= {"host": "127.0.0.1", "port": orthanc["dicom"], "called_ae": "ORTHANC"}
    opened = open_connector(build_profile(table, source="test"), {}.__getitem__)
    yield opened
    opened.close()


def held(orthanc: dict[str, int], uid: str) -> list[bytes]:
    """Every instance of that UID as the archive keeps it, by its own REST interface."""
    base = f"http://127.0.0.1:{orthanc['http']}"
    ids = httpx.post(f"{base}/tools/lookup", content=uid).json()
    return [httpx.get(f"{base}{each['Path']}/file").content for each in ids if each["Type"] == "Instance"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # a damaged EXIF among one's own
@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_a_real_photo_comes_back_bit_for_bit(archive: Connector, orthanc: dict[str, int], file: Path) -> None:
    content = file.read_bytes()
    number = str(int(hashlib.sha256(content + str(type(archive)).encode()).hexdigest()[:8], 16))
    sent = parcel(content, number)
    assert archive.find(sent) is None
    receipt = archive.send(sent)
    again = archive.send(sent)
    stored = held(orthanc, receipt.ids["SOPInstanceUID"])
    assert again.duplicate and len(stored) == 1
    base, of = f"http://127.0.0.1:{orthanc['http']}", receipt.ids["SOPInstanceUID"]
    [found] = [each for each in httpx.post(f"{base}/tools/lookup", content=of).json() if each["Type"] == "Instance"]
    shown = httpx.get(f"{base}{found['Path']}/rendered", headers={"Accept": "image/jpeg"})
    assert shown.status_code == 200 and shown.headers["content-type"] == "image/jpeg"
    picture = read_jpeg(content)
    if picture.is_baseline and picture.orientation == 1 and picture.components in {1, 3}:
        kept = frame(pydicom.dcmread(io.BytesIO(stored[0])))
        assert kept[: len(content)] == content and len(kept) - len(content) <= 1
    if (evidence := archive.read_back(sent, receipt)) is not None:
        assert evidence.matches, evidence.differences


def sheet(number: str, patient: str = "4711", *, version: int = 1) -> Parcel:
    """A visit as one PDF, of an odd number of bytes (DICOM pads it)."""
    content = photos_to_pdf(
        [Plate(PHOTOS[-1].read_bytes())], heading="Doe", title="", at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    content += b"\n" * (1 - len(content) % 2)
    made = parcel(content, number, patient, content_type=PDF, idempotency_key=f"s{number}/{version}/pacs")
    tag = [{"system": PICTURE_DERIVATION, "code": "contact-sheet"}]
    return replace(made, media={**made.media, "meta": {"tag": tag}}, filename=f"s{number}.pdf")


def test_a_visits_pdf_comes_back_byte_for_byte_and_is_made_again_as_another_object(
    archive: Connector, orthanc: dict[str, int]
) -> None:
    number = str(len(type(archive).__name__))
    sent, newer = sheet(number), sheet(number, version=2)
    receipt = archive.send(sent)
    assert archive.send(sent).duplicate and archive.find(sent) is not None
    [stored] = held(orthanc, receipt.ids["SOPInstanceUID"])
    dataset = pydicom.dcmread(io.BytesIO(stored))
    assert (dataset.SOPClassUID, dataset.MIMETypeOfEncapsulatedDocument) == (ENCAPSULATED_PDF, PDF)
    assert dataset.DocumentTitle == "Clinical photographs of a visit" and dataset.BurnedInAnnotation == "YES"
    assert document_of(dataset) == sent.content() and dataset.PatientID == "4711"
    if (evidence := archive.read_back(sent, receipt)) is not None:
        assert evidence.matches and evidence.sha256 == sent.sha256, evidence.differences
    again = archive.send(replace(newer, previous=receipt))
    assert again.ids["SOPInstanceUID"] != receipt.ids["SOPInstanceUID"]
    [other] = held(orthanc, again.ids["SOPInstanceUID"])
    same = pydicom.dcmread(io.BytesIO(other))
    assert (same.StudyInstanceUID, same.SeriesInstanceUID) == (dataset.StudyInstanceUID, dataset.SeriesInstanceUID)


def test_an_archive_that_deletes_nothing_leaves_it_to_a_person(orthanc: dict[str, int]) -> None:
    url = f"http://127.0.0.1:{orthanc['http']}/dicom-web"
    opened = open_connector(
        build_profile({"name": "p", "kind": "dicomweb", "base_url": url}, source="t"), {}.__getitem__
    )
    sent = parcel(PHOTOS[-1].read_bytes(), "78")
    with pytest.raises(DeliveryError) as error:
        opened.retract(sent, opened.send(sent), "wrong patient")
    assert error.value.retry is Retry.NEVER
    opened.close()


def test_dciodvfy_finds_no_error_in_a_visits_pdf(tmp_path: Path) -> None:
    program = shutil.which("dciodvfy")
    needed(program is not None, "dciodvfy")
    one, file = sheet("1"), tmp_path / "sheet.dcm"
    place = DicomPlace("4711", "HOSP", "V-1", equipment=DEVICE)
    about = {"media": one.media, "patient": one.patient, "place": place}
    file.write_bytes(document_to_dicom(one.content(), PDF, **about, idempotency_key="k", at=datetime.now(UTC)))
    assert "Error" not in _judged(str(program), file)


@pytest.mark.parametrize("equipment", [{}, DEVICE], ids=["photographic", "dermoscopic"])
def test_dciodvfy_finds_no_error(tmp_path: Path, equipment: dict[str, str]) -> None:
    program = shutil.which("dciodvfy")
    needed(program is not None, "dciodvfy")
    one = parcel(PHOTOS[-1].read_bytes())
    place = DicomPlace("4711", "HOSP", "V-1", equipment=equipment)
    file = tmp_path / "photo.dcm"
    file.write_bytes(
        photo_to_dicom(
            one.content(),
            "image/jpeg",
            media=one.media,
            patient=one.patient,
            place=place,
            idempotency_key="k",
            at=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    assert "Error" not in _judged(str(program), file)


@pytest.mark.parametrize("rejected", [VL_PHOTOGRAPHIC, ENCAPSULATED_PDF])
def test_dciodvfy_finds_no_error_in_a_rejection_note(tmp_path: Path, rejected: str) -> None:
    program = shutil.which("dciodvfy")
    needed(program is not None, "dciodvfy")
    one = parcel(PHOTOS[-1].read_bytes())
    uids = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "SOPInstanceUID": "2.25.3", "Patient": "4711"}
    uids["SOPClassUID"] = rejected
    file = tmp_path / "note.dcm"
    file.write_bytes(rejection(one, Receipt("dicomweb", uids), DicomPolicy(), datetime(2026, 1, 1, tzinfo=UTC)))
    assert "Error" not in _judged(str(program), file)


def test_a_rejection_note_is_kept_by_a_real_archive(orthanc: dict[str, int]) -> None:
    url = f"http://127.0.0.1:{orthanc['http']}/dicom-web"
    table = {"name": "p", "kind": "dicomweb", "base_url": url, "retract": "reject"}
    opened = open_connector(build_profile(table, source="t"), {}.__getitem__)
    sent = parcel(PHOTOS[-1].read_bytes(), "79")
    receipt = opened.send(sent)
    assert not opened.retract(sent, receipt, "wrong patient").duplicate
    assert opened.retract(sent, receipt, "wrong patient").duplicate
    opened.close()


def _judged(program: str, file: Path) -> str:
    return subprocess.run([program, str(file)], capture_output=True, text=True, check=False).stderr


# --- photos there ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["instance", "study"])
def photos(request: pytest.FixtureRequest, orthanc: dict[str, int]) -> Iterator[PhotoSource]:
    table = {
        "name": "pacs",
        "kind": "dicomweb",
        "base_url": f"http://127.0.0.1:{orthanc['http']}/dicom-web",
        "dicom": {"patient_id_system": MRN, "issuer": "HOSP"},
        "photos": {"modalities": ["XC", "DMS", "OT"], "level": request.param},
    }
    (source,) = open_photo_sources(build_profile(table, source="test"), lambda _: "")
    yield source
    source.close()


def filed(orthanc: dict[str, int], patient: str, content: bytes, **elements: Any) -> str:
    """A photo that another system stored; `elements` are its own, PixelData one without compression."""
    media = {"createdDateTime": "2026-03-02T10:00:00+01:00", "deviceName": "D5600"}
    place = DicomPlace(patient, "HOSP", equipment=DEVICE)
    born = {"birthDate": "1970-01-01", "name": [{"family": "Doe"}]}
    key = f"{patient}/{hashlib.sha256(content).hexdigest()}/{elements.get('Rows', '')}"
    made = photo_to_dicom(
        content, "image/jpeg", media=media, patient=born, place=place, idempotency_key=key, at=datetime.now(UTC)
    )
    dataset = pydicom.dcmread(io.BytesIO(made))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    if "PixelData" in elements:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", False
    out = io.BytesIO()
    dataset.save_as(out)
    httpx.post(f"http://127.0.0.1:{orthanc['http']}/instances", content=out.getvalue()).raise_for_status()
    return str(dataset.SOPInstanceUID)


def whom(value: str, **more: Any) -> dict[str, Any]:
    known = {"identifier": [{"system": MRN, "value": value}], "birthDate": "1970-01-01"}
    return {"resourceType": "Patient"} | known | more


def test_real_photos_are_listed_and_fetched_bit_for_bit(photos: PhotoSource, orthanc: dict[str, int]) -> None:
    baseline = [one for one in PHOTOS if (p := read_jpeg(one.read_bytes())).is_baseline and p.orientation == 1]
    sent = {filed(orthanc, "P-1", one.read_bytes()): one.read_bytes() for one in baseline}
    assert len(sent) >= 3
    filed(orthanc, "P-2", baseline[0].read_bytes())
    found = photos.find_photos(whom("P-1"))
    assert {one.id.rpartition("/")[2] for one in found.photos} == set(sent)
    assert (found.refused, found.more) == ((), False)
    assert {(one.created, one.device, one.modality) for one in found.photos} == {
        ("2026-03-02T10:00:00+01:00", DEVICE["ManufacturerModelName"], "XC")
    }
    for one in found.photos:
        assert photos.get_photo(whom("P-1"), one.id) == one
        fetched = photos.fetch_photo(whom("P-1"), one.id)
        assert (fetched.content, fetched.made) == (sent[one.id.rpartition("/")[2]], "")


def test_nobody_gets_the_photos_of_another_patient_from_a_real_archive(
    photos: PhotoSource, orthanc: dict[str, int]
) -> None:
    filed(orthanc, "Q-1", PHOTOS[-1].read_bytes())
    (theirs,) = photos.find_photos(whom("Q-1")).photos
    for other in (whom("Q-2"), whom("Q*"), whom("*"), whom("Q-1", birthDate="1999-01-01")):
        assert photos.find_photos(other).photos == ()
        for ask in (photos.fetch_photo, photos.get_photo):
            with pytest.raises(NotThisPatient):
                ask(other, theirs.id)
    with pytest.raises(PhotoGone):
        photos.fetch_photo(whom("Q-1"), "studies/1.2.3/series/1.2.4/instances/1.2.5")


def test_a_photo_without_jpeg_comes_as_the_archive_renders_it_and_says_so(
    photos: PhotoSource, orthanc: dict[str, int]
) -> None:
    plain = {"Rows": 32, "Columns": 48, "PhotometricInterpretation": "RGB", "PixelData": b"\x80\x40\x20" * (32 * 48)}
    filed(orthanc, "R-1", PHOTOS[-1].read_bytes(), **plain)
    (found,) = photos.find_photos(whom("R-1")).photos
    fetched = photos.fetch_photo(whom("R-1"), found.id)
    with Image.open(io.BytesIO(fetched.content)) as image:
        assert image.size == (48, 32)
        assert [abs(a - b) < 8 for a, b in zip(image.convert("RGB").getpixel((9, 9)), (128, 64, 32), strict=True)]  # type: ignore[arg-type]
    assert "renders" in fetched.made
