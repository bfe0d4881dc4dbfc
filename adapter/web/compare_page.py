"""GET /compare?media=..&media=..: photos of one patient beside each other."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter import governance
from adapter.access.reach import sensitivity
from adapter.compare.comparing import PICTURES, compare, open_picture
from adapter.errors import BadInput, Unprocessable
from adapter.records import Stored, find
from adapter.records.timeline import photos_of_site
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_photo
from adapter.web.pages import Web, see_other
from adapter.web.photo_card import day, laterality_of, photo_card, site_of, taken_at

MOST = 8
_UNITS = ((365.25, "year"), (30.44, "month"), (1, "day"))  # in days; each is used from two on


def compare_page(web: Web, request: Request) -> Response:
    """In the order asked, or the earliest first with order=taken.

    Raises BadInput for fewer than two photos, Unprocessable for photos of different patients.
    """
    bridge, actor, zone = web.bridge, actor_of(request), web.bridge.settings.zone
    ids = list(dict.fromkeys(request.query_params.getlist("media")))
    if not 2 <= len(ids) <= MOST:
        raise BadInput(f"choose between 2 and {MOST} photos to compare")
    with bridge.db.snapshot() as tx:
        found = [get_photo(tx, actor, "r", media_id) for media_id in ids]
        patients = {patient_id for _, patient_id in found}
        if len(patients) != 1 or None in patients:
            raise Unprocessable("only photos of one and the same known patient can be compared")
        patient_id = patients.pop() or ""
        patient = find(tx, "Patient", patient_id)
        photos = [media for media, _ in found]
        if request.query_params.get("order") == "taken":
            photos.sort(key=lambda one: taken_at(one.resource, zone) or datetime.min.replace(tzinfo=UTC))
            ids = [one.id for one in photos]
        same_site = photos_of_site(tx, photos[-1], only=sensitivity(actor, "Media"))
    with bridge.db.transaction() as tx:
        references = [one.version_reference for one in photos]
        governance.audit(tx, bridge, "photo-compared", actor, patient_id=patient_id, references=references)
    times = [taken_at(one.resource, zone) for one in photos]
    cards = [photo_card(one, [], zone) for one in photos]
    intervals = [None, *(interval(before, after) for before, after in pairwise(times))]
    return web.render(
        request,
        "compare.html",
        "Compare",
        patient=patient,
        photos=[card | {"interval": text} for card, text in zip(cards, intervals, strict=True)],
        swap_href=_href(ids[::-1]),
        candidates=[
            {
                "id": one.id,
                "thumbnail": f"/captures/{one.id}/thumbnail",
                "label": day(at) if (at := taken_at(one.resource, zone)) else "no date",
                "href": _href([*ids[:-1], one.id]),
                "current": one.id in ids,
            }
            for one in reversed(same_site)
            if one.id == ids[-1] or one.id not in ids[:-1]
        ],
        warnings=_warnings(photos),
        comparison_href=f"/comparison?{urlencode([('media', one) for one in ids])}" if len(ids) == 2 else None,
        back_href=f"/patients/{patient_id}",
    )


def chosen(_web: Web, _request: Request, form: Form) -> Response:
    """POST /compare: the photos ticked on the timeline, at an address that holds nothing else of the form."""
    return see_other(f"{_href(form.all('media'))}&order=taken")


def comparison(web: Web, request: Request) -> Response:
    """GET /comparison?media=LEFT&media=RIGHT: verdict, reasons, regions and where the pictures are, as JSON."""
    ids = request.query_params.getlist("media")
    if len(ids) != 2:
        raise BadInput("name the two photos to compare: ?media=LEFT&media=RIGHT")
    found = compare(web.bridge, actor_of(request), *ids)
    is_aligned = found.result["verdict"] != "not-aligned"
    pictures = {name: f"/comparisons/{found.id}/{name}" for name in PICTURES} if is_aligned else {}
    return JSONResponse({"id": found.id, **found.result, "pictures": pictures})


def comparison_picture(web: Web, request: Request) -> Response:
    """GET /comparisons/{id}/aligned | overlay | change: in the frame of the left photo."""
    opened = open_picture(web.bridge, actor_of(request), request.path_params["id"], request.path_params["picture"])
    return Response(opened.read(), media_type=opened.content_type, headers={"Content-Disposition": "inline"})


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


def _warnings(photos: list[Stored]) -> list[str]:
    readers = {
        "body sites": lambda one: site_of(one.resource),
        "sides": lambda one: laterality_of(one.resource),
        "views": lambda one: str(one.resource.get("view")),
    }
    return [f"The photos show different {what}." for what, read in readers.items() if len(set(map(read, photos))) > 1]


def _href(ids: list[str]) -> str:
    return f"/compare?{urlencode([('media', one) for one in ids])}"
