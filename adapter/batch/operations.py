"""What a job can do to one photo, and how that is taken back. Adding an operation is adding a row to `OPERATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from adapter import delivery, governance
from adapter.access import SYSTEM, Actor, check_patient
from adapter.bridge import Bridge
from adapter.errors import BadInput, Conflict, Unprocessable
from adapter.records import Resource, Stored, create, find, get, new_id, update_resource
from mappings.body_sites import UnknownBodySite, get_body_site
from mappings.capture_to_media import assign
from mappings.provenance import Agent, Entity, provenance

Parameters = dict[str, Any]
_ASSIGNABLE = {"encounter", "body_site", "laterality", "view", "lesion"}


@dataclass(frozen=True)
class Change:
    """What one item did: a sentence for the page, and the version before and after where undo is possible."""

    summary: str
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True)
class Operation:
    """`scope` is the letter needed on Media; `check` refuses parameters before anything starts."""

    scope: str
    check: Callable[[Bridge, Parameters], None]
    apply: Callable[[Connection, Bridge, Actor, str, Parameters], Change]
    can_undo: bool = False


def _check_assign(bridge: Bridge, parameters: Parameters) -> None:
    if not parameters or not set(parameters) <= _ASSIGNABLE:
        raise BadInput(f"choose what to assign: one or more of {', '.join(sorted(_ASSIGNABLE))}")
    if site := parameters.get("body_site"):
        unlisted = "accept" if bridge.settings.accept_unlisted_body_sites else "refuse"
        try:
            get_body_site(site, unlisted=unlisted)  # type: ignore[arg-type]
        except UnknownBodySite as error:
            raise Unprocessable(str(error), issue_type="code-invalid") from None


def _assign(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Change:
    media = photo_in_reach(tx, actor, media_id)
    subject = media.resource.get("subject", {}).get("reference")
    if encounter := parameters.get("encounter"):
        visit = find(tx, "Encounter", encounter.removeprefix("Encounter/"))
        if visit is None or visit.resource.get("subject", {}).get("reference") != subject:
            raise Unprocessable("this visit does not belong to the photo's patient")
    changed = assign(media.resource, **parameters)
    if changed == media.resource:
        return Change("already so")
    return replace_media(tx, bridge, actor, media, changed, "assigned")


def replace_media(
    tx: Connection, bridge: Bridge, actor: Actor, media: Stored, changed: Resource, summary: str
) -> Change:
    """The next version of a photo's record, with Provenance, AuditEvent and deliveries, in one transaction."""
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
    patient_id = changed.get("subject", {}).get("reference", "").removeprefix("Patient/") or None
    governance.audit(tx, bridge, "update", actor, patient_id=patient_id, references=[stored.version_reference])
    delivery.deliver_media(tx, bridge, stored)
    return Change(summary, media.version_id, stored.version_id)


def undo_change(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, change: Change) -> Change:
    """Put the earlier content back as a new version. Raises Conflict when the photo was changed since."""
    media = photo_in_reach(tx, actor, media_id)
    if media.version_id != change.after:
        raise Conflict("this photo was changed again since; undo it by hand")
    before = get(tx, "Media", media_id, change.before).resource
    return replace_media(tx, bridge, actor, media, before, "put back")


def photo_in_reach(tx: Connection, actor: Actor, media_id: str) -> Stored:
    media = get(tx, "Media", media_id)
    check_patient(actor, media.resource.get("subject", {}).get("reference", "").removeprefix("Patient/") or None)
    return media


def _check_nothing(_bridge: Bridge, parameters: Parameters) -> None:
    if parameters:
        raise BadInput("this operation takes no parameters")


def _redeliver(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, _parameters: Parameters) -> Change:
    media = photo_in_reach(tx, actor, media_id)
    states: dict[str, Any] = {}
    for row in delivery.deliveries_of(tx, media.id):
        states.setdefault(row.destination, row)
    sent = 0
    for row in states.values():
        if row.state in ("failed", "withheld", "held", "confirmed"):
            delivery.send_again(tx, bridge, row.id)
            sent += 1
    if not states:
        sent = len(delivery.deliver_media(tx, bridge, media))
    return Change(f"in line for {sent} destinations" if sent != 1 else "in line for one destination")


OPERATIONS: dict[str, Operation] = {
    "assign": Operation("u", _check_assign, _assign, can_undo=True),
    "redeliver": Operation("u", _check_nothing, _redeliver),
}
