"""Two stored photos of one patient compared: permission, then the engine in a bounded child, then kept.

What the engine finds about two photos never changes, so it is asked once: a second look costs a read.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from adapter import governance
from adapter.access import Actor
from adapter.access.policy import Letter
from adapter.bounded import BoundedChild
from adapter.bridge import Bridge
from adapter.capture.deep_zoom import find_description, keep_tiles
from adapter.compare.reopening import get_photo
from adapter.errors import BadInput, NotFound, Unprocessable
from adapter.records import Stored, get, new_id
from adapter.records.binaries import BinaryRow, OpenBinary, create_binary, find_rendition, get_binary, open_binary
from adapter.records.comparisons import Comparison, find_comparison, find_comparison_by_id, keep_comparison
from adapter.records.confinement import patient_of
from adapter.records.landmarks import Landmarks, Pair, find_landmarks, keep_landmarks, remove_landmarks
from adapter.records.vault import SealedBlob

ENGINE = "1.1"
"""Versions of alignment and change map: what an older engine found is not shown as this one's."""
MOST_LANDMARKS = 6
PICTURES = {"aligned": "image/jpeg", "overlay": "image/jpeg", "change": "image/png"}

# Two, so that nobody waits for everybody; one patient's photos meet the same child, which has them decoded.
_CHILDREN = [BoundedChild("adapter.compare.child:compare", seconds=30, memory=4 << 30, nice=0) for _ in range(2)]


def compare(bridge: Bridge, actor: Actor, left_id: str, right_id: str) -> Comparison:
    """How photo `right_id` lies on `left_id`, and what changed: verdict, reasons, regions (docs/compare.md); by the
    points that somebody placed, where somebody did.

    Raises Forbidden, NotFound, Unprocessable for photos of different patients or of nobody, or beyond decoding.
    """
    with bridge.db.snapshot() as tx:
        photos = _pair(tx, actor, "r", left_id, right_id)
        placed = find_landmarks(tx, left_id, right_id)
        known = find_comparison(tx, left_id, right_id, made_by(placed))
    _note(bridge, "photo-compared", actor, photos)
    if known:
        return known
    made, pictures = _ask(bridge, photos, placed)
    try:
        with bridge.db.transaction() as tx:
            return _keep(tx, bridge, actor, made, photos, pictures)
    except IntegrityError:  # asked twice at once, and the other one was first
        with bridge.db.snapshot() as tx:
            known = find_comparison(tx, left_id, right_id, made_by(placed))
        return known or compare(bridge, actor, left_id, right_id)  # forgotten since: a photo changed its patient


def place_landmarks(bridge: Bridge, actor: Actor, left_id: str, right_id: str, points: tuple[Pair, ...]) -> Comparison:
    """`compare` by points marked by hand, which are remembered with who marked them until `take_back_landmarks`.

    What the engine makes of them is called aligned only where its gate says so. Raises what `compare` raises, and
    BadInput for points that say nothing (fewer than three, on one line, mirrored, outside a photo).
    """
    with bridge.db.snapshot() as tx:
        photos = _pair(tx, actor, "u", left_id, right_id)
    if not 3 <= len(points) <= MOST_LANDMARKS:
        raise BadInput(f"mark between 3 and {MOST_LANDMARKS} points in both photos")
    placed = Landmarks(new_id(bridge.now()), left_id, right_id, points, actor.id, actor.display, bridge.now())
    made, pictures = _ask(bridge, photos, placed)
    with bridge.db.transaction() as tx:
        kept = _keep(tx, bridge, actor, made, photos, pictures)
        keep_landmarks(tx, placed)
        _note_by_hand(tx, bridge, actor, photos, f"{len(points)} points placed")
    return kept


def take_back_landmarks(bridge: Bridge, actor: Actor, left_id: str, right_id: str) -> None:
    """From now on the engine's own answer counts again; who placed and who removed them stays known.

    Raises Forbidden, NotFound.
    """
    with bridge.db.transaction() as tx:
        photos = _pair(tx, actor, "u", left_id, right_id)
        if not remove_landmarks(tx, left_id, right_id, by=actor.id, at=bridge.now()):
            raise NotFound("nobody has aligned these photos by hand")
        _note_by_hand(tx, bridge, actor, photos, "points taken back")


def made_by(placed: Landmarks | None) -> str:
    """What a comparison is kept under: the engine, and the points it was given."""
    return f"{ENGINE} {placed.id}" if placed else ENGINE


def is_current(tx: Connection, found: Comparison) -> bool:
    """Whether it is still what `compare` gives: no photo was moved, and nobody placed or took back points since."""
    pair = found.left_media, found.right_media
    now = find_comparison(tx, *pair, made_by(find_landmarks(tx, *pair)))
    return now is not None and now.id == found.id


def warm_up(patient_id: str) -> None:
    """Has the engine loaded by the time that somebody who opens a page asks for a comparison."""
    _child(patient_id).start()


def _child(patient_id: str | None) -> BoundedChild:
    return _CHILDREN[hash(patient_id) % len(_CHILDREN)]


def _ask(bridge: Bridge, photos: list[Stored], placed: Landmarks | None) -> tuple[Comparison, list[SealedBlob]]:
    """The engine, in a child; its pictures sealed."""
    left, right = photos
    result, contents = _call(bridge, photos, placed.points if placed else None, "pictures")
    if placed:
        result |= {"by_hand": placed.as_json()}
    made = Comparison(new_id(bridge.now()), left.id, right.id, made_by(placed), result)
    return made, [bridge.vault.seal(content) for content in contents]


def _call(bridge: Bridge, photos: list[Stored], landmarks: Any, make: str) -> tuple[dict[str, Any], list[bytes]]:
    with bridge.db.snapshot() as tx:
        opened = [_clean_copy(tx, bridge, media) for media in photos]
    request = {
        "photos": [one.id for one in photos],
        "max_pixels": bridge.settings.max_pixels,
        "landmarks": landmarks,
        "make": make,
    }
    return _child(patient_of(photos[0].resource)).call(request, *(one.read() for one in opened))


def open_picture(bridge: Bridge, actor: Actor, comparison_id: str, name: str) -> OpenBinary:
    """One of `PICTURES`, once the log says that it was seen. Raises Forbidden, NotFound."""
    with bridge.db.snapshot() as tx:
        found, photos = get_comparison(tx, actor, comparison_id)
        row = find_rendition(tx, found.security_context, name) if name in PICTURES else None
        if row is None:
            raise NotFound("these photos could not be aligned, so there is no such picture")
        opened = open_binary(tx, bridge.vault, row)
    _note(bridge, "read", actor, photos, detail=name)
    return opened


def describe_aligned_tiles(bridge: Bridge, actor: Actor, comparison_id: str) -> dict[str, int]:
    """The picture `aligned` in all its pixels (`capture.deep_zoom`), made now if nobody looked so closely before.

    Raises Forbidden, NotFound.
    """
    with bridge.db.snapshot() as tx:
        found, photos = _get_aligned(tx, actor, comparison_id)
        known = find_description(tx, bridge, found.security_context)
    _note(bridge, "read", actor, photos, detail="aligned tiles")
    if known:
        return known
    about, (content,) = _call(bridge, photos, _points_of(found), "tiles")
    sealed = bridge.vault.seal(content)
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, f"patient:{patient_of(photos[0].resource)}")
        get_comparison(tx, actor, comparison_id)  # forgotten meanwhile where a photo changed its patient
        keep_tiles(tx, bridge, found.security_context, sealed, photos)
    return about


def normalise_aligned(bridge: Bridge, actor: Actor, comparison_id: str) -> bytes:
    """The picture `aligned` in the colours that the photo's card tells, as `measure.normalised` is of the other: a JPEG
    for comparison only, not kept. Raises Forbidden, NotFound, Unprocessable where no card tells.
    """
    with bridge.db.snapshot() as tx:
        found, photos = _get_aligned(tx, actor, comparison_id)
    _note(bridge, "read", actor, photos, detail="aligned, colours normalised")
    return _call(bridge, photos, _points_of(found), "normalised")[1][0]


def get_comparison(tx: Connection, actor: Actor, comparison_id: str) -> tuple[Comparison, list[Stored]]:
    """And its two photos. Raises Forbidden, NotFound."""
    found = find_comparison_by_id(tx, comparison_id)
    if found is None:
        raise NotFound("there is no such comparison; open it again")
    return found, [get_photo(tx, actor, media_id) for media_id in (found.left_media, found.right_media)]


def _get_aligned(tx: Connection, actor: Actor, comparison_id: str) -> tuple[Comparison, list[Stored]]:
    found, photos = get_comparison(tx, actor, comparison_id)
    if found.result["verdict"] == "not-aligned":
        raise NotFound("these photos could not be aligned, so there is no such picture")
    return found, photos


def _points_of(found: Comparison) -> Any:
    """Those it was made from, where somebody placed any."""
    return found.result["by_hand"]["points"] if "by_hand" in found.result else None


def _note(bridge: Bridge, event: str, actor: Actor, photos: list[Stored], *, detail: str | None = None) -> None:
    patient_id, references = patient_of(photos[0].resource), [one.version_reference for one in photos]
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, event, actor, patient_id=patient_id, references=references, detail=detail)


def _note_by_hand(tx: Connection, bridge: Bridge, actor: Actor, photos: list[Stored], detail: str) -> None:
    patient_id, references = patient_of(photos[0].resource), [one.version_reference for one in photos]
    governance.audit(tx, bridge, "photo-aligned", actor, patient_id=patient_id, references=references, detail=detail)


def _pair(tx: Connection, actor: Actor, letter: Letter, left_id: str, right_id: str) -> list[Stored]:
    """Raises Forbidden, NotFound, Unprocessable."""
    left, right = (get_photo(tx, actor, media_id, letter) for media_id in (left_id, right_id))
    patient_id = patient_of(left.resource)
    if patient_id is None or patient_of(right.resource) != patient_id or left.id == right.id:
        raise Unprocessable("only two photos of one and the same known patient can be compared")
    return [left, right]


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
