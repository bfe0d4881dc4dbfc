"""Deliveries from the outbox to the proof, against a folder and a FHIR server, with what goes wrong in between."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from adapter import consent
from adapter.access.actor import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import delivery, delivery_attempt, work
from adapter.delivery import deliver_media, deliveries_of, send_again
from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations
from adapter.errors import Conflict
from adapter.records import Stored, create, find_where, get, update_resource
from adapter.records.binaries import create_binary, whole_blob
from adapter.records.delivery_list import page_of_deliveries, standings
from adapter.work import Lane, WorkLoop
from mappings.consent_decision import TREATMENT
from mappings.terms import IDENTITY_STATE, URI
from tests.conftest import Clock
from tests.servers.fhir_ehr import Ehr, running

MRN = "urn:oid:2.16.840.1.113883.19.5"
PHOTO = b"\xff\xd8 photo \xff\xd9"


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class Site:
    """A bridge with destinations, one patient pair and a photo, and a way to run the worker."""

    def __init__(self, bridge: Bridge, clock: Clock) -> None:
        self.bridge = bridge
        self.clock = clock
        self.destinations = Destinations(bridge)

    def run(self) -> None:
        lanes = {"deliver": Lane(lambda item: deliver(self.bridge, self.destinations, item))}
        WorkLoop(self.bridge.db, lanes, now=self.clock).run_until_idle()

    def run_and_crash(self) -> None:
        with pytest.raises(Crash):
            self.run()
        self.clock.advance(minutes=5)  # the lease runs out

    def capture(self, patient: str = "p1") -> Stored:
        at = self.clock()
        sealed = self.bridge.vault.seal(PHOTO)
        with self.bridge.db.transaction() as tx:
            self.bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id=patient, at=at)
            row = whole_blob(sealed, binary_id="b1", content_type="image/jpeg", security_context="Media/m1", at=at)
            create_binary(tx, row)
            for name in ("p1", "p2"):
                identifier = [{"system": MRN, "value": f"MRN-{name}"}]
                create(tx, {"resourceType": "Patient", "id": name, "identifier": identifier}, at=at)
            media = create(tx, media_of(patient), at=at)
            deliver_media(tx, self.bridge, media)
        return media

    def change(self, **elements: Any) -> Stored:
        with self.bridge.db.transaction() as tx:
            media = update_resource(tx, get(tx, "Media", "m1").resource | elements, at=self.clock())
            deliver_media(tx, self.bridge, media)
        return media

    def states(self) -> dict[int, str]:
        with self.bridge.db.snapshot() as tx:
            return {row.media_version: row.state for row in deliveries_of(tx, "m1")}

    def row(self, version: int = 1) -> Any:
        with self.bridge.db.snapshot() as tx:
            return tx.execute(select(delivery).where(delivery.c.media_version == version)).one()

    def again(self, version: int = 1) -> None:
        with self.bridge.db.transaction() as tx:
            send_again(tx, self.bridge, self.row(version).id)

    def attempts(self) -> list[tuple[str, str]]:
        with self.bridge.db.snapshot() as tx:
            c = delivery_attempt.c
            return [(row.action, row.outcome) for row in tx.execute(select(c.action, c.outcome).order_by(c.id))]

    def audited(self) -> list[str]:
        """The recipient of each disclosure in the audit log."""
        with self.bridge.db.snapshot() as tx:
            agents = [event.resource["agent"] for event in find_where(tx, "AuditEvent")]
        return [agent["who"]["display"] for each in agents for agent in each if agent["who"].get("display") == "x"]

    def waiting(self) -> int:
        with self.bridge.db.snapshot() as tx:
            return len(tx.execute(select(work.c.id)).all())


def media_of(patient: str) -> dict[str, Any]:
    return {
        "resourceType": "Media",
        "id": "m1",
        "meta": {"tag": [{"system": IDENTITY_STATE, "code": "bound"}]},
        "identifier": [{"system": URI, "value": "urn:uuid:0d6c4f4e-7f0e-4f4e-9f0e-3f1f2a3b4c5d"}],
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "content": {
            "contentType": "image/jpeg",
            "url": "Binary/b1",
            "size": len(PHOTO),
            "hash": base64.b64encode(hashlib.sha1(PHOTO).digest()).decode(),
        },
    }


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What consent says; `real` decides as the product does."""
    real = consent.decide_each
    said = SimpleNamespace(permit=True, because="the patient withdrew consent", consent_ids=(), real=real)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    return said


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with running(Ehr()) as opened:
        for name in ("p1", "p2"):
            identifier = [{"system": MRN, "value": f"MRN-{name}"}]
            opened.put({"resourceType": "Patient", "id": f"their-{name}", "identifier": identifier})
        yield opened


@pytest.fixture(params=["directory", "fhir-r4"])
def entry(request: pytest.FixtureRequest, ehr: Ehr, tmp_path: Path) -> dict[str, Any]:
    if request.param == "directory":
        return {"name": "x", "based_on": "directory", "folder": str(tmp_path / "out")}
    return {"name": "x", "kind": "fhir-r4", "base_url": ehr.url, "timeouts": {"attempts": 1}}


@pytest.fixture
def site(bridge: Bridge, clock: Clock, entry: dict[str, Any], permit: SimpleNamespace) -> Iterator[Site]:
    settings = bridge.settings.model_copy(update={"destinations": (entry,)})
    opened = Site(dataclasses.replace(bridge, settings=settings), clock)
    yield opened
    opened.destinations.close()


def break_off(site: Site, monkeypatch: pytest.MonkeyPatch, method: str, *, after: bool) -> None:
    """The process dies once, before or after the connector's method took effect."""
    connector = site.destinations.get("x")
    real = getattr(connector, method)

    def crash(*arguments: Any) -> Any:
        monkeypatch.setattr(connector, method, real)
        if after:
            real(*arguments)
        raise Crash

    monkeypatch.setattr(connector, method, crash)


def test_a_photo_is_confirmed_once_it_was_read_back(site: Site, permit: SimpleNamespace) -> None:
    site.capture()
    site.run()
    row = site.row()
    assert (row.state, site.waiting()) == ("confirmed", 0)
    assert '"matches":true' in row.evidence and row.accepted_at and row.confirmed_at
    assert site.attempts() == [("send", "accepted"), ("read-back", "confirmed")]
    assert site.audited() == ["x"]
    with site.bridge.db.snapshot() as tx:
        assert [p.resource["activity"]["coding"][0]["code"] for p in find_where(tx, "Provenance")] == ["transmit"]


def test_consent_as_the_product_decides_it_lets_treatment_photos_leave(
    site: Site, permit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "decide_each", permit.real)
    site.capture()
    site.run()
    assert site.states() == {1: "confirmed"}


def test_a_destination_that_requires_consent_gets_nothing_on_the_sites_policy_alone(
    site: Site, permit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "decide_each", permit.real)
    (entry,) = site.bridge.settings.destinations
    settings = site.bridge.settings.model_copy(update={"destinations": (entry | {"requires_consent": True},)})
    site.bridge = dataclasses.replace(site.bridge, settings=settings)
    site.capture()
    site.run()
    assert site.states() == {1: "withheld"} and "consent" in site.row().remedy


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_sending_ends_in_a_look_before_anything_is_sent_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    site.capture()
    break_off(site, monkeypatch, "send", after=after)
    site.run_and_crash()
    assert site.states() == {1: "sending"}
    site.run()
    assert site.states() == {1: "confirmed"}
    first = ("find", "duplicate") if after else ("send", "accepted")
    assert site.attempts() == [first, ("read-back", "confirmed")]


def test_a_crash_before_the_proof_repeats_only_the_proof(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.capture()
    break_off(site, monkeypatch, "read_back", after=False)
    site.run_and_crash()
    assert site.states() == {1: "accepted"}
    site.run()
    assert site.attempts() == [("send", "accepted"), ("read-back", "confirmed")]


def test_without_consent_nothing_leaves_until_it_permits(site: Site, permit: SimpleNamespace) -> None:
    permit.permit = False
    site.capture()
    site.run()
    row = site.row()
    assert (row.state, row.reason, site.attempts(), site.waiting()) == ("withheld", permit.because, [], 0)
    permit.permit = True
    site.again()
    site.run()
    assert site.states() == {1: "confirmed"}


@pytest.fixture
def taking_back(entry: dict[str, Any]) -> None:
    entry["on_withdrawal"] = "retract"


def test_consent_withdrawn_while_a_photo_is_being_sent_takes_it_back(
    taking_back: None, site: Site, permit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = site.destinations.get("x")
    real = connector.send

    def withdrawn_meanwhile(parcel: Any) -> Any:
        receipt = real(parcel)
        permit.permit = False
        return receipt

    monkeypatch.setattr(connector, "send", withdrawn_meanwhile)
    site.capture()
    site.run()
    assert site.states() == {1: "withheld"}


@pytest.mark.parametrize("told", ["withdrawn", "refused anew"])
def test_consent_that_ends_takes_back_what_is_there_also_at_a_site_that_only_advises(
    told: str, taking_back: None, entry: dict[str, Any], site: Site, permit: SimpleNamespace, monkeypatch: Any
) -> None:
    entry["requires_consent"] = True
    monkeypatch.setattr(consent, "decide_each", permit.real)
    bridge, now = site.bridge, site.clock()
    assert bridge.settings.consent_mode == "advisory"
    site.capture()
    with bridge.db.transaction() as tx:
        yes = consent.spoken(bridge, "Patient/p1", {TREATMENT: "permit"}, form_id="f1", said_at=now)
        (given,) = consent.record(tx, bridge, SYSTEM, yes)
    site.run()
    assert site.states() == {1: "confirmed"}
    site.clock.advance(minutes=1)
    with bridge.db.transaction() as tx:
        if told == "withdrawn":
            consent.withdraw(tx, bridge, SYSTEM, given.id, how="verbal")
        else:
            no = consent.spoken(bridge, "Patient/p1", {TREATMENT: "deny"}, form_id="f2", said_at=site.clock())
            consent.record(tx, bridge, SYSTEM, no)
    site.run()
    assert site.states() == {1: "withheld"}


def test_a_newer_version_goes_instead_of_one_that_left_no_trace(site: Site) -> None:
    site.capture()
    site.change(note=[{"text": "better"}])
    site.run()
    assert site.states() == {1: "superseded", 2: "confirmed"}


def test_a_newer_version_takes_the_place_of_a_confirmed_one(site: Site, ehr: Ehr) -> None:
    site.capture()
    site.run()
    site.change(note=[{"text": "better"}])
    site.run()
    assert site.states() == {1: "superseded", 2: "confirmed"}
    assert len(ehr.of_type("Media")) <= 1 and len(ehr.bytes) <= 1


def test_a_photo_moved_to_another_patient_is_taken_back_from_the_first(site: Site, permit: SimpleNamespace) -> None:
    site.capture()
    site.run()
    site.change(subject={"reference": "Patient/p2"})
    site.run()
    assert site.states() == {1: "retracted", 2: "confirmed"}
    assert site.audited() == ["x", "x", "x"]  # sent, sent, taken back
    with pytest.raises(Conflict):
        site.again(1)


@pytest.mark.parametrize("entry", ["fhir-r4"], indirect=True)
class TestFhir:
    """What only a server can do wrong."""

    def test_a_lost_answer_is_unknown_and_then_found(self, site: Site, ehr: Ehr) -> None:
        site.capture()
        ehr.faults = [("POST", "Media", "lost-after")]
        site.run()
        assert site.states() == {1: "unknown"}
        site.clock.advance(minutes=1)
        site.run()
        assert site.states() == {1: "confirmed"}
        assert len(ehr.of_type("Media")) == 1 and ehr.writes("Media") == 1

    def test_a_busy_server_is_tried_again_when_it_said(self, site: Site, ehr: Ehr) -> None:
        site.capture()
        ehr.faults = [("POST", "Media", "429")]
        site.run()
        assert site.states() == {1: "pending"}
        site.clock.advance(seconds=6)
        site.run()
        assert site.states() == {1: "pending"}
        site.clock.advance(seconds=2)
        site.run()
        assert site.states() == {1: "confirmed"}

    def test_a_refusal_fails_with_its_remedy_until_a_person_sends_it_again(self, site: Site, ehr: Ehr) -> None:
        site.capture()
        ehr.faults = [("POST", "Media", "403")]
        site.run()
        row = site.row()
        assert (row.state, site.waiting()) == ("failed", 0)
        assert "403" in row.reason and row.remedy
        site.again()
        site.run()
        assert site.states() == {1: "confirmed"}

    def test_corrupted_content_is_failed_with_the_difference_and_mended_by_sending_again(
        self, site: Site, ehr: Ehr
    ) -> None:
        ehr.corrupt = True
        site.capture()
        site.run()
        assert site.states() == {1: "failed"} and "sha256" in site.row().reason
        ehr.corrupt = False
        site.again()
        site.run()
        assert site.states() == {1: "confirmed"} and len(ehr.of_type("Media")) == 1

    def test_consent_withdrawn_after_a_lost_request_withholds_what_is_not_there(
        self, site: Site, ehr: Ehr, permit: SimpleNamespace
    ) -> None:
        site.capture()
        ehr.faults = [("POST", "Media", "lost-before")]
        site.run()
        permit.permit = False
        site.clock.advance(minutes=1)
        site.run()
        assert site.states() == {1: "withheld"} and not ehr.of_type("Media")

    def test_the_ledger_lists_and_counts_by_destination_and_state(self, site: Site) -> None:
        site.capture()
        site.run()
        site.change(note=[{"text": "better"}])
        with site.bridge.db.snapshot() as tx:
            first, following = page_of_deliveries(tx, count=1)
            second, end = page_of_deliveries(tx, count=1, before=following)
            names = [first[0].destination]
            confirmed, _ = page_of_deliveries(tx, destinations=names, states=["confirmed"])
            counted = {(one.destination, one.state): one.count for one in standings(tx, names)}
        assert [row.media_version for row in (*first, *second)] == [2, 1]
        assert end is None and len(confirmed) == 1
        assert list(counted.values()) == [1]
