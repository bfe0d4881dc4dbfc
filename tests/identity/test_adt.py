"""From the sender's bytes to Patient and Encounter, or to the queue with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import adt_message, work
from adapter.errors import Conflict
from adapter.identity import (
    dismiss,
    find_encounter_at,
    find_patient,
    queue,
    receive_messages,
    replay,
    replay_all,
    whose,
)
from adapter.records import Stored, find_by_identifier, find_where, get
from mappings.hl7v2.er7 import patient_keys, read_header
from mappings.hl7v2.errors import MessageError
from tests.identity.conftest import MRN, VISIT, adt

DATA = Path(__file__).parents[1] / "data" / "hl7v2"
FILES = sorted([*DATA.glob("efferent/*"), *DATA.glob("fhir-converter/*")])

Apply = Callable[[], int]


def patient_of(site: Bridge, mrn: str) -> Stored:
    with site.db.snapshot() as tx:
        found = find_patient(tx, MRN, mrn)
    assert found is not None
    return found


def states(site: Bridge) -> list[str]:
    with site.db.snapshot() as tx:
        return list(tx.execute(select(adt_message.c.state).order_by(adt_message.c.id)).scalars())


def _keys(raw: bytes) -> tuple[str, ...]:
    try:
        return patient_keys(raw)
    except MessageError:
        return ()


def _numbered(raw: bytes, control_id: str) -> bytes:
    """The collections reuse one MSH-10 for many messages; each gets its own."""
    fields = raw.split(b"|", 10)
    return b"|".join([*fields[:9], control_id.encode()[:20], *fields[10:]]) if len(fields) == 11 else raw


def _wants_none(raw: bytes) -> bool:
    try:
        header = read_header(raw)
    except MessageError:
        return False
    return header.code == "ACK" or (header.msh_15, header.msh_16) == ("NE", "NE")


def msa(answer: bytes) -> list[str]:
    return answer.decode().split("\r")[1].split("|")


def test_every_file_is_answered_and_applied_or_queued_with_a_reason(site: Bridge, apply_all: Apply) -> None:
    raws = [_numbered(path.read_bytes().strip(b"\x0b\x1c\r\n"), path.stem) for path in FILES]
    assert len(raws) > 60
    for number, authority in enumerate(sorted({key.split("|")[0] for raw in raws for key in _keys(raw)})):
        site.settings.identifier_systems[authority] = f"urn:oid:1.2.3.{number}"
    answers = receive_messages(site, raws, "test")
    assert {_wants_none(raw) for raw in raws} == {True, False}
    for raw, answer in zip(raws, answers, strict=True):
        assert answer == b"" if _wants_none(raw) else answer.startswith(b"MSH") and b"\rMSA|" in answer
    apply_all()
    with site.db.snapshot() as tx:
        listed = {row.id: row for row in queue(tx, 1000)}
        kept = tx.execute(select(adt_message.c.id, adt_message.c.state)).all()
    assert {row.state for row in kept} >= {"applied", "queued", "refused"}
    for row in kept:
        assert row.state in ("applied", "dismissed") or (listed[row.id].reason and listed[row.id].remedy), row
    assert sum(row.state == "applied" for row in kept) >= 30
    assert not listed.keys() & {row.id for row in kept if row.state == "applied"}


def test_an_admission_becomes_patient_and_visit(site: Bridge, apply_all: Apply) -> None:
    (answer,) = receive_messages(site, [adt("A01", "1", visit="V1")], "test")
    assert msa(answer)[1:3] == ["AA", "1"]
    apply_all()
    patient = patient_of(site, "100")
    assert patient.resource["name"][0]["family"] == "Doe"
    assert patient.resource["birthDate"] == "1980-01-02"
    with site.db.snapshot() as tx:
        (visit,) = find_by_identifier(tx, "Encounter", VISIT, "V1")
        assert find_encounter_at(tx, patient.id, datetime(2026, 11, 23, 9, tzinfo=UTC)) == visit.id
        assert find_encounter_at(tx, patient.id, datetime(2026, 11, 23, 7, tzinfo=UTC)) is None
        (audited,) = find_where(tx, "AuditEvent")
    assert visit.resource["status"] == "in-progress"
    assert visit.resource["subject"] == {
        "reference": patient.reference,
        "identifier": {"system": MRN, "value": "100"},
    }
    assert visit.version_reference in audited.body


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (["A05"], "planned"),
        (["A05", "A38"], "cancelled"),
        (["A01", "A11"], "cancelled"),
        (["A01", "A03"], "finished"),
        (["A01", "A03", "A13"], "in-progress"),
        (["A01", "A03", "A08"], "finished"),
    ],
)
def test_a_visit_follows_its_events(site: Bridge, apply_all: Apply, events: list[str], status: str) -> None:
    receive_messages(site, [adt(event, str(n), visit="V1") for n, event in enumerate(events)], "test")
    apply_all()
    with site.db.snapshot() as tx:
        (visit,) = find_by_identifier(tx, "Encounter", VISIT, "V1")
    assert visit.resource["status"] == status


def test_the_same_message_again_gets_the_same_answer_and_has_no_second_effect(site: Bridge, apply_all: Apply) -> None:
    message = adt("A01", "1")
    first, second = receive_messages(site, [message, message], "test")
    apply_all()
    (third,) = receive_messages(site, [message], "test")
    assert apply_all() == 0
    assert first == second == third
    assert patient_of(site, "100").version_id == 1


def test_other_content_under_a_used_control_id_is_refused_with_207(site: Bridge, apply_all: Apply) -> None:
    other = adt("A08", "1", family="Roe")
    receive_messages(site, [adt("A01", "1")], "test")
    first, again = receive_messages(site, [other, other], "test")
    assert msa(first)[1] == "AE"
    assert b"207" in first
    assert first == again
    apply_all()
    assert patient_of(site, "100").resource["name"][0]["family"] == "Doe"
    assert states(site) == ["applied", "refused"]


@pytest.mark.parametrize(
    ("raw", "code", "condition"),
    [
        (b"not HL7 at all", "AR", b"200"),
        (adt("A01", "1").replace(b"ADT^A01", b"ORU^R01"), "AR", b"200"),
        (adt("A99", "1"), "AR", b"201"),
        (adt("A01", "1").replace(b"|2.5.1", b"|3.0"), "AR", b"203"),
        (adt("A01", ""), "AE", b"101"),
        (adt("A01", "1", mrn="").replace(b"^^^HOSP^MR", b""), "AE", b"101"),
        (adt("A01", "1", family="M\u00fcller").decode().encode("latin-1"), "AE", b"102"),
    ],
)
def test_what_cannot_be_read_is_refused_and_seen(
    site: Bridge, apply_all: Apply, raw: bytes, code: str, condition: bytes
) -> None:
    (answer,) = receive_messages(site, [raw], "test")
    assert msa(answer)[1] == code
    assert condition in answer
    assert apply_all() == 0
    with site.db.snapshot() as tx:
        (row,) = queue(tx)
    assert row.state == "refused"
    assert row.reason and row.remedy


def test_an_unknown_authority_waits_with_the_key_to_set_and_applies_after_it(site: Bridge, apply_all: Apply) -> None:
    receive_messages(site, [adt("A01", "1", authority="OTHER")], "test")
    apply_all()
    with site.db.snapshot() as tx:
        (row,) = queue(tx)
    assert row.state == "queued"
    assert row.patient == "OTHER|100"
    assert "identifier_systems" in row.remedy
    site.settings.identifier_systems["OTHER"] = MRN
    with site.db.transaction() as tx:
        replay(tx, site, row.id)
    apply_all()
    assert patient_of(site, "100")
    with site.db.transaction() as tx:
        assert queue(tx) == []
        with pytest.raises(Conflict):
            replay(tx, site, row.id)


def test_a_queued_message_holds_up_only_its_own_patient(site: Bridge, apply_all: Apply) -> None:
    messages = [adt("A40", "1", "100", merged="100"), adt("A08", "2", "100", family="Roe"), adt("A08", "3", "200")]
    receive_messages(site, messages, "test")
    apply_all()
    assert states(site) == ["queued", "received", "applied"]
    with site.db.snapshot() as tx:
        first, second = queue(tx)
        assert queue(tx, 1, first.id) == [second]
    assert "waits behind" in second.reason
    with site.db.transaction() as tx:
        dismiss(tx, site, SYSTEM, first.id, because="settled by hand")
    apply_all()
    assert states(site) == ["dismissed", "applied", "applied"]
    assert patient_of(site, "100").resource["name"][0]["family"] == "Roe"


def test_a_late_message_does_not_undo_a_newer_one(site: Bridge, apply_all: Apply) -> None:
    newer = adt("A08", "1", family="New", at="20261123100000+0000")
    older = adt("A08", "2", family="Old", at="20261123090000+0000")
    receive_messages(site, [newer, older], "test")
    apply_all()
    assert patient_of(site, "100").resource["name"][0]["family"] == "New"
    with site.db.snapshot() as tx:
        notes = list(tx.execute(select(adt_message.c.reason).order_by(adt_message.c.id)).scalars())
    assert notes[0] is None
    assert "older" in notes[1]


def test_a_visit_of_another_patient_is_never_taken_over(site: Bridge, apply_all: Apply) -> None:
    receive_messages(site, [adt("A01", "1", "100", visit="V1"), adt("A01", "2", "200", visit="V1")], "test")
    apply_all()
    assert states(site) == ["applied", "queued"]
    with site.db.snapshot() as tx:
        assert find_patient(tx, MRN, "200") is None  # nothing of a queued message takes effect


def test_whose_tells_the_four_states(site: Bridge, apply_all: Apply) -> None:
    receive_messages(site, [adt("A28", "1")], "test")
    apply_all()
    given = {"system": MRN, "value": "100"}
    with site.db.snapshot() as tx:
        assert whose(tx, given).state == "bound"
        assert whose(tx, {**given, "birthDate": "1980-01-02", "family": "DOE"}).state == "bound"
        assert whose(tx, {**given, "birthDate": "1981-01-02"}).state == "quarantined"
        assert whose(tx, {**given, "family": "Roe"}).state == "quarantined"
        assert whose(tx, {**given, "value": "999"}).state == "awaiting-patient"
        assert whose(tx, None).state == "unidentified"


def test_a_default_authority_stands_for_an_empty_one(site: Bridge, apply_all: Apply) -> None:
    with_default = replace(site, settings=site.settings.model_copy(update={"default_authority": "HOSP"}))
    receive_messages(with_default, [adt("A28", "1", authority="")], "test")
    apply_all()
    assert states(site) == ["queued"]  # the worker of this test has no default
    with site.db.snapshot() as tx:
        assert "default_authority" in queue(tx)[0].remedy
        assert tx.execute(select(func.count()).select_from(work)).scalar_one() == 1


def test_the_history_of_a_patient_holds_every_version(site: Bridge, apply_all: Apply) -> None:
    receive_messages(site, [adt("A28", "1"), adt("A31", "2", family="Roe")], "test")
    apply_all()
    patient = patient_of(site, "100")
    with site.db.snapshot() as tx:
        assert get(tx, "Patient", patient.id, 1).resource["name"][0]["family"] == "Doe"
    assert patient.resource["name"][0]["family"] == "Roe"


def test_all_queued_messages_are_replayed_in_their_order(site: Bridge, apply_all: Apply) -> None:
    unknown = [adt("A01", f"{n}", mrn=f"{n % 3}", family=f"Name{n}", authority="OTHER") for n in range(9)]
    receive_messages(site, unknown, "test")
    apply_all()
    assert states(site).count("queued") == 3  # the first of each patient, the others wait behind it
    site.settings.identifier_systems["OTHER"] = MRN
    with site.db.transaction() as tx:
        assert replay_all(tx, site) == 3
    apply_all()
    assert states(site) == ["applied"] * 9
    assert [patient_of(site, str(n)).resource["name"][0]["family"] for n in range(3)] == ["Name6", "Name7", "Name8"]
