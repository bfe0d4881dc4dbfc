"""Photos of an EHR or archive copied here: once, of the right patient, read only, watched, gone when their time is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select

from adapter import consent
from adapter.access import SYSTEM, Actor
from adapter.access.policy import grants_of
from adapter.batch.operations import OPERATIONS
from adapter.bridge import Bridge
from adapter.capture.external import Pulled, pull_photo
from adapter.capture.external_upkeep import KIND, forget_external, look_at_external
from adapter.capture.photos_elsewhere import RecordThere, photos_elsewhere
from adapter.capture.receive import original_blob_id
from adapter.capture.render import render_photo
from adapter.compare.comparing import compare
from adapter.compare.saved import save_comparison
from adapter.db.tables import audit_event, blob, delivery, work
from adapter.delivery import WrongPatient, deliver_media
from adapter.delivery.circuit import FAILURES
from adapter.delivery.rehearsal import send_one
from adapter.errors import Forbidden, Gone, NotFound, Unavailable, Unprocessable
from adapter.identity.merges import merge_patients
from adapter.records import Stored, find, find_where, get
from adapter.records.binaries import find_rendition
from adapter.records.paging import PageCodec
from adapter.records.search import search
from adapter.sandbox.vendors import Fault
from adapter.sandbox.vendors.photos_there import file_photo
from adapter.work import Lane, WorkLoop
from mappings.comparison_to_observation import View
from mappings.external_photo import is_external
from mappings.fhir_check import check_resource
from mappings.photo_to_pdf import Plate, photos_to_pdf
from mappings.terms import CONFIDENTIALITY, URI
from tests.conftest import Clock
from tests.connectors.vendor_site import VendorSite, consent_says, photo, vendor_site

SCOPES, RIGHTS = grants_of("clinician")
CLINICIAN = Actor("person", "Practitioner/d", "Dr. D", "clinician", SCOPES, RIGHTS, patient_id="p1")
V = {"system": CONFIDENTIALITY, "code": "V"}


class Site:
    """A DermBridge beside a simulated vendor; patients p1 and p2 are 1001 and 1002 there."""

    def __init__(self, inner: VendorSite) -> None:
        self.inner, self.bridge, self.vendor = inner, inner.bridge, inner.vendor

    def there(self, content: bytes = b"", mrn: str = "1001", **more: Any) -> str:
        return file_photo(self.vendor, mrn, content or photo(), **more)

    def listed(self, actor: Actor = CLINICIAN, patient: str = "p1") -> RecordThere:
        (record,) = photos_elsewhere(self.bridge, self.inner.destinations, actor, patient)
        return record

    def pull(self, photo_id: str, actor: Actor = CLINICIAN, patient: str = "p1") -> Pulled:
        return pull_photo(self.bridge, self.inner.destinations, actor, patient, "x", photo_id)

    def media(self, media_id: str) -> Stored:
        with self.bridge.db.snapshot() as tx:
            return get(tx, "Media", media_id)

    def count(self, resource_type: str = "Media") -> int:
        with self.bridge.db.snapshot() as tx:
            return len(find_where(tx, resource_type))

    def blobs(self) -> int:
        with self.bridge.db.snapshot() as tx:
            return int(tx.execute(select(func.count()).select_from(blob)).scalar_one())

    def audited(self, kind: str) -> list[dict[str, Any]]:
        """Audit events of a DICOM or FHIR code."""
        with self.bridge.db.snapshot() as tx:
            found = [
                orjson.loads(one) for one in tx.execute(select(audit_event.c.body).order_by(audit_event.c.id)).scalars()
            ]
        return [one for one in found if kind in orjson.dumps([one["type"], one.get("subtype")]).decode()]

    def upkeep(self, **span: float) -> None:
        """Some time on, the worker runs."""
        self.inner.clock.advance(**span)
        lanes = {KIND: Lane(lambda item: look_at_external(self.bridge, self.inner.destinations, item))}
        lanes["render"] = Lane(lambda item: render_photo(self.bridge, item))
        WorkLoop(self.bridge.db, lanes, now=self.inner.clock).run_until_idle()

    def change(self, photo_id: str, **elements: Any) -> None:
        kind, _, resource_id = photo_id.partition("/")
        self.vendor.resources[kind, resource_id] |= elements


Open = Callable[..., Site]


@pytest.fixture
def opened(bridge: Bridge, clock: Clock) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda name="hapi", **changes: Site(stack.enter_context(vendor_site(name, bridge, clock, **changes)))


def test_a_photo_there_is_listed_and_copied_as_media_that_says_whose_and_whence(opened: Open) -> None:
    site = opened()
    photo_id = site.there(photo(1))
    (named,) = site.listed().photos
    assert (named.found.id, named.media_id) == (photo_id, None)
    pulled = site.pull(photo_id)
    assert pulled.how == "copied"
    resource = site.media(pulled.media_id).resource
    address = f"{site.vendor.address}/fhir/{photo_id}"
    assert resource["subject"] == {"reference": "Patient/p1"}
    assert resource["meta"]["source"] == f"{address}/_history/1"
    assert {"system": URI, "value": address} in resource["identifier"]
    assert (resource["createdDateTime"], resource["content"]["title"]) == ("2026-03-02", "Left cheek")
    assert is_external(resource) and "operator" not in resource
    check_resource(resource)
    assert [(one.media_id, one.is_ours) for one in site.listed().photos] == [(pulled.media_id, False)]


@pytest.mark.parametrize("name", ["hapi", "pacs"])
def test_its_bytes_are_kept_as_they_were_there(name: str, opened: Open) -> None:
    site = opened(name)
    pulled = site.pull(site.there(photo(3)))
    with site.bridge.db.snapshot() as tx:
        kept = site.bridge.vault.open(tx, original_blob_id(tx, pulled.media_id))
        assert kept.read(0, kept.size) == photo(3)
    site.upkeep()
    with site.bridge.db.snapshot() as tx:
        assert find_rendition(tx, f"Media/{pulled.media_id}", "thumbnail") is not None


@pytest.mark.long
def test_of_a_pdf_of_one_page_the_jpeg_is_kept_as_it_was_embedded(opened: Open) -> None:
    site = opened("oracle-health")

    def page(*photos: bytes) -> bytes:
        plates = [Plate(one) for one in photos]
        return photos_to_pdf(plates, heading="Doe, Jane", title="t", at=site.bridge.now(), columns=len(photos))

    pulled = site.pull(site.there(page(photo(3)), content_type="application/pdf"))
    resource = site.media(pulled.media_id).resource
    assert resource["content"]["contentType"] == "image/jpeg" and "PDF" in resource["note"][0]["text"]
    with site.bridge.db.snapshot() as tx:
        kept = site.bridge.vault.open(tx, original_blob_id(tx, pulled.media_id))
        assert kept.read(0, kept.size) == photo(3)
    with pytest.raises(Unprocessable, match="shows 2 pictures"):
        site.pull(site.there(page(photo(4), photo(5)), content_type="application/pdf"))
    site.inner.capture(1)
    assert site.pull(site.there(page(photo(1)), content_type="application/pdf")) == Pulled("m1", "ours")
    assert site.count() == 2


def test_the_same_version_is_copied_once_and_another_takes_its_place(opened: Open) -> None:
    site = opened()
    photo_id = site.there(photo(1))
    first = site.pull(photo_id)
    assert site.pull(photo_id) == Pulled(first.media_id, "kept")
    assert (site.count(), site.blobs()) == (1, 1)
    site.change(photo_id, meta={"versionId": "2"})
    assert site.listed().photos[0].media_id is None
    second = site.pull(photo_id)
    assert (second.how, second.media_id != first.media_id, site.count(), site.blobs()) == ("copied", True, 1, 1)
    with pytest.raises(Gone):
        site.media(first.media_id)


@pytest.mark.parametrize("name", ["hapi", "medplum", "canvas", "pacs"])
def test_a_photo_that_we_delivered_there_is_shown_as_ours_and_never_copied(
    name: str, opened: Open, permit: Any
) -> None:
    site = opened(name)
    site.inner.capture(1)
    site.inner.run()
    (named,) = site.listed().photos
    assert (named.media_id, named.is_ours) == ("m1", True)
    assert site.pull(named.found.id) == Pulled("m1", "ours")
    assert site.count() == 1


def test_a_photo_of_ours_is_known_by_its_bytes_where_nothing_else_was_kept(opened: Open) -> None:
    site = opened()
    site.inner.capture(1)
    photo_id = site.there(photo(1))
    assert site.listed().photos[0].is_ours
    site.vendor.resources["Media", photo_id.partition("/")[2]]["content"].pop("hash")
    assert not site.listed().photos[0].is_ours
    assert site.pull(photo_id) == Pulled("m1", "ours")


def test_a_copy_is_never_delivered_not_even_after_a_merge(opened: Open, permit: Any) -> None:
    site = opened()
    pulled = site.pull(site.there())
    with site.bridge.db.transaction() as tx:
        assert deliver_media(tx, site.bridge, get(tx, "Media", pulled.media_id)) == []
        merge_patients(tx, site.bridge, SYSTEM, "p1", "p2")
    with site.bridge.db.snapshot() as tx:
        assert get(tx, "Media", pulled.media_id).resource["subject"] == {"reference": "Patient/p2"}
        assert tx.execute(select(func.count()).select_from(delivery)).scalar_one() == 0


def test_a_copy_is_compared_with_a_photo_of_ours_like_any_other(opened: Open, permit: Any) -> None:
    site = opened()
    copy, ours = site.pull(site.there(photo(9))), site.inner.capture(1)
    found = compare(site.bridge, SYSTEM, copy.media_id, ours.id)
    assert found.result["verdict"] in ("aligned", "approximate", "not-aligned") and found.result["reasons"]


def test_a_copy_is_read_only(opened: Open, permit: Any) -> None:
    site = opened()
    pulled = site.pull(site.there())
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("assign", {"body_site": "113179006"}),
        ("redeliver", {}),
        ("refile", {"patient": "p2", "reason": "wrong", "verifier": "Practitioner/v"}),
    )
    with site.bridge.db.transaction() as tx:
        for name, parameters in asked:
            with pytest.raises(Unprocessable, match="read only here"):
                OPERATIONS[name].plan(tx, site.bridge, SYSTEM, pulled.media_id, parameters)
        with pytest.raises(Unprocessable, match="read only here"):
            send_one(tx, site.bridge, pulled.media_id, "x")
    assert site.media(pulled.media_id).version_id == 1


def test_a_photo_of_another_patient_is_refused_and_the_audit_log_says_so(opened: Open) -> None:
    site = opened()
    theirs = site.there(mrn="1002")
    with pytest.raises(WrongPatient):
        site.pull(theirs)
    (refused,) = [one for one in site.audited("search-type") if one["outcome"] == "8"]
    assert theirs in refused["outcomeDesc"]
    assert site.count() == 0


def test_a_date_that_no_calendar_knows_is_left_out(opened: Open) -> None:
    site = opened()
    photo_id = site.there(createdDateTime="2026-02-30")
    copy = site.pull(photo_id)
    assert "createdDateTime" not in site.media(copy.media_id).resource
    assert [one.found.created for one in site.listed().photos] == [""]


def test_question_and_copy_are_in_the_audit_log_and_the_copy_says_where_it_is_from(opened: Open) -> None:
    site = opened()
    site.listed()
    pulled = site.pull(site.there())
    (asked,) = site.audited("search-type")
    assert asked["entity"][0]["what"] == {"reference": "Patient/p1"} and asked["agent"][0]["who"]["reference"]
    (copied,) = site.audited("110107")
    assert {"reference": f"Media/{pulled.media_id}/_history/1"} in [one["what"] for one in copied["entity"]]
    with site.bridge.db.snapshot() as tx:
        (told,) = [one.resource for one in find_where(tx, "Provenance")]
    assert told["entity"][0]["what"]["display"] == "x"
    assert told["entity"][0]["what"]["identifier"]["value"].endswith("/_history/1")
    assert [one["who"] for one in told["agent"]][-1] == {"reference": "Practitioner/d"}


def test_labels_there_are_carried_over_and_what_is_very_restricted_stays_hidden(opened: Open) -> None:
    site = opened()
    photo_id = site.there(meta={"versionId": "1", "security": [V, {"system": "urn:theirs", "code": "X"}]})
    assert (site.listed().photos, site.listed().hidden) == ([], 1)
    with pytest.raises(Forbidden):
        site.pull(photo_id)
    may = dataclasses.replace(CLINICIAN, rights=CLINICIAN.rights | {"very-restricted"})
    labels = site.media(site.pull(photo_id, may).media_id).resource["meta"]["security"]
    assert V in labels and {"system": "urn:theirs", "code": "X"} in labels


def test_where_consent_does_not_permit_photos_none_is_copied(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    site = opened()
    photo_id = site.there()
    monkeypatch.setattr(consent, "decide", lambda tx, bridge, patient_id, media=None: consent_says(False))
    with pytest.raises(Unprocessable, match="withdrew consent"):
        site.pull(photo_id)
    assert not site.audited("110107")


def test_who_may_not_create_photos_copies_none_and_no_session_reaches_another_chart(opened: Open) -> None:
    site = opened()
    photo_id = site.there()
    reader = dataclasses.replace(CLINICIAN, scopes=frozenset({"user/Media.rs"}))
    assert len(site.listed(reader).photos) == 1
    with pytest.raises(Forbidden):
        site.pull(photo_id, reader)
    with pytest.raises(NotFound):
        site.listed(patient="p2")


def test_a_search_separates_copies_from_photos_of_ours(opened: Open) -> None:
    site = opened()
    pulled = site.pull(site.there(photo(2)))
    site.inner.capture(1)

    def ids(*parameters: tuple[str, str]) -> list[str]:
        asked = [("patient", "p1"), *parameters]
        codec = PageCodec(b"a secret of the test", site.bridge.now)
        with site.bridge.db.snapshot() as tx:
            return [one.id for one in search(tx, "Media", asked, patient_ids=None, codec=codec, base_url="").entries]

    assert ids(("origin", "external")) == [pulled.media_id]
    assert ids(("origin:missing", "true")) == ["m1"]
    assert len(ids()) == 2


# --- upkeep ---------------------------------------------------------------------------------------------------------


def test_a_copy_is_looked_at_every_day_and_destroyed_when_its_time_is_over(opened: Open) -> None:
    site = opened()
    pulled = site.pull(site.there())
    for _ in range(29):
        site.upkeep(days=1)
    assert site.media(pulled.media_id)
    site.upkeep(days=1)
    with pytest.raises(Gone):
        site.media(pulled.media_id)
    assert site.blobs() == 0
    with site.bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(work)).scalar_one() == 0
    assert site.pull(site.listed().photos[0].found.id).how == "copied"


@pytest.mark.parametrize(
    "elements",
    [{"subject": {"reference": "Patient/pat-1002"}}, {"status": "entered-in-error"}, {"meta": {"versionId": "9"}}],
)
def test_a_copy_goes_when_it_is_moved_withdrawn_or_changed_there(elements: dict[str, Any], opened: Open) -> None:
    site = opened()
    photo_id = site.there()
    pulled = site.pull(photo_id)
    site.change(photo_id, **elements)
    site.upkeep(days=1, minutes=1)
    with site.bridge.db.snapshot() as tx:
        assert find(tx, "Media", pulled.media_id) is None
    assert site.audited("destroy") or site.audited("delete")


@pytest.mark.parametrize(
    ("elements", "status"),
    [({"subject": {"reference": "Patient/pat-1002"}}, "entered-in-error"), ({"meta": {"versionId": "9"}}, "final")],
)
def test_what_was_saved_with_a_photo_of_somebody_else_is_withdrawn(
    elements: dict[str, Any], status: str, opened: Open, permit: Any
) -> None:
    site = opened()
    photo_id = site.there(photo(9))
    copy = site.pull(photo_id)
    ours = [site.inner.capture(number).id for number in (1, 2)]
    saved = save_comparison(site.bridge, SYSTEM, [(one, None) for one in (*ours, copy.media_id)], view=View())
    site.change(photo_id, **elements)
    site.upkeep(days=1, minutes=1)
    with site.bridge.db.snapshot() as tx:
        assert get(tx, "Observation", saved.id).resource["status"] == status
        assert find(tx, "Media", copy.media_id) is None


def test_two_who_ask_at_once_get_one_copy(opened: Open) -> None:
    site = opened()
    photo_id = site.there()
    with ThreadPoolExecutor(4) as people:
        pulled = list(people.map(lambda _: site.pull(photo_id), range(4)))
    assert len({one.media_id for one in pulled}) == site.count() == 1
    assert sorted(one.how for one in pulled) == ["copied", "kept", "kept", "kept"]


def test_a_look_at_the_list_is_enough_to_see_that_a_copy_must_go(opened: Open) -> None:
    site = opened()
    photo_id, other = site.there(photo(1)), site.there(photo(2))
    gone, stays = site.pull(photo_id), site.pull(other)
    site.change(photo_id, subject={"reference": "Patient/pat-1002"})
    assert [one.media_id for one in site.listed().photos] == [stays.media_id]
    with pytest.raises(Gone):
        site.media(gone.media_id)


def test_two_who_find_at_once_that_a_copy_must_go_destroy_it_once(opened: Open) -> None:
    site = opened()
    media = site.media(site.pull(site.there()).media_id)
    for _ in range(2):
        with site.bridge.db.transaction() as tx:
            forget_external(tx, site.bridge, CLINICIAN, media, "it does not count any more at x", torn=True)
    assert len(site.audited("delete")) == 1


def test_a_copy_goes_at_once_when_somebody_asks_for_it_again_and_it_is_another_patients(opened: Open) -> None:
    site = opened()
    photo_id = site.there()
    copy = site.pull(photo_id)
    site.change(photo_id, subject={"reference": "Patient/pat-1002"})
    with pytest.raises(WrongPatient):
        site.pull(photo_id)
    with pytest.raises(Gone):
        site.media(copy.media_id)


def test_asking_for_it_in_another_chart_leaves_the_copy_where_it_belongs(opened: Open) -> None:
    site = opened()
    photo_id = site.there()
    copy = site.pull(photo_id)
    with pytest.raises(WrongPatient):
        site.pull(photo_id, SYSTEM, patient="p2")
    assert site.media(copy.media_id).version_id == 1


def test_a_photo_copied_for_whom_it_belongs_to_now_leaves_the_former_record_with_what_was_saved(
    opened: Open, permit: Any
) -> None:
    site = opened()
    photo_id = site.there(photo(9))
    former = site.pull(photo_id)
    ours = [site.inner.capture(number).id for number in (1, 2)]
    saved = save_comparison(site.bridge, SYSTEM, [(one, None) for one in (*ours, former.media_id)], view=View())
    site.change(photo_id, subject={"reference": "Patient/pat-1002"})
    assert site.pull(photo_id, SYSTEM, patient="p2").how == "copied"
    with site.bridge.db.snapshot() as tx:
        assert find(tx, "Media", former.media_id) is None
        assert get(tx, "Observation", saved.id).resource["status"] == "entered-in-error"


def test_a_copy_that_the_list_does_not_bring_any_more_stays_while_its_record_counts(opened: Open) -> None:
    site = opened(photos={"searches": ["Media?identifier=|seen&subject={patient}"]})
    photo_id = site.there(identifier=[{"system": "", "value": "seen"}])
    copy = site.pull(photo_id)
    site.change(photo_id, identifier=[])
    assert site.listed().photos == []
    assert site.media(copy.media_id)


def test_while_the_system_is_away_a_copy_stays_and_the_list_says_why(opened: Open) -> None:
    site = opened()
    pulled = site.pull(site.there())
    for _ in range(FAILURES + 1):
        site.vendor.faults = [Fault("lost-before", "", "")]
        assert site.listed().problems
    asked = len(site.vendor.requests)
    with pytest.raises(Unavailable, match="left alone until"):
        site.pull("Media/1")
    assert len(site.vendor.requests) == asked
    site.upkeep(days=1, minutes=1)
    assert site.media(pulled.media_id)


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = consent_says(True)
    monkeypatch.setattr(consent, "decide", lambda tx, bridge, patient_id, media=None: said)
