"""The operation "refile": photos to the right patient and visit, or to nobody until it is known whose they are."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from adapter import delivery, identity
from adapter.access import Actor
from adapter.batch.operation import Change, Parameters, Plan
from adapter.bridge import Bridge
from adapter.errors import BadInput, Unprocessable
from adapter.identity import Refiled, Refiling
from adapter.records import find
from adapter.records.confinement import patient_of

KNOWN = frozenset({"patient", "encounter", "reason", "verifier"})
LONGEST_REASON = 200


def check_refiling(_bridge: Bridge, parameters: Parameters) -> None:
    """`reason` always; `patient` and `encounter` are ids. No `patient`: nobody knows yet. Raises BadInput."""
    if not set(parameters) <= KNOWN:
        raise BadInput(f"a photo is moved by {', '.join(sorted(KNOWN))}")
    if not parameters.get("reason", "").strip():
        raise BadInput("say why the photos are moved; it is kept in the audit log, so name no patient")
    if len(parameters["reason"]) > LONGEST_REASON:
        raise BadInput(f"the reason may have at most {LONGEST_REASON} characters")
    if parameters.get("encounter") and not parameters.get("patient"):
        raise BadInput("choose the patient of the visit as well")


def plan_move(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Plan:
    media, changed = identity.plan_refiling(tx, bridge, actor, media_id, _refiling(parameters))
    if changed == media.resource:
        return Plan("already so", skips=True)
    held = [row.destination for row in delivery.deliveries_of(tx, media_id) if row.receipt and row.state != "retracted"]
    leaves = patient_of(media.resource) not in (None, patient_of(changed))
    taken = f", taken back from {', '.join(sorted(set(held)))}" if held and leaves else ""
    what = "will be moved to the patient chosen" if leaves else "will be given to the patient chosen"
    return Plan(f"{what}{taken}" if parameters.get("patient") else f"will be nobody's until it is settled{taken}")


def refile_photo(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Change:
    if not parameters.get("verifier") and needs_second_person(tx, bridge, [media_id]):
        raise Unprocessable("moving a photo from one patient to another needs a second person here")
    done = identity.refile(tx, bridge, actor, media_id, _refiling(parameters))
    if done is None:
        return Change("already so")
    summary = "moved" if done.stub_id else "given to the patient"
    return Change(
        summary if parameters.get("patient") else "put into quarantine", done.before, done.after, done.stub_id
    )


def undo_refiling(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, change: Change) -> None:
    """Raises Conflict when the photo was changed since."""
    if change.before is not None and change.after is not None:
        identity.unrefile(tx, bridge, actor, media_id, Refiled(change.before, change.after, change.stub_id))


def needs_second_person(tx: Connection, bridge: Bridge, media_ids: Sequence[str]) -> bool:
    """Where the settings ask for it, for photos that were filed under somebody."""
    if not bridge.settings.second_person:
        return False
    found = (find(tx, "Media", one) for one in media_ids)
    return any(media is not None and delivery.is_bound(media.resource) for media in found)


def _refiling(parameters: Parameters) -> Refiling:
    return Refiling(
        patient_id=parameters.get("patient") or None,
        reason=parameters["reason"].strip(),
        encounter_id=parameters.get("encounter") or None,
        verifier=parameters.get("verifier") or None,
    )
