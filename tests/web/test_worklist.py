"""The worklist and the correction of a wrong patient, asked of the whole application."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from adapter.access import SYSTEM
from adapter.app import build_app
from adapter.batch import run_job
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.governance import settle
from adapter.identity import apply_message, queue, receive_messages
from adapter.records import find_where, get, update_resource
from adapter.work import Lane, WorkLoop
from mappings.terms import CONFIDENTIALITY
from mappings.wrong_patient import state_of
from tests.identity.conftest import adt
from tests.web.conftest import SYSTEM as MRN
from tests.web.conftest import Browser, picture, sign_in


def store(bridge: Bridge, patient: Any, width: int = 90, **more: Any) -> str:
    said = {"taken_at": "2026-11-23T09:20:00Z"} | ({"patient": patient} if patient else {}) | more
    return receive(bridge, SYSTEM, Upload(picture(width), said)).id


def work(bridge: Bridge) -> None:
    lanes = {
        "job": Lane(partial(run_job, bridge)),
        "apply-adt": Lane(partial(apply_message, bridge), dead_blocks=True),
    }
    WorkLoop(bridge.db, lanes, now=bridge.now).run_until_idle()


def media_of(bridge: Bridge, media_id: str) -> dict[str, Any]:
    with bridge.db.snapshot() as tx:
        return get(tx, "Media", media_id).resource


def audited(bridge: Bridge) -> str:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        return " ".join(one.body for one in find_where(tx, "AuditEvent"))


@pytest.fixture
def photographer(bridge: Bridge, app: Any) -> Iterator[Browser]:
    yield sign_in(bridge, app, "photographer", None)


@pytest.fixture
def engineer(bridge: Bridge, app: Any) -> Iterator[Browser]:
    yield sign_in(bridge, app, "engineer", None)


def version(page: str) -> str:
    found = re.search(r'name="version" value="(\d+)"', page)
    assert found
    return found[1]


def test_an_open_photo_shows_its_candidates_with_why(bridge: Bridge, photographer: Browser) -> None:
    waiting = store(bridge, {"system": MRN, "value": "1011", "family": "Lindkvist", "birthDate": "1961-12-03"})
    page = photographer.get("/worklist").text
    assert f'src="/captures/{waiting}/display"' in page
    assert "identifier differs by one keystroke" in page
    assert "birth date has day and month swapped" in page
    assert "LINDQVIST, Åsa" in page
    assert "Patient/p1/_history/1" in audited(bridge)


def test_a_photo_is_given_to_the_candidate_chosen(bridge: Bridge, photographer: Browser) -> None:
    alone = store(bridge, None)
    page = photographer.get("/worklist?q=1002").text
    answer = photographer.post(f"/worklist/photos/{alone}", {"patient": "p2", "version": version(page)})
    assert answer.status_code == 303
    way_back = photographer.get(answer.headers["location"]).text
    assert f'data-id="{alone}"' not in way_back
    assert "See it, or undo it" in way_back
    work(bridge)
    assert media_of(bridge, alone)["subject"] == {"reference": "Patient/p2"}
    assert "Nothing waits" in photographer.get("/worklist").text


def test_what_changed_meanwhile_is_not_overwritten(bridge: Bridge, photographer: Browser) -> None:
    alone = store(bridge, None)
    assert photographer.post(f"/worklist/photos/{alone}", {"patient": "p2", "version": "7"}).status_code == 400
    assert photographer.post(f"/worklist/photos/{alone}", {"version": "1"}).status_code == 400


def test_the_worklist_is_paged_oldest_first(
    bridge: Bridge, photographer: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapter.web.worklist.PAGE", 2)
    photos = [store(bridge, None, width) for width in (80, 81, 82)]
    receive_messages(bridge, [adt("A04", "M1", authority="OTHER")], "peer")
    work(bridge)
    seen, path = [], "/worklist"
    for _ in range(5):
        page = photographer.get(path).text
        seen += re.findall(r'<li class="wait [^>]*data-id="([^"]+)"', page)
        following = re.search(r'id="further" href="([^"]+)"', page)
        if not following:
            break
        path = following[1].replace("&amp;", "&")
    with bridge.db.snapshot() as tx:
        assert seen == [*photos, queue(tx)[0].id]
    assert photographer.get("/worklist?kind=adt").text.count('<li class="wait ') == 1


def test_the_engineer_sees_messages_and_no_photo(bridge: Bridge, engineer: Browser) -> None:
    alone = store(bridge, None)
    receive_messages(bridge, [adt("A04", "M1", authority="OTHER"), adt("A08", "M2", authority="OTHER")], "peer")
    work(bridge)
    page = engineer.get(f"/worklist?open={alone}").text
    assert alone in page
    for forbidden in (f"/captures/{alone}", f"/photos/{alone}", f"open={alone}", 'class="candidate'):
        assert forbidden not in page
    assert "waits behind an older message" in page.lower()
    assert engineer.post(f"/worklist/photos/{alone}", {"patient": "p1", "version": "1"}).status_code == 403


def test_a_stopped_message_is_dismissed_with_a_word(bridge: Bridge, engineer: Browser) -> None:
    receive_messages(bridge, [adt("A04", "M1", authority="OTHER")], "peer")
    work(bridge)
    with bridge.db.snapshot() as tx:
        (row,) = queue(tx)
    assert "Apply again" in engineer.get("/worklist").text
    assert engineer.post(f"/worklist/adt/{row.id}/dismiss").status_code == 400
    assert engineer.post(f"/worklist/adt/{row.id}/replay").status_code == 303
    work(bridge)
    assert engineer.post(f"/worklist/adt/{row.id}/dismiss", {"because": "by hand"}).status_code == 303
    with bridge.db.snapshot() as tx:
        assert queue(tx) == []


def test_a_chart_knows_nothing_of_the_worklist(bridge: Bridge, clinician: Browser) -> None:
    alone = store(bridge, None)
    assert clinician.get("/worklist").status_code == 403
    assert clinician.post(f"/worklist/photos/{alone}", {"patient": "p1", "version": "1"}).status_code in (403, 404)


# --- the wrong patient ----------------------------------------------------------------------------------------------


def test_a_move_is_previewed_with_name_and_reason_and_then_done(bridge: Bridge, photographer: Browser) -> None:
    wrong = store(bridge, "Patient/p1")
    assert "OKAFOR" in photographer.get(f"/refile?media={wrong}&q=okafor").text
    assert "The one at the time of each photo" in photographer.get(f"/refile?media={wrong}&patient=p2").text
    fields = {"media": wrong, "patient": "p2", "reason": "next bed"}
    preview = photographer.post("/refile", fields).headers["location"]
    page = photographer.get(preview).text
    assert "To OKAFOR" in page
    assert "Reason: next bed" in page
    assert media_of(bridge, wrong)["subject"]["reference"] == "Patient/p1"
    photographer.post(f"{preview}/start")
    work(bridge)
    assert media_of(bridge, wrong)["subject"]["reference"] == "Patient/p2"
    photographer.post(f"{preview}/undo")
    assert media_of(bridge, wrong)["subject"]["reference"] == "Patient/p1"


def test_a_session_in_a_chart_can_only_say_that_it_is_not_this_patients(bridge: Bridge, clinician: Browser) -> None:
    wrong = store(bridge, "Patient/p1")
    page = clinician.get(f"/refile?media={wrong}&q=okafor&patient=p2").text
    assert "OKAFOR, Åsa" not in page
    assert clinician.post("/refile", {"media": wrong, "patient": "p2", "reason": "x"}).status_code == 404
    preview = clinician.post("/refile", {"media": wrong, "reason": "not hers"}).headers["location"]
    clinician.post(f"{preview}/start")
    work(bridge)
    assert state_of(media_of(bridge, wrong)) == "quarantined"
    assert clinician.get(f"/photos/{wrong}").status_code == 404
    assert wrong not in clinician.get("/patients/p1").text
    assert wrong not in clinician.get(preview).text
    assert "put into quarantine" in clinician.get(preview).text


def test_where_a_photo_was_stands_that_it_is_gone(bridge: Bridge, photographer: Browser) -> None:
    wrong = store(bridge, "Patient/p1")
    preview = photographer.post("/refile", {"media": wrong, "patient": "p2", "reason": "next bed"}).headers["location"]
    photographer.post(f"{preview}/start")
    work(bridge)
    with bridge.db.snapshot() as tx:
        (stub,) = [one.id for one in find_where(tx, "Media") if one.id != wrong]
    page = photographer.get(f"/photos/{stub}")
    assert page.status_code == 410
    assert "entered here in error" in page.text
    assert stub not in photographer.get("/patients/p1").text


def test_a_very_restricted_photo_is_listed_but_not_opened(bridge: Bridge, photographer: Browser) -> None:
    alone = store(bridge, None)
    with bridge.db.transaction() as tx:
        resource = get(tx, "Media", alone).resource
        resource["meta"]["security"] = [{"system": CONFIDENTIALITY, "code": "V"}]
        update_resource(tx, resource, at=bridge.now())
    page = photographer.get(f"/worklist?open={alone}")
    assert page.status_code == 200
    assert f'data-id="{alone}"' in page.text
    assert f"/captures/{alone}" not in page.text


def test_a_selection_on_the_timeline_is_shown_the_page(bridge: Bridge, clinician: Browser) -> None:
    wrong = store(bridge, "Patient/p1")
    assert 'formaction="/refile"' in clinician.get("/patients/p1").text
    answer = clinician.post("/refile", {"media": wrong, "patient": "p1", "encounter": ""})
    assert answer.headers["location"] == f"/refile?media={wrong}"


def test_photos_of_two_patients_are_not_moved_together(bridge: Bridge, photographer: Browser) -> None:
    first, second = store(bridge, "Patient/p1", 91), store(bridge, "Patient/p2", 92)
    assert photographer.get(f"/refile?media={first}&media={second}").status_code == 400
    assert photographer.get("/refile").status_code == 400


def test_the_second_person_finds_the_move_on_the_worklist(bridge: Bridge, app: Any) -> None:
    careful = dataclasses.replace(bridge, settings=bridge.settings.model_copy(update={"second_person": True}))
    asked = build_app(careful)
    first, second = sign_in(careful, asked, "photographer", None), sign_in(careful, asked, "administrator", None)
    wrong = store(careful, "Patient/p1")
    preview = first.post("/refile", {"media": wrong, "patient": "p2", "reason": "next bed"}).headers["location"]
    first.post(f"{preview}/start")
    work(careful)
    assert media_of(careful, wrong)["subject"]["reference"] == "Patient/p1"
    assert "Confirm the move" not in first.get(preview).text
    assert first.post(f"{preview}/confirm").status_code == 403
    assert preview in second.get("/worklist?kind=confirm").text
    assert "To OKAFOR" in second.get(preview).text
    assert second.post(f"{preview}/confirm").status_code == 303
    work(careful)
    assert media_of(careful, wrong)["subject"]["reference"] == "Patient/p2"


def test_a_doubted_capture_says_why(bridge: Bridge, clinician: Browser) -> None:
    store(bridge, "Patient/p2", taken_at="2026-11-23T09:21:00Z")
    metadata = base64.urlsafe_b64encode(json.dumps({"patient": "Patient/p1"}).encode()).decode()
    answer = clinician.capture(picture(), **{"DermBridge-Metadata": metadata})
    assert (answer.status_code, answer.json()["identity"]) == (202, "quarantined")
    assert "same picture" in answer.json()["reason"]
