"""Photos in a patient's record elsewhere: each vendor that tells them, whose they are, and what is never fetched."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from adapter.sandbox.vendors import Fault, RunningVendor, running_vendor
from adapter.sandbox.vendors.behaviour import Refusal
from adapter.sandbox.vendors.engine import Kind
from adapter.sandbox.vendors.photos_there import file_photo
from connectors.contract import DeliveryError, Retry
from connectors.fhir_identity import PatientMissing
from connectors.fhir_photos import FhirPhotos
from connectors.kinds import FhirR4Profile
from connectors.photo_answers import photos_of, read_photos
from connectors.photo_check import declared_photos
from connectors.photos_found import NotThisPatient, PhotoGone, PhotosFound, PhotoStays, open_photo_sources
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.connectors.vendor_site import MRN, photo

READ = ["hapi", "medplum", "canvas", "eclinicalworks", "pacs"]  # where photos of others are found, and how they come
JANE = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": MRN, "value": "1001"}],
    "birthDate": "1970-01-01",
}


class Elsewhere:
    """A simulated vendor that knows patients 1001 and 1002, and the one source that reads it."""

    def __init__(self, running: RunningVendor, **changes: Any) -> None:
        self.vendor = running.vendor
        destination = running.destination("x", timeouts={"read": 2.0, "attempts": 1}, **changes)
        profile = build_profile(destination, source="test")
        (self.source,) = open_photo_sources(profile, lambda _: "a-secret")
        for number in ("1001", "1002"):
            self.vendor.admit(number, "1970-01-01")

    def find(self, patient: dict[str, Any] = JANE) -> PhotosFound:
        return self.source.find_photos(patient)

    def change(self, photo_id: str, **elements: Any) -> None:
        kind, _, resource_id = photo_id.partition("/")
        self.vendor.resources[kind, resource_id] |= elements


Open = Callable[..., Elsewhere]


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_vendor(name: str, **changes: Any) -> Elsewhere:
            site = Elsewhere(stack.enter_context(running_vendor(name)), **changes)
            stack.callback(site.source.close)
            return site

        yield open_vendor


@pytest.mark.parametrize("name", READ)
def test_a_photo_there_is_listed_and_comes_back_bit_for_bit(name: str, opened: Open) -> None:
    site = opened(name)
    photo_id, _ = file_photo(site.vendor, "1001", photo(1)), file_photo(site.vendor, "1002", photo(2))
    found = site.find()
    assert [(one.id, one.content_type, one.created, one.obstacle) for one in found.photos] == [
        (photo_id, "image/jpeg", "2026-03-02", "")
    ]
    assert (found.refused, found.more, found.not_offered) == ((), False, ())
    assert site.source.get_photo(JANE, photo_id) == found.photos[0]
    fetched = site.source.fetch_photo(JANE, photo_id)
    assert hashlib.sha256(fetched.content).digest() == hashlib.sha256(photo(1)).digest()
    assert fetched.made == ""


@pytest.mark.parametrize("name", READ)
def test_nothing_is_written_there(name: str, opened: Open) -> None:
    site = opened(name)
    photo_id = file_photo(site.vendor, "1001", photo())
    site.find()
    site.source.fetch_photo(JANE, photo_id)
    assert {method for method, path in site.vendor.requests if "/token" not in path and "_search" not in path} == {
        "GET"
    }


@pytest.mark.parametrize("name", READ)
def test_a_photo_of_somebody_else_is_never_fetched(name: str, opened: Open) -> None:
    site = opened(name)
    theirs = file_photo(site.vendor, "1002", photo())
    for ask in (site.source.fetch_photo, site.source.get_photo):
        with pytest.raises(NotThisPatient):
            ask(JANE, theirs)
    assert not any("/kept/" in path or "/Binary/" in path for _, path in site.vendor.requests)


@pytest.mark.parametrize("name", READ)
def test_what_is_not_there_is_gone(name: str, opened: Open) -> None:
    site = opened(name)
    for photo_id in ("Media/404", "studies/1.2/series/1.3/instances/1.4", "Binary/1", "../secrets", "Media/1/../2"):
        for ask in (site.source.fetch_photo, site.source.get_photo):
            with pytest.raises(PhotoGone):
                ask(JANE, photo_id)


@pytest.mark.parametrize("name", READ)
def test_a_patient_nobody_there_knows_is_said_to_be_missing(name: str, opened: Open) -> None:
    site = opened(name)
    stranger = JANE | {"identifier": [{"system": MRN, "value": "9"}]}
    if name == "pacs":  # an archive has no patients, only objects
        assert site.find(stranger).photos == ()
        stranger = JANE | {"identifier": []}
    with pytest.raises(PatientMissing):
        site.find(stranger)


@pytest.mark.parametrize("name", READ)
def test_an_outage_and_a_busy_server_are_worth_another_try(name: str, opened: Open) -> None:
    site = opened(name)
    kinds: tuple[Kind, ...] = ("lost-before", "busy")
    for kind in kinds:
        site.vendor.faults = [Fault(kind, "", "")]
        with pytest.raises(DeliveryError) as told:
            site.find()
        assert told.value.retry is Retry.LATER


def test_a_search_that_brings_other_patients_shows_none_of_them(opened: Open) -> None:
    site = opened("hapi", photos={"searches": ["Media?identifier={patient}"]})
    mine, theirs = (file_photo(site.vendor, mrn, photo(), identifier=_NAMED) for mrn in ("1001", "1002"))
    found = site.find()
    assert ([one.id for one in found.photos], found.refused) == ([mine], (theirs,))


_NAMED = [{"system": "", "value": "pat-1001"}]


def test_a_subject_on_another_server_is_somebody_else_although_the_id_is_the_same(opened: Open) -> None:
    site = opened("hapi")
    photo_id = file_photo(site.vendor, "1001", photo(), subject={"reference": "https://other.example/Patient/pat-1001"})
    assert site.find().refused == (photo_id,)
    with pytest.raises(NotThisPatient):
        site.source.fetch_photo(JANE, photo_id)
    site.change(photo_id, subject={"reference": f"{site.vendor.address}/fhir/Patient/pat-1001"})
    assert [one.id for one in site.find().photos] == [photo_id]


@pytest.mark.parametrize("name", READ)
def test_another_birth_date_there_stops_everything(name: str, opened: Open) -> None:
    site = opened(name)
    photo_id = file_photo(site.vendor, "1001", photo())
    other = JANE | {"birthDate": "1971-02-02"}
    with pytest.raises(DeliveryError):
        site.source.fetch_photo(other, photo_id)
    if name == "pacs":
        assert (site.find(other).photos, site.find(other).refused) == ((), (photo_id,))
    else:
        with pytest.raises(DeliveryError, match="another birth date"):
            site.find(other)


def test_photos_of_a_patient_merged_there_are_found_under_both_records(opened: Open) -> None:
    site = opened("hapi")
    old, new = file_photo(site.vendor, "1001", photo(1)), file_photo(site.vendor, "1002", photo(2))
    site.vendor.merge("1001", "1002")
    found = site.find()
    assert [one.id for one in found.photos] == [new, old]
    assert site.source.fetch_photo(JANE, old).content == photo(1)


def test_what_was_entered_in_error_is_not_listed_and_not_fetched(opened: Open) -> None:
    site = opened("hapi")
    photo_id = file_photo(site.vendor, "1001", photo(), status="entered-in-error")
    assert site.find().photos == ()
    with pytest.raises(PhotoGone):
        site.source.fetch_photo(JANE, photo_id)


def test_all_pages_are_read_up_to_the_limit(opened: Open) -> None:
    site = opened("hapi", search="get")
    for number in range(25):
        file_photo(site.vendor, "1001", photo(number))
    assert (len(site.find().photos), site.find().more) == (25, False)
    few = opened("hapi", photos={"searches": ["Media?patient={patient}"], "at_most": 12}, search="get")
    few.vendor.resources = site.vendor.resources
    assert (len(few.find().photos), few.find().more) == (12, True)


@pytest.mark.parametrize(
    ("attachment", "why"),
    [
        ({"contentType": "application/pdf", "url": "Binary/1"}, "no photo but application/pdf"),
        ({"contentType": "image/jpeg", "url": "Binary/1", "size": 60_000_000}, "larger than 50 MB"),
        ({"contentType": "image/jpeg", "url": "https://169.254.169.254/latest/meta-data"}, "attachment_hosts"),
        ({"contentType": "image/jpeg", "url": "http://[::1"}, "attachment_hosts"),
        ({"contentType": "image/jpeg", "url": "file:///etc/passwd"}, "attachment_hosts"),
        ({"contentType": "image/jpeg", "url": "../admin/export"}, "attachment_hosts"),
    ],
)
def test_what_cannot_be_fetched_is_named_with_the_reason_and_nobody_is_asked(
    attachment: dict[str, Any], why: str, opened: Open
) -> None:
    site = opened("hapi")
    photo_id = file_photo(site.vendor, "1001", photo(), content=attachment)
    (named,) = site.find().photos
    assert why in named.obstacle
    with pytest.raises(PhotoStays, match="stays where it is"):
        site.source.fetch_photo(JANE, photo_id)
    assert not any("Binary" in path or "admin" in path for _, path in site.vendor.requests)


def test_bytes_that_are_not_those_described_are_not_taken(opened: Open) -> None:
    site = opened("hapi")
    photo_id = file_photo(site.vendor, "1001", photo())
    site.vendor.binaries = {name: (kind, photo(9)) for name, (kind, _) in site.vendor.binaries.items()}
    with pytest.raises(PhotoStays, match="hash"):
        site.source.fetch_photo(JANE, photo_id)


def test_a_signed_address_never_sees_our_authorization(opened: Open) -> None:
    site = opened("medplum")
    photo_id = file_photo(site.vendor, "1001", photo())
    seen: list[dict[str, str]] = []
    respond = site.vendor.respond

    def noted(request: Any) -> Any:
        seen.append({"path": request.path} | request.headers)
        return respond(request)

    site.vendor.respond = noted  # type: ignore[method-assign]
    assert site.source.fetch_photo(JANE, photo_id).content == photo()
    assert [("authorization" in one) for one in seen if one["path"].startswith("/kept/")] == [False]
    assert all("authorization" in one for one in seen if one["path"].startswith("/fhir/"))


def test_a_redirect_is_not_followed(opened: Open) -> None:
    site = opened("hapi")
    photo_id = file_photo(site.vendor, "1001", photo())
    site.vendor.faults = [Fault("refuse", "GET", path, refusal=Refusal(status=302)) for path in _BINARIES]
    with pytest.raises(DeliveryError, match="302"):
        site.source.fetch_photo(JANE, photo_id)


_BINARIES = ["Binary/2"]


def test_a_second_attachment_has_an_id_of_its_own(opened: Open) -> None:
    site = opened("oracle-health", photos={"searches": ["DocumentReference?patient={patient}"]})
    attachments = [{"contentType": kind, "url": f"Binary/{kind}"} for kind in ("text/rtf", "image/jpeg")]
    photo_id = file_photo(
        site.vendor, "1001", photo(), content=[{"attachment": one} for one in attachments], docStatus="final"
    )
    site.vendor.binaries["jpeg"] = ("image/jpeg", photo(7))
    attachments[1]["url"] = "Binary/jpeg"
    assert [(one.id, bool(one.obstacle)) for one in site.find().photos] == [(photo_id, True), (f"{photo_id}#2", False)]
    assert site.source.fetch_photo(JANE, f"{photo_id}#2").content == photo(7)


def test_epic_is_asked_in_its_archive_and_in_its_record() -> None:
    with running_vendor("epic") as running:
        running.vendor.admit("1001", "1970-01-01")
        profile = build_profile(running.destination("x"), source="test")
        archive, record = open_photo_sources(profile, lambda _: "a-secret")
        filed = file_photo(running.vendor, "1001", photo())
        assert (archive.find_photos(JANE).photos, [one.id for one in record.find_photos(JANE).photos]) == ((), [filed])
        assert (archive.owns(filed), record.owns(filed)) == (False, True)
        archive.close()
        record.close()


# --- the archive ----------------------------------------------------------------------------------------------------


def rewritten(site: Elsewhere, **elements: Any) -> None:
    """The only object there with other elements; `PixelData` is a picture without compression."""
    (document,) = site.vendor.documents.values()
    dataset = pydicom.dcmread(io.BytesIO(document.content))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    if "PixelData" in elements:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", False
    out = io.BytesIO()
    dataset.save_as(out)
    document.content = out.getvalue()


@pytest.mark.parametrize("level", ["study", "instance"])
def test_an_archive_is_asked_at_the_level_it_offers(level: str, opened: Open) -> None:
    site = opened("pacs", photos={"modalities": ["XC", "DMS"], "level": level})
    photo_id = file_photo(site.vendor, "1001", photo())
    (found,) = site.find().photos
    assert (found.id, found.modality, found.device) == (photo_id, "XC", "Camera of another")


def test_a_wildcard_in_a_number_brings_nobody_elses_photos(opened: Open) -> None:
    site = opened("pacs")
    photo_id = file_photo(site.vendor, "1001", photo())
    anybody = JANE | {"identifier": [{"system": MRN, "value": "*"}]}
    with pytest.raises(NotThisPatient):
        site.source.fetch_photo(anybody, photo_id)


def test_the_same_number_of_another_issuer_is_somebody_else(opened: Open) -> None:
    site = opened("pacs")
    photo_id = file_photo(site.vendor, "1001", photo())
    rewritten(site, IssuerOfPatientID="ELSEWHERE")
    assert (site.find().photos, site.find().refused) == ((), (photo_id,))


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"PixelData": bytes(64 * 48 * 3)}, "does not render it"),
        ({"NumberOfFrames": "7"}, "7 frames"),
        ({"PhotometricInterpretation": "RGB"}, "does not render it"),  # its colours would be read as YCbCr
    ],
)
def test_what_is_no_single_jpeg_stays_in_an_archive_that_does_not_render(
    elements: dict[str, Any], why: str, opened: Open
) -> None:
    site = opened("pacs")
    photo_id = file_photo(site.vendor, "1001", photo())
    rewritten(site, **elements)
    with pytest.raises(PhotoStays, match=why):
        site.source.fetch_photo(JANE, photo_id)


def test_an_archive_that_answers_nothing_but_404_has_lost_no_photo(opened: Open) -> None:
    site = opened("pacs")
    photo_id = file_photo(site.vendor, "1001", photo())
    for ask in (site.source.get_photo, site.source.fetch_photo):
        site.vendor.faults = [Fault("refuse", "GET", "", refusal=Refusal(status=404)) for _ in range(2)]
        with pytest.raises(DeliveryError) as told:
            ask(JANE, photo_id)
        assert not isinstance(told.value, PhotoGone)
    site.vendor.documents.clear()
    with pytest.raises(PhotoGone):
        site.source.get_photo(JANE, photo_id)


def test_an_object_of_another_class_is_not_listed(opened: Open) -> None:
    site = opened("pacs")
    file_photo(site.vendor, "1001", photo())
    rewritten(site, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    assert site.find().photos == ()


# --- whatever is answered -------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["Media", "Media/1", "image/png"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceType", "id", "meta", "subject", "content", "attachment", "url", "status", "entry"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES)
def test_no_record_whatever_is_more_than_unreadable(answered: Any) -> None:
    if isinstance(answered, dict) and (record := read_photos(answered)):
        assert all(found.id.startswith(("Media/", "DocumentReference/")) for found, _ in photos_of(record))


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_no_answer_whatever_makes_anything_but_a_delivery_error(answered: Any) -> None:
    profile = FhirR4Profile.model_validate(
        {
            "name": "x",
            "kind": "fhir-r4",
            "base_url": "https://ehr.example/fhir",
            "timeouts": {"attempts": 1},
            "photos": {"searches": ["Media?patient={patient}"]},
        }
    )
    source = FhirPhotos(profile, lambda _: "")
    known = {"resourceType": "Patient", "id": "a", "identifier": [{"system": MRN, "value": "1001"}]}

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/Patient"):
            return httpx.Response(200, json={"resourceType": "Bundle", "entry": [{"resource": known}]})
        return httpx.Response(200, content=json.dumps(answered).encode())

    for http in (source._session.http, source._session.bare):
        http._transport = httpx.MockTransport(respond)
    for ask in (lambda: source.find_photos(JANE), lambda: source.fetch_photo(JANE, "Media/1")):
        try:
            ask()
        except DeliveryError:
            continue


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "subject"), [("hapi", "photos there: Media"), ("pacs", "photos there")])
def test_check_says_whether_photos_can_be_asked_for(name: str, subject: str) -> None:
    with running_vendor(name) as running:
        connector = open_connector(build_profile(running.destination("x"), source="test"), lambda _: "a-secret")
        found = {one.subject: one for one in connector.check()}
        connector.close()
    assert found[subject].verdict == "ok"


def test_a_search_that_is_not_declared_and_a_scope_not_granted_are_warnings() -> None:
    profile = FhirR4Profile.model_validate(
        {"name": "x", "kind": "fhir-r4", "base_url": "https://e.example", "photos": {"searches": SEARCHES}}
    )
    media = {"type": "Media", "interaction": [{"code": "read"}], "searchParam": [{"name": "patient"}]}
    found = declared_photos(profile, {"rest": [{"resource": [media]}]}, "system/Media.rs system/Binary.r")
    assert [(one.verdict, one.detail) for one in found] == [
        ("warning", "not declared: search-type, type"),
        ("warning", "not declared: search-type, read"),
        ("warning", "not granted: DocumentReference.r, DocumentReference.s"),
    ]


SEARCHES = ["Media?patient={patient}&type=image&_count=5", "DocumentReference?patient={patient}"]
