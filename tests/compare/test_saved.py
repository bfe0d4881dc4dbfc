"""Saved comparisons: the exact versions, what may be shown of them later, and what a moved photo does to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.access import SYSTEM, Actor
from adapter.access.policy import grants_of
from adapter.batch.operations import OPERATIONS
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.compare.comparing import ENGINE, PICTURES
from adapter.compare.pictures import pictures_of
from adapter.compare.saved import comparisons_of, get_saved, photos_seen, save_comparison, withdraw
from adapter.delivery import deliver_media, deliveries_of
from adapter.errors import BadInput, Conflict, Forbidden, Gone, NotFound, Unprocessable
from adapter.identity import Refiling, merge_patients, refile, unmerge_patients
from adapter.records import Stored, create, find_where, get, new_id, update_resource
from adapter.records.binaries import create_binary, get_binary, whole_blob
from adapter.records.comparisons import Comparison, keep_comparison
from adapter.records.confinement import patient_of
from adapter.sandbox.views import draw_view
from mappings.comparison_to_observation import View, photos_of, verdict_of, view_of
from mappings.fhir_check import check_resource
from mappings.photos_to_picture import derivation_of
from mappings.terms import CONFIDENTIALITY, coding
from tests.conftest import Clock

VIEW = View("slider", zoom=2.5, x=0.25, y=0.125, blend=0.75)
RESULT: dict[str, Any] = {  # what docs/compare.md shows, kept here so that these tests need no engine
    "verdict": "aligned",
    "reasons": ["429 of 441 patches of skin are where the map says"],
    "transform": {"homography": [[1, 0, 3], [0, 1, -2], [0, 0, 1]], "bend_px": 4.5},
    "method": "key points, block correlation, spline",
    "version": "1",
    "change": {"method": "local light taken out", "version": "1", "threshold": 5, "regions": []},
    "width": 120,
    "height": 90,
}


def _clinician(patient: str | None = "asa", name: str = "eve") -> Actor:
    return Actor("person", f"Practitioner/{name}", "Dr Eve", "clinician", *grants_of("clinician"), patient_id=patient)


def _photo(bridge: Bridge, data: bytes, patient: str, **metadata: Any) -> str:
    return receive(bridge, SYSTEM, Upload(data, {"patient": f"Patient/{patient}", **metadata})).id


def _compared(bridge: Bridge, left: str, right: str) -> None:
    """As if the engine had been asked before."""
    found = Comparison(new_id(), left, right, ENGINE, RESULT)
    with bridge.db.transaction() as tx:
        keep_comparison(tx, found, at=bridge.now())
        for name, kind in PICTURES.items():
            sealed = bridge.vault.seal(_draw(7))
            bridge.vault.keep(tx, sealed, content_type=kind, patient_id="asa", at=bridge.now())
            row = whole_blob(
                sealed,
                binary_id=new_id(),
                content_type=kind,
                security_context=found.security_context,
                at=bridge.now(),
            )
            create_binary(tx, replace(row, rendition=name))


def _draw(seed: int) -> bytes:
    return draw_view(seed, taken_at=datetime(2026, 3, 3, 9, seed, tzinfo=UTC), size=(120, 90))


@pytest.fixture
def pair(bridge: Bridge) -> tuple[str, str]:
    """Two photos of Patient/asa, of the same cheek, aligned."""
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            create(tx, {"resourceType": "Patient", "id": patient, "active": True}, at=bridge.now())
    first = _photo(bridge, _draw(1), "asa", taken_at="2026-03-03T09:00:00Z", body_site="36141000")
    later = _photo(bridge, _draw(2), "asa", taken_at="2026-06-03T09:00:00Z", body_site="36141000")
    _compared(bridge, first, later)
    return first, later


def _save(bridge: Bridge, pair: tuple[str, str], **more: Any) -> Stored:
    return save_comparison(bridge, _clinician(), [(one, None) for one in pair], view=VIEW, **more)


def _all(bridge: Bridge, resource_type: str) -> list[Stored]:
    with bridge.db.snapshot() as tx:
        return find_where(tx, resource_type)


def test_a_saved_comparison_names_the_versions_the_verdict_and_how_it_was_looked_at(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    saved = _save(bridge, pair, note="darker at the edge")
    resource = saved.resource
    check_resource(resource)
    assert photos_of(resource) == [(pair[0], 1), (pair[1], 1)]
    assert (verdict_of(resource), view_of(resource)) == ("aligned", VIEW)
    assert resource["note"][0]["text"] == "darker at the edge"
    assert resource["performer"][0]["reference"] == "Practitioner/eve"
    assert resource["effectiveDateTime"] == "2026-06-03T09:00:00Z"
    with bridge.db.snapshot() as tx:
        pictures = pictures_of(tx, saved.reference)
        assert [one.id for one in pictures_of(tx, f"Media/{pair[0]}")] == [one.id for one in pictures]
    assert [derivation_of(one.resource) for one in pictures] == ["aligned", "overlay", "change"]
    for one in pictures:
        check_resource(one.resource)
    made = next(one.resource for one in _all(bridge, "Provenance") if len(one.resource["target"]) == 4)
    assert {one["reference"] for one in made["target"]} == {one.version_reference for one in (saved, *pictures)}
    assert [one["what"]["reference"] for one in made["entity"]] == [f"Media/{one}/_history/1" for one in pair]
    told = _all(bridge, "AuditEvent")[-1].resource
    assert saved.version_reference in {one["what"].get("reference") for one in told["entity"]}


def test_the_photos_must_be_as_they_were_seen_and_of_one_patient(bridge: Bridge, pair: tuple[str, str]) -> None:
    other = _photo(bridge, _draw(3), "bo")
    with pytest.raises(Conflict):
        save_comparison(bridge, _clinician(), [(pair[0], 1), (pair[1], 7)], view=VIEW)
    with pytest.raises(Unprocessable):
        save_comparison(bridge, SYSTEM, [(pair[0], None), (other, None)], view=VIEW)
    with pytest.raises(NotFound):
        save_comparison(bridge, _clinician("bo"), [(one, None) for one in pair], view=VIEW)
    with pytest.raises(BadInput):
        save_comparison(bridge, _clinician(), [(pair[0], None), (pair[0], None)], view=VIEW)
    assert _all(bridge, "Observation") == []


def test_three_photos_are_kept_without_a_verdict(bridge: Bridge, pair: tuple[str, str]) -> None:
    third = _photo(bridge, _draw(3), "asa", taken_at="2026-09-03T09:00:00Z")
    saved = save_comparison(bridge, _clinician(), [(one, None) for one in (*pair, third)], view=View())
    check_resource(saved.resource)
    assert verdict_of(saved.resource) is None and saved.resource["dataAbsentReason"]


def test_a_corrected_photo_is_shown_with_a_word_about_it(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[1]).resource
        update_resource(tx, media | {"note": [{"text": "left, not right"}]}, at=bridge.now())
    with bridge.db.snapshot() as tx:
        left, right = photos_seen(tx, _clinician(), get_saved(tx, _clinician(), saved.id))
    assert left.said is None
    assert right.media and right.said == "Its details were corrected since: version 1 then, 2 now."


def test_a_photo_moved_to_somebody_else_withdraws_the_comparison_and_hides_its_pictures(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    saved = _save(bridge, pair)
    with bridge.db.snapshot() as tx:
        pictures = pictures_of(tx, saved.reference)
    with bridge.db.transaction() as tx:
        refile(tx, bridge, SYSTEM, pair[1], Refiling("bo", "the wrong chart was open"))
    with bridge.db.snapshot() as tx:
        with pytest.raises(Gone, match="not to be this patient's"):
            get_saved(tx, _clinician(), saved.id)
        assert comparisons_of(tx, _clinician(), patient_id="asa") == []
        assert get(tx, "Observation", saved.id).resource["status"] == "entered-in-error"
        check_resource(get(tx, "Observation", saved.id).resource)
        for one in pictures:
            now = get(tx, "Media", one.id).resource
            assert (now["status"], patient_of(now)) == ("entered-in-error", "asa")
            assert get_binary(tx, now["content"]["url"].removeprefix("Binary/")).security_context.startswith("Hidden/")


def test_a_merge_takes_the_comparison_along_and_an_unmerge_brings_it_back(
    bridge: Bridge, pair: tuple[str, str], clock: Clock
) -> None:
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        merge_patients(tx, bridge, SYSTEM, "asa", "bo")
    with bridge.db.snapshot() as tx:
        found = get_saved(tx, _clinician("bo"), saved.id)
        assert patient_of(found.resource) == "bo"
        assert all(one.media for one in photos_seen(tx, _clinician("bo"), found))
        pictures = pictures_of(tx, saved.reference)
        assert {patient_of(one.resource) for one in pictures} == {"bo"}
        row = get_binary(tx, pictures[0].resource["content"]["url"].removeprefix("Binary/"))
        assert bridge.vault.open(tx, row.blob_id)  # the key came along
    clock.advance(minutes=1)
    with bridge.db.transaction() as tx:
        unmerge_patients(tx, bridge, SYSTEM, "asa", "bo")
    with bridge.db.snapshot() as tx:
        assert patient_of(get_saved(tx, _clinician(), saved.id).resource) == "asa"


def test_it_is_as_sensitive_as_its_photos_became(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[0]).resource
        media["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        update_resource(tx, media, at=bridge.now())
        OPERATIONS["assign"].apply(tx, bridge, SYSTEM, pair[0], {"view": "close-up"})
    colleague = _clinician(name="rob")
    with bridge.db.snapshot() as tx:
        with pytest.raises(Forbidden):
            get_saved(tx, colleague, saved.id)
        assert comparisons_of(tx, colleague, patient_id="asa") == []
        assert [one.id for one in comparisons_of(tx, _clinician(), patient_id="asa")] == [saved.id]
        assert photos_seen(tx, _clinician(), saved)[0].media is None


def test_withdrawing_needs_a_reason_and_says_it_from_then_on(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with pytest.raises(BadInput):
        withdraw(bridge, _clinician(), saved.id, why=" ")
    with pytest.raises(NotFound):
        withdraw(bridge, _clinician("bo"), saved.id, why="no")
    withdraw(bridge, _clinician(), saved.id, why="other mole")
    with bridge.db.snapshot() as tx, pytest.raises(Gone, match="other mole"):
        get_saved(tx, _clinician(), saved.id)
    with pytest.raises(Gone):
        withdraw(bridge, _clinician(), saved.id, why="again")


def test_pictures_are_sent_nowhere_by_themselves(bridge: Bridge, pair: tuple[str, str]) -> None:
    object.__setattr__(bridge.settings, "destinations", [{"name": "ehr", "profile": "directory", "folder": "/nowhere"}])
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        picture = pictures_of(tx, saved.reference)[0]
        assert deliver_media(tx, bridge, picture) == []
        assert len(deliver_media(tx, bridge, picture, only="ehr")) == 1
        later = update_resource(tx, picture.resource, at=bridge.now())
        assert len(deliver_media(tx, bridge, later)) == 1
        assert [row.media_version for row in deliveries_of(tx, picture.id)] == [2, 1]
