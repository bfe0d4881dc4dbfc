"""Two stored photos of one patient compared: permission, then the engine in a bounded child, then kept.

What the engine finds about two photos never changes, so it is asked once: a second look costs a read.
"""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from adapter import access, governance
from adapter.access import Actor
from adapter.access.policy import check_visible
from adapter.bounded import BoundedChild
from adapter.bridge import Bridge
from adapter.errors import NotFound, Unprocessable
from adapter.records import Stored, get, new_id
from adapter.records.binaries import BinaryRow, OpenBinary, create_binary, find_rendition, get_binary, open_binary
from adapter.records.comparisons import Comparison, find_comparison, find_comparison_by_id, keep_comparison
from adapter.records.confinement import patient_of
from adapter.records.vault import SealedBlob

ENGINE = "1.1"
"""Versions of alignment and change map: what an older engine found is not shown as this one's."""
PICTURES = {"aligned": "image/jpeg", "overlay": "image/jpeg", "change": "image/png"}

# Two, so that nobody waits for everybody; one patient's photos meet the same child, which has them decoded.
_CHILDREN = [BoundedChild("adapter.compare.child:compare", seconds=30, memory=4 << 30) for _ in range(2)]


def compare(bridge: Bridge, actor: Actor, left_id: str, right_id: str) -> Comparison:
    """How photo `right_id` lies on `left_id`, and what changed: verdict, reasons, regions (docs/compare.md).

    Raises Forbidden, NotFound, Unprocessable for photos of different patients or of nobody, or beyond decoding.
    """
    with bridge.db.snapshot() as tx:
        left, right = (_photo(tx, actor, media_id) for media_id in (left_id, right_id))
        patient_id = patient_of(left.resource)
        if patient_id is None or patient_of(right.resource) != patient_id or left.id == right.id:
            raise Unprocessable("only two photos of one and the same known patient can be compared")
        known = find_comparison(tx, left.id, right.id, ENGINE)
        opened = [] if known else [_clean_copy(tx, bridge, media) for media in (left, right)]
    _note(bridge, "photo-compared", actor, [left, right])
    if known:
        return known
    request = {"photos": [left.id, right.id], "max_pixels": bridge.settings.max_pixels}
    child = _CHILDREN[hash(patient_id) % len(_CHILDREN)]
    result, contents = child.call(request, *(one.read() for one in opened))
    pictures = [bridge.vault.seal(content) for content in contents]
    made = Comparison(new_id(bridge.now()), left.id, right.id, ENGINE, result)
    try:
        with bridge.db.transaction() as tx:
            return _keep(tx, bridge, actor, made, [left, right], pictures)
    except IntegrityError:  # asked twice at once, and the other one was first
        with bridge.db.snapshot() as tx:
            return find_comparison(tx, left.id, right.id, ENGINE) or made


def open_picture(bridge: Bridge, actor: Actor, comparison_id: str, name: str) -> OpenBinary:
    """One of `PICTURES`, once the log says that it was seen. Raises Forbidden, NotFound."""
    with bridge.db.snapshot() as tx:
        found = find_comparison_by_id(tx, comparison_id)
        if found is None or name not in PICTURES:
            raise NotFound("there is no such picture; open the comparison again")
        photos = [_photo(tx, actor, media_id) for media_id in (found.left_media, found.right_media)]
        row = find_rendition(tx, found.security_context, name)
        if row is None:
            raise NotFound("these photos could not be aligned, so there is no such picture")
        opened = open_binary(tx, bridge.vault, row)
    _note(bridge, "read", actor, photos, detail=name)
    return opened


def _note(bridge: Bridge, event: str, actor: Actor, photos: list[Stored], *, detail: str | None = None) -> None:
    patient_id, references = patient_of(photos[0].resource), [one.version_reference for one in photos]
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, event, actor, patient_id=patient_id, references=references, detail=detail)


def _photo(tx: Connection, actor: Actor, media_id: str) -> Stored:
    access.check_scope(actor, "r", "Media")
    media = get(tx, "Media", media_id)
    access.check_whose(tx, actor, patient_of(media.resource))
    check_visible(actor, media.resource)
    return media


def _clean_copy(tx: Connection, bridge: Bridge, media: Stored) -> OpenBinary:
    binary_id = media.resource["content"]["url"].removeprefix("Binary/")
    return open_binary(tx, bridge.vault, get_binary(tx, binary_id))


def _keep(
    tx: Connection, bridge: Bridge, actor: Actor, made: Comparison, photos: list[Stored], pictures: list[SealedBlob]
) -> Comparison:
    at, patient_id = bridge.now(), patient_of(photos[0].resource)
    bridge.db.lock(tx, f"patient:{patient_id}")
    now_of = {patient_of(get(tx, "Media", one.id).resource) for one in photos}
    if now_of != {patient_id}:
        raise Unprocessable("one of the photos was moved to another patient meanwhile; open the patient's photos again")
    keep_comparison(tx, made, at=at)
    for (name, content_type), sealed in zip(PICTURES.items(), pictures, strict=False):
        bridge.vault.keep(tx, sealed, content_type=content_type, patient_id=patient_id, at=at)
        row = BinaryRow(
            id=new_id(at),
            blob_id=sealed.id,
            content_type=content_type,
            size=sealed.size,
            sha256=sealed.sha256,
            security_context=made.security_context,
            created_at=at,
            rendition=name,
        )
        create_binary(tx, row)
    references = [one.version_reference for one in photos]
    governance.audit(tx, bridge, "photo-derived", actor, patient_id=patient_id, references=references)
    return made
