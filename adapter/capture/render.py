"""Renditions as work: display and thumbnail of a stored photo, sealed like the photo itself."""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.capture.bounded import BoundedRenderer
from adapter.capture.rendition import DEFAULT_SIZES
from adapter.errors import BadInput
from adapter.records import get, new_id
from adapter.records.binaries import BinaryRow, create_binary, get_binary, open_binary, whole_blob
from adapter.work import Work, bury, finish

_renderers = threading.local()


def _renderer() -> BoundedRenderer:
    """One decoding child per worker thread."""
    if not hasattr(_renderers, "mine"):
        _renderers.mine = BoundedRenderer()
    renderer: BoundedRenderer = _renderers.mine
    return renderer


def render_photo(bridge: Bridge, item: Work) -> None:
    """Handler of work kind "render". A photo that cannot be decoded becomes a dead letter that says why."""
    media_id = item.payload["media"]
    with bridge.db.snapshot() as tx:
        clean = get_binary(tx, clean_binary_id(tx, media_id))
        opened = open_binary(tx, bridge.vault, clean)
    try:
        made = _renderer().render(opened.read(), DEFAULT_SIZES, max_pixels=bridge.settings.max_pixels)
    except BadInput as refusal:
        with bridge.db.transaction() as tx:
            remedy = "look at the original; ask for the photo to be exported again"
            bury(tx, item, reason=str(refusal), remedy=remedy, blocks=False)
        return
    sealed = {name: bridge.vault.seal(rendition.content) for name, rendition in made.items()}
    at = bridge.now()
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", media_id)
        patient_id = media.resource.get("subject", {}).get("reference", "").removeprefix("Patient/") or None
        for name, blob in sealed.items():
            content_type = made[name].content_type
            bridge.vault.keep(tx, blob, content_type=content_type, patient_id=patient_id, at=at)
            row = whole_blob(
                blob, binary_id=new_id(at), content_type=content_type, security_context=media.reference, at=at
            )
            create_binary(tx, BinaryRow(**{**row.__dict__, "rendition": name}))
        governance.audit(
            tx, bridge, "photo-derived", SYSTEM, patient_id=patient_id, references=[media.version_reference]
        )
        finish(tx, item)


def clean_binary_id(tx: Connection, media_id: str) -> str:
    """The Binary that `Media.content.url` names."""
    url: str = get(tx, "Media", media_id).resource["content"]["url"]
    return url.removeprefix("Binary/")
