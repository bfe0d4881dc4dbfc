"""What every page is made of: the templates, the built assets, and the frame with user, patient and navigation."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import httpx
import jinja2
import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from adapter.access import Actor, can, has_right
from adapter.access.relationship import can_open_charts
from adapter.access.sessions import NOBODY, Session
from adapter.bridge import Bridge
from adapter.delivery import Destinations
from adapter.errors import DermBridgeError
from adapter.records import Stored
from adapter.web.gate import session_of
from adapter.web.patient_card import patient_card

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"
FLASHES = {  # what a page says once after a change: `?said=saved`
    "saved": ("ok", "The details are saved. Destinations receive the corrected version."),
    "unchanged": ("info", "Nothing was changed."),
    "consent": ("ok", "Consent is recorded. Deliveries that waited for it go on by themselves."),
    "withdrawn": ("ok", "The consent is withdrawn. What it stopped, and who has copies already, is shown below."),
    "queued": ("ok", "It is in line to be sent now."),
    "stopped": ("info", "Nothing more goes there until someone says to go on. Everything waits in order."),
    "looked": ("ok", "It counts as arrived, by your word."),
    "held": ("info", "It is on hold until someone sends it again."),
    "replayed": ("ok", "The message was applied again; if it still waits, its reason says why."),
    "dismissed": ("ok", "The message is dismissed; those that waited behind it go on."),
    "session-ended": ("ok", "The session is ended."),
    "app-ended": ("ok", "The app has no access any more."),
    "bound": ("ok", "The photo is bound to its patient, who is registered here from the EHR until ADT confirms."),
    "copied": ("ok", "The photo is copied here. It is read only; what is said of it is said where it lives."),
    "copied-before": ("info", "The photo was here already."),
    "some-copied": ("warning", "Some were copied, some stayed there; try those again, or open them where they live."),
    "forgotten": ("ok", "The copy is removed. The photo stays where it lives."),
    "undone": ("ok", "The changes were taken back."),
    "comparison-saved": ("ok", "The comparison is saved. This address opens it again as it is now."),
    "comparison-withdrawn": ("ok", "The comparison is withdrawn. What was sent of it is being taken back."),
    "measured": ("ok", "The measurement is kept in the record."),
    "measurement-withdrawn": ("info", "The measurement is withdrawn: it stays in the record as entered in error."),
}


GLASS_BROKEN = "The glass is broken for this patient: every access is recorded and reviewed."


@dataclass(frozen=True)
class Web:
    """What the pages' handlers are handed: the running bridge and a client for EHRs (SMART launch)."""

    bridge: Bridge
    http: httpx.Client

    @cached_property
    def destinations(self) -> Destinations:
        """Kept open, so that not every page signs in anew: some EHRs give a token only once a minute."""
        opened = Destinations(self.bridge)
        weakref.finalize(self, opened.close)
        return opened

    def render(
        self,
        request: Request,
        template: str,
        title: str,
        *,
        patient: Stored | None = None,
        **context: Any,
    ) -> HTMLResponse:
        """A page within the common frame; `patient` gets the banner."""
        today = self.bridge.now().astimezone(self.bridge.settings.zone).date()
        frame = frame_of(request, title) | {"patient": patient_card(patient, today) if patient else None}
        return HTMLResponse(environment().get_template(template).render(frame | context))


def frame_of(request: Request, title: str) -> dict[str, Any]:
    """What base.html asks of every page but the patient; also for pages without a session (errors)."""
    session = session_of(request)
    actor: Actor | None = getattr(request.state, "actor", None)
    flashes = [{"level": "warning", "text": GLASS_BROKEN}] if actor and actor.emergency else []
    said = FLASHES.get(request.query_params.get("said", ""))
    return {
        "title": title,
        "csrf_token": session.csrf if session else "",
        "user": {"name": actor.display, "role": actor.role.replace("-", " ").capitalize()} if actor else None,
        "nav": navigation(actor, request.url.path) if actor else [],
        "flashes": flashes + ([{"level": said[0], "text": said[1]}] if said else []),
        "logout_href": "/logout",
        "style_href": _style_href(session),
        "patient": None,
        "need_patient_banner": actor is None or actor.show_banner,
        "embedded": request.headers.get("sec-fetch-dest") == "iframe",
    }


def _style_href(session: Session | None) -> str | None:
    """Where the chart's EHR has a style of its own; two charts side by side may have two."""
    if session is None or not session.style:
        return None
    return f"/style.css?patient={session.actor.patient_id}" if session.actor.patient_id else "/style.css"


def navigation(actor: Actor, path: str) -> list[dict[str, Any]]:
    """Only what this user may open."""
    home = f"/patients/{actor.patient_id}" if actor.patient_id else "/"
    has_home = can(actor, "s", "Media") and actor.patient_id != NOBODY
    entries = [("Photos" if actor.patient_id else "Patients", home, has_home)]
    entries.append(("Your patients", "/charts", can_open_charts(actor)))
    entries.append(("Worklist", "/worklist", actor.patient_id is None and has_right(actor, "worklist")))
    entries.append(
        (
            "Deliveries",
            "/deliveries",
            (actor.patient_id is not None and can(actor, "s", "Media")) or has_right(actor, "operate"),
        )
    )
    entries.append(("Imports", "/imports", actor.patient_id is None and has_right(actor, "worklist")))
    entries.append(("Break the glass", "/break-glass", actor.patient_id == NOBODY or actor.emergency is not None))
    entries.append(("Jobs", "/jobs", can(actor, "u", "Media")))
    entries.append(("Installation", "/admin", has_right(actor, "operate")))
    entries.append(("Sessions", "/sessions", has_right(actor, "sessions")))
    entries.append(("Audit", "/audit", has_right(actor, "audit")))
    return [
        {"label": label, "href": href, "current": path == href, "count": None} for label, href, may in entries if may
    ]


def see_other(path: str, said: str | None = None) -> RedirectResponse:
    """303 after a change, so that reloading repeats nothing. `path` must be one of ours."""
    joint = "&" if "?" in path else "?"
    return RedirectResponse(f"{path}{joint}said={said}" if said else path, 303)


def wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def asset(name: str) -> str:
    """URL of a built file; the plain name where nothing is built (a checkout without Node)."""
    return f"/static/{_manifest().get(name, name)}"


@cache
def environment() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    pages.globals["asset"] = asset
    return pages


@cache
def _manifest() -> dict[str, str]:
    file = STATIC / "manifest.json"
    return dict(orjson.loads(file.read_bytes())) if file.exists() else {}


HEADINGS = {
    401: "You are not signed in",
    403: "You may not do this",
    404: "Not found here",
    409: "It has changed meanwhile",
    410: "Not in this record any more",
    412: "It has changed meanwhile",
    413: "Too large",
    503: "Not available just now",
}


def error_page(request: Request, error: DermBridgeError) -> HTMLResponse:
    """Any refusal or failure for people; the message of the error tells what to do."""
    actor: Actor | None = getattr(request.state, "actor", None)
    home = f"/patients/{actor.patient_id}" if actor and actor.patient_id else "/"
    label = "Find a patient" if home == "/" else "Back to the photos"
    message = str(error)
    context: dict[str, Any] = {
        "heading": HEADINGS.get(error.http_status, "This did not work"),
        "message": message[:1].upper() + message[1:] + ("" if message.endswith(".") else "."),
        "status": error.http_status,
        "reference": None,
        "actions": [{"label": label, "href": home}] if actor else [],
    }
    frame = frame_of(request, context["heading"]) | context
    return HTMLResponse(environment().get_template("error.html").render(frame), error.http_status)
