"""A saved comparison on paper and in the EHR: what stands on the sheet, who may take it, and where it goes."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from adapter import consent
from adapter.access import SYSTEM, Actor
from adapter.batch.operations import OPERATIONS
from adapter.bridge import Bridge
from adapter.compare.saved import save_comparison, withdraw
from adapter.compare.sheets import destinations_for, export_sheet, send_sheet
from adapter.db.tables import audit_event, delivery, media
from adapter.delivery import Destinations, deliver
from adapter.errors import Conflict, Forbidden, Unprocessable
from adapter.identity import Refiling, refile
from adapter.measure.measuring import withdraw as withdraw_measurement
from adapter.records import Stored, create, find_where, get, new_id, update_resource
from adapter.records.pictures import pictures_of
from adapter.work import Lane, WorkLoop
from mappings.comparison_sheet import comparison_sheet, sheet_to_pdf, sheet_to_picture
from mappings.comparison_to_observation import View
from mappings.fhir_check import check_resource
from mappings.measurement_to_observation import measurement_to_observation
from mappings.media_to_document_reference import media_to_document_reference
from mappings.photos_to_picture import shown_on
from mappings.terms import PHOTO_ORIGIN
from tests.compare.conftest import VIEW, clinician, draw
from tests.conftest import Clock
from tests.servers.fhir_ehr import Ehr, running


@pytest.fixture
def saved(bridge: Bridge, pair: tuple[str, str]) -> Stored:
    return save_comparison(bridge, clinician(), [(one, None) for one in pair], view=VIEW, note="darker at the edge")


def _with_destinations(bridge: Bridge, folder: Path) -> Bridge:
    given = (
        {"name": "chart", "based_on": "directory", "folder": str(folder / "chart")},
        {"name": "archive", "based_on": "directory", "folder": str(folder / "archive"), "comparisons": False},
    )
    return replace(bridge, settings=bridge.settings.model_copy(update={"destinations": given}))


def _run(bridge: Bridge, clock: Clock) -> None:
    destinations = Destinations(bridge)
    lanes = {"deliver": Lane(lambda item: deliver(bridge, destinations, item))}
    WorkLoop(bridge.db, lanes, now=clock).run_until_idle()
    destinations.close()


def _states(bridge: Bridge) -> list[tuple[str, str]]:
    with bridge.db.snapshot() as tx:
        of_sheets = select(delivery.c.destination, delivery.c.state).join(media, media.c.id == delivery.c.media_id)
        rows = tx.execute(of_sheets.where(media.c.derivation.is_not(None)).order_by(delivery.c.id))
        return [(row.destination, row.state) for row in rows]


@pytest.mark.parametrize("form", ["pdf", "png"])
def test_an_export_is_a_disclosure_of_every_photo_on_it(bridge: Bridge, saved: Stored, form: str) -> None:
    made = export_sheet(bridge, clinician(), saved.id, form)
    assert made.data.startswith({"pdf": b"%PDF-1", "png": b"\x89PNG"}[form])
    with bridge.db.snapshot() as tx:
        told = [one.resource for one in find_where(tx, "AuditEvent")]
    disclosed = next(one["entity"] for one in told if one["type"]["code"] == "110106")
    named = {one["what"].get("reference") for one in disclosed if "what" in one}
    assert {saved.version_reference, *(one["reference"] for one in saved.resource["derivedFrom"])} <= named
    photographer = Actor("person", "Practitioner/p", "P", "photographer", clinician().scopes, patient_id="asa")
    with pytest.raises(Forbidden):
        export_sheet(bridge, photographer, saved.id, form)


def test_nothing_leaves_that_consent_forbids(bridge: Bridge, saved: Stored) -> None:
    denied = replace(bridge, settings=bridge.settings.model_copy(update={"consent_mode": "required"}))
    with bridge.db.snapshot() as tx:
        assert not consent.decide(tx, denied, "asa").permit
    with pytest.raises(Unprocessable, match="photo 1 of this comparison cannot leave"):
        export_sheet(denied, clinician(), saved.id, "pdf")


def _sheet(saved: Stored, photos: int = 2) -> Any:
    seen = [
        {"id": f"m{number}", "createdDateTime": "2026-03-03T09:00:00Z", "deviceName": "Camera 4711-SN"}
        for number in range(photos)
    ]
    resource = saved.resource | {"derivedFrom": [{"reference": f"Media/{one['id']}/_history/1"} for one in seen]}
    drawn = [(one, draw(number + 1), "image/jpeg") for number, one in enumerate(seen)]
    return comparison_sheet(
        resource, drawn, [], heading="Łącka, Åsa | MRN 4711", footer="Exported by Dr Eve.", zone=UTC
    )


def test_the_sheet_says_what_was_found_and_how_and_no_device(saved: Stored) -> None:
    sheet = _sheet(saved)
    text = "\n".join([*sheet.findings, *(line for plate in sheet.plates for line in plate.lines)])
    for expected in (
        "Verdict: Aligned",
        "429 of 441 patches",
        "Method: key points, block correlation, spline, version 1.",
        "Not a diagnosis",
        "Note by Dr Eve: darker at the edge",
        f"Observation/{saved.id}",
        "Taken: 2026-03-03 09:00",
        "Media/m1, version 1",
    ):
        assert expected in text
    assert "4711-SN" not in text


def test_what_was_measured_on_its_photos_stands_on_the_sheet_with_unit_and_uncertainty(
    bridge: Bridge, saved: Stored, pair: tuple[str, str], tmp_path: Path
) -> None:
    kept = _keep_measured(bridge, pair[1])
    site = _with_destinations(bridge, tmp_path)
    export_sheet(site, clinician(), saved.id, "pdf")
    send_sheet(site, clinician(), saved.id)
    with bridge.db.snapshot() as tx:
        sheet = pictures_of(tx, saved.reference)[-1].resource
        disclosed = find_where(tx, "AuditEvent", audit_event.c.type.like("110106|%"))[-1].resource
    expected = (
        "Measured on photo 2 by Dr Eve: area 77.0 ± 5.8 mm², longest diameter 12.3 ± 0.4 mm; scale: card "
        f"(Observation/{kept.id}). ± is two standard uncertainties, about 95 %."
    )
    assert expected in sheet["note"][0]["text"]
    assert kept.version_reference in str(disclosed["entity"])


def _measured(photo: dict[str, Any]) -> dict[str, Any]:
    area = {"name": "area", "value": 77.0, "uncertainty": 2.9, "unit": "mm2"}
    axis = {"name": "long-axis", "value": 12.3, "uncertainty": 0.2, "unit": "mm"}
    scale = {"source": "card", "mm_per_pixel": 0.1, "uncertainty": 0.01, "seen": [[0, 0]], "plane": [[0, 0]]}
    found = {"kind": "outline", "points": [[1, 1], [80, 1], [80, 70]], "sigma": 1.0, "edge": 1.0, "scale": scale}
    found |= {"measures": [area, axis], "colour": {"calibrated": False}}
    eve, at = {"display": "Dr Eve"}, datetime(2026, 11, 23, tzinfo=UTC)
    return measurement_to_observation(
        found, photo, observation_id=new_id(), performer=eve, drawn="Drawn by hand", kept_at=at
    )


def test_the_pdf_is_tagged_with_its_language_and_a_description_of_each_picture(saved: Stored, clock: Clock) -> None:
    pdf = sheet_to_pdf(_sheet(saved, photos=8), at=clock())
    assert b"/Lang (en)" in pdf and b"/MarkInfo <</Marked true>>" in pdf and b"/DisplayDocTitle true" in pdf
    assert pdf.count(b"/Alt (Photo") == 8
    assert pdf.count(b"/Type /Page\n") >= 2


def test_the_picture_holds_pixels_and_no_metadata(saved: Stored) -> None:
    for form in ("PNG", "JPEG"):
        with Image.open(io.BytesIO(sheet_to_picture(_sheet(saved), format=form))) as drawn:
            assert drawn.width == 1600 and drawn.getexif() == {}
            assert not {"exif", "xmp", "comment", "icc_profile"} & set(drawn.info)


def test_a_strip_of_a_photo_makes_no_endless_sheet(saved: Stored, clock: Clock) -> None:
    strip = io.BytesIO()
    Image.new("RGB", (1, 2000)).save(strip, "JPEG")
    sheet = _sheet(saved)
    sheet = replace(sheet, plates=(replace(sheet.plates[0], jpeg=strip.getvalue()), *sheet.plates[1:]))
    with Image.open(io.BytesIO(sheet_to_picture(sheet))) as drawn:
        assert drawn.height < 4000
    assert sheet_to_pdf(sheet, at=clock()).count(b"/Type /Page\n") == 1


def test_a_comparison_is_sent_where_the_profile_takes_it_once_and_proven_there(
    bridge: Bridge, saved: Stored, tmp_path: Path, clock: Clock
) -> None:
    site = _with_destinations(bridge, tmp_path)
    assert destinations_for(site) == ["chart"]
    assert len(send_sheet(site, clinician(), saved.id)) == 1
    with pytest.raises(Conflict):
        send_sheet(site, clinician(), saved.id)
    _run(site, clock)
    assert _states(site) == [("chart", "confirmed")]
    with site.db.snapshot() as tx:
        sheet = pictures_of(tx, saved.reference)[-1]
    check_resource(sheet.resource)
    document = media_to_document_reference(sheet.resource)
    check_resource(document | {"id": "d"})
    assert "darker at the edge" in document["description"]


def test_an_ehr_without_media_gets_a_document_reference_with_the_sheet_as_pdf(
    bridge: Bridge, saved: Stored, clock: Clock
) -> None:
    with running(Ehr(without=("Media",))) as ehr:
        ehr.put({"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "MRN-asa"}]})
        chart = {"name": "chart", "kind": "fhir-r4", "base_url": ehr.url, "comparisons": True}
        chart |= {"routes": ["fhir-documentreference"], "transform": {"to": "pdf"}}
        site = replace(bridge, settings=bridge.settings.model_copy(update={"destinations": (chart,)}))
        send_sheet(site, clinician(), saved.id)
        _run(site, clock)
        assert _states(site) == [("chart", "confirmed")]
        (document,) = ehr.of_type("DocumentReference")
        assert document["content"][0]["attachment"]["contentType"] == "application/pdf"
        assert "darker at the edge" in document["description"]
        assert [kind for kind, data in ehr.bytes.values() if data.startswith(b"%PDF-")] == ["application/pdf"]
        withdraw(site, clinician(), saved.id, why="other mole")
        _run(site, clock)
        assert [one["status"] for one in ehr.of_type("DocumentReference")] == ["entered-in-error"]


def test_measurements_go_beside_the_sheet_that_tells_of_them_and_one_withdrawn_takes_it_back(
    bridge: Bridge, saved: Stored, pair: tuple[str, str], clock: Clock
) -> None:
    with running(Ehr()) as ehr:
        ehr.put({"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "MRN-asa"}]})
        chart = {"name": "chart", "kind": "fhir-r4", "base_url": ehr.url, "comparisons": True, "observations": True}
        site = replace(bridge, settings=bridge.settings.model_copy(update={"destinations": (chart,)}))
        first, later = (_keep_measured(site, media_id) for media_id in pair)
        send_sheet(site, clinician(), saved.id)
        _run(site, clock)
        assert _states(site) == [("chart", "confirmed")]
        assert [one["valueQuantity"]["value"] for one in ehr.of_type("Observation")] == [77.0, 77.0]
        named = {one["derivedFrom"][0]["identifier"]["value"] for one in ehr.of_type("Observation")}
        with site.db.snapshot() as tx:
            known = [get(tx, "Media", media_id).resource["identifier"][0]["value"] for media_id in pair]
        assert named == set(known)

        _keep_measured(site, pair[1])
        send_sheet(site, clinician(), saved.id)  # with what was measured since
        _run(site, clock)
        assert _states(site) == [("chart", "superseded"), ("chart", "confirmed")]
        assert len(ehr.of_type("Observation")) == 3 and len(ehr.of_type("Media")) == 1
        with pytest.raises(Conflict):
            send_sheet(site, clinician(), saved.id)

        withdraw_measurement(site, SYSTEM, later.id, media_id=pair[1], why="the wrong mole")
        _run(site, clock)
        assert _states(site)[-1] == ("chart", "retracted")
        assert sorted(one["status"] for one in ehr.of_type("Observation")) == ["entered-in-error", "final", "final"]
        send_sheet(site, clinician(), saved.id)
        _run(site, clock)
        assert _states(site)[-1] == ("chart", "confirmed")
        with site.db.snapshot() as tx:
            sheet = pictures_of(tx, saved.reference)[-1].resource
        assert first.id in sheet["note"][0]["text"] and later.id not in sheet["note"][0]["text"]


def _keep_measured(bridge: Bridge, media_id: str) -> Stored:
    with bridge.db.transaction() as tx:
        return create(tx, _measured(get(tx, "Media", media_id).resource), at=bridge.now())


def test_a_sheet_sent_with_the_wrong_side_is_made_anew_once_the_photo_is_corrected(
    bridge: Bridge, saved: Stored, pair: tuple[str, str], tmp_path: Path, clock: Clock
) -> None:
    site = _with_destinations(bridge, tmp_path)
    send_sheet(site, clinician(), saved.id)
    _run(site, clock)
    with site.db.transaction() as tx:
        OPERATIONS["assign"].apply(tx, site, SYSTEM, pair[0], {"laterality": "left"})
    send_sheet(site, clinician(), saved.id)
    _run(site, clock)
    assert _states(site) == [("chart", "superseded"), ("chart", "confirmed")]
    with site.db.snapshot() as tx:
        assert shown_on(pictures_of(tx, saved.reference)[-1].resource) == [(pair[0], 2), (pair[1], 1)]
    with pytest.raises(Conflict):
        send_sheet(site, clinician(), saved.id)


def test_withdrawn_or_torn_it_is_taken_back(
    bridge: Bridge, saved: Stored, pair: tuple[str, str], tmp_path: Path, clock: Clock
) -> None:
    site = _with_destinations(bridge, tmp_path)
    send_sheet(site, clinician(), saved.id)
    _run(site, clock)
    withdraw(site, clinician(), saved.id, why="other mole")
    _run(site, clock)
    assert _states(site) == [("chart", "retracted")]
    again = save_comparison(site, clinician(), [(one, None) for one in pair], view=View())
    send_sheet(site, clinician(), again.id)
    with site.db.transaction() as tx:
        refile(tx, site, SYSTEM, pair[0], Refiling("bo", "the wrong chart was open"))
    _run(site, clock)
    assert _states(site) == [("chart", "retracted"), ("chart", "superseded")]
    with site.db.snapshot() as tx:
        assert get(tx, "Observation", again.id).resource["status"] == "entered-in-error"


def test_another_systems_photo_leaves_no_picture_of_it_behind_and_is_not_sent(
    bridge: Bridge, pair: tuple[str, str], tmp_path: Path
) -> None:
    site = _with_destinations(bridge, tmp_path)
    with site.db.transaction() as tx:
        media = get(tx, "Media", pair[0]).resource
        media["meta"]["tag"].append({"system": PHOTO_ORIGIN, "code": "external", "display": "main-ehr"})
        update_resource(tx, media, at=site.now())
    saved = save_comparison(site, clinician(), [(one, None) for one in pair], view=View())
    with site.db.snapshot() as tx:
        assert pictures_of(tx, saved.reference) == []
    with pytest.raises(Unprocessable, match="another system's photo"):
        send_sheet(site, clinician(), saved.id)
