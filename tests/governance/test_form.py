"""An event filled into a form is to the letter the event that is built for itself, and tells what it is found by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter import governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge, open_bridge
from adapter.governance.audit import SHORT_NAMES, build_event
from adapter.governance.derived import find_altered
from adapter.records import change
from adapter.records.search_parameters import columns_of, index_rows
from adapter.settings import load_settings
from mappings.audit_event import Outcome
from mappings.fhir_time import fhir_instant

ACTORS = (
    Actor("person", "Practitioner/d1", 'Dr. "D"', "clinician", address="10.0.0.7", token_id="t1"),
    Actor("machine", "importer", "Importer", "machine", address="importer.example.org"),
    SYSTEM,
)
AT = datetime(2026, 11, 23, 9, 30, 1, 234567, tzinfo=UTC)

ids = st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True)
types = st.sampled_from(["Media", "Patient", "Binary", "Consent"])
references = st.builds("{}/{}{}".format, types, ids, st.sampled_from(["", "/_history/1", "/_history/22"]))
odd = st.sampled_from(["https://ehr.example.org/fhir/Media/1", "Media", "Media/é", "Media/m1/_history/"])
words = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=500)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A bridge on which it is always the same time."""
    bridge = open_bridge(load_settings(environment={}, data_dir=tmp_path_factory.mktemp("data")), now=lambda: AT)
    yield bridge
    bridge.close()


@given(
    event=st.sampled_from(["read", "query", "create", "export", "access-denied", "merge", "adt-applied"]),
    actor=st.sampled_from(ACTORS),
    patient_id=st.none() | ids,
    named=st.lists(references | odd, max_size=20),
    outcome=st.sampled_from(["0", "8"]),
    detail=words,
    query=words,
    recipient=st.none() | st.just("https://ehr.example.org"),
    request_id=st.none() | ids,
)
def test_an_event_filled_in_is_the_event_built_anew(
    still: Bridge,
    event: str,
    actor: Actor,
    patient_id: str | None,
    named: list[str],
    outcome: Outcome,
    detail: str | None,
    query: str | None,
    recipient: str | None,
    request_id: str | None,
) -> None:
    filled = governance.audited(
        still,
        event,
        actor,
        patient_id=patient_id,
        references=named,
        outcome=outcome,
        detail=detail,
        query=query,
        recipient=recipient,
        request_id=request_id,
    )
    built = build_event(
        SHORT_NAMES.get(event, event),
        actor,
        still.settings.base_url,
        still.settings.site_name,
        outcome,
        recipient,
        "TREAT" if event == "export" else None,
        patient_id,
        tuple(dict.fromkeys(named)),
        query or ("?" if event == "query" else query),
        detail,
        request_id,
    ) | {"id": filled.after.id, "recorded": fhir_instant(AT)}
    assert filled.after == change(None, built, at=AT).after
    assert filled.columns == columns_of(built)
    assert filled.rows == index_rows(built)

    row = {**filled.columns, "id": filled.after.id, "version_id": 1, "last_updated": AT, "deleted": False}
    index, text = {(one["param"], one["value"]) for one in filled.rows}, filled.after.body.encode()
    assert find_altered(text, row, index) == []
    for name, value in row.items():
        other = AT + timedelta(1) if isinstance(value, datetime) else "x"
        assert name in find_altered(text, row | {name: other}, index)
    for param, value in index:
        assert find_altered(text, row, index - {(param, value)}) == [param]
    assert find_altered(text, row, index | {("entity", "Media/another")}) == ["entity"]


def test_events_of_one_form_share_no_values(still: Bridge) -> None:
    first, second = (
        governance.audited(still, "read", SYSTEM, patient_id=f"p{n}", references=[f"Media/m{n}/_history/1"]).after.body
        for n in (1, 2)
    )
    assert "p1" in first and "m1" in first
    assert "p1" not in second and "m1" not in second
