"""What the comparison page asks while it is open: how one photo lies on another, by the engine or by marked points."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter.compare.comparing import (
    PICTURES,
    compare,
    normalise_aligned,
    open_picture,
    place_landmarks,
    take_back_landmarks,
)
from adapter.errors import BadInput
from adapter.records.comparisons import Comparison
from adapter.records.landmarks import Pair
from adapter.web.bodies import Form
from adapter.web.gate import actor_of
from adapter.web.pages import Web

_POINTS = TypeAdapter(tuple[Pair, ...])


def comparison(web: Web, request: Request) -> Response:
    """GET /comparison?media=LEFT&media=RIGHT: verdict, reasons, map, regions and where the pictures are, as JSON."""
    ids = request.query_params.getlist("media")
    if len(ids) != 2:
        raise BadInput("name the two photos to compare: ?media=LEFT&media=RIGHT")
    return _answer(compare(web.bridge, actor_of(request), *ids))


def align_by_hand(web: Web, request: Request, form: Form) -> Response:
    """POST /comparison with left, right and points as JSON [[[x, y], [x, y]], ...]: aligned by them, and remembered."""
    try:
        points = _POINTS.validate_python(orjson.loads(form.get("points")))
    except (orjson.JSONDecodeError, ValidationError):
        raise BadInput("points are pairs of x, y in pixels of the photos: [[[x, y], [x, y]], ...]") from None
    return _answer(place_landmarks(web.bridge, actor_of(request), *_pair(form), points))


def take_back_alignment(web: Web, request: Request, form: Form) -> Response:
    """POST /comparison/take-back with left and right: the points placed by hand end, the engine's answer counts."""
    pair, actor = _pair(form), actor_of(request)
    take_back_landmarks(web.bridge, actor, *pair)
    return _answer(compare(web.bridge, actor, *pair))


def comparison_picture(web: Web, request: Request) -> Response:
    """GET /comparisons/{id}/aligned | overlay | change: in the frame of the left photo."""
    opened = open_picture(web.bridge, actor_of(request), request.path_params["id"], request.path_params["picture"])
    return Response(opened.read(), media_type=opened.content_type, headers={"Content-Disposition": "inline"})


def comparison_normalised(web: Web, request: Request) -> Response:
    """GET /comparisons/{id}/normalised: as `aligned`, in the colours that the right one's card tells; never stored."""
    content = normalise_aligned(web.bridge, actor_of(request), request.path_params["id"])
    headers = {"Content-Disposition": "inline", "Cache-Control": "private, no-store"}
    return Response(content, media_type="image/jpeg", headers=headers)


def _pair(form: Form) -> tuple[str, str]:
    return form.get("left"), form.get("right")


def _answer(found: Comparison) -> Response:
    """The address of a picture names a photo, by which a browser with several charts open finds the right one."""
    is_aligned = found.result["verdict"] != "not-aligned"
    of = urlencode({"media": found.left_media})
    named = (*PICTURES, "normalised") if is_aligned else ()
    pictures = {name: f"/comparisons/{found.id}/{name}?{of}" for name in named}
    tiles = f"/comparisons/{found.id}/tiles?{of}" if is_aligned else None
    return JSONResponse({"id": found.id, **found.result, "pictures": pictures, "tiles": tiles})
