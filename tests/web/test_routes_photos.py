"""Captures, timeline, photo page and comparison over HTTP, within one patient and never across."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from adapter.bridge import Bridge
from adapter.capture.render import render_photo
from adapter.db.tables import audit_event
from adapter.governance import settle
from adapter.work import Lane, WorkLoop
from tests.web.conftest import Browser, picture


def metadata(**values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def stored(browser: Browser, width: int, **values: object) -> str:
    answer = browser.capture(picture(width), **{"DermBridge-Metadata": metadata(**values)})
    assert answer.status_code in (201, 202), answer.text
    return str(answer.json()["id"])


def test_a_photo_is_stored_followed_and_served_bit_exact(clinician: Browser) -> None:
    digest = base64.b64encode(hashlib.sha256(picture()).digest()).decode()
    answer = clinician.capture(picture(), **{"Idempotency-Key": "k1", "Repr-Digest": f"sha-256=:{digest}:"})
    assert answer.status_code == 201, answer.text
    address = answer.headers["location"]
    assert clinician.get(address).json()["identity"] == "bound"
    assert clinician.get(f"{address}/original").content == picture()
    assert clinician.capture(picture(), **{"Idempotency-Key": "k1"}).status_code == 200


def test_a_refusal_says_in_its_outcome_what_to_do(clinician: Browser) -> None:
    (issue,) = clinician.capture(b"no photo").json()["issue"]
    assert "photo" in issue["details"]["text"]
    assert "expression" not in issue


def test_a_view_that_cannot_be_made_says_so_instead_of_asking_for_patience(bridge: Bridge, clinician: Browser) -> None:
    picture_data = io.BytesIO()
    Image.effect_noise((256, 256), 90).save(picture_data, "TIFF", compression="tiff_lzw")
    damaged = bytearray(picture_data.getvalue())
    damaged[9000:13000] = b"\xff" * 4000
    answer = clinician.capture(bytes(damaged), **{"Content-Type": "image/tiff"})
    address = answer.headers["location"]
    assert "ask again" in clinician.get(f"{address}/thumbnail").text
    lanes = {"render": Lane(partial(render_photo, bridge))}
    WorkLoop(bridge.db, lanes, now=bridge.now).run_until_idle()
    assert "cannot be decoded" in clinician.get(f"{address}/thumbnail").text
    assert clinician.get(f"{address}/clean").status_code == 200


def test_a_wrong_digest_is_refused(clinician: Browser) -> None:
    digest = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert clinician.capture(picture(), **{"Repr-Digest": f"sha-256=:{digest}:"}).status_code == 400
    assert clinician.capture(picture(), **{"Repr-Digest": "sha-256=nonsense"}).status_code == 400


def test_a_large_multipart_photo_never_reaches_a_file(
    clinician: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file was opened")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", refuse)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", refuse)
    content = picture()[:-2] + b"\xff\xfe" + (60_000).to_bytes(2, "big") + bytes(59_998) + b"\xff\xd9"
    answer = clinician.client.post(
        "/captures",
        files={"image": ("a.jpg", content, "image/jpeg"), "metadata": (None, json.dumps({"body_site": "113179006"}))},
        headers={"X-CSRF-Token": clinician.csrf},
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("parts", "end", "says"),
    [
        (("image", "metadata"), "", "last boundary"),
        (("image",), "\r\n--b\r\n", "last boundary"),
        (("image", "image"), "\r\n--b--\r\n", "twice"),
        (("photo",), "\r\n--b--\r\n", "'image'"),
    ],
)
def test_a_multipart_body_that_is_not_one_whole_photo_is_refused(
    clinician: Browser, parts: tuple[str, ...], end: str, says: str
) -> None:
    sent = {"image": picture(), "photo": picture(), "metadata": b'{"patient": {"system": "urn'}
    body = b"\r\n".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + sent[name] for name in parts
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b", "X-CSRF-Token": clinician.csrf}
    answer = clinician.client.post("/captures", content=body + end.encode(), headers=headers)
    assert (answer.status_code, says in answer.text) == (400, True)


def test_metadata_that_is_no_base64url_is_refused(clinician: Browser) -> None:
    for header in (b"%%%", b"caf\xe9"):
        headers = {b"X-CSRF-Token": clinician.csrf.encode(), b"DermBridge-Metadata": header}
        assert clinician.client.post("/captures", content=picture(), headers=headers).status_code == 400


def test_ranges_and_headers_of_photo_bytes(clinician: Browser) -> None:
    photo_id = stored(clinician, 90)
    whole = clinician.get(f"/captures/{photo_id}/clean")
    assert whole.headers["cache-control"] == "private, no-store"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = clinician.get(f"/captures/{photo_id}/clean", headers={"Range": "bytes=2-9"})
    assert (part.status_code, part.content) == (206, whole.content[2:10])
    beyond = clinician.get(f"/captures/{photo_id}/clean", headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    known = clinician.get(f"/captures/{photo_id}/clean", headers={"If-None-Match": whole.headers["etag"]})
    assert known.status_code == 304


def test_a_photo_of_another_patient_is_not_found(clinician: Browser, colleague: Browser) -> None:
    photo_id = stored(colleague, 90)
    for path in ("", "/original", "/clean", "/display", "/thumbnail"):
        assert clinician.get(f"/captures/{photo_id}{path}").status_code == 404
    assert clinician.get(f"/photos/{photo_id}").status_code == 404
    assert clinician.get("/patients/p2").status_code == 404
    assert clinician.get("/patients/p2/events").status_code == 404
    assert clinician.get(f"/compare?media={stored(clinician, 91)}&media={photo_id}").status_code == 404
    assert colleague.get(f"/photos/{photo_id}").status_code == 200


def test_photos_of_two_patients_are_never_compared(
    administrator: Browser, clinician: Browser, colleague: Browser
) -> None:
    pair = f"/compare?media={stored(clinician, 90)}&media={stored(colleague, 91)}"
    assert administrator.get(pair).status_code == 422


def test_nobody_sees_anything_without_a_session(clinician: Browser) -> None:
    photo_id = stored(clinician, 90)
    clinician.client.cookies.clear()
    for path in ("/", "/patients/p1", f"/photos/{photo_id}", f"/captures/{photo_id}/clean", "/worklist", "/deliveries"):
        assert clinician.get(path).status_code == 401, path


def test_the_timeline_shows_photos_by_visit_and_by_site(clinician: Browser) -> None:
    stored(clinician, 90, body_site="113179006", view="close-up", encounter="Encounter/e1")
    stored(clinician, 91, body_site="33712006", laterality="left", view="dermoscopic")
    by_visit = clinician.get("/patients/p1").text
    assert "LINDQVIST, Åsa" in by_visit and "23 November 2026" in by_visit
    by_site = clinician.get("/patients/p1?group=site").text
    assert "Nose" in by_site and "Hand" in by_site
    only = clinician.get("/patients/p1?site=113179006").text
    assert len(re.findall(r'class="tile[ "]', only)) == 1
    assert clinician.get("/patients/p1?group=site&page=nonsense").status_code == 400


def test_a_correction_makes_a_new_version_and_an_old_form_is_refused(clinician: Browser) -> None:
    photo_id = stored(clinician, 90, body_site="113179006")
    fields = {"version": "1", "site": "33712006", "laterality": "right", "view": "close-up", "note": "scar"}
    answer = clinician.post(f"/photos/{photo_id}", fields)
    assert answer.headers["location"] == f"/photos/{photo_id}?said=saved", answer.text
    page = clinician.get(f"/photos/{photo_id}").text
    assert "Right hand" in page and "scar" in page
    assert clinician.post(f"/photos/{photo_id}", fields | {"note": "x"}).status_code in (400, 409, 412)


def test_a_visit_of_another_patient_cannot_be_assigned(clinician: Browser) -> None:
    photo_id = stored(clinician, 90)
    assert clinician.post(f"/photos/{photo_id}", {"version": "1", "encounter": "e2"}).status_code == 422


def test_a_change_without_the_csrf_token_is_refused(clinician: Browser) -> None:
    photo_id = stored(clinician, 90)
    assert clinician.client.post(f"/photos/{photo_id}", data={"version": "1", "note": "x"}).status_code == 403
    wrong = {"Content-Type": "image/jpeg", "X-CSRF-Token": "wrong"}
    assert clinician.client.post("/captures", content=picture(), headers=wrong).status_code == 403


def test_looking_at_photos_is_in_the_audit_log(clinician: Browser, bridge: Bridge) -> None:
    photo_id = stored(clinician, 90)
    clinician.get(f"/photos/{photo_id}")
    clinician.get(f"/captures/{photo_id}/display")
    settle(bridge)
    with bridge.db.snapshot() as tx:
        rows = tx.execute(audit_event.select().where(audit_event.c.patient == "p1")).all()
    assert len([row for row in rows if row.action == "R" or str(row.action).startswith("R|")]) == 2


@pytest.mark.parametrize("path", ["/capture?patient=p1", "/deliveries", "/patients/p1?group=site"])
def test_the_pages_of_a_confined_session_open(clinician: Browser, path: str) -> None:
    answer = clinician.get(path)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/", "/?q=lind", "/?q=1001", "/worklist", "/deliveries", "/capture"])
def test_the_pages_of_an_administrator_open(administrator: Browser, path: str) -> None:
    answer = administrator.get(path)
    assert answer.status_code == 200, answer.text
    if path in ("/?q=lind", "/?q=1001"):
        assert "LINDQVIST" in answer.text and "OKAFOR, " not in answer.text


def test_the_worklist_is_closed_to_a_confined_session(clinician: Browser) -> None:
    assert clinician.get("/worklist").status_code == 403


def test_a_selection_is_assigned_as_a_job_and_exported_as_a_zip(clinician: Browser, colleague: Browser) -> None:
    ids = [stored(clinician, 90), stored(clinician, 91)]
    answer = clinician.post("/jobs", {"operation": "assign", "patient": "p1", "media": ids, "site": "113179006"})
    assert answer.status_code == 303, answer.text
    preview = clinician.get(answer.headers["location"])
    assert "2</strong> photos: body site becomes Skin of nose" in preview.text and "Start</button>" in preview.text
    assert clinician.get("/jobs").text.count("not started") == 1
    assert colleague.post(answer.headers["location"] + "/start").status_code == 404
    assert clinician.post(answer.headers["location"] + "/start").status_code == 303
    assert "Working" in clinician.get(answer.headers["location"]).text
    assert clinician.get(answer.headers["location"] + ".json").json()["total"] == 2
    assert colleague.get(answer.headers["location"]).status_code == 404
    foreign = clinician.post("/jobs", {"operation": "assign", "patient": "p1", "media": [stored(colleague, 92)]})
    assert foreign.status_code == 400
    zipped = clinician.post("/jobs", {"operation": "export", "patient": "p1", "media": ids})
    assert zipped.content[:2] == b"PK" and len(zipped.content) == int(zipped.headers["content-length"])


def test_consent_is_recorded_from_the_form(clinician: Browser) -> None:
    fields = {
        "method": "verbal",
        "given_by": "patient",
        "statement_read": "yes",
        "use.treatment-documentation": "permit",
    }
    answer = clinician.post("/patients/p1/consents", fields, headers={"Accept": "application/json"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["summary"].startswith("Spoken consent by the patient, 23 Nov 2026")
    assert clinician.post("/patients/p1/consents", fields | {"statement_read": ""}).status_code == 400
    assert clinician.post("/patients/p2/consents", fields).status_code == 404


def test_comparing_from_the_timeline_puts_nothing_but_the_photos_into_the_address(clinician: Browser) -> None:
    answer = clinician.post("/compare", {"media": ["a", "b"], "site": "70559009"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/compare?media=a&media=b&order=taken")
