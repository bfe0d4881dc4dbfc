"""Who saw what, as rows, CSV and FHIR, and told to the patient in words of theirs."""

from __future__ import annotations

import csv
import io
from zoneinfo import ZoneInfo

import orjson
import pytest

from adapter import governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.governance.log import Question
from adapter.governance.report import COLUMNS, PLAIN_COLUMNS, csv_lines, fhir_bundle, plain_rows, rows
from mappings.fhir_check import check_resource
from tests.conftest import Clock

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician", address="10.0.0.7")
ENGINEER = Actor("person", "Practitioner/e1", "=cmd()", "engineer")
P1 = Question(patient_ids=frozenset({"p1"}))


@pytest.fixture(autouse=True)
def _log(bridge: Bridge, clock: Clock) -> None:
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "read", DOCTOR, patient_id="p1", references=["Media/m1/_history/1"])
        clock.advance(hours=1)
        governance.audit(tx, bridge, "query", ENGINEER, patient_id="p1", query="Media?patient=p1")
        governance.audit(tx, bridge, "read", DOCTOR, patient_id="p2", references=["Media/m2/_history/1"])
        clock.advance(hours=1)
        governance.audit(tx, bridge, "photo-derived", SYSTEM, patient_id="p1", references=["Media/m1/_history/1"])


def test_a_report_tells_who_did_what_to_which_record_newest_first(bridge: Bridge) -> None:
    told = list(rows(bridge.db, P1))
    assert [(row["who"], row["role"], row["did"]) for row in told] == [
        ("Device/dermbridge", None, "Derived a picture"),
        ("=cmd()", "engineer", "Listed"),
        ("Dr. D", "clinician", "Viewed"),
    ]
    assert told[2]["records"] == "Media/m1/_history/1"
    assert [row["recorded"] for row in rows(bridge.db, Question(photo="m2"))] == ["2026-11-23T10:30:00+00:00"]


def test_csv_can_be_read_back_and_runs_nothing_in_a_spreadsheet(bridge: Bridge) -> None:
    heading, *lines = csv.reader(io.StringIO("".join(csv_lines(COLUMNS, rows(bridge.db, P1)))))
    assert tuple(heading) == COLUMNS
    assert [line[1] for line in lines] == ["Device/dermbridge", "'=cmd()", "Dr. D"]


@pytest.mark.parametrize(("asked", "count"), [(P1, 3), (Question(user="Practitioner/none"), 0)])
def test_fhir_is_a_valid_bundle_of_the_events_as_stored(bridge: Bridge, asked: Question, count: int) -> None:
    bundle = orjson.loads("".join(fhir_bundle(bridge.db, asked)))
    check_resource(bundle)
    assert len(bundle.get("entry", [])) == count


def test_the_patient_reads_plain_words_in_the_time_of_the_place_and_no_ids(bridge: Bridge) -> None:
    told = list(plain_rows(bridge.db, P1, ZoneInfo("Europe/Zurich"), "names"))
    assert [tuple(row[name] for name in PLAIN_COLUMNS) for row in told] == [
        ("2026-11-23 12:30", "the hospital's systems", "updated your record automatically"),
        ("2026-11-23 11:30", "=cmd() (engineer)", "looked at your list of photos"),
        ("2026-11-23 10:30", "Dr. D (clinician)", "looked at a photo of you"),
    ]


def test_a_site_may_tell_roles_instead_of_names(bridge: Bridge) -> None:
    told = plain_rows(bridge.db, P1, ZoneInfo("UTC"), "roles")
    assert [row["who"] for row in told] == ["the hospital's systems", "an engineer", "a clinician"]
