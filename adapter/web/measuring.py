"""What the photo page asks while somebody measures: the photo's own scale, an outline, figures; and what was kept.

The same addresses serve machines: JSON in the field `drawn`, JSON back (docs/measure.md).
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter import governance
from adapter.access import Actor, can
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.measure.measuring import (
    Drawn,
    find_outline,
    keep,
    look,
    measure,
    measurements_of,
    measurements_of_lesion,
    normalised,
    withdraw,
)
from adapter.records import Stored
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_photo
from adapter.web.pages import Web, see_other, wants_json
from adapter.web.photo_card import day, lesion_of, taken_at
from adapter.web.trend import charts_of
from mappings.calibration_card import card_pdf
from mappings.canonical_resources import codes_of
from mappings.measurement_to_observation import MEASURES, SHOWN, observation_to_measurement, wording

_FARTHEST = 65_535.0
HOW = {
    "by-hand": "Drawn by hand",
    "found": "Found in the photo from a point on the lesion, accepted by a person",
    "found-edited": "Found in the photo from a point on the lesion, corrected by hand",
}


def _finite(value: float) -> float:
    if not isfinite(value) or abs(value) > _FARTHEST:
        raise ValueError("is no pixel of a photo")
    return value


Pixel = Annotated[float, AfterValidator(_finite)]
Exactness = Annotated[float, Field(ge=0.1, le=500)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ScaleAsked(_Asked):
    source: Literal["card", "points", "field-of-view", "none"]
    points: tuple[tuple[Pixel, Pixel], tuple[Pixel, Pixel]] | None = None
    millimetres: Pixel = 0.0
    sigma: Exactness = 2.0

    @model_validator(mode="after")
    def _has_points(self) -> _ScaleAsked:
        if self.source == "points" and self.points is None:
            raise ValueError("a scale of points needs two of them")
        return self


class _DrawnAsked(_Asked):
    kind: Literal["length", "outline"]
    points: Annotated[tuple[tuple[Pixel, Pixel], ...], Field(min_length=2, max_length=400)]
    sigma: Exactness = 2.0
    edge: Exactness = 2.0
    scale: _ScaleAsked = _ScaleAsked(source="none")
    how: Literal["by-hand", "found", "found-edited"] = "by-hand"
    version: Annotated[int, Field(ge=1)]


def photo_scale(web: Web, request: Request) -> Response:
    """GET /photos/{id}/scale: which scales the photo offers by itself, and whether its card tells colours."""
    return JSONResponse(look(web.bridge, actor_of(request), request.path_params["id"]))


def photo_outline(web: Web, request: Request) -> Response:
    """GET /photos/{id}/outline?x=&y=: the outline of what is at that pixel, or 422 saying why there is none."""
    try:
        point = (_finite(float(request.query_params["x"])), _finite(float(request.query_params["y"])))
    except (KeyError, ValueError):
        raise BadInput("say where: ?x=…&y=… in pixels of the photo") from None
    return JSONResponse(find_outline(web.bridge, actor_of(request), request.path_params["id"], point))


def photo_normalised(web: Web, request: Request) -> Response:
    """GET /photos/{id}/normalised: a JPEG with the colours that the card tells. For comparison only; never stored."""
    content = normalised(web.bridge, actor_of(request), request.path_params["id"])
    headers = {"Content-Disposition": "inline", "Cache-Control": "private, no-store"}
    return Response(content, media_type="image/jpeg", headers=headers)


def photo_measurements(web: Web, request: Request) -> Response:
    """GET /photos/{id}/measurements: those that stand, oldest first."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        photo, patient_id = get_photo(tx, actor, "r", request.path_params["id"])
        found = [observation_to_measurement(one.resource) for one in measurements_of(tx, actor, photo.id)]
    references = [photo.version_reference, *(f"Observation/{one['id']}" for one in found)]
    governance.audit_look(bridge, actor, patient_id=patient_id, references=references)
    return JSONResponse({"measurements": found})


def post_measurement(web: Web, request: Request, form: Form) -> Response:
    """POST /photos/{id}/measurements: what was drawn, measured (200); with keep=1 kept as an Observation (201)."""
    bridge, actor, media_id = web.bridge, actor_of(request), request.path_params["id"]
    try:
        asked = _DrawnAsked.model_validate(orjson.loads(form.get("drawn")))
    except orjson.JSONDecodeError:
        raise BadInput("the field drawn is no JSON; see docs/measure.md") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"drawn.{'.'.join(map(str, first['loc']))}: {first['msg']}; see docs/measure.md") from None
    told = asked.model_dump() | {"how": HOW[asked.how]}
    drawn = Drawn(**told)
    if form.get("keep") != "1":
        found = measure(bridge, actor, media_id, drawn)
        return JSONResponse({**found, "shown": _shown(found["measures"])})
    kept = keep(bridge, actor, media_id, drawn)
    answer = observation_to_measurement(kept.resource)
    return JSONResponse(answer, 201, {"Location": f"/fhir/Observation/{kept.id}"})


def withdraw_measurement(web: Web, request: Request, form: Form) -> Response:
    """POST /photos/{id}/measurements/{measurement}/withdraw with the reason `why`: entered in error, never deleted."""
    named = request.path_params["measurement"]
    gone = withdraw(web.bridge, actor_of(request), named, media_id=request.path_params["id"], why=form.get("why"))
    if wants_json(request):
        return JSONResponse(observation_to_measurement(gone.resource))
    return see_other(f"/photos/{request.path_params['id']}", "measurement-withdrawn")


def calibration_card(_web: Web, _request: Request) -> Response:
    """GET /card.pdf: a page of calibration cards to print."""
    return Response(
        card_pdf(),
        media_type="application/pdf",
        headers={"Content-Disposition": "inline; filename=dermbridge-card.pdf"},
    )


def measuring_context(tx: Connection, bridge: Bridge, actor: Actor, photo: Stored) -> dict[str, Any] | None:
    """What the photo page shows of it; None for a photo that is nobody's or of unknown size."""
    width, height = photo.resource.get("width"), photo.resource.get("height")
    if not width or not height or "reference" not in photo.resource.get("subject", {}):
        return None
    kept, lesion = measurements_of(tx, actor, photo.id), lesion_of(photo.resource)
    of_lesion = measurements_of_lesion(tx, actor, lesion) if lesion else kept
    return {
        "href": f"/photos/{photo.id}",
        "width": width,
        "height": height,
        "version": photo.version_id,
        "may_keep": can(actor, "c", "Observation"),
        "may_withdraw": can(actor, "u", "Observation"),
        "kept": [measurement_card(bridge, one) for one in kept],
        "charts": charts_of([observation_to_measurement(one.resource) for one in of_lesion], bridge.settings.zone)[:1],
        "lesion_href": f"/lesions/{lesion}" if lesion else None,
    }


def measurement_card(bridge: Bridge, kept: Stored) -> dict[str, Any]:
    """One measurement as lists show it."""
    found, zone = observation_to_measurement(kept.resource), bridge.settings.zone
    at = taken_at({"createdDateTime": found["at"]}, zone) if found["at"] else None
    return found | {
        "title": "Length" if found["kind"] == "length" else "Outline",
        "day": day(at) if at else "no date",
        "shown": _shown(found["measures"]),
        "scale_wording": codes_of("scale-source")[found["scale"]["source"]],
        "how": kept.resource["method"]["text"],
        "photo_href": f"/photos/{found['media']}",
        "withdraw_href": f"/photos/{found['media']}/measurements/{found['id']}/withdraw",
        "path": " ".join(f"{x:g},{y:g}" for x, y in found["points"]),
    }


def _shown(measures: list[dict[str, Any]]) -> list[dict[str, str]]:
    by_name = {one["name"]: one for one in measures}
    rows = [{"label": MEASURES[name]["wording"], "value": wording(by_name[name])} for name in SHOWN if name in by_name]
    for part in ("inside", "around"):
        if f"{part}-l" in by_name:
            values = ", ".join(wording(by_name[f"{part}-{axis}"], interval=False) for axis in "lab")
            rows.append({"label": f"L*a*b* {part}", "value": values})
    return rows
