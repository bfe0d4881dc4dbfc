"""GET /compare?media=..&media=..: photos of one patient beside each other, and which others would fit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import Actor, can
from adapter.access.reach import sensitivity
from adapter.compare.comparing import MOST_LANDMARKS, warm_up
from adapter.compare.priors import Prior, candidates, explain, find_prior
from adapter.compare.reopening import get_photo
from adapter.compare.saved import MOST
from adapter.errors import BadInput, Unprocessable
from adapter.records import Stored, find, find_all
from adapter.records.confinement import patient_of
from adapter.web.bodies import Form
from adapter.web.elsewhere_link import elsewhere_href
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other
from adapter.web.photo_card import day, encounter_of, photo_card, taken_at, visit_label

_UNITS = ((365.25, "year"), (30.44, "month"), (1, "day"))  # in days; each is used from two on


def compare_page(web: Web, request: Request) -> Response:
    """In the order asked, or the earliest first with order=taken; a single photo brings its best prior with it.

    Raises BadInput for too many photos, Unprocessable for photos of different patients.
    """
    ids = list(dict.fromkeys(request.query_params.getlist("media")))
    if not 1 <= len(ids) <= MOST:
        raise BadInput(f"choose up to {MOST} photos to compare")
    return show_photos(web, request, ids)


def show_photos(web: Web, request: Request, ids: list[str], saved: dict[str, Any] | None = None) -> Response:
    """The page with these photos; `saved` is what web.saved_comparisons tells of them."""
    bridge, actor, zone = web.bridge, actor_of(request), web.bridge.settings.zone
    with bridge.db.snapshot() as tx:
        photos, patient_id = _photos(tx, actor, ids)
        if len(ids) == 1 and (best := find_prior(tx, photos[0], only=sensitivity(actor, "Media"))):
            return see_other(_href([best.photo.id, photos[0].id]))
        patient = find(tx, "Patient", patient_id)
        if request.query_params.get("order") == "taken":
            photos.sort(key=lambda one: taken_at(one.resource, zone) or datetime.min.replace(tzinfo=UTC))
        others = candidates(tx, photos[-1], only=sensitivity(actor, "Media"))
        visits = find_all(tx, "Encounter", [visit for one in photos if (visit := encounter_of(one.resource))])
    warm_up(patient_id)
    with bridge.db.transaction() as tx:
        references = [one.version_reference for one in photos]
        governance.audit(tx, bridge, "photo-compared", actor, patient_id=patient_id, references=references)
    times = [taken_at(one.resource, zone) for one in photos]
    intervals = [None, *(interval(before, after) for before, after in pairwise(times))]
    shown = [one.id for one in photos]
    return web.render(
        request,
        "compare.html",
        "Compare",
        patient=patient,
        photos=[
            photo_card(one, [], zone)
            | {"interval": text, "width": one.resource.get("width"), "visit": _visit(one, visits, zone)}
            | {"version": one.version_id}
            for one, text in zip(photos, intervals, strict=True)
        ],
        fits=[_fit(explain(photos[-1], one), zone) for one in photos[:-1]],
        swap_href=_href(shown[::-1]),
        candidates=[
            _candidate(one, photos, zone)
            for one in _by_time({one.id: one for one in [*others, *photos]}.values(), zone)
        ],
        may_align=can(actor, "u", "Media"),
        most_landmarks=MOST_LANDMARKS,
        elsewhere_href=elsewhere_href(bridge, actor, patient_id, beside=photos[-1].id),
        back_href=f"/patients/{patient_id}",
        saved=saved,
        save_href="/saved-comparisons" if len(photos) > 1 and can(actor, "c", "Observation") else None,
    )


def chosen(_web: Web, _request: Request, form: Form) -> Response:
    """POST /compare: the photos ticked on the timeline, at an address that holds nothing else of the form."""
    return see_other(f"{_href(form.all('media'))}&order=taken")


def interval(before: datetime | None, after: datetime | None) -> str | None:
    """`4 months later`; None where a time is not known."""
    if before is None or after is None:
        return None
    days = abs((after.date() - before.date()).days)
    direction = "later" if after >= before else "earlier"
    if days == 0:
        return "the same day"
    size, unit = next(((size, unit) for size, unit in _UNITS if days >= 2 * size), (1, "day"))
    count = round(days / size)
    return f"{count} {unit}{'' if count == 1 else 's'} {direction}"


def _photos(tx: Connection, actor: Actor, ids: list[str]) -> tuple[list[Stored], str]:
    """And whose they are. Raises Unprocessable unless they are photos, and all of one known patient."""
    photos = [get_photo(tx, actor, media_id) for media_id in ids]
    patient_id, *others = {patient_of(one.resource) for one in photos}
    if others or patient_id is None:
        raise Unprocessable("only photos of one and the same known patient can be compared")
    return photos, patient_id


def _visit(photo: Stored, visits: dict[str, Stored], zone: tzinfo) -> str | None:
    visit = visits.get(encounter_of(photo.resource) or "")
    return visit_label(visit, zone) if visit else None


def _fit(prior: Prior, zone: tzinfo) -> dict[str, Any]:
    """Why a photo stands beside the last one."""
    at = taken_at(prior.photo.resource, zone)
    return {"label": day(at) if at else "no date", "reasons": prior.reasons, "but": prior.but}


def _by_time(photos: Iterable[Stored], zone: tzinfo) -> list[Stored]:
    first = datetime.min.replace(tzinfo=UTC)
    return sorted(photos, key=lambda one: (taken_at(one.resource, zone) or first, one.id))


def _candidate(one: Stored, shown: list[Stored], zone: tzinfo) -> dict[str, Any]:
    """One of the filmstrip: beside the last photo alone, or as one more (or less) of those shown."""
    ids = [photo.id for photo in shown]
    rest = [other for other in ids if other != one.id] if one.id in ids else [one.id, *ids]
    fit = _fit(explain(shown[-1], one), zone)
    return fit | {
        "id": one.id,
        "thumbnail": f"/captures/{one.id}/thumbnail",
        "href": f"{_href([one.id, ids[-1]])}&order=taken" if one.id != ids[-1] else None,
        "toggle_href": f"{_href(rest)}&order=taken" if 1 < len(rest) <= MOST else None,
        "current": one.id in ids,
    }


def _href(ids: list[str]) -> str:
    return f"/compare?{urlencode([('media', one) for one in ids])}"
