"""The `hapi` profile against HAPI FHIR's own JPA server (see HapiServer.java), over HTTP.

Needs a JDK 17 or later and Maven, which `make test-real` uses to fetch the server; without them the tests are skipped
with that sentence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter import consent
from adapter.bridge import Bridge
from adapter.delivery.withdrawal import take_back_withdrawn
from connectors.contract import AsksTogether, Connector, DeliveryError, Parcel, Receipt
from connectors.photos_found import NotThisPatient, PhotoSource, open_photo_sources
from connectors.profile import build_profile
from connectors.registry import open_connector
from mappings.terms import URI
from tests.conftest import Clock
from tests.connectors.test_contract import MRN, PHOTO, VISIT, encounter, parcel, patient
from tests.connectors.vendor_site import DeliverySite, consent_says

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
NUMBERS = count(1)
ENCOUNTER = {
    "resourceType": "Encounter",
    "status": "in-progress",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
}
JAVA = ("java", "-Xmx768m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # starts fast rather than runs fast


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The base URL of a running server."""
    classpath = HERE / "target" / "classpath"
    if shutil.which("javac") is None or not classpath.is_file():
        reason = "no HAPI FHIR here: apt-get install default-jdk-headless maven, then make test-real"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    command = [*JAVA, "-cp", classpath.read_text(), "HapiServer.java"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=HERE, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.strip() for line in process.stdout if line.startswith("http"))
        finally:
            process.terminate()


class Hapi:
    """A client of our own, to arrange things and to look behind the connector's back."""

    def __init__(self, base: str) -> None:
        self.http = httpx.Client(base_url=base, timeout=60, headers={"Cache-Control": "no-cache"})

    def create(self, resource: dict[str, Any]) -> str:
        answer = self.http.post(f"/{resource['resourceType']}", json=resource)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def admit(self, number: str, mrn: str) -> str:
        """A patient with a visit; the id there."""
        theirs = self.create(patient(number, mrn))
        self.create(ENCOUNTER | encounter(number) | {"subject": {"reference": f"Patient/{theirs}"}})
        return theirs

    def of(self, sent: Parcel, kind: str = "Media") -> list[dict[str, Any]]:
        return self.by_identifier(sent.media["identifier"][0]["value"], kind)

    def by_identifier(self, value: str, kind: str = "Media") -> list[dict[str, Any]]:
        bundle = self.http.get(f"/{kind}", params={"identifier": f"{URI}|{value}"}).json()
        return [entry["resource"] for entry in bundle.get("entry", [])]


@pytest.fixture
def hapi(base: str) -> Iterator[Hapi]:
    opened = Hapi(base)
    yield opened
    opened.http.close()


Open = Callable[..., Connector]


@pytest.fixture
def open_hapi(base: str) -> Iterator[Open]:
    """Opens the shipped profile with changes, and closes what it opened."""
    opened: list[Connector] = []

    def open_it(**changes: Any) -> Connector:
        table = {"name": "hapi", "based_on": "hapi", "base_url": base} | changes
        opened.append(open_connector(build_profile(table, source="test"), lambda name: name))
        return opened[-1]

    yield open_it
    for connector in opened:
        connector.close()


@pytest.fixture
def connector(open_hapi: Open) -> Connector:
    return open_hapi()


def known(hapi: Hapi, of: Parcel | None = None, **changes: Any) -> Parcel:
    """A photo of a patient whom the server knows; with `of`, the same photo, now filed under somebody else."""
    number = str(next(NUMBERS))
    hapi.admit(number, f"A-{number}")
    identifier = of.media["identifier"] if of else [{"system": URI, "value": f"urn:uuid:{int(number):032}"}]
    made = parcel(number, **changes)
    return replace(made, media={**made.media, "identifier": identifier})


def together(connector: Connector, parcels: Sequence[tuple[Parcel, Receipt | None]]) -> AbstractContextManager[None]:
    assert isinstance(connector, AsksTogether)
    return connector.asked_together(parcels)


def test_check_finds_nothing_to_change(connector: Connector) -> None:
    assert {finding.verdict for finding in connector.check()} == {"ok"}


@pytest.mark.parametrize("upload", ["raw", "json", "inline"])
@pytest.mark.parametrize("route", ["fhir-media", "fhir-documentreference"])
def test_a_photo_arrives_with_patient_and_visit_and_reads_back_identical(
    open_hapi: Open, hapi: Hapi, route: str, upload: str
) -> None:
    connector, sent = open_hapi(routes=[route], binary_upload=upload), known(hapi)
    receipt = connector.send(sent)
    evidence = connector.read_back(sent, receipt)
    assert evidence.matches and evidence.sha256 == sent.sha256, evidence.differences
    [filed] = hapi.of(sent, {"fhir-media": "Media"}.get(route, "DocumentReference"))
    assert filed["subject"]["reference"] == f"Patient/{receipt.ids['Patient']}"
    if upload != "inline":
        held = hapi.http.get(f"/Binary/{receipt.ids['Binary']}", headers={"Accept": "image/jpeg"})
        assert (held.content, held.headers["content-type"]) == (PHOTO, "image/jpeg")


def test_a_photo_as_large_as_cameras_make_them_reads_back_identical(connector: Connector, hapi: Hapi) -> None:
    sent = known(hapi, content=PHOTO + bytes(range(256)) * 48_000)
    assert connector.read_back(sent, connector.send(sent)).size == sent.size > 12_000_000


def test_the_same_photo_from_two_senders_at_once_is_one_record(open_hapi: Open, hapi: Hapi) -> None:
    """Neither knows of the other, and the server still remembers searches that found nothing."""
    first, second = open_hapi(), open_hapi()
    sent = known(hapi)
    assert first.find(sent) is None and second.find(sent) is None
    receipt = first.send(sent)
    found, again = second.find(sent), second.send(sent)
    assert found is not None and found.ids == again.ids == receipt.ids and again.duplicate
    assert len(hapi.of(sent)) == 1


def test_the_servers_own_conditional_create_stops_a_late_second_create(
    open_hapi: Open, hapi: Hapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector, sent = open_hapi(), known(hapi)
    looks = iter([[]])  # the first look happens before the other sender's photo arrives
    real = connector._copies
    other = open_hapi().send(sent)
    monkeypatch.setattr(connector, "_copies", lambda *given: next(looks, None) or real(*given))
    assert connector.send(sent).ids["Media"] == other.ids["Media"] and len(hapi.of(sent)) == 1


def test_looks_in_a_batch_are_answered_and_never_from_memory(connector: Connector, hapi: Hapi) -> None:
    """HAPI FHIR gives the same search the same answer for a minute unless Cache-Control forbids it: in a batch too."""
    photos = [known(hapi), known(hapi)]
    for expected in (False, True):
        with together(connector, [(sent, None) for sent in photos]):
            receipts = [connector.send(sent) for sent in photos]
        assert [receipt.duplicate for receipt in receipts] == [expected, expected]
    with together(connector, list(zip(photos, receipts, strict=True))):
        seen = [connector.read_back(sent, receipt) for sent, receipt in zip(photos, receipts, strict=True)]
    assert all(evidence and evidence.matches for evidence in seen)
    assert [len(hapi.of(sent)) for sent in photos] == [1, 1]


def test_a_new_version_updates_the_same_record_and_keeps_the_bytes(connector: Connector, hapi: Hapi) -> None:
    sent = known(hapi)
    first = connector.send(sent)
    corrected = {**sent.media, "note": [{"text": "corrected"}]}
    newer = replace(sent, idempotency_key="m1/2/x", delivery_id="d2", media=corrected, previous=first)
    second = connector.send(newer)
    assert second.ids == first.ids and second.version != first.version
    assert connector.read_back(newer, second).matches
    assert [media["note"] for media in hapi.of(sent)] == [[{"text": "corrected"}]]


def test_a_merge_moves_the_photo_and_takes_it_back_from_the_first_record(connector: Connector, hapi: Hapi) -> None:
    sent = known(hapi)
    wrong = connector.send(sent)
    moved = known(hapi, of=sent, version=2, previous=wrong)
    right = connector.send(moved)
    assert not connector.retract(sent, wrong, "wrong patient").duplicate
    assert connector.retract(sent, wrong, "wrong patient").duplicate
    assert connector.read_back(moved, right).matches and connector.find(sent) is None
    told = {media["id"]: (media["status"], media["subject"]["reference"]) for media in hapi.of(sent)}
    assert told == {
        wrong.ids["Media"]: ("entered-in-error", f"Patient/{wrong.ids['Patient']}"),
        right.ids["Media"]: ("completed", f"Patient/{right.ids['Patient']}"),
    }


def test_a_patient_merged_away_there_gets_no_photo(connector: Connector, hapi: Hapi) -> None:
    sent = known(hapi)
    [theirs] = hapi.http.get(
        "/Patient", params={"identifier": f"{MRN}|{sent.patient['identifier'][0]['value']}"}
    ).json()["entry"]
    link = [{"type": "replaced-by", "other": {"reference": f"Patient/{hapi.admit('x', 'A-survivor')}"}}]
    hapi.http.put(f"/Patient/{theirs['resource']['id']}", json=theirs["resource"] | {"link": link}).raise_for_status()
    with pytest.raises(DeliveryError, match="merged away"):
        connector.send(sent)
    assert hapi.of(sent) == []


def test_dermbridge_delivers_confirms_moves_and_takes_back(
    base: str, hapi: Hapi, bridge: Bridge, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = consent_says(True)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    for number, mrn in (("1", "1001"), ("2", "1002")):
        if not hapi.http.get("/Patient", params={"identifier": f"{MRN}|{mrn}"}).json().get("entry"):
            theirs = hapi.create(patient(number, mrn))
            visit = {
                "identifier": [{"system": VISIT, "value": f"V{number}"}],
                "subject": {"reference": f"Patient/{theirs}"},
            }
            hapi.create(ENCOUNTER | visit)
    destination = {"name": "x", "based_on": "hapi", "base_url": base, "on_withdrawal": "retract"}
    site, photo = DeliverySite(bridge, clock, destination), 100 + next(NUMBERS)
    name = site.capture(photo).resource["identifier"][0]["value"]
    site.run()
    site.move(photo, "2")
    site.run()
    assert [row.state for row in site.rows(photo)] == ["retracted", "confirmed"]
    said.permit = False
    with site.bridge.db.transaction() as tx:
        take_back_withdrawn(tx, site.bridge, "p2")
    site.run()
    site.destinations.close()
    assert [row.state for row in site.rows(photo)] == ["retracted", "withheld"]  # it goes again when consent returns
    assert [media["status"] for media in hapi.by_identifier(name)] == ["entered-in-error"] * 2


# --- photos there ---------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(base: str) -> Iterator[PhotoSource]:
    """By the searches of the shipped profile."""
    profile = build_profile({"name": "hapi", "based_on": "hapi", "base_url": base}, source="test")
    (source,) = open_photo_sources(profile, lambda _: "")
    yield source
    source.close()


def filed(hapi: Hapi, patient_id: str, content: bytes, kind: str = "Media", **more: Any) -> str:
    """A photo that somebody else put there; its bytes as a Binary, read back as they were."""
    answer = hapi.http.post("/Binary", content=content, headers={"Content-Type": "image/jpeg"})
    binary_id = answer.headers["location"].split("/Binary/")[1].split("/")[0]
    attachment = {"contentType": "image/jpeg", "url": f"Binary/{binary_id}"} | more
    told: dict[str, Any] = {"resourceType": kind, "subject": {"reference": f"Patient/{patient_id}"}}
    media = {"status": "completed", "content": attachment}
    document = {"status": "current", "content": [{"attachment": attachment}]}
    return f"{kind}/{hapi.create(told | (media if kind == 'Media' else document))}"


def test_photos_of_others_are_listed_and_fetched_bit_for_bit(hapi: Hapi, photos: PhotoSource) -> None:
    mine, theirs = (hapi.admit(f"9{one}", f"READ-{one}") for one in (1, 2))
    content = PHOTO * 50
    sent = {filed(hapi, mine, content, kind) for kind in ("Media", "DocumentReference")}
    scan = filed(hapi, mine, b"%PDF-1.7", contentType="application/pdf")
    other = filed(hapi, theirs, content)
    whom = patient("91", "READ-1")
    found = photos.find_photos(whom)
    assert {one.id for one in found.photos if not one.obstacle} == sent
    assert {one.id for one in found.photos if one.obstacle} == {scan}
    assert (found.refused, found.not_offered) == ((), ())
    for photo_id in sent:
        assert photos.fetch_photo(whom, photo_id).content == content
    with pytest.raises(NotThisPatient):
        photos.fetch_photo(whom, other)


def test_photos_of_a_record_merged_there_are_found_from_either_number(hapi: Hapi, photos: PhotoSource) -> None:
    former, survivor = (hapi.admit(f"9{one}", f"READ-{one}") for one in (3, 4))
    sent = {filed(hapi, one, PHOTO) for one in (former, survivor)}
    links = {former: ("replaced-by", survivor), survivor: ("replaces", former)}
    for one, (kind, other) in links.items():
        resource = hapi.http.get(f"/Patient/{one}").json()
        link = {"type": kind, "other": {"reference": f"Patient/{other}"}}
        changed = resource | {"active": one == survivor, "link": [link]}
        assert hapi.http.put(f"/Patient/{one}", json=changed).status_code == 200
    for number, mrn in (("93", "READ-3"), ("94", "READ-4")):
        assert {one.id for one in photos.find_photos(patient(number, mrn)).photos} == sent
