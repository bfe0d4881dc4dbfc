"""The tiles of a large photo: a description, which is the access that the log names, and one JPEG after the other.

A look at full resolution is one access, not two hundred: whoever asks for the description is in the log and gets a
ticket, and no tile is given without one. The right to the photo is asked again for every tile.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.capture.deep_zoom import describe_tiles, open_tile
from adapter.compare.comparing import describe_aligned_tiles, get_comparison
from adapter.errors import NotFound
from adapter.web.gate import actor_of, get_photo
from adapter.web.pages import Web

LASTS = timedelta(days=1)


def tiles(web: Web, request: Request) -> Response:
    """GET /captures/{id}/tiles: size, tile edge, overlap, levels (0 is the full resolution) and where each tile is."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        media, patient_id = get_photo(tx, actor, "r", request.path_params["id"])
    about = describe_tiles(bridge, media.id)
    governance.audit_look(bridge, actor, patient_id=patient_id, references=[media.version_reference], detail="tiles")
    return _described(bridge, actor, media.reference, request, about)


def tile(web: Web, request: Request) -> Response:
    """GET /captures/{id}/tiles/{ticket}/{level}/{column}/{row}: a JPEG of what the description offered."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        media, _ = get_photo(tx, actor, "r", request.path_params["id"])
        return _tile(tx, bridge, actor, media.reference, request)


def aligned_tiles(web: Web, request: Request) -> Response:
    """GET /comparisons/{id}/tiles: the same of the second photo as it lies on the first."""
    bridge, actor, comparison_id = web.bridge, actor_of(request), request.path_params["id"]
    about = describe_aligned_tiles(bridge, actor, comparison_id)
    return _described(bridge, actor, f"Comparison/{comparison_id}", request, about)


def aligned_tile(web: Web, request: Request) -> Response:
    """GET /comparisons/{id}/tiles/{ticket}/{level}/{column}/{row}"""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        found, _ = get_comparison(tx, actor, request.path_params["id"])
        return _tile(tx, bridge, actor, found.security_context, request)


def _described(bridge: Bridge, actor: Actor, context: str, request: Request, about: dict[str, int]) -> Response:
    """The query goes along: it names a photo, by which a browser with several charts open finds the right one."""
    query = f"?{request.url.query}" if request.url.query else ""
    address = f"{request.url.path}/{_ticket(bridge, actor, context, 0)}"
    return JSONResponse(about | {"url": f"{address}/{{level}}/{{column}}/{{row}}{query}"})


def _tile(tx: Connection, bridge: Bridge, actor: Actor, context: str, request: Request) -> Response:
    asked = request.path_params
    if not any(hmac.compare_digest(asked["ticket"], _ticket(bridge, actor, context, ago)) for ago in (0, 1)):
        raise NotFound("ask for the description of the tiles first; it names them for a day")
    place = [asked[name] for name in ("level", "column", "row")]
    if not all(one.isdecimal() and len(one) < 6 for one in place):
        raise NotFound("there is no such tile")
    content = open_tile(tx, bridge, context, *map(int, place))
    return Response(content, media_type="image/jpeg", headers={"Content-Disposition": "inline"})


def _ticket(bridge: Bridge, actor: Actor, context: str, ago: int) -> str:
    """Of today, or with `ago` 1 of yesterday."""
    day = (bridge.now() - ago * LASTS).date()
    told = f"{actor.id} {context} {day}".encode()
    return hmac.new(bridge.vault.derive_secret("tiles"), told, hashlib.sha256).hexdigest()[:32]
