"""Every vendor as it documents itself, on good and on bad days: each photo ends exactly once in the right chart, or
waits where people see it, with the reason.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapter.delivery.circuit import FAILURES, circuits
from adapter.delivery.outbox import release_withheld
from adapter.delivery.withdrawal import take_back_withdrawn
from adapter.sandbox.vendors import Fault
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.profile import build_profile
from tests.connectors.vendor_site import BLIND, FILING, HTTP, KEPT, VENDORS, Open, VendorSite, fault, in_chart


def test_every_vendor_is_rehearsed() -> None:
    assert set(FILING) == set(VENDORS)


@pytest.mark.parametrize("name", VENDORS)
def test_a_photo_is_filed_once_in_the_right_chart(name: str, opened: Open) -> None:
    site = opened(name)
    site.capture()
    site.run()
    row = site.rows()[0]
    assert (row.state, site.numbers()) == (in_chart(name), ["1001"]), row.reason


def test_a_login_page_in_the_archives_stead_is_no_answer(opened: Open) -> None:
    site = opened("pacs")
    site.vendor.faults = [Fault("refuse", "GET", refusal=Refusal(status=200, body="<html>Sign in</html>"))]
    (found, *_) = site.destinations.get("x").check()
    assert found.verdict == "error" and "no DICOM JSON" in found.detail


# What these make of a photo cannot hold a PDF.
PHOTOS_ONLY = {"athenaflow"}
# How a visit's PDF arrives where not as it is: a message with a link, a DICOM object.
WRAPPED = {"eclinicalworks": b"MSH|"} | dict.fromkeys(["epic", "pacs"], b"\0" * 128 + b"DICM")


@pytest.mark.parametrize("name", VENDORS)
def test_a_visit_goes_as_one_pdf_where_the_vendor_takes_documents(name: str, opened: Open) -> None:
    site = opened(name, visit_sheet="contact-sheet", single_photos=False)
    for number in (1, 2):
        site.capture(number)
    site.later()
    (row,) = site.unsettled("")
    if name in PHOTOS_ONLY:
        assert row.state == "failed" and "is a PDF" in row.reason and "visit_sheet" in row.remedy
    else:
        assert (row.state, site.numbers()) == (in_chart(name), ["1001"]), row.reason
    assert all(each.content.startswith(WRAPPED.get(name, b"%PDF-")) for each in site.vendor.filed())


def test_a_document_whose_title_is_the_vendors_is_found_again_by_the_mark_in_its_comment(opened: Open) -> None:
    site = opened("canvas", visit_sheet="contact-sheet", single_photos=False)
    site.vendor.faults = [Fault("lost-after", "POST", "/DocumentReference")]
    site.capture()
    site.later()
    site.later()
    (row,) = site.unsettled("")
    assert (row.state, site.numbers()) == ("confirmed", ["1001"]), row.reason
    (filed,) = [each for (kind, _), each in site.vendor.resources.items() if kind == "DocumentReference"]
    assert filed["description"] == "Uncategorized Clinical Document" and "masterIdentifier" not in filed
    assert filed["extension"][4]["valueBoolean"] is False and "DermBridge" in filed["extension"][0]["valueString"]


# A note, a message or a document of these stays when it is replaced: a person takes it away.
ADDED = {"epic", "athenaone", "modmed-ema", "openemr"}


@pytest.mark.parametrize("name", [name for name in VENDORS if name not in PHOTOS_ONLY])
def test_a_visits_pdf_made_again_takes_the_place_of_the_former_and_leaves_with_its_photos(
    name: str, opened: Open
) -> None:
    site = opened(name, visit_sheet="contact-sheet", single_photos=False)
    site.capture(1)
    site.later()
    site.capture(2)
    site.later()
    assert (site.numbers() == ["1001"]) == (name not in ADDED), site.filed()
    for number in (1, 2):
        site.move(number, "2")
    site.later()
    site.later(hours=7)
    assert site.numbers() == (["1001", "1001", "1002"] if name in ADDED else ["1002"]), site.unsettled("confirmed")


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
@pytest.mark.parametrize("name", VENDORS)
def test_a_lost_answer_is_found_out_before_anything_is_sent_again(name: str, lost: str, opened: Open) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, lost)]
    site.capture()
    site.run()
    assert site.rows()[0].state == "unknown"
    site.later()
    row = site.rows()[0]
    if name in BLIND:
        assert row.state == "failed" and "cannot be asked" in row.reason and "send again only if" in row.remedy
        assert site.numbers() == ["1001"] * (lost == "lost-after")
    else:
        assert (row.state, site.numbers()) == (in_chart(name), ["1001"]), row.reason


@pytest.mark.parametrize("name", HTTP)
def test_a_busy_vendor_that_names_no_time_is_left_alone_for_a_minute(name: str, opened: Open) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, "busy")]
    site.capture()
    site.run()
    asked = len(site.vendor.requests)
    assert site.rows()[0].state == "pending" and "429" in site.rows()[0].reason
    site.later(seconds=20)
    assert len(site.vendor.requests) == asked
    site.later(seconds=62)
    assert (site.rows()[0].state, site.numbers()) == (in_chart(name), ["1001"])


@pytest.mark.parametrize("name", [each for each in HTTP if each != "hapi"])
def test_a_token_that_ends_in_the_middle_is_renewed(name: str, opened: Open) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, "token-expired")]
    site.capture()
    site.run()
    site.later(minutes=11)  # where asking for a token so soon again is not allowed
    assert (site.rows()[0].state, site.numbers()) == (in_chart(name), ["1001"]), site.rows()[0].reason


@pytest.mark.parametrize("name", VENDORS)
def test_consent_withdrawn_in_the_middle_keeps_the_photo_here(name: str, opened: Open, permit: SimpleNamespace) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, "lost-before")]
    site.capture()
    site.run()
    permit.permit = False
    site.later()
    row = site.rows()[0]
    assert site.numbers() == []
    assert row.state == ("failed" if name in BLIND else "withheld") and row.reason and row.remedy


@pytest.mark.parametrize("name", VENDORS)
def test_a_merge_moves_the_photo_or_says_who_must(name: str, opened: Open) -> None:
    site = opened(name)
    site.capture()
    site.run()
    site.move(1, "2")
    site.later()
    old, new = site.rows()
    assert new.state == in_chart(name), new.reason
    if name in KEPT:
        assert (old.state, site.numbers()) == ("retracting", ["1001", "1002"])
        assert "no way to take a photo back" in old.reason and old.remedy
    else:
        assert (old.state, site.numbers()) == ("retracted", ["1002"]), old.reason


def test_an_archive_that_knows_rejection_notes_is_told_in_the_standards_way(opened: Open) -> None:
    site = opened("pacs", retract="reject")
    site.capture()
    site.run()
    site.move(1, "2")
    site.later()
    old, new = site.rows()
    assert (old.state, new.state, site.numbers()) == ("retracted", "confirmed", ["1002"]), old.reason
    assert [each.mrn for each in site.vendor.rejections.values()] == ["1001"]


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_merge_after_an_answer_lost_for_good_files_the_photo_anew_and_says_where_to_look(
    name: str, opened: Open
) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, "lost-after")]
    site.capture()
    site.run()
    site.move(1, "2")
    site.later()
    old, new = site.rows()
    assert (old.state, new.state, site.numbers()) == ("failed", in_chart(name), ["1001", "1002"])
    assert "Look there for" in old.remedy


@pytest.mark.parametrize("name", [name for name in VENDORS if name not in BLIND])
def test_a_merge_between_a_lost_answer_and_the_look_leaves_no_copy_behind(name: str, opened: Open) -> None:
    site = opened(name)
    site.vendor.faults = [fault(name, "lost-after")]
    site.capture()
    site.run()
    site.move(1, "2")
    site.later()
    site.later(hours=7)
    old, new = site.rows()
    assert new.state == in_chart(name), new.reason
    kept = name in KEPT
    assert site.numbers() == (["1001", "1002"] if kept else ["1002"]), (old.state, old.reason)
    ended = "superseded" if name == "hl7v2" else "retracted"  # there it was taken back unseen, in case it had arrived
    assert old.state == ("retracting" if kept else ended) and (old.reason or not kept)


@pytest.mark.parametrize("name", [name for name in VENDORS if name not in {"epic", "pacs"}])
def test_a_patient_the_vendor_does_not_know_holds_no_photo_until_registered(name: str, opened: Open) -> None:
    site = opened(name)
    known = dict(site.vendor.patients)
    site.vendor.patients.clear()
    site.capture()
    site.run()
    row = site.rows()[0]
    assert row.state in {"pending", "failed"} and row.reason and row.remedy and site.numbers() == []
    site.vendor.patients |= known
    site.again()
    assert (site.rows()[0].state, site.numbers()) == (in_chart(name), ["1001"])


def test_the_next_route_takes_what_the_one_before_it_cannot(opened: Open) -> None:
    site = opened("epic")
    site.vendor.faults = [Fault("refuse", "POST", "/studies", Refusal(status=405))]
    site.capture()
    site.run()
    row = site.rows()[0]
    assert (row.state, site.numbers()) == ("accepted", ["1001"]) and '"hl7v2-mdm"' in row.receipt


def test_a_tenant_without_the_write_scope_is_left_with_the_hand_off(opened: Open) -> None:
    site = opened("veradigm", routes={"rest": False})
    site.vendor.faults = [Fault("refuse", "POST", "/DocumentReference", Refusal(status=403))]
    site.capture()
    site.run()
    assert site.rows()[0].state == "accepted" and '"hand-off"' in site.rows()[0].receipt and site.numbers() == []


def filings(site: VendorSite) -> list[str]:
    return [path.rpartition("MagicJson/")[2] for _, path in site.vendor.requests if "SaveDocumentImage" in path]


def test_a_document_in_pieces_begins_anew_when_an_answer_is_lost_before_the_commit(opened: Open) -> None:
    """A smaller piece than the vendor allows, so that the photo needs several."""
    site = opened("veradigm", routes={"rest": {"steps": in_pieces_of(400)}})
    site.capture()
    site.vendor.faults = [
        Fault("slow", "POST", "/SaveDocumentImage"),
        Fault("lost-after", "POST", "/SaveDocumentImage"),
    ]
    site.run()
    row = site.rows()[0]
    assert (row.state, len(filings(site)), site.numbers()) == ("pending", 2, []) and "begins anew" in row.remedy
    site.later()
    assert (site.rows()[0].state, site.numbers()) == ("accepted", ["1001"]), site.rows()[0].reason
    assert site.vendor.filed()[0].content.startswith(b"%PDF") and site.vendor.filed()[0].content.rstrip().endswith(
        b"EOF"
    )
    assert filings(site)[-1] == "SaveDocumentImage/commit" and len(filings(site)) > 4


def in_pieces_of(size: int) -> list[dict[str, Any]]:
    (route, *_) = build_profile({"based_on": "veradigm"}, source="test").routes  # type: ignore[attr-defined]
    first, last = (step.model_dump(exclude_defaults=True) for step in route.steps)
    return [first | {"chunk_bytes": size}, last]


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
def test_a_commit_whose_answer_was_lost_is_looked_for_where_the_profile_says_how(lost: str, opened: Open) -> None:
    asked = {"Action": "GetDocuments", "PatientID": "{patient}", "Token": "{token}"}
    look = {"method": "POST", "path": "json/MagicJson", "body": "json", "fields": asked, "items": "0.getdocumentsinfo"}
    look |= {"id": "documentID", "matches": {"vendorFileName": "{delivery}.pdf"}}
    site = opened("veradigm", routes={"rest": {"look": look}})
    site.vendor.faults = [fault("veradigm", lost)]
    site.capture()
    site.run()
    assert site.rows()[0].state == "unknown"
    site.later()
    assert (site.rows()[0].state, site.numbers()) == ("accepted", ["1001"]), site.rows()[0].reason
    assert filings(site).count("SaveDocumentImage/commit") == (1 if lost == "lost-after" else 2)


def test_an_error_that_comes_with_status_200_is_no_success(opened: Open) -> None:
    site = opened("veradigm", routes={"rest": {"fields": {"owner": ""}}})
    site.capture()
    site.run()
    row = site.rows()[0]
    assert (row.state, site.numbers()) == ("failed", []) and "Unity's log" in row.remedy


def test_what_may_be_tried_again_only_so_often_is_left_to_a_person_then(opened: Open) -> None:
    site = opened("eclinicalworks")
    transient = Refusal(status=400, body='{"status": [{"code": 112}]}')
    site.vendor.faults = [Fault("refuse", "POST", "/practice", transient) for _ in range(2)]
    site.capture()
    site.run()
    assert site.rows()[0].state == "pending"
    site.later()
    assert (site.rows()[0].state, site.numbers()) == ("failed", [])
    site.again()
    assert (site.rows()[0].state, site.numbers()) == ("confirmed", ["1001"])


def test_a_vendor_that_is_down_is_left_alone_and_found_again(opened: Open) -> None:
    site = opened("medplum")
    for number in range(1, FAILURES + 3):
        site.capture(number)
    site.vendor.faults = [Fault("lost-before", "") for _ in range(FAILURES)]
    site.run()
    with site.bridge.db.snapshot() as tx:
        (circuit,) = circuits(tx)
    tried = len(site.vendor.requests)
    assert circuit.failures == FAILURES and circuit.open_until > site.clock()
    site.later(seconds=10)
    assert len(site.vendor.requests) == tried
    assert any("left alone" in (site.rows(number)[0].reason or "") for number in range(1, FAILURES + 3))
    for _ in range(6):
        site.later(minutes=3)
    with site.bridge.db.snapshot() as tx:
        assert circuits(tx) == []
    assert site.numbers() == ["1001"] * (FAILURES + 2)


@pytest.mark.parametrize(("policy", "numbers"), [("stop", ["1001"]), ("retract", [])])
def test_a_withdrawal_takes_back_what_is_there_where_the_profile_says_so(
    policy: str, numbers: list[str], opened: Open, permit: SimpleNamespace
) -> None:
    site = opened("medplum", on_withdrawal=policy)
    site.capture()
    site.run()
    permit.permit = False
    with site.bridge.db.transaction() as tx:
        take_back_withdrawn(tx, site.bridge, "p1")
    site.run()
    assert (site.numbers(), site.rows()[0].state) == (numbers, "confirmed" if numbers else "withheld")


@pytest.mark.parametrize("name", VENDORS)
def test_a_photo_taken_back_for_want_of_consent_is_there_once_when_consent_returns(
    name: str, opened: Open, permit: SimpleNamespace
) -> None:
    site = opened(name, on_withdrawal="retract")
    site.capture()
    site.run()
    permit.permit = False
    with site.bridge.db.transaction() as tx:
        take_back_withdrawn(tx, site.bridge, "p1")
    site.later()
    row = site.rows()[0]
    kept = name in KEPT
    assert (row.state, site.numbers()) == (("retracting", ["1001"]) if kept else ("withheld", [])), row.reason
    permit.permit = True
    with site.bridge.db.transaction() as tx:
        release_withheld(tx, site.bridge, "p1")
    site.later(hours=7)
    row = site.rows()[0]
    assert site.numbers() == ["1001"], (row.state, row.reason)
    blind = name in BLIND & KEPT  # it never went away there, and nobody but a person can see that
    assert row.state == ("failed" if blind else in_chart(name)), row.reason


def test_one_photo_of_a_visit_at_a_time_where_the_vendor_wants_it(opened: Open) -> None:
    site = opened("canvas")
    for number in (1, 2):
        site.capture(number)
    site.vendor.faults = [fault("canvas", "busy")]
    site.run()
    assert [site.rows(number)[0].state for number in (1, 2)] == ["pending", "pending"]
    assert [path for method, path in site.vendor.requests if method == "POST" and "/Media" in path] == ["/fhir/Media"]
    site.later(seconds=62)
    assert site.numbers() == ["1001", "1001"]


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
def test_a_patient_with_many_documents_is_looked_through_to_the_last_page(lost: str, opened: Open) -> None:
    site = opened("oracle-health")
    for number in range(1, 13):
        site.capture(number)
    site.run()
    site.capture(13)
    site.vendor.faults = [fault("oracle-health", lost)]
    site.run()
    site.later()
    assert site.rows(13)[0].state == "confirmed" and len(site.filed()) == 13
