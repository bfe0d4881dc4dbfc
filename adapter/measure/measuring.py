"""A stored photo measured: permission, then pixels in a bounded child, then an Observation kept, or taken back.

Figures are never taken from the caller: what is kept was measured here, from points and a scale that can be checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from adapter import access, governance
from adapter.access import SYSTEM, Actor
from adapter.access.policy import can, can_see, check_ours, check_visible
from adapter.access.reach import sensitivity
from adapter.bounded import BoundedChild
from adapter.bridge import Bridge
from adapter.compare.pictures import hide_pictures
from adapter.compare.reopening import ENTERED_IN_ERROR, get_photo
from adapter.compare.saved import tell, who
from adapter.db.tables import media as media_table
from adapter.db.tables import observation, search_index
from adapter.errors import BadInput, Conflict, Gone, NotFound, Unprocessable
from adapter.records import Stored, create, find, find_where, get, new_id, update_resource
from adapter.records.binaries import get_binary, open_binary
from adapter.records.confinement import patient_of
from mappings.comparison_to_observation import withdrawn
from mappings.measurement_to_observation import is_measurement, measurement_to_observation
from mappings.provenance import Agent, Entity, provenance

Json = dict[str, Any]
MOVED = "the photo turned out not to be this patient's"
LONGEST_REASON = 500
LISTED = 500
_FINAL = observation.c.status == "final|"
# Two, so that nobody waits for everybody; a photo meets the same child again, which has it decoded.
_CHILDREN = [BoundedChild("adapter.measure.child:measuring", seconds=30, memory=4 << 30) for _ in range(2)]


@dataclass(frozen=True)
class Drawn:
    """What somebody drew: `kind` is length or outline, `points` photo pixels, `sigma` how exactly they were placed and
    `edge` how far the whole outline may be off (both pixels), `how` the same in words; `scale` is one of
    {"source": "card"}, {"source": "field-of-view"}, {"source": "none"}, {"source": "points", "points", "millimetres",
    "sigma"}. `version` is the Media's that was seen."""

    kind: str
    points: tuple[tuple[float, float], ...]
    sigma: float
    edge: float
    scale: Json
    how: str
    version: int


def look(bridge: Bridge, actor: Actor, media_id: str) -> Json:
    """Which scales the photo offers by itself, and whether its card tells colours. Raises Forbidden, NotFound."""
    return _asked(bridge, actor, media_id, {"task": "look"}, "calibration looked for")[1]


def find_outline(bridge: Bridge, actor: Actor, media_id: str, point: tuple[float, float]) -> Json:
    """The outline of what is at the point. Raises Forbidden, NotFound, Unprocessable saying why there is none."""
    return _asked(bridge, actor, media_id, {"task": "outline", "point": point}, "outline drawn")[1]


def normalised(bridge: Bridge, actor: Actor, media_id: str) -> bytes:
    """A JPEG with the colours that the card tells, for comparison only; it is not kept. Raises as `find_outline`."""
    return _asked(bridge, actor, media_id, {"task": "normalise"}, "colours normalised")[2][0]


def measure(bridge: Bridge, actor: Actor, media_id: str, drawn: Drawn) -> Json:
    """What the drawn measures, not kept. Raises as `find_outline`."""
    return _measured(bridge, actor, media_id, drawn)[1]


def keep(bridge: Bridge, actor: Actor, media_id: str, drawn: Drawn) -> Stored:
    """Measure, and keep it as an Observation; the very same again gives what there is.

    Raises as `measure`, and Conflict when the photo was changed since.
    """
    access.check_scope(actor, "c", "Observation")
    photo, found = _measured(bridge, actor, media_id, drawn)
    check_ours(photo.resource)
    if photo.version_id != drawn.version:
        raise Conflict("this photo was changed since you opened it; open it again and repeat the measurement")
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, f"patient:{patient_of(photo.resource)}")
        if get(tx, "Media", media_id).version_id != photo.version_id:
            raise Conflict("this photo was changed at this moment; open it again and repeat the measurement")
        at = bridge.now()
        made = measurement_to_observation(
            found, photo.resource, observation_id=new_id(at), performer=who(actor), drawn=drawn.how, kept_at=at
        )
        if same := next((one for one in _made_from(tx, [photo.reference]) if _said(one.resource) == _said(made)), None):
            return same
        kept = create(tx, made, at=at)
        _tell(tx, bridge, actor, "derive", kept, Entity("derivation", photo.version_reference))
        return kept


def withdraw(bridge: Bridge, actor: Actor, observation_id: str, *, media_id: str, why: str) -> Stored:
    """Enter a measurement of a photo in error. Raises Forbidden, NotFound, Gone when it is already, BadInput."""
    if not why.strip() or len(why) > LONGEST_REASON:
        raise BadInput(f"say why the measurement is withdrawn, in at most {LONGEST_REASON} characters")
    with bridge.db.transaction() as tx:
        access.check_scope(actor, "u", "Observation")
        kept = find(tx, "Observation", observation_id)
        if kept is None:
            access.check_patient(actor, None)  # what does not exist and what is another's are told alike
            raise NotFound("there is no such measurement")
        access.check_whose(tx, actor, patient_of(kept.resource))
        check_visible(actor, kept.resource)
        if not is_measurement(kept.resource) or _photo_of(kept) != f"Media/{media_id}":
            raise NotFound("there is no such measurement")
        if kept.resource["status"] == ENTERED_IN_ERROR:
            raise Gone("this measurement was withdrawn before")
        bridge.db.lock(tx, f"patient:{patient_of(kept.resource)}")  # as who sends a sheet that tells of it does
        return _withdraw(tx, bridge, actor, kept, why.strip())


def withdraw_strays(tx: Connection, bridge: Bridge, media_ids: Iterable[str]) -> None:
    """After photos changed their patient: measurements that stayed behind with the former one."""
    photos = {one.reference: one for one in find_where(tx, "Media", media_table.c.id.in_(list(media_ids)))}
    for kept in _made_from(tx, list(photos)):
        photo = photos[_photo_of(kept)]
        if patient_of(photo.resource) != patient_of(kept.resource):
            _withdraw(tx, bridge, SYSTEM, kept, MOVED)


def follow_photo(tx: Connection, bridge: Bridge, actor: Actor, photo: Stored) -> None:
    """After a photo's details were corrected: what was measured on it is of the same site, lesion and visit."""
    now = {name: photo.resource.get(name) for name in ("bodySite", "encounter")}
    for kept in _made_from(tx, [photo.reference]):
        resource = kept.resource
        if any(resource.get(name) != value for name, value in now.items()):
            changed = {name: value for name, value in (resource | now).items() if value is not None}
            stored = update_resource(tx, changed, at=bridge.now(), expected_version=kept.version_id)
            _tell(tx, bridge, actor, "update", stored, Entity("revision", kept.version_reference))


def measurements_of(tx: Connection, actor: Actor, media_id: str) -> list[Stored]:
    """Those of one photo that stand and may be seen, oldest first. Whoever asks must have been let see the photo."""
    return _seen_by(actor, _made_from(tx, [f"Media/{media_id}"]))


def measurements_of_lesion(tx: Connection, actor: Actor, lesion_id: str) -> list[Stored]:
    """Those of every photo of a lesion that the actor may see; the photo says whose lesion it is, at any time."""
    of_lesion = (media_table.c.lesion == lesion_id, *sensitivity(actor, "Media"))
    photos = find_where(tx, "Media", *of_lesion, order_by=media_table.c.created.desc(), limit=LISTED)
    valid = [one.reference for one in photos if one.resource.get("status") != ENTERED_IN_ERROR]
    return _seen_by(actor, _made_from(tx, valid))


def _seen_by(actor: Actor, found: list[Stored]) -> list[Stored]:
    return [one for one in found if can_see(actor, one.resource)] if can(actor, "r", "Observation") else []


def _measured(bridge: Bridge, actor: Actor, media_id: str, drawn: Drawn) -> tuple[Stored, Json]:
    asked = {name: getattr(drawn, name) for name in ("kind", "points", "sigma", "edge", "scale")}
    photo, found, _ = _asked(bridge, actor, media_id, {"task": "measure", **asked}, "measured")
    return photo, found | asked | {"scale": found["scale"]}


def _asked(bridge: Bridge, actor: Actor, media_id: str, request: Json, detail: str) -> tuple[Stored, Json, list[bytes]]:
    """The photo and what the child answers about it. Raises Forbidden, NotFound, Unprocessable."""
    with bridge.db.snapshot() as tx:
        photo = _photo(tx, actor, media_id)
        binary_id = str(photo.resource.get("content", {}).get("url", "")).removeprefix("Binary/")
        opened = open_binary(tx, bridge.vault, get_binary(tx, binary_id))
    with bridge.db.transaction() as tx:
        references = [photo.version_reference]
        patient_id = patient_of(photo.resource)
        governance.audit(tx, bridge, "read", actor, patient_id=patient_id, references=references, detail=detail)
    device = photo.resource.get("deviceName")
    known = next((one for one in bridge.settings.fields_of_view if one.device == device), None)
    field = {"millimetres": known.millimetres, "tolerance": known.tolerance} if known else None
    about = {"photo": media_id, "max_pixels": bridge.settings.max_pixels, "field_of_view": field}
    child = _CHILDREN[hash(media_id) % len(_CHILDREN)]
    answer, made = child.call(about | request, opened.read())
    return photo, answer, made


def _photo(tx: Connection, actor: Actor, media_id: str) -> Stored:
    photo = get_photo(tx, actor, media_id)
    if patient_of(photo.resource) is None:
        raise Unprocessable("this photo is nobody's yet; it can be measured once it is known whose it is")
    return photo


def _said(kept: Json) -> Json:
    """All that somebody said by keeping it, but when."""
    return {name: value for name, value in kept.items() if name not in ("id", "meta", "issued")}


def _made_from(tx: Connection, references: list[str]) -> list[Stored]:
    """Measurements that stand, made from any of these `Media/id`."""
    index = search_index.c
    ids = select(index.resource_id).where(
        index.resource_type == "Observation", index.param == "derived-from", index.value.in_(references)
    )
    found = find_where(tx, "Observation", observation.c.id.in_(ids), _FINAL) if references else []
    return [one for one in found if is_measurement(one.resource)]


def _photo_of(kept: Stored) -> str:
    """`Media/id`."""
    reference: str = kept.resource["derivedFrom"][0]["reference"]
    return reference.partition("/_history/")[0]


def _withdraw(tx: Connection, bridge: Bridge, actor: Actor, kept: Stored, why: str) -> Stored:
    at = bridge.now()
    changed = withdrawn(kept.resource, why, author=who(actor), at=at)
    stored = update_resource(tx, changed, at=at, expected_version=kept.version_id)
    sheets = hide_pictures(tx, bridge, kept.reference, reason="A measurement on it was withdrawn")
    tell(tx, bridge, actor, "update", [stored, *sheets], [Entity("revision", kept.version_reference)])
    return stored


def _tell(tx: Connection, bridge: Bridge, actor: Actor, case: str, made: Stored, source: Entity) -> None:
    """Provenance and AuditEvent, in the transaction of what they tell of."""
    at, by = bridge.now(), "performer" if case == "derive" else "enterer"
    statement = provenance(
        case,
        provenance_id=new_id(at),
        targets=[made.version_reference],
        agents=[Agent(by, who(actor)), Agent("assembler", SYSTEM.id)],
        entities=[source],
        recorded=at,
    )
    create(tx, statement, at=at)
    event, patient_id = "create" if case == "derive" else "update", patient_of(made.resource)
    governance.audit(tx, bridge, event, actor, patient_id=patient_id, references=[made.version_reference])
