"""Saved comparisons: the exact versions, what may be shown of them later, and what a moved photo does to them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from adapter.access import SYSTEM
from adapter.batch.operations import OPERATIONS
from adapter.bridge import Bridge
from adapter.compare.comparing import compare
from adapter.compare.reopening import LISTED, comparisons_of, get_saved, photos_seen
from adapter.compare.saved import save_comparison, withdraw
from adapter.delivery import deliver_media, deliveries_of
from adapter.errors import BadInput, Conflict, Forbidden, Gone, NotFound, Unprocessable
from adapter.identity import Refiling, merge_patients, refile, unmerge_patients
from adapter.measure.measuring import Drawn, keep
from adapter.measure.measuring import withdraw as withdraw_measurement
from adapter.records import Stored, create_all, find_where, get, new_id, update_resource
from adapter.records.binaries import get_binary
from adapter.records.comparisons import Comparison, forget_comparisons
from adapter.records.confinement import patient_of
from adapter.records.pictures import pictures_of
from mappings.comparison_to_observation import View, photos_of, verdict_of, view_of
from mappings.fhir_check import check_resource
from mappings.photos_to_picture import derivation_of
from mappings.terms import CONFIDENTIALITY, coding
from tests.compare.conftest import VIEW, clinician, compared, draw, photo
from tests.conftest import Clock


def _save(bridge: Bridge, pair: tuple[str, str], **more: Any) -> Stored:
    return save_comparison(bridge, clinician(), [(one, None) for one in pair], view=VIEW, **more)


def _code(statement: Stored) -> str:
    return str(statement.resource["activity"]["coding"][0]["code"])


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
    other = photo(bridge, draw(3), "bo")
    with pytest.raises(Conflict):
        save_comparison(bridge, clinician(), [(pair[0], 1), (pair[1], 7)], view=VIEW)
    with pytest.raises(Unprocessable):
        save_comparison(bridge, SYSTEM, [(pair[0], None), (other, None)], view=VIEW)
    with pytest.raises(NotFound):
        save_comparison(bridge, clinician("bo"), [(one, None) for one in pair], view=VIEW)
    with pytest.raises(BadInput):
        save_comparison(bridge, clinician(), [(pair[0], None), (pair[0], None)], view=VIEW)
    assert _all(bridge, "Observation") == []


def test_what_was_shown_must_still_be_what_is_found(bridge: Bridge, pair: tuple[str, str]) -> None:
    left, right = pair
    shown = compare(bridge, clinician(), left, right).id
    assert _save(bridge, pair, shown=shown)
    with bridge.db.transaction() as tx:
        forget_comparisons(tx, [left])  # as when a colleague aligns them by hand meanwhile
    for one in ((left, right), (right, left)):
        compared(bridge, *one)
    with pytest.raises(Conflict, match="open the comparison again"):
        _save(bridge, pair, shown=shown, note="aligned")
    other_way_round = compare(bridge, clinician(), right, left).id
    assert _save(bridge, pair, shown=other_way_round, note="aligned")


def test_the_very_same_is_kept_once_and_anything_else_beside_it(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair, note="darker")
    assert _save(bridge, pair, note="darker").id == saved.id
    assert _save(bridge, pair, note="lighter").id != saved.id
    withdraw(bridge, clinician(), saved.id, why="other mole")
    assert _save(bridge, pair, note="darker").id != saved.id
    assert len(_all(bridge, "Observation")) == 3


def test_the_very_same_is_known_however_much_was_saved_since(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair, note="darker")
    since = [saved.resource | {"id": new_id(), "note": [{"text": f"{number}"}]} for number in range(LISTED)]
    with bridge.db.transaction() as tx:
        create_all(tx, since, at=bridge.now())
    assert _save(bridge, pair, note="darker").id == saved.id


def test_a_picture_made_of_photos_is_not_compared_again(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.snapshot() as tx:
        picture = pictures_of(tx, saved.reference)[0]
    with pytest.raises(Unprocessable, match="made of photos"):
        save_comparison(bridge, clinician(), [(one, None) for one in (*pair, picture.id)], view=View())
    with pytest.raises(Unprocessable, match="made of photos"):
        compare(bridge, clinician(), pair[0], picture.id)  # with itself, warped: it would be aligned


def test_on_a_picture_made_of_photos_nothing_is_measured(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved, line = _save(bridge, pair), ((10.0, 10.0), (60.0, 10.0))
    with bridge.db.snapshot() as tx:
        picture = pictures_of(tx, saved.reference)[0]
    with pytest.raises(Unprocessable, match="made of photos"):
        keep(bridge, clinician(), picture.id, Drawn("length", line, 1.0, 1.0, {"source": "none"}, "By hand", 1))


def test_a_picture_made_of_photos_is_filed_and_described_as_they_are(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.snapshot() as tx:
        picture = pictures_of(tx, saved.reference)[0]
    with bridge.db.transaction() as tx, pytest.raises(Unprocessable, match="made of photos"):
        refile(tx, bridge, SYSTEM, picture.id, Refiling("bo", "the wrong chart was open"))
    with bridge.db.transaction() as tx, pytest.raises(Unprocessable, match="made of photos"):
        OPERATIONS["assign"].apply(tx, bridge, SYSTEM, picture.id, {"view": "close-up"})
    with bridge.db.snapshot() as tx:
        assert patient_of(get(tx, "Media", picture.id).resource) == "asa"


def test_three_photos_are_kept_without_a_verdict(bridge: Bridge, pair: tuple[str, str]) -> None:
    third = photo(bridge, draw(3), "asa", taken_at="2026-09-03T09:00:00Z")
    saved = save_comparison(bridge, clinician(), [(one, None) for one in (*pair, third)], view=View())
    check_resource(saved.resource)
    assert verdict_of(saved.resource) is None and saved.resource["dataAbsentReason"]


def test_a_corrected_photo_is_shown_with_a_word_about_it(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[1]).resource
        update_resource(tx, media | {"note": [{"text": "left, not right"}]}, at=bridge.now())
    with bridge.db.snapshot() as tx:
        left, right = photos_seen(tx, clinician(), get_saved(tx, clinician(), saved.id))
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
            get_saved(tx, clinician(), saved.id)
        assert comparisons_of(tx, clinician(), patient_id="asa") == []
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
        found = get_saved(tx, clinician("bo"), saved.id)
        assert patient_of(found.resource) == "bo"
        assert all(one.media for one in photos_seen(tx, clinician("bo"), found))
        pictures = pictures_of(tx, saved.reference)
        assert {patient_of(one.resource) for one in pictures} == {"bo"}
        row = get_binary(tx, pictures[0].resource["content"]["url"].removeprefix("Binary/"))
        assert bridge.vault.open(tx, row.blob_id)  # the key came along
    clock.advance(minutes=1)
    with bridge.db.transaction() as tx:
        unmerge_patients(tx, bridge, SYSTEM, "asa", "bo")
    with bridge.db.snapshot() as tx:
        assert patient_of(get_saved(tx, clinician(), saved.id).resource) == "asa"


def test_it_is_as_sensitive_as_its_photos_became(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[0]).resource
        media["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        update_resource(tx, media, at=bridge.now())
        OPERATIONS["assign"].apply(tx, bridge, SYSTEM, pair[0], {"view": "close-up"})
    colleague = clinician(name="rob")
    with bridge.db.snapshot() as tx:
        with pytest.raises(Forbidden):
            get_saved(tx, colleague, saved.id)
        assert comparisons_of(tx, colleague, patient_id="asa") == []
        assert [one.id for one in comparisons_of(tx, clinician(), patient_id="asa")] == [saved.id]
        assert photos_seen(tx, clinician(), saved)[0].media is None
        labelled = [one.resource for one in find_where(tx, "Provenance") if _code(one) == "LABEL"]
        assert len(labelled[0]["target"]) == 4


def _waits_for_who_holds_the_patient(bridge: Bridge, act: Callable[[], object]) -> bool:
    here = "database = (select oid from pg_database where datname = current_database())"
    waits = text(f"select count(*) from pg_locks where locktype = 'advisory' and not granted and {here}")
    with ThreadPoolExecutor(1) as other:
        with bridge.db.transaction() as tx:
            bridge.db.lock(tx, "patient:asa")  # as save_comparison and send_sheet do
            acting, is_waiting = other.submit(act), 0
            while not (acting.done() or is_waiting):
                is_waiting = tx.execute(waits).scalar_one()
        acting.result()
    return bool(is_waiting)


@pytest.mark.real  # SQLite has one writer
@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
def test_a_correction_waits_for_who_is_saving_at_that_moment(bridge: Bridge, pair: tuple[str, str]) -> None:
    def correct() -> None:
        with bridge.db.transaction() as tx:
            OPERATIONS["assign"].apply(tx, bridge, SYSTEM, pair[0], {"view": "close-up"})

    assert _waits_for_who_holds_the_patient(bridge, correct)


@pytest.mark.real  # SQLite has one writer
@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
def test_withdrawing_waits_for_who_is_sending_so_that_the_sheet_made_at_that_moment_is_taken_back(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    saved, line = _save(bridge, pair), ((10.0, 10.0), (60.0, 10.0))
    measured = keep(bridge, clinician(), pair[0], Drawn("length", line, 1.0, 1.0, {"source": "none"}, "By hand", 1))
    taken_back: list[Callable[[], object]] = [
        lambda: withdraw_measurement(bridge, clinician(), measured.id, media_id=pair[0], why="the wrong mole"),
        lambda: withdraw(bridge, clinician(), saved.id, why="other mole"),
    ]
    assert [_waits_for_who_holds_the_patient(bridge, one) for one in taken_back] == [True, True]


def test_photos_moved_together_between_comparing_and_saving_are_not_said_to_be_aligned_without_pictures(
    bridge: Bridge, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared_and_moved(*asked: Any) -> Comparison:
        found = compare(*asked)
        for media_id in pair:
            with bridge.db.transaction() as tx:
                refile(tx, bridge, SYSTEM, media_id, Refiling("bo", "the wrong chart was open"))
        return found

    monkeypatch.setattr("adapter.compare.saved.compare", compared_and_moved)
    with pytest.raises(Conflict):
        save_comparison(bridge, SYSTEM, [(one, None) for one in pair], view=View())
    assert _all(bridge, "Observation") == []


def test_withdrawing_needs_a_reason_and_says_it_from_then_on(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with pytest.raises(BadInput):
        withdraw(bridge, clinician(), saved.id, why=" ")
    with pytest.raises(NotFound):
        withdraw(bridge, clinician("bo"), saved.id, why="no")
    withdraw(bridge, clinician(), saved.id, why="other mole")
    with bridge.db.snapshot() as tx, pytest.raises(Gone, match="other mole"):
        get_saved(tx, clinician(), saved.id)
    with pytest.raises(Gone):
        withdraw(bridge, clinician(), saved.id, why="again")


def test_a_picture_of_a_withdrawn_comparison_is_compared_with_nothing(bridge: Bridge, pair: tuple[str, str]) -> None:
    saved = _save(bridge, pair)
    with bridge.db.snapshot() as tx:
        picture = pictures_of(tx, saved.reference)[0].id
    withdraw(bridge, clinician(), saved.id, why="another person's skin")
    with pytest.raises(Gone):
        compare(bridge, clinician(), pair[0], picture)
    with pytest.raises(Gone):
        save_comparison(bridge, clinician(), [(pair[0], None), (picture, None)], view=VIEW)


def test_pictures_are_sent_nowhere_by_themselves(bridge: Bridge, pair: tuple[str, str]) -> None:
    object.__setattr__(
        bridge.settings, "destinations", [{"name": "ehr", "based_on": "directory", "folder": "/nowhere"}]
    )
    saved = _save(bridge, pair)
    with bridge.db.transaction() as tx:
        picture = pictures_of(tx, saved.reference)[0]
        assert deliver_media(tx, bridge, picture) == []
        assert len(deliver_media(tx, bridge, picture, only="ehr")) == 1
        later = update_resource(tx, picture.resource, at=bridge.now())
        assert len(deliver_media(tx, bridge, later)) == 1
        assert [row.media_version for row in deliveries_of(tx, picture.id)] == [2, 1]
