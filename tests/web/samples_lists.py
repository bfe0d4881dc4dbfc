"""Sample contexts of the pages that list things, and of the sandbox EHR."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from tests.web.samples import NOW, PATIENT, frame, photo


def deliveries() -> dict[str, Any]:
    rows = [
        ("sending", "Left forearm, dermoscopic", None, None),
        (
            "failed",
            "Lower back, close-up",
            "Larkfield EHR answered 422: encounter e1 is closed.",
            "Assign an open visit.",
        ),
        (
            "withheld",
            "Left forearm, regional",
            "No consent for treatment is recorded.",
            "Record consent; it then goes by itself.",
        ),
        (
            "unknown",
            "Nose, close-up",
            "The connection broke before the answer came.",
            "Nothing to do: DermBridge looks first.",
        ),
        ("confirmed", "Left forearm, close-up", None, None),
    ]
    return frame(
        "Deliveries",
        destinations=[
            {
                "name": "Larkfield EHR",
                "href": "?destination=larkfield",
                "current": False,
                "waiting": "3",
                "oldest_at": NOW,
                "oldest": "12 min",
                "per_minute": "14.2",
                "to_chart": "8.1 s",
                "to_chart_p95": "26 s",
                "circuit": None,
                "causes": [
                    {
                        "reason": "It answered 422: the encounter is closed.",
                        "remedy": "Assign an open visit.",
                        "count": 1,
                    }
                ],
                "confirmed": "1,204",
                "confirmed_href": "?state=confirmed",
                "counts": [
                    {"state": "withheld", "count": "3", "href": "?state=withheld"},
                    {"state": "failed", "count": "1", "href": "?state=failed"},
                ],
                "say_href": "/deliveries/destinations/larkfield",
                "can_replay": True,
            },
            {
                "name": "PACS",
                "href": "?destination=pacs",
                "current": False,
                "waiting": "10,000 or more",
                "oldest_at": NOW,
                "oldest": "19 h",
                "per_minute": "0",
                "to_chart": None,
                "to_chart_p95": None,
                "circuit": {
                    "held": None,
                    "failures": 7,
                    "reason": "The certificate expired.",
                    "since": NOW,
                    "next_try": NOW + timedelta(minutes=2),
                },
                "causes": [],
                "confirmed": "0",
                "confirmed_href": "?state=confirmed",
                "counts": [{"state": "pending", "count": "17", "href": "?state=pending"}],
                "say_href": "/deliveries/destinations/pacs",
                "can_replay": False,
            },
        ],
        choices={
            "destinations": [{"code": "larkfield", "display": "Larkfield EHR"}],
            "states": [{"code": "failed", "display": "failed"}],
            "destination": "",
            "state": "",
        },
        deliveries=[
            {
                "id": f"d{n}",
                "media_href": f"/photos/m{n + 1}",
                "thumbnail": f"/captures/m{n + 1}/thumbnail",
                "patient_name": PATIENT["name"],
                "patient_href": "/patients/p1",
                "label": label,
                "destination": "Larkfield EHR",
                "state": state,
                "attempts": n + 1,
                "since": NOW - timedelta(minutes=12 * n),
                "next_at": NOW if state == "unknown" else None,
                "took": "8.1 s" if state == "confirmed" else None,
                "receipt": "Media/8842" if state == "confirmed" else None,
                "reason": reason,
                "remedy": remedy,
                "retry_href": f"/deliveries/d{n}/retry" if state == "failed" else None,
                "looked_href": f"/deliveries/d{n}/looked" if state == "failed" else None,
                "hold_href": f"/deliveries/d{n}/hold" if state in ("sending", "failed") else None,
            }
            for n, (state, label, reason, remedy) in enumerate(rows)
        ],
        next_href="?page=2",
        refresh=10,
    )


def worklist(detail: str = "photo") -> dict[str, Any]:
    rows = [
        ("photo", "No patient", "error", "Photo by Sister M. Keller", "It came without a patient identifier"),
        ("photo", "Identity in doubt", "warning", "Photo by Dr. R. Okafor", "Birth date differs"),
        ("photo", "Waiting for patient", "info", "Photo by Dr. R. Okafor", "No message has announced its patient yet"),
        (
            "adt",
            "ADT message",
            "error",
            "A40 from ADT, HOSP",
            "the assigning authority 'OTHER' (CX.4) is not known here",
        ),
    ]
    return frame(
        "Worklist",
        kinds=[{"label": "All", "href": "?", "count": "4", "current": True}]
        + [{"label": r[1], "href": "?kind=x", "count": "1", "current": False} for r in rows],
        entries=[
            {
                "id": f"w{n}",
                "kind": kind,
                "label": label,
                "level": level,
                "thumbnail": f"/captures/m{n}/thumbnail" if kind == "photo" and n else None,
                "title": title,
                "href": f"/worklist?open=w{n}" if n else None,
                "reason": reason,
                "since": NOW - timedelta(hours=3),
                "age": "3 h",
                "current": n == 1,
            }
            for n, (kind, label, level, title, reason) in enumerate(rows)
        ],
        detail=WORKLIST_DETAILS[detail](),
        settled_href="/jobs/j1",
        first_href=None,
        next_href="/worklist?after=w3",
        refresh=15,
    )


def _doubtful_photo() -> dict[str, Any]:
    why = [
        ("identifier differs by one keystroke", "+15.3", True),
        ("birth date has day and month swapped", "+10.0", True),
    ]
    less = [("family name agrees", "+7.5", True), ("birth date differs", "-5.6", False)]
    named = [
        ("LINDQVIST, Åsa Marie", "probable", "ok", "+33.2", why),
        ("LINDQVIST, Eva", "weak", "plain", "+1.9", less),
    ]
    return {
        "kind": "photo",
        "id": "w1",
        "title": "The birth date or name given with the photo is not that of the patient with its identifier",
        "remedy": "Compare name and birth date with the wristband, then choose the patient.",
        "photo": photo(1, NOW) | {"by": "Dr. R. Okafor", "note": "bed 3"},
        "given": [{"label": "Identifier", "value": "4711-0851"}, {"label": "Born", "value": "1961-12-03"}],
        "version": "1",
        "candidates": [
            PATIENT
            | {"id": f"p{n}", "name": name, "key": str(n), "grade": {"level": level, "text": text}, "total": total}
            | {"findings": [{"words": w, "weight": bits, "speaks": speaks} for w, bits, speaks in findings]}
            | {"at": "main-ehr" if n == 1 else None}
            for n, (name, text, level, total, findings) in enumerate(named, 1)
        ],
        "asked": "",
        "ask_href": "/worklist/photos/1/ask",
        "answers": [{"name": "main-ehr", "reason": "One patient there fits", "since": NOW, "age": "3 min"}],
        "action": "/worklist/photos/w1",
        "age": "3 h",
        "since": NOW - timedelta(hours=3),
        "back": {"kind": "", "after": ""},
    }


def _stopped_message() -> dict[str, Any]:
    return {
        "kind": "adt",
        "id": "w3",
        "title": "A40 from ADT, HOSP",
        "control_id": "MSG00231",
        "patient": "HOSP|4711-0815",
        "reason": "the assigning authority 'OTHER' (CX.4) is not known here",
        "remedy": 'add "OTHER" = "urn:oid:…" to [identifier_systems] in config/dermbridge.toml, then replay',
        "replay_href": "/worklist/adt/w3/replay",
        "dismiss_href": "/worklist/adt/w3/dismiss",
        "age": "3 h",
        "since": NOW - timedelta(hours=3),
        "back": {"kind": "adt", "after": ""},
    }


WORKLIST_DETAILS: dict[str, Any] = {"photo": _doubtful_photo, "adt": _stopped_message, "nothing": lambda: None}


def refile() -> dict[str, Any]:
    return frame(
        "Wrong patient",
        patient=PATIENT,
        photos=[photo(n, NOW) for n in (1, 2)],
        media_ids=["m1", "m2"],
        may_choose=True,
        asked="okafor",
        found=[PATIENT | {"id": "p2", "name": "OKAFOR, Bo", "href": "/refile?media=m1&patient=p2"}],
        chosen=None,
        again_href="/refile?media=m1",
        visits=[{"code": "e1", "display": "23 Nov 2026, Dermatology"}],
        second_person=True,
    )


def job(state: str = "running") -> dict[str, Any]:
    return frame(
        "Job",
        PATIENT,
        job={
            "id": "j1",
            "label": "Assign visit and body site",
            "state": state,
            "done": 0 if state == "preview" else 7,
            "failed": 0 if state == "preview" else 1,
            "total": 12,
            "created_at": NOW,
            "finished_at": None,
            "by": "Dr. R. Okafor",
            "can_undo": state == "done",
            "undo_href": "/jobs/j1/undo",
            "start_href": "/jobs/j1/start" if state == "preview" else None,
            "confirm_href": "/jobs/j1/confirm" if state == "to-confirm" else None,
            "about": ["To LINDQVIST, Åsa, born 1961-03-12, 4711-0815"] if state == "to-confirm" else [],
            "cancel_href": "/jobs/j1/cancel" if state != "done" else None,
            "download": {"href": "/jobs/j1/photos.zip", "label": "photos.zip, 48 MB"} if state == "done" else None,
            "message": None,
        },
        preview=[
            {"count": 11, "text": "photos get the visit of 23 Nov 2026", "level": "ok"},
            {"count": 8, "text": "are sent to Larkfield EHR again", "level": "info"},
            {"count": 1, "text": "is left alone: it belongs to a closed visit", "level": "warning"},
        ],
        results=[
            {
                "title": "Left forearm, close-up",
                "href": "/photos/m1",
                "thumbnail": f"/captures/m{n}/thumbnail",
                "state": s,
                "detail": d,
            }
            for n, (s, d) in enumerate([("done", None), ("failed", "The visit is closed."), ("waiting", None)], 1)
        ],
        next_href=None,
        status_href="/jobs/j1.json",
    )


def jobs() -> dict[str, Any]:
    states = [("preview", 0, 0), ("running", 7, 1), ("done", 12, 0), ("undone", 12, 0)]
    return frame(
        "Jobs",
        jobs=[
            {
                "href": f"/jobs/j{n}",
                "label": "Assign visit and body site",
                "patient_name": PATIENT["name"],
                "state": state,
                "at": NOW,
                "done": done,
                "failed": failed,
                "skipped": 1,
                "total": 12,
            }
            for n, (state, done, failed) in enumerate(states, 1)
        ],
        next_href="?page=j4",
    )


def error() -> dict[str, Any]:
    return frame(
        "Not allowed",
        status=403,
        heading="You may not see this record",
        message="Ask the record’s owner for access, or use break-glass with a reason if care cannot wait.",
        reference="7f3a-91c2",
        actions=[{"label": "Find another patient", "href": "/"}],
    )


def home() -> dict[str, Any]:
    names = [("LINDQVIST, Åsa Marie", 48), ("OYELARAN, Tunde", 1), ("MCALLISTER-BROWN, Georgina Elisabeth", 0)]
    return frame(
        "Patients",
        query="",
        patients=[
            PATIENT
            | {"name": name, "photos": n, "latest_at": NOW if n else None, "alert": None if n else "restricted record"}
            for name, n in names
        ],
        truncated=False,
        waiting=[
            {"label": "photos without a patient", "href": "/worklist", "count": 2},
            {"label": "failed deliveries", "href": "/deliveries", "count": 1},
        ],
    )


def import_row(state: str = "finished") -> dict[str, Any]:
    return {
        "href": "/imports/i1",
        "source": "/mnt/photos/2019",
        "at": NOW,
        "finished_at": NOW if state == "finished" else None,
        "by": "DermBridge",
        "found": 8412,
        "leftovers": 22,
        "counts": {"stored": 8300, "known": 90, "held": 12, "refused": 6, "no-rule": 4},
    }


def imports() -> dict[str, Any]:
    return frame("Imports", imports=[import_row(), import_row("cut off")], next_href=None)


def one_import() -> dict[str, Any]:
    files = [
        ("4711/20240131/a.jpg", "ok", "check", "stored", None),
        ("notes.txt", "warning", "minus", "no rule", "no rule speaks of this path; add a row or leave it"),
    ]
    return frame(
        "Import",
        run=import_row("cut off"),
        kinds=[
            {"label": "All", "count": 8412, "href": "?", "current": True},
            {"label": "refused", "count": 6, "href": "?verdict=refused", "current": False},
        ],
        files=[
            {
                "path": path,
                "level": level,
                "glyph": glyph,
                "wording": wording,
                "reason": reason,
                "href": "/photos/m1" if level == "ok" else None,
                "thumbnail": "/captures/m1/thumbnail" if level == "ok" else None,
            }
            for path, level, glyph, wording, reason in files
        ],
        next_href="?after=99",
    )


def ehr(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "csrf_token": "t",
        "user": {"name": "Dr. R. Okafor", "role": "physician"},
        "messages": [],
    } | more


def ehr_chart(tab: str = "photos") -> dict[str, Any]:
    return ehr(
        "Chart",
        patient={
            "id": "p1",
            "name": "Lindqvist, Åsa Marie",
            "mrn": "4711-0815",
            "birth_date": date(1961, 3, 12),
            "age": "65 y",
            "sex": "Female",
            "family": "Lindqvist",
            "given": "Åsa Marie",
            "other_mrns": ["4711-0001"],
        },
        visit={"label": "Dermatology clinic", "number": "V-2210"},
        tab=tab,
        tab_hrefs={"summary": "?tab=summary", "photos": "?tab=photos", "dermbridge": "?tab=dermbridge"},
        problems=["Naevus of left forearm", "Actinic keratosis"],
        photos=[
            {
                "title": "Left forearm, close-up",
                "kind": "Media",
                "at": NOW,
                "author": "Dr. R. Okafor",
                "thumbnail": f"/captures/m{n}/thumbnail",
                "href": "#",
                "note": None,
            }
            for n in range(1, 5)
        ],
        launch_href="#",
        launch_frame_href="/timeline?embedded=1",
        dermbridge_origin="http://127.0.0.1:8000",
        adt={"update_action": "#", "merge_action": "#", "visit_action": "#"},
        others=[{"mrn": "4711-0001", "name": "Lindquist, Asa"}],
    )


def ehr_patients() -> dict[str, Any]:
    row = {
        "href": "#",
        "name": "Lindqvist, Åsa Marie",
        "mrn": "4711-0815",
        "birth_date": date(1961, 3, 12),
        "sex": "Female",
    }
    return ehr("Patients", patients=[row | {"visit": "V-2210", "photos": 4}], register_action="#")


def ehr_login() -> dict[str, Any]:
    return ehr(
        "Sign on", user=None, users=[{"id": "u1", "name": "Dr. R. Okafor", "role": "physician"}], next="/patients"
    )


def elsewhere() -> dict[str, Any]:
    """One system with photos of every kind, one that does not answer."""
    base = {"kind": "Photographic image", "type": "JPEG", "size": 2_400_000, "site": "Cheek, left", "device": "D5600"}
    base |= {"obstacle": "", "media_id": None, "href": None, "thumbnail": None, "is_ours": False, "title": "Left cheek"}
    here = {"media_id": "m1", "href": "/photos/m1", "thumbnail": "/captures/m1/thumbnail"}
    photos = [
        base | {"key": "main-ehr Media/4", "day": "12 Nov 2026"},
        base | here | {"key": "main-ehr Media/3", "day": "14 Jul 2026", "is_ours": True},
        base | here | {"key": "main-ehr Media/2", "day": "2 Mar 2026"},
        base
        | {"key": "main-ehr DocumentReference/9", "day": "2024", "type": "application/pdf", "title": "Referral"}
        | {"obstacle": "it is no photo but application/pdf", "site": "", "device": "", "size": None, "kind": ""},
    ]
    told = {"more": False, "hidden": 1, "refused": 1, "problems": []}
    away = {
        "name": "pacs",
        "photos": [],
        "more": False,
        "hidden": 0,
        "refused": 0,
        "problems": ["pacs does not answer."],
    }
    return frame("Photos elsewhere", PATIENT) | {
        "records": [{"name": "main-ehr", "photos": photos} | told, away],
        "beside": "m1",
        "back_href": "/photos/m1",
        "may_copy": True,
        "most": 8,
        "days": 30,
    }
