"""Sample contexts for every page, as plain values: what the templates' tests render and the preview server shows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 23, 9, 40, tzinfo=UTC)
SITES = [
    {"code": "70559009", "display": "Anterior surface of forearm", "group": "Upper limb", "lateral": True},
    {"code": "41550009", "display": "Posterior surface of forearm", "group": "Upper limb", "lateral": True},
    {"code": "33712006", "display": "Hand", "group": "Upper limb", "lateral": True},
    {"code": "113182001", "display": "Lower back", "group": "Back and buttock", "lateral": False},
    {"code": "66643007", "display": "Back", "group": "Back and buttock", "lateral": False},
    {"code": "113179006", "display": "Nose", "group": "Head and face", "lateral": False},
    {"code": "36141000", "display": "Cheek", "group": "Head and face", "lateral": True},
    {"code": "43067004", "display": "Scalp", "group": "Head and face", "lateral": False},
    {"code": "25763004", "display": "Anterior surface of lower leg", "group": "Lower limb", "lateral": True},
    {"code": "60496002", "display": "Foot", "group": "Lower limb", "lateral": True},
]
SITE_GROUPS = [
    {"group": g, "sites": [s for s in SITES if s["group"] == g]} for g in dict.fromkeys(str(s["group"]) for s in SITES)
]
LATERALITIES = [{"code": "left", "display": "Left"}, {"code": "right", "display": "Right"}]
VIEWS = [{"code": code, "display": code.capitalize()} for code in ("overview", "regional", "close-up", "dermoscopic")]
VISITS = [{"code": "e1", "display": "23 Nov 2026, Dermatology"}, {"code": "e2", "display": "14 Jul 2026"}]
USES = ["Treatment and record", "Teaching", "Research", "Publication, not identifiable"]

PATIENT = {
    "id": "p1",
    "name": "LINDQVIST, Åsa Marie",
    "birth_date": date(1961, 3, 12),
    "age": "65 y",
    "sex": "Female",
    "mrn": "4711-0815",
    "href": "/patients/p1",
    "alert": None,
}


def frame(title: str, patient: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What base.html asks of every page."""
    nav = [
        {"label": label, "href": href, "current": label == title, "count": count}
        for label, href, count in [
            ("Patients", "/", None),
            ("Worklist", "/worklist", 3),
            ("Deliveries", "/deliveries", None),
            ("Imports", "/imports", None),
        ]
    ]
    base = {
        "title": title,
        "csrf_token": "token-1",
        "user": {"name": "Dr. R. Okafor", "role": "Dermatology"},
        "nav": nav,
        "flashes": [],
        "logout_href": "/logout",
        "style_href": None,
        "patient": patient,
        "need_patient_banner": True,
        "embedded": False,
    }
    return base | more


def photo(number: int, taken_at: datetime, **more: Any) -> dict[str, Any]:
    """One photo; `number` chooses its picture."""
    base: dict[str, Any] = {
        "id": f"m{number}",
        "href": f"/photos/m{number}",
        "thumbnail": f"/captures/m{number}/thumbnail",
        "display": f"/captures/m{number}/display",
        "tiles": f"/captures/m{number}/tiles",
        "taken_at": taken_at,
        "site": "Anterior surface of forearm",
        "laterality": "left",
        "view": "close-up",
        "view_label": "Close-up",
        "identity": "bound",
        "sensitive": False,
        "device": "iPhone 17",
        "holder": None,
        "deliveries": [{"destination": "Larkfield EHR", "state": "confirmed", "reason": None}],
    }
    return base | more


DERMOSCOPIC = {"view": "dermoscopic", "view_label": "Dermoscopic"}
BACK = {"site": "Lower back", "laterality": None}


def _sent(state: str, reason: str | None = None) -> dict[str, Any]:
    return {"deliveries": [{"destination": "Larkfield EHR", "state": state, "reason": reason}]}


def timeline_groups() -> list[dict[str, Any]]:
    july, march = NOW - timedelta(days=132, hours=-4), NOW - timedelta(days=265)
    both = [
        {"destination": "Larkfield EHR", "state": "confirmed", "reason": None},
        {"destination": "PACS", "state": "accepted", "reason": None},
    ]
    today = [
        photo(1, NOW, **DERMOSCOPIC, **_sent("sending")),
        photo(2, NOW - timedelta(minutes=1)),
        photo(3, NOW - timedelta(minutes=2), view="regional", view_label="Regional", **_sent("withheld", "No consent")),
        photo(4, NOW - timedelta(minutes=4), **BACK, **_sent("failed", "The EHR refused the encounter")),
        photo(5, NOW - timedelta(minutes=5), **BACK, identity="awaiting-patient", deliveries=[]),
    ]
    before = [
        photo(6, july, **DERMOSCOPIC, deliveries=both),
        photo(7, july - timedelta(minutes=2)),
        photo(8, july - timedelta(minutes=3), site="Areola", laterality="right", sensitive=True),
    ]
    first = [photo(n, march - timedelta(minutes=n), **(BACK if n % 2 else {})) for n in range(9, 13)]
    rows = [
        ("e1", "23 November 2026", "Dermatology outpatient, Dr. Okafor", today),
        ("e2", "14 July 2026", "Dermatology outpatient, Dr. Brandt", before),
        ("e3", "3 March 2026", "First visit", first),
    ]
    return [
        {
            "key": key,
            "title": title,
            "subtitle": sub,
            "capture_href": f"/capture?encounter={key}",
            "compare_href": f"/jobs?visit={key}",
            "photos": photos,
        }
        for key, title, sub, photos in rows
    ]


def timeline() -> dict[str, Any]:
    labels = [("All", 48), ("Left forearm", 21), ("Lower back", 18), ("Right breast", 3), ("Nose", 6)]
    facets = [{"label": t, "href": f"?site={n}", "count": n, "current": t == "All"} for t, n in labels]
    return frame(
        "Photos",
        PATIENT,
        group="visit",
        group_hrefs={"visit": "?group=visit", "site": "?group=site"},
        total=48,
        restricted=1,
        facets=facets,
        groups=timeline_groups(),
        next_href=None,
        handoff={"image_href": "/handoff.svg", "expires": "Valid for 10 minutes, once."},
        consents_href="/patients/p1/consents",
        events_href=None,
        capture_href="/capture?patient=p1",
        apps=[{"name": "Lesion Tracker", "href": "/patients/p1/apps/tracker"}],
        elsewhere_href="/patients/p1/elsewhere",
        actions={"compare", "assign", "redeliver", "export"},
        site_groups=SITE_GROUPS,
        lateralities=LATERALITIES,
        visits=VISITS,
        comparisons=saved_cards(),
    )


def one_photo() -> dict[str, Any]:
    shown = photo(
        1,
        NOW,
        **DERMOSCOPIC,
        width=4032,
        height=3024,
        byte_size=3_412_887,
        format="JPEG",
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        version="2",
        operator="Dr. R. Okafor",
        visit={"label": "23 Nov 2026, Dermatology", "href": None},
        lesion={"label": "L2, irregular naevus", "href": "/lesions/l2"},
        note=None,
        removed=["GPS position", "camera serial number", "embedded thumbnail"],
        site_code="70559009",
        laterality_code="left",
        encounter_id="e1",
        lesion_id="l2",
    )
    deliveries = [
        {
            "destination": "Larkfield EHR",
            "state": "confirmed",
            "reason": None,
            "receipt": "Media/8842/_history/1",
            "accepted_at": NOW,
            "confirmed_at": NOW,
            "remedy": None,
            "retry_href": None,
        },
        {
            "destination": "PACS",
            "state": "failed",
            "reason": "The archive refused the study: accession number missing.",
            "receipt": None,
            "accepted_at": None,
            "confirmed_at": None,
            "remedy": "Assign a visit with an order, then send again.",
            "retry_href": "/deliveries/d2/retry",
        },
    ]
    decisions = ["permit", "permit", "deny", "not-asked"]
    return frame(
        "Photo",
        PATIENT,
        photo=shown,
        earlier={
            "href": "/photos/m6",
            "compare_href": "/compare?media=m6&media=m1",
            "because": "the same lesion, the same site",
            "label": "Compare with 14 Jul 2026",
        },
        previous_href="/photos/m2",
        next_href=None,
        consent={
            "decision": "permit",
            "because": "Treatment is covered by the consent of 23 Nov 2026.",
            "uses": [{"label": u, "decision": d} for u, d in zip(USES, decisions, strict=True)],
            "recorded_at": NOW,
            "href": "/consents/c1",
        },
        deliveries=deliveries,
        refile_href="/refile?media=m1",
        comparisons=saved_cards(),
        history=[
            {"at": NOW, "who": "Dr. R. Okafor", "what": "Viewed", "detail": None},
            {"at": NOW, "who": "DermBridge", "what": "Filed in Larkfield EHR", "detail": "Media/8842"},
            {"at": NOW, "who": "Dr. R. Okafor", "what": "Captured", "detail": "iPhone 17, browser camera"},
        ],
        edit={
            "action": "/photos/m1",
            "site_groups": SITE_GROUPS,
            "lateralities": LATERALITIES,
            "views": VIEWS,
            "visits": VISITS,
            "lesions": [{"code": "l2", "display": "L2, irregular naevus"}],
        },
    )


def capture(recorded: bool = True) -> dict[str, Any]:
    return frame(
        "Take photos",
        PATIENT,
        visit={"label": "23 Nov 2026, Dermatology"},
        back_href="/patients/p1",
        handoff={"image_href": "/handoff.svg", "expires": "Valid for 5 minutes."},
        views=VIEWS,
        lateralities=LATERALITIES,
        chosen={"site": "70559009" if recorded else None, "laterality": "left", "view": "close-up"},
        sensitivities=[
            {"code": "hiv", "display": "HIV", "level": "R"},
            {"code": "suspected-abuse", "display": "Suspected abuse or violence", "level": "V"},
        ],
        capture={
            "upload": "/captures",
            "status": "/captures/{id}",
            "patient": "Patient/p1",
            "encounter": "Encounter/e1",
            "lesion": None,
            "max_bytes": 50_000_000,
            "types": ["image/jpeg", "image/png", "image/heic"],
            "site_required": True,
            "sites": SITES,
            "recent": ["70559009", "113182001"],
            "priors": [
                {
                    "site": "70559009",
                    "laterality": "left",
                    "view": "close-up",
                    "display": "/captures/m2/display",
                    "label": "14 Jul 2026",
                }
            ],
        },
        consent={
            "mode": "required",
            "action": "/patients/p1/consents",
            "recorded": {
                "summary": "Spoken consent by the patient, 23 Nov 2026, heard by Dr. R. Okafor.",
                "href": "/consents/c1",
                "uses": [{"label": u, "decision": "permit"} for u in USES[:2]],
            }
            if recorded
            else None,
            "uses": [
                {
                    "code": c,
                    "display": d,
                    "hint": h,
                    "decision": "permit" if c == "treatment-documentation" else "not-asked",
                }
                for c, d, h in [
                    ("treatment-documentation", "Treatment and record", "Needed for the photo to reach the chart."),
                    ("teaching", "Teaching", None),
                    ("research", "Research", None),
                ]
            ],
        },
    )


def compare() -> dict[str, Any]:
    old, new = photo(6, NOW - timedelta(days=132), **DERMOSCOPIC), photo(1, NOW, **DERMOSCOPIC)
    strip = [
        {
            "id": f"m{n}",
            "thumbnail": f"/captures/m{n}/thumbnail",
            "label": label,
            "reasons": ("the same lesion", "the same site"),
            "but": (),
            "href": None if n == 1 else f"/compare?media=m{n}&media=m1",
            "toggle_href": f"/compare?media=m6&media=m{n}&media=m1" if n not in (1, 6) else None,
            "current": n in (1, 6),
        }
        for n, label in [
            (9, "3 Mar 2026"),
            (6, "14 Jul 2026"),
            (7, "14 Jul 2026"),
            (2, "23 Nov 2026"),
            (1, "23 Nov 2026"),
        ]
    ]
    visit = {"visit": "Dermatology", "width": 4000, "version": 2}
    return frame(
        "Compare",
        PATIENT,
        photos=[old | visit | {"interval": None}, new | visit | {"interval": "4 months later"}],
        fits=[{"label": "14 Jul 2026", "reasons": ("the same lesion", "the same site"), "but": ()}],
        swap_href="/compare?media=m1&media=m6",
        candidates=strip,
        may_align=True,
        elsewhere_href="/patients/p1/elsewhere?beside=m1",
        most_landmarks=6,
        back_href="/patients/p1",
        saved=None,
        save_href="/saved-comparisons",
    )


def saved_comparison(*changes: str) -> dict[str, Any]:
    return {
        "href": "/saved-comparisons/o1",
        "label": "Skin of hand, left: 2 photos",
        "verdict": "aligned",
        "at": NOW,
        "by": "Dr. R. Okafor",
        "note": "Darker at the lower edge",
        "view": {"mode": "side", "zoom": 1.0, "blend": 0.5, "linked": True, "reference": 1},
        "reasons": ["429 of 441 patches of skin are where the map says"],
        "method": "key points, block correlation, spline, version 1",
        "changes": list(changes),
        "exports": {"PDF": "/saved-comparisons/o1/pdf", "PNG": "/saved-comparisons/o1/png"},
        "sent": [{"destination": "Larkfield", "state": "confirmed", "reason": None}],
        "send_to": ["archive"],
        "send_href": "/saved-comparisons/o1/send",
        "withdraw_href": "/saved-comparisons/o1/withdraw",
        "reference": "Observation/o1/_history/1",
    }


def saved_cards() -> list[dict[str, Any]]:
    saved = saved_comparison()
    card = {name: saved[name] for name in ("href", "label", "verdict", "at", "by", "note")}
    return [card, card | {"href": "/saved-comparisons/o2", "verdict": None, "note": None}]


def compare_saved() -> dict[str, Any]:
    return compare() | {"saved": saved_comparison("Photo 2: Its details were corrected since: version 1 then, 2 now.")}


def comparison_left() -> dict[str, Any]:
    """One of its photos may not be shown any more."""
    saved = saved_comparison("Photo 2: It is not in this record any more.")
    left = [{"href": "/photos/m1", "thumbnail": "/captures/m1/thumbnail"}]
    return frame("Saved comparison", PATIENT, saved=saved, left=left, back_href="/patients/p1")


def compare_three() -> dict[str, Any]:
    """Three dates, the middle one of another view."""
    page = compare()
    between = photo(7, NOW - timedelta(days=60), **DERMOSCOPIC) | {
        "width": 4000,
        "visit": None,
        "interval": "2 months",
        "version": 1,
    }
    fits = [*page["fits"], {"label": "24 Sep 2026", "reasons": (), "but": ("another view",)}]
    return page | {"photos": [page["photos"][0], between, page["photos"][1]], "fits": fits}
