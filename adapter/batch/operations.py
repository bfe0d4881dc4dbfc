"""What a job can do to one photo, and how that is taken back. Adding an operation is adding a row to `OPERATIONS`."""

from __future__ import annotations

from sqlalchemy import Connection

from adapter import delivery, governance
from adapter.access import SYSTEM, Actor, check_whose
from adapter.access.policy import check_ours, check_visible
from adapter.batch.comparing import ask_engine, check_priors, plan_comparison, tell_comparison
from adapter.batch.operation import Change, Operation, Parameters, Plan
from adapter.batch.refiling import check_refiling, needs_second_person, plan_move, refile_photo, undo_refiling
from adapter.bridge import Bridge
from adapter.compare import raise_labels_of_pictures
from adapter.errors import BadInput, Conflict, Unprocessable
from adapter.measure.measuring import follow_photo
from adapter.records import Resource, Stored, create, find, get, new_id, update_resource
from adapter.records.confinement import patient_of
from adapter.records.timeline import deliveries_by_media
from mappings.body_sites import BODY_SITES, SNOMED_LATERALITY, UnknownBodySite, get_body_site
from mappings.canonical_resources import codes_of
from mappings.capture_to_media import assign
from mappings.photos_to_picture import derivation_of
from mappings.provenance import Agent, Entity, provenance

_ASSIGNABLE = {"encounter": "visit", "body_site": "body site", "laterality": "side", "view": "view", "lesion": "lesion"}
_SENDABLE_AGAIN = frozenset({"failed", "withheld", "held", "confirmed"})


def _check_assign(bridge: Bridge, parameters: Parameters) -> None:
    if not parameters or not set(parameters) <= set(_ASSIGNABLE):
        raise BadInput(f"choose what to assign: one or more of {', '.join(sorted(_ASSIGNABLE))}")
    if site := parameters.get("body_site"):
        unlisted = "accept" if bridge.settings.accept_unlisted_body_sites else "refuse"
        try:
            get_body_site(site, unlisted=unlisted)  # type: ignore[arg-type]
        except UnknownBodySite as error:
            raise Unprocessable(str(error), issue_type="code-invalid") from None
    for name, known in (("laterality", SNOMED_LATERALITY), ("view", codes_of("photo-view"))):
        if (given := parameters.get(name)) and given not in known:
            raise Unprocessable(f"this {_ASSIGNABLE[name]} is not known; choose one of {', '.join(known)}")


def _plan_assign(tx: Connection, _bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Plan:
    media, changed = _assigned(tx, actor, media_id, parameters)
    if changed == media.resource:
        return Plan("already so", skips=True)
    touched = [n for n, value in parameters.items() if assign(media.resource, **{n: value}) != media.resource]
    words = [f"{_ASSIGNABLE[name]} becomes {_wording(tx, name, parameters[name])}" for name in touched]
    return Plan(", ".join(words))


def _wording(tx: Connection, name: str, value: str) -> str:
    """What is assigned, as people say it."""
    if name == "encounter":
        visit = find(tx, "Encounter", value.removeprefix("Encounter/"))
        start = visit.resource.get("period", {}).get("start", "")[:10] if visit else ""
        return f"that of {start}" if start else "the one without a date"
    if name == "body_site":
        return BODY_SITES[value].meaning if value in BODY_SITES else f"SNOMED {value}"
    return "the chosen one" if name == "lesion" else value


def _assign(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Change:
    media, changed = _assigned(tx, actor, media_id, parameters)
    if changed == media.resource:
        return Change("already so")
    return replace_media(tx, bridge, actor, media, changed, "assigned")


def _assigned(tx: Connection, actor: Actor, media_id: str, parameters: Parameters) -> tuple[Stored, Resource]:
    """The photo as it is and as it would be. Raises Unprocessable for a visit or lesion of somebody else."""
    media = photo_in_reach(tx, actor, media_id)
    check_ours(media.resource)
    subject = media.resource.get("subject", {}).get("reference")
    for name, resource_type, element in (("encounter", "Encounter", "subject"), ("lesion", "BodyStructure", "patient")):
        if reference := parameters.get(name):
            found = find(tx, resource_type, reference.removeprefix(f"{resource_type}/"))
            if found is None or found.resource.get(element, {}).get("reference") != subject:
                raise Unprocessable(f"this {_ASSIGNABLE[name]} does not belong to the photo's patient")
    return media, assign(media.resource, **parameters)


def replace_media(
    tx: Connection, bridge: Bridge, actor: Actor, media: Stored, changed: Resource, summary: str
) -> Change:
    """The next version of a photo's record, with Provenance, AuditEvent and deliveries, in one transaction.

    Whoever saves a comparison or a measurement of it at this moment is waited for: its labels reach that as well.
    Raises Unprocessable for a picture made of photos.
    """
    check_ours(media.resource)
    if derivation_of(media.resource):
        raise Unprocessable("this is a picture made of photos; correct these instead")
    bridge.db.lock(tx, f"patient:{patient_of(media.resource)}")
    at = bridge.now()
    stored = update_resource(tx, changed, at=at, expected_version=media.version_id)
    statement = provenance(
        "update",
        provenance_id=new_id(at),
        targets=[stored.version_reference],
        agents=[Agent("enterer", actor.id), Agent("assembler", SYSTEM.id)],
        entities=[Entity("revision", media.version_reference)],
        recorded=at,
    )
    create(tx, statement, at=at)
    governance.audit(tx, bridge, "update", actor, patient_id=patient_of(changed), references=[stored.version_reference])
    raise_labels_of_pictures(tx, bridge, stored)
    follow_photo(tx, bridge, actor, stored)
    delivery.deliver_media(tx, bridge, stored)
    return Change(summary, media.version_id, stored.version_id)


def _undo_assign(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, change: Change) -> Change:
    """Put the earlier content back as a new version. Raises Conflict when the photo was changed since."""
    media = photo_in_reach(tx, actor, media_id)
    if media.version_id != change.after:
        raise Conflict("this photo was changed again since; undo it by hand")
    before = get(tx, "Media", media_id, change.before).resource
    return replace_media(tx, bridge, actor, media, before, "put back")


def photo_in_reach(tx: Connection, actor: Actor, media_id: str) -> Stored:
    media = get(tx, "Media", media_id)
    check_whose(tx, actor, patient_of(media.resource))
    check_visible(actor, media.resource)
    return media


def _check_nothing(_bridge: Bridge, parameters: Parameters) -> None:
    if parameters:
        raise BadInput("this operation takes no parameters")


def _plan_redeliver(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, _parameters: Parameters) -> Plan:
    media = photo_in_reach(tx, actor, media_id)
    check_ours(media.resource)
    latest = deliveries_by_media(tx, [media.id])[media.id]
    if not delivery.is_bound(media.resource):
        return Plan("whose photo it is must be settled first", skips=True)
    names = [row.destination for row in latest if row.state in _SENDABLE_AGAIN]
    if not latest:
        names = delivery.destination_names(bridge)
    if not names:
        return Plan("on its way already" if latest else "no destination is configured", skips=True)
    return Plan(f"goes again to {', '.join(sorted(names))}")


def _redeliver(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, _parameters: Parameters) -> Change:
    media = photo_in_reach(tx, actor, media_id)
    latest = deliveries_by_media(tx, [media.id])[media.id]
    again = [row for row in latest if row.state in _SENDABLE_AGAIN]
    for row in again:
        delivery.send_again(tx, bridge, row.id)
    sent = len(again) if latest else len(delivery.deliver_media(tx, bridge, media))
    return Change(f"in line for {sent} destinations" if sent != 1 else "in line for one destination")


OPERATIONS: dict[str, Operation] = {
    "assign": Operation("u", _check_assign, _plan_assign, _assign, _undo_assign),
    "redeliver": Operation("u", _check_nothing, _plan_redeliver, _redeliver),
    "compare": Operation("r", check_priors, plan_comparison, tell_comparison, ahead=ask_engine),
    "refile": Operation("u", check_refiling, plan_move, refile_photo, undo_refiling, needs_second_person),
}
