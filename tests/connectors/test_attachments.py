"""The forms an attachment takes beyond a Binary: bytes written afterwards, and files on a share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault
from connectors.contract import DeliveryError, Retry
from connectors.profile import ProfileError, build_profile
from tests.connectors.test_contract import PHOTO, parcel
from tests.connectors.test_rendition import jpeg
from tests.connectors.vendor_site import Played


@pytest.mark.parametrize("route", ["fhir-media", "fhir-documentreference"])
def test_bytes_written_after_the_resource_are_read_back_the_same(played: Played, route: str) -> None:
    running, connector = played("hapi", binary_upload="access-write", routes=[route])
    assert connector.find(parcel()) is None
    receipt = connector.send(parcel())
    evidence = connector.read_back(parcel(), receipt)
    assert evidence is not None and evidence.matches, evidence
    assert [each.content for each in running.vendor.filed()] == [PHOTO]
    assert connector.send(parcel()).duplicate and len(running.vendor.filed()) == 1


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
def test_a_resource_whose_bytes_were_lost_on_the_way_gets_them_and_stays_the_only_one(
    played: Played, lost: Any
) -> None:
    running, connector = played("hapi", binary_upload="access-write")
    running.vendor.faults = [Fault(lost, "POST", "$binary-access-write")]
    with pytest.raises(DeliveryError) as error:
        connector.send(parcel())
    assert error.value.retry is Retry.UNKNOWN
    assert (connector.find(parcel()) is not None) == (lost == "lost-after")
    connector.send(parcel())
    assert [each.content for each in running.vendor.filed()] == [PHOTO]


def shared(folder: Path) -> dict[str, Any]:
    return {"binary_upload": "share", "share": {"folder": str(folder), "address": "\\\\ehr\\photos\\{name}"}}


def test_a_file_on_a_share_is_named_as_the_server_reaches_it_and_read_back_from_there(
    played: Played, tmp_path: Path
) -> None:
    photo = parcel(content=jpeg((64, 48)))
    running, connector = played("athenaflow", **shared(tmp_path), accepts=["application/pdf"], transform={"to": "pdf"})
    running.vendor.behaviour = running.vendor.behaviour.model_copy(
        update={"fhir": running.vendor.behaviour.fhir.model_copy(update={"accepts": ()})}  # type: ignore[union-attr]
    )
    receipt = connector.send(photo)
    (file,) = tmp_path.iterdir()
    (stored,) = [each for (kind, _), each in running.vendor.resources.items() if kind == "DocumentReference"]
    assert stored["content"][0]["attachment"]["url"] == f"\\\\ehr\\photos\\{file.name}"
    assert file.read_bytes().startswith(b"%PDF") and "A-1" not in file.name
    evidence = connector.read_back(photo, receipt)
    assert evidence is not None and evidence.matches, evidence
    file.write_bytes(b"something else")
    assert connector.read_back(photo, receipt).differences  # type: ignore[union-attr]
    assert not connector.send(photo).duplicate and file.read_bytes().startswith(b"%PDF")


def test_a_visits_pdf_goes_by_the_share_where_the_vendor_takes_none_inline(played: Played, tmp_path: Path) -> None:
    content = b"%PDF-1.3 a visit %%EOF"
    sheet = parcel(content=content, content_type="application/pdf", filename="s1.pdf")
    running, connector = played("athenaflow", **shared(tmp_path), accepts=["application/pdf"], transform={"to": "pdf"})
    running.vendor.behaviour = running.vendor.behaviour.model_copy(
        update={"fhir": running.vendor.behaviour.fhir.model_copy(update={"accepts": ()})}  # type: ignore[union-attr]
    )
    evidence = connector.read_back(sheet, connector.send(sheet))
    assert evidence is not None and evidence.matches, evidence
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [content]


def test_what_is_taken_back_is_taken_off_the_share(played: Played, tmp_path: Path) -> None:
    _, connector = played("hapi", **shared(tmp_path))
    receipt = connector.send(parcel())
    assert len(list(tmp_path.iterdir())) == 1
    connector.retract(parcel(), receipt, "wrong patient")
    assert not list(tmp_path.iterdir())
    assert connector.retract(parcel(), receipt, "wrong patient").duplicate


def test_a_share_that_is_not_mounted_is_an_outage(played: Played, tmp_path: Path) -> None:
    running, connector = played("hapi", **shared(tmp_path / "gone"))
    with pytest.raises(DeliveryError) as error:
        connector.send(parcel())
    assert error.value.outage and error.value.retry is Retry.LATER and "mounted" in error.value.remedy
    assert not running.vendor.filed()


def test_a_share_and_the_form_that_needs_it_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="belong together"):
        build_profile({"name": "x", "based_on": "hapi", "binary_upload": "share"}, source="test")


@pytest.mark.parametrize("form", ["contained", "identifier"])
def test_a_copy_that_names_its_patient_by_number_is_known_as_his(played: Played, form: str) -> None:
    running, connector = played("hapi", references=form)
    receipt = connector.send(parcel())
    assert connector.send(parcel()).duplicate
    assert connector.read_back(parcel(), receipt).matches  # type: ignore[union-attr]
    newer = connector.send(parcel(version=2, content=b"better", previous=receipt))
    assert newer.ids["Media"] == receipt.ids["Media"]
    (stored,) = [each for (kind, _), each in running.vendor.resources.items() if kind == "Media"]
    assert stored["subject"].get("reference") in {None, "#patient"}
    assert connector.find(replace(parcel("2"), media=parcel("2").media)) is None


def test_what_may_not_be_updated_is_filed_anew_and_taken_back_by_people(played: Played) -> None:
    running, connector = played("oracle-health", update_accepts=["text/rtf"])
    photo = parcel(content=jpeg((64, 48)))
    receipt = connector.send(photo)
    connector.send(parcel(version=2, content=jpeg((48, 64)), previous=receipt))
    assert len(running.vendor.filed()) == 2
    with pytest.raises(DeliveryError, match="no way to take a photo back"):
        connector.retract(photo, receipt, "wrong patient")


@pytest.mark.parametrize(("hours", "filed"), [(1, True), (0, False), (None, True)])
def test_a_photo_taken_outside_the_visits_time_is_refused_where_the_profile_says_so(
    played: Played, hours: float | None, filed: bool
) -> None:
    running, connector = played("hapi", encounter={"within_hours": hours} if hours is not None else {})
    period = {"start": "2026-11-23T09:30:00Z", "end": "2026-11-23T10:00:00Z"}
    running.vendor.visit_periods["V-1"] = period
    if filed:
        connector.send(parcel())
    else:
        with pytest.raises(DeliveryError, match="outside the visit's time"):
            connector.send(parcel())
    assert bool(running.vendor.filed()) == filed
