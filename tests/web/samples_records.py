"""Sample contexts of the pages about consents, imports, the audit log and the installation."""

from __future__ import annotations

from typing import Any

from tests.web.samples import NOW, PATIENT, frame

WHO = "https://fhir.north.example/interconnect-fhir-oauth/api/FHIR/R4/Practitioner/eM5CWtq15N0WJeuCet5bJlQ3"


def consents() -> dict[str, Any]:
    return frame(
        "Consent",
        PATIENT,
        mode="required",
        uses=[
            {"label": "Treatment", "decision": "permit", "permit": True, "because": "permitted by a consent"},
            {"label": "Teaching", "decision": "deny", "permit": False, "because": "refused by the patient"},
            {"label": "Research", "decision": "not-asked", "permit": False, "because": "no consent is on record"},
        ],
        consents=[
            {
                "href": "/consents/c1",
                "use": "Teaching",
                "rule": rule,
                "state": state,
                "signed_at": NOW,
                "by": "The patient",
            }
            for rule, state in (("permit", "active"), ("permit", "withdrawn"), ("deny", "ended"))
        ],
        record_href="/capture?patient=p1",
    )


def consent(state: str = "active") -> dict[str, Any]:
    gone = {
        "at": NOW,
        "reason": "Changed her mind",
        "denial_href": "/consents/c2",
        "stopped": 2,
        "under_way": 0,
        "copies": [{"href": "/photos/m1", "label": "Forearm, left", "destination": "Larkfield EHR", "since": NOW}],
        "exports": [{"who": "Dr. R. Okafor", "at": NOW, "photos": 4}],
    }
    return frame(
        "Consent",
        PATIENT,
        consent={
            "href": "/consents/c1",
            "use": "Teaching of health professionals",
            "rule": "permit",
            "state": state,
            "signed_at": NOW,
            "recorded_at": NOW,
            "recorded_by": "Dr. R. Okafor",
            "by": "The patient",
            "how": "Signed on a screen",
            "witness": "M. Santos",
            "policy": "https://dermbridge.org/fhir/policy/clinical-photography",
            "ends_on": None,
            "evidence_href": "/consents/c1/evidence",
            "evidence_is_image": state == "active",
        },
        withdrawn=gone if state == "withdrawn" else None,
        withdraw={"action": "/consents/c1/withdraw", "ways": [{"code": "said", "display": "Said to a member of staff"}]}
        if state == "active"
        else None,
    )


def audit() -> dict[str, Any]:
    rows = [
        ("Dr. R. Okafor", "Viewed", False, 1),
        ("DermBridge", "Exported", False, 0),
        ("Dr. R. Okafor", "Listed", True, 9),
    ]
    return frame(
        "Audit",
        asked={"patient": "4711", "photo": "", "user": "", "since": "2026-11-01", "until": ""},
        entries=[
            {
                "at": NOW,
                "who": who,
                "who_href": "?user=https%3A%2F%2Fnorth.example%2Ffhir%2FPractitioner%2Fokafor",
                "did": did,
                "failed": failed,
                "patient_name": PATIENT["name"],
                "patient_href": "?patient=p1",
                "photos": [{"id": f"a3f9c{n}", "href": "?photo=m1"} for n in range(photos)],
                "others": [] if photos else ["Consent/0193"],
                "query": "Media?patient=p1" if photos > 1 else None,
                "detail": "delivered to Larkfield EHR" if not photos else None,
            }
            for who, did, failed, photos in rows
        ],
        csv_href="/audit.csv",
        next_href="?page=e3",
    )


def admin() -> dict[str, Any]:
    return frame(
        "Installation",
        facts=[
            ("Version", "0.1.0"),
            ("Database", "PostgreSQL"),
            ("Photos and keys", "/var/lib/dermbridge, 812.4 GiB free"),
        ],
        destinations=[
            {
                "name": name,
                "profile": "hapi",
                "address": "https://ehr.example/fhir",
                "check_href": "/admin/destinations/ehr/check",
                "deliveries_href": "/deliveries?destination=ehr",
                "findings": findings,
            }
            for name, findings in {
                "Larkfield EHR": [
                    {"subject": "read-back", "verdict": "ok", "detail": "Media can be read", "remedy": ""},
                    {"subject": "token", "verdict": "error", "detail": "refused", "remedy": "Renew the client secret."},
                ],
                "PACS": None,
            }.items()
        ],
        queues=[
            {"label": "Deliver photos", "state": "waiting", "count": 17, "due": "for 12 min"},
            {"label": "Run jobs", "state": "leased", "count": 1, "due": ""},
            {"label": "Make renditions", "state": "dead", "count": 1, "due": ""},
        ],
        messages=[{"state": "queued", "count": 3, "age": "2 h", "href": "/worklist"}],
        dead=[
            {
                "id": 7,
                "label": "Make renditions",
                "destination": "",
                "attempts": 5,
                "since": NOW,
                "reason": "the picture cannot be decoded",
                "remedy": "look at the original",
                "replay_href": "/admin/work/7/replay",
                "href": None,
            }
        ],
        next_href=None,
    )


def break_glass() -> dict[str, Any]:
    return frame(
        "Break the glass",
        None,
        names_patient=True,
        reasons=[{"code": "ETREAT", "display": "Emergency treatment"}],
        minutes=60,
        until=None,
    )


def sessions() -> dict[str, Any]:
    def one(number: int, place: str, **more: Any) -> dict[str, Any]:
        person = {"name": "Dr. R. Okafor", "reference": WHO, "role": "clinician"}
        times = {"started": NOW, "seen": NOW, "current": False, "end_href": f"/sessions/{number}/end"}
        return {"id": str(number), **person, "place": place, "address": "10.0.3.17", **times} | more

    def app(number: int, until: Any) -> dict[str, Any]:
        person = {"app": "Lesion Tracker", "name": "Dr. R. Okafor", "reference": WHO}
        says = ["See and add photos", "See who the patient is"]
        return {**person, "says": says, "since": NOW, "until": until, "end_href": f"/sessions/apps/{number}/end"}

    return frame(
        "Sessions",
        None,
        everybody=True,
        query="",
        sessions=[one(1, "Larkfield", current=True), one(2, "Phone, by a link from Larkfield", address=None)],
        apps=[app(1, None), app(2, NOW)],
        truncated=True,
    )


def authorize(*, searching: bool = False) -> dict[str, Any]:
    return frame(
        "Lesion Tracker asks for access",
        None,
        nav=[],
        app="Lesion Tracker",
        host="tracker.example",
        says=["See, search and add photos", "See who the patient is"],
        lasts=30 if searching else None,
        choosing=True,
        whose="every patient you may see",
        searching=searching,
        query="",
        patients=[PATIENT, PATIENT | {"id": "p2", "name": "OKAFOR, Ada"}] if searching else [PATIENT],
        params={"client_id": "tracker"},
        asked="client_id=tracker",
    )


def authorize_sign_in() -> dict[str, Any]:
    ways = [{"label": "Larkfield", "href": "/launch?iss=x"}, {"label": "hospital", "href": "/login?at=hospital"}]
    return frame("Sign in", None, user=None, app="Lesion Tracker", ways=ways)


def charts() -> dict[str, Any]:
    treated = {"because": "take part in a visit", "photos": 12, "open_href": "/charts/p1/open", "current": True}
    return frame("Your patients", None, patients=[PATIENT | treated], days=30)
