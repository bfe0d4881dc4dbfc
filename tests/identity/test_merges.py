"""Merge moves everything once; unmerge puts exactly that back; waiting photos find their patient."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import blob, identity_change_item, patient_key, work
from adapter.delivery import deliver_media, deliveries_of
from adapter.errors import Conflict
from adapter.identity import (
    bind_waiting,
    find_patient,
    given_extension,
    merge_patients,
    queue,
    receive_messages,
    unmerge_patients,
    whose,
)
from adapter.records import Stored, create, find_where, get, new_id
from adapter.records.binaries import create_binary, whole_blob
from mappings.capture_to_media import Capture, Content, capture_to_media
from tests.identity.conftest import MRN, adt

Apply = Callable[[], int]
TAKEN = datetime.fromisoformat("2026-11-23T09:10:00+00:00")


def photo(tx: Connection, site: Bridge, subject: str | tuple[str, str], **given: str) -> Stored:
    """A photo as capture leaves it: bytes under a key, Binary and Media."""
    media_id, binary_id, data = new_id(), new_id(), b"pixels of " + new_id().encode()
    at = site.now()
    patient_id = subject.removeprefix("Patient/") if isinstance(subject, str) else None
    sealed = site.vault.seal(data)
    site.vault.keep(tx, sealed, content_type="image/jpeg", patient_id=patient_id, at=at)
    state: Any = "bound" if patient_id else "awaiting-patient"
    taken = Capture(id=media_id, operator="Practitioner/p", identity_state=state, subject=subject, taken_at=TAKEN)
    content = Content(
        binary_id=binary_id,
        content_type="image/jpeg",
        size=len(data),
        sha1_b64="2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        sha256_hex=hashlib.sha256(data).hexdigest(),
        width=1,
        height=1,
        created=TAKEN,
    )
    media = capture_to_media(taken, content, media_id=media_id, issued_at=at)
    if kept := given_extension(given):
        media["subject"]["extension"] = [kept]
    stored = create(tx, media, at=at)
    create_binary(
        tx,
        whole_blob(sealed, binary_id=binary_id, content_type="image/jpeg", security_context=f"Media/{media_id}", at=at),
    )
    return stored


def key_owners(tx: Connection) -> list[str | None]:
    return list(
        tx.execute(select(patient_key.c.patient).join(blob, blob.c.patient_key_id == patient_key.c.id)).scalars()
    )


def content(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "meta"}


@pytest.fixture
def two(site: Bridge, apply_all: Apply) -> tuple[Stored, Stored]:
    """Patients 100 and 200, each with a visit and a photo."""
    receive_messages(site, [adt("A01", "1", "100", visit="V1"), adt("A01", "2", "200", visit="V2")], "test")
    apply_all()
    with site.db.transaction() as tx:
        pair = find_patient(tx, MRN, "100"), find_patient(tx, MRN, "200")
        assert pair[0] and pair[1]
        photo(tx, site, pair[0].reference)
        photo(tx, site, pair[1].reference)
        consent = {
            "resourceType": "Consent",
            "id": new_id(),
            "status": "active",
            "patient": {"reference": pair[0].reference},
        }
        create(
            tx,
            consent | {"performer": [{"reference": pair[0].reference}, {"reference": pair[1].reference}]},
            at=site.now(),
        )
    return pair[0], pair[1]


def snapshot(site: Bridge) -> dict[str, dict[str, Any]]:
    with site.db.snapshot() as tx:
        kept = [one for kind in ("Patient", "Media", "Encounter", "Consent") for one in find_where(tx, kind)]
        return {one.reference: content(one.resource) for one in kept}


def test_a40_moves_everything_and_unmerge_restores_it_exactly(
    site: Bridge, apply_all: Apply, two: tuple[Stored, Stored]
) -> None:
    source, target = two
    before = snapshot(site)
    receive_messages(site, [adt("A40", "3", "200", merged="100")], "test")
    apply_all()
    with site.db.snapshot() as tx:
        assert queue(tx) == []
        merged = get(tx, "Patient", source.id).resource
        assert merged["active"] is False
        assert merged["link"] == [{"other": {"reference": target.reference}, "type": "replaced-by"}]
        survivor = find_patient(tx, MRN, "100")
        assert survivor and survivor.id == target.id
        assert whose(tx, source.reference).patient_id == target.id
        media = find_where(tx, "Media")
        assert {one.resource["subject"]["reference"] for one in media} == {target.reference}
        assert sorted(one.version_id for one in media) == [1, 2]
        assert set(key_owners(tx)) == {target.id}
        (consent,) = find_where(tx, "Consent")
        assert [one["reference"] for one in consent.resource["performer"]] == [target.reference] * 2
        assert len({one.resource["subject"]["reference"] for one in find_where(tx, "Encounter")}) == 1
        listed = set(tx.execute(select(identity_change_item.c.resource_type)).scalars())
        assert listed == {"Media", "Encounter", "Consent"}
    with site.db.transaction() as tx:
        new_photo = photo(tx, site, target.reference)
        unmerge_patients(tx, site, SYSTEM, source.id, target.id)
    after = snapshot(site)
    assert after.pop(new_photo.reference)["subject"]["reference"] == target.reference
    stamped = after[target.reference].pop("extension"), before[target.reference].pop("extension")
    assert stamped[0]
    assert after == before
    with site.db.snapshot() as tx:
        assert sorted(key_owners(tx), key=str) == sorted([source.id, target.id, target.id])
        found = find_patient(tx, MRN, "100")
        assert found and found.id == source.id


def test_audit_and_provenance_are_never_rewritten(site: Bridge, two: tuple[Stored, Stored]) -> None:
    with site.db.snapshot() as tx:
        before = {one.id: one.body for kind in ("AuditEvent", "Provenance") for one in find_where(tx, kind)}
    with site.db.transaction() as tx:
        merge_patients(tx, site, SYSTEM, two[0].id, two[1].id)
        after = {one.id: one.body for kind in ("AuditEvent", "Provenance") for one in find_where(tx, kind)}
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_chains_are_followed_and_cycles_refused(site: Bridge, apply_all: Apply, two: tuple[Stored, Stored]) -> None:
    receive_messages(site, [adt("A28", "3", "300")], "test")
    apply_all()
    first, second = two
    with site.db.transaction() as tx:
        third = find_patient(tx, MRN, "300")
        assert third
        assert merge_patients(tx, site, SYSTEM, first.id, second.id)
        assert merge_patients(tx, site, SYSTEM, second.id, third.id)
        assert whose(tx, first.reference).patient_id == third.id
        assert merge_patients(tx, site, SYSTEM, first.id, second.id) is None  # again: nothing to do
        for source, target in ((third, first), (third, third), (first, first)):
            with pytest.raises(Conflict):
                merge_patients(tx, site, SYSTEM, source.id, target.id)
        with pytest.raises(Conflict, match="undo that merge first"):
            unmerge_patients(tx, site, SYSTEM, first.id, second.id)
        unmerge_patients(tx, site, SYSTEM, second.id, third.id)
        unmerge_patients(tx, site, SYSTEM, first.id, second.id)
        assert {one.resource["subject"]["reference"] for one in find_where(tx, "Media")} == {
            first.reference,
            second.reference,
        }
        with pytest.raises(Conflict):
            unmerge_patients(tx, site, SYSTEM, first.id, second.id)


def test_merging_from_an_unknown_source_lets_its_identifier_mean_the_target(site: Bridge, apply_all: Apply) -> None:
    with site.db.transaction() as tx:
        waiting = photo(tx, site, (MRN, "100"))
    receive_messages(site, [adt("A40", "1", "200", merged="100")], "test")
    apply_all()
    with site.db.snapshot() as tx:
        by_old, by_new = find_patient(tx, MRN, "100"), find_patient(tx, MRN, "200")
        assert by_old and by_new and by_old.id == by_new.id
        assert get(tx, "Media", waiting.id).resource["subject"]["reference"] == by_new.reference


def test_a_merge_into_itself_is_queued(site: Bridge, apply_all: Apply) -> None:
    receive_messages(site, [adt("A40", "1", "100", merged="100")], "test")
    apply_all()
    with site.db.snapshot() as tx:
        (row,) = queue(tx)
    assert "same identifier" in row.reason


@pytest.mark.parametrize("given", [{}, {"birthDate": "1980-01-02"}, {"family": "doe"}])
def test_a_waiting_photo_is_bound_when_its_patient_is_announced(
    site: Bridge, apply_all: Apply, given: dict[str, str]
) -> None:
    with site.db.transaction() as tx:
        waiting = photo(tx, site, (MRN, "100"), **given)
        other = photo(tx, site, (MRN, "999"), **given)
    receive_messages(site, [adt("A01", "1", "100", visit="V1")], "test")
    apply_all()
    with site.db.snapshot() as tx:
        patient = find_patient(tx, MRN, "100")
        assert patient
        bound = get(tx, "Media", waiting.id)
        (visit,) = find_where(tx, "Encounter")
        (told,) = find_where(tx, "Provenance")
        assert get(tx, "Media", other.id).version_id == 1
        assert sorted(key_owners(tx), key=str) == sorted([None, patient.id], key=str)
    assert bound.resource["subject"] == {"reference": patient.reference}
    assert bound.resource["meta"]["tag"][0]["code"] == "bound"
    assert bound.resource["encounter"]["reference"] == visit.reference
    assert told.resource["target"] == [{"reference": bound.version_reference}]


@pytest.mark.parametrize("given", [{"birthDate": "1990-01-02"}, {"family": "Roe"}])
def test_a_waiting_photo_that_contradicts_is_quarantined(site: Bridge, apply_all: Apply, given: dict[str, str]) -> None:
    with site.db.transaction() as tx:
        waiting = photo(tx, site, (MRN, "100"), **given)
    receive_messages(site, [adt("A28", "1", "100")], "test")
    apply_all()
    with site.db.transaction() as tx:
        held = get(tx, "Media", waiting.id)
        patient = find_patient(tx, MRN, "100")
        assert patient
        assert bind_waiting(tx, site, patient) == []
        assert get(tx, "Media", waiting.id).version_id == held.version_id == 2
        assert key_owners(tx) == [None]
    assert held.resource["meta"]["tag"][0]["code"] == "quarantined"
    assert "reference" not in held.resource["subject"]


def test_merging_many_photos_takes_no_more_statements_than_merging_a_few(
    site: Bridge, apply_all: Apply, two: tuple[Stored, Stored]
) -> None:
    statements: list[str] = []
    counts: list[int] = []
    count = lambda _connection, _cursor, sql, *_rest: statements.append(sql)  # noqa: E731
    event.listen(site.db.writing_engine, "before_cursor_execute", count)
    for more in (5, 100):
        with site.db.transaction() as tx:
            for _ in range(more):
                photo(tx, site, two[0].reference)
        with site.db.transaction() as tx:
            statements.clear()
            merge_patients(tx, site, SYSTEM, two[0].id, two[1].id)
            counts.append(len(statements))
            assert {one.resource["subject"]["reference"] for one in find_where(tx, "Media")} == {two[1].reference}
            assert set(key_owners(tx)) == {two[1].id}
        with site.db.transaction() as tx:
            unmerge_patients(tx, site, SYSTEM, two[0].id, two[1].id)
    assert counts[1] <= counts[0] + 2


def test_each_destination_gets_the_photo_under_its_new_identity_and_back(
    site: Bridge, two: tuple[Stored, Stored]
) -> None:
    named = {"destinations": ({"name": "ehr", "kind": "directory"}, {"name": "pacs", "kind": "directory"})}
    site = dataclasses.replace(site, settings=site.settings.model_copy(update=named))
    with site.db.transaction() as tx:
        (media,) = [one for one in find_where(tx, "Media") if two[0].reference in one.body]
        deliver_media(tx, site, media)
        merge_patients(tx, site, SYSTEM, two[0].id, two[1].id)
        rows = deliveries_of(tx, media.id)
        assert [(row.media_version, row.destination, row.state, row.patient) for row in rows] == [
            (2, "ehr", "pending", two[1].id),
            (2, "pacs", "pending", two[1].id),
            (1, "ehr", "superseded", two[0].id),
            (1, "pacs", "superseded", two[0].id),
        ]
        unmerge_patients(tx, site, SYSTEM, two[0].id, two[1].id)
        waiting = [row for row in deliveries_of(tx, media.id) if row.state == "pending"]
        assert {(row.media_version, row.patient) for row in waiting} == {(3, two[0].id)}
        lines = tx.execute(select(work.c.idempotency_key).where(work.c.kind == "deliver")).scalars()
        assert set(lines) == {f"deliver:{row.id}" for row in waiting}
