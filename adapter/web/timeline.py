"""GET /patients/{id}: a patient's photos by visit or by body site."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance
from adapter.access import Actor, can, check_scope, has_right
from adapter.access.reach import sensitivity
from adapter.compare.reopening import comparisons_of
from adapter.db.tables import encounter
from adapter.errors import BadInput
from adapter.records import Stored, find_all, find_where
from adapter.records.timeline import BY_GROUP, count_by_site, deliveries_by_media, photos_of
from adapter.web.elsewhere_link import elsewhere_href
from adapter.web.gate import actor_of, get_patient
from adapter.web.handoff import handoff_of
from adapter.web.pages import Web
from adapter.web.photo_card import (
    day,
    encounter_of,
    lateralities,
    photo_card,
    place_of,
    site_groups,
    site_of,
    site_wording,
    taken_at,
    visits,
)
from adapter.web.saved_card import saved_card
from mappings.terms import SNOMED

PAGE_SIZE = 60
VISITS_OFFERED = 50


def timeline(web: Web, request: Request) -> Response:
    """?group=visit|site, ?site=SNOMED code, ?page=token of the next page."""
    bridge, actor, query = web.bridge, actor_of(request), request.query_params
    group, site, zone = query.get("group", "visit"), query.get("site"), bridge.settings.zone
    if group not in BY_GROUP:
        raise BadInput("photos are grouped by 'visit' or by 'site'")
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, request.path_params["id"])
        check_scope(actor, "s", "Media")
        if survivor := replaced_by(patient):
            return RedirectResponse(f"/patients/{survivor}", 303)
        token = f"{site}|{SNOMED}" if site else None
        only = sensitivity(actor, "Media")
        page = photos_of(tx, patient.id, group=group, site=token, after=query.get("page"), count=PAGE_SIZE, only=only)
        sites = count_by_site(tx, patient.id, only=only)
        restricted = sum(n for _, n in count_by_site(tx, patient.id)) - sum(n for _, n in sites) if only else 0
        sent = deliveries_by_media(tx, [one.id for one in page.photos])
        known = find_all(tx, "Encounter", [e for one in page.photos if (e := encounter_of(one.resource))])
        offered = visits_of(tx, patient.id)
        comparisons = comparisons_of(tx, actor, patient_id=patient.id) if can(actor, "s", "Observation") else []
    shown = [one.version_reference for one in (*page.photos, *comparisons)]
    search = f"Media?patient={patient.id}" + (f"&site={site}" if site else "")
    governance.audit_look(bridge, actor, patient_id=patient.id, references=shown, query=search)
    href = f"/patients/{patient.id}"
    capture_href = f"/capture?patient={patient.id}" if can(actor, "c", "Media") else None
    titled = _Titles(group, known, zone, capture_href)
    return web.render(
        request,
        "timeline.html",
        "Photos",
        patient=patient,
        group=group,
        group_hrefs={one: _link(href, group=one, site=site) for one in BY_GROUP},
        total=next((n for t, n in sites if t == token), 0) if token else sum(n for _, n in sites),
        restricted=restricted,
        facets=_facets(href, group, site, sites),
        groups=titled.groups(page.photos, sent),
        next_href=_link(href, group=group, site=site, page=page.next) if page.next else None,
        handoff=handoff_of(web, actor, patient.id, actor.encounter_id),
        consents_href=f"{href}/consents" if can(actor, "r", "Consent") else None,
        events_href=f"{href}/events",
        capture_href=capture_href,
        apps=[
            {"name": one.name, "href": f"{href}/apps/{one.client_id}"}
            for one in bridge.settings.clients
            if one.launch_url
        ],
        elsewhere_href=elsewhere_href(bridge, actor, patient.id),
        actions=actions_of(actor),
        site_groups=site_groups(),
        lateralities=lateralities(),
        visits=visits(offered, zone),
        comparisons=[saved_card(one, zone) for one in comparisons],
    )


def replaced_by(patient: Stored) -> str | None:
    """The record this one was merged into."""
    links = (one for one in patient.resource.get("link", []) if one.get("type") == "replaced-by")
    return next((str(one["other"]["reference"]).removeprefix("Patient/") for one in links), None)


def visits_of(tx: Connection, patient_id: str) -> list[Stored]:
    """The latest visits, to choose from."""
    of_patient = encounter.c.patient == patient_id
    return find_where(tx, "Encounter", of_patient, order_by=encounter.c.date.desc(), limit=VISITS_OFFERED)


def actions_of(actor: Actor) -> set[str]:
    """What the user may do with a selection."""
    may = {"compare": True, "assign": can(actor, "u", "Media"), "redeliver": can(actor, "u", "Media")}
    return {name for name, allowed in (may | {"export": has_right(actor, "export")}).items() if allowed}


class _Titles:
    """Groups photos that follow each other in the page's order, each with its heading."""

    def __init__(self, group: str, visits: dict[str, Stored], zone: tzinfo, capture_href: str | None) -> None:
        self._group, self._visits, self._zone, self._capture = group, visits, zone, capture_href

    def groups(self, photos: list[Stored], sent: dict[str, Any]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for one in photos:
            heading = self._site(one) if self._group == "site" else self._visit(one)
            photos_so_far = found.setdefault(heading["key"], heading | {"photos": []})["photos"]
            photos_so_far.append(photo_card(one, sent[one.id], self._zone))
        return list(found.values())

    def _site(self, photo: Stored) -> dict[str, Any]:
        code = site_of(photo.resource)
        title = site_wording(code) if code else "Body site not set"
        return self._heading(f"s{code or ''}", title, None, {"site": code})

    def _visit(self, photo: Stored) -> dict[str, Any]:
        """A visit we know; else the day the photo was taken."""
        at = taken_at(photo.resource, self._zone)
        visit = self._visits.get(encounter_of(photo.resource) or "")
        if visit is None:
            if at is None:
                came = taken_at({"createdDateTime": photo.resource.get("issued")}, self._zone) or photo.last_updated
                told = f"Received {day(came)}, no visit assigned"
                return self._heading(f"r{came:%Y%m%d}", "Date not known", told, {})
            return self._heading(f"d{at:%Y%m%d}", f"{at.day} {at:%B %Y}", "No visit assigned", {})
        start = taken_at({"createdDateTime": visit.resource.get("period", {}).get("start")}, self._zone) or at
        title = f"{start.day} {start:%B %Y}" if start else "Visit without a date"
        return self._heading(f"e{visit.id}", title, place_of(visit.resource), {"encounter": visit.id})

    def _heading(self, key: str, title: str, subtitle: str | None, preset: dict[str, Any]) -> dict[str, Any]:
        capture_href = f"{self._capture}&{urlencode(preset)}" if self._capture and any(preset.values()) else None
        compare_href = f"/jobs?visit={preset['encounter']}" if "encounter" in preset else None
        return {
            "key": key,
            "title": title,
            "subtitle": subtitle,
            "capture_href": capture_href,
            "compare_href": compare_href,
        }


def _facets(href: str, group: str, site: str | None, sites: list[tuple[str | None, int]]) -> list[dict[str, Any]]:
    facets = [
        {
            "label": "All",
            "href": _link(href, group=group),
            "count": sum(count for _, count in sites),
            "current": not site,
        }
    ]
    for token, count in sites:
        if token is not None:
            code = token.partition("|")[0]
            link = _link(href, group=group, site=code)
            facets.append({"label": site_wording(code), "href": link, "count": count, "current": code == site})
    return facets


def _link(path: str, **query: str | None) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
