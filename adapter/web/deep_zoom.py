"""The tiles of a large photo: a description, which is the access that the log names, and one JPEG after the other.

A look at full resolution is one access, not two hundred: whoever asks for the description is in the log and gets a
ticket, and no tile is given without one. The right to the photo is asked again for every tile.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.capture.deep_zoom import describe_tiles, open_tile
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
    ticket = _ticket(bridge, actor, media.id, 0)
    return JSONResponse(about | {"url": f"/captures/{media.id}/tiles/{ticket}/{{level}}/{{column}}/{{row}}"})


def tile(web: Web, request: Request) -> Response:
    """GET /captures/{id}/tiles/{ticket}/{level}/{column}/{row}: a JPEG of what the description offered."""
    bridge, actor, asked = web.bridge, actor_of(request), request.path_params
    with bridge.db.snapshot() as tx:
        media, _ = get_photo(tx, actor, "r", asked["id"])
        if not any(hmac.compare_digest(asked["ticket"], _ticket(bridge, actor, media.id, ago)) for ago in (0, 1)):
            raise NotFound("ask for the description of the tiles first; it names them for a day")
        place = [asked[name] for name in ("level", "column", "row")]
        if not all(one.isdecimal() and len(one) < 6 for one in place):
            raise NotFound("there is no such tile")
        content = open_tile(tx, bridge, media, *map(int, place))
    return Response(content, media_type="image/jpeg", headers={"Content-Disposition": "inline"})


def _ticket(bridge: Bridge, actor: Actor, media_id: str, ago: int) -> str:
    """Of today, or with `ago` 1 of yesterday."""
    day = (bridge.now() - ago * LASTS).date()
    told = f"{actor.id} {media_id} {day}".encode()
    return hmac.new(bridge.vault.derive_secret("tiles"), told, hashlib.sha256).hexdigest()[:32]
