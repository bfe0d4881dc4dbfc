"""The ledger of deliveries: one row per Media version and destination, moved only along `TRANSITIONS`.

pending -> sending -> accepted -> confirmed      confirmed = read back from the destination and compared
sending -> unknown -> sending                    the answer was lost: looked for before it is sent again
withheld (consent), failed (a person must act), held (a person said wait), superseded (a newer version goes)
accepted | confirmed -> unknown                  the destination may have lost it: looked for again
accepted | confirmed -> retracting -> retracted  the destination had it under an identity that was wrong
retracting -> pending -> withheld                consent was withdrawn: it goes again when consent returns

A row with a receipt speaks of what the destination holds, whatever the row waits for: what was sent again and overtaken
is replaced or taken back like any other copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, insert, literal, not_, select, update

from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.many_rows import change_rows
from adapter.db.tables import circuit, delivery
from adapter.delivery.circuit import LEFT_ALONE, STOPPED
from adapter.delivery.destinations import known_profiles
from adapter.delivery.visits import goes_alone, renew_sheets, renew_sheets_of
from adapter.errors import Conflict, NotFound
from adapter.records import Stored, new_id
from adapter.work import IS_HELD, Work, cancel, cancel_all, enqueue, enqueue_all, holding
from connectors.contract import CANNOT_LOOK
from connectors.every_kind import Profile
from mappings.capture_to_media import is_bound
from mappings.external_photo import is_external
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of


class DeliveryState(StrEnum):
    PENDING = "pending"  # in line
    SENDING = "sending"  # a worker has it
    UNKNOWN = "unknown"  # sent, the answer was lost
    ACCEPTED = "accepted"  # the destination gave a receipt
    CONFIRMED = "confirmed"  # read back and compared: in the chart
    WITHHELD = "withheld"  # consent does not permit it now
    HELD = "held"  # a person stopped it
    FAILED = "failed"  # a person must change something
    SUPERSEDED = "superseded"  # a newer version of the Media goes instead
    RETRACTING = "retracting"  # being taken back
    RETRACTED = "retracted"  # taken back, and seen to be


S = DeliveryState
TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    S.PENDING: frozenset({S.SENDING, S.WITHHELD, S.HELD, S.SUPERSEDED, S.FAILED, S.ACCEPTED, S.RETRACTING}),
    S.SENDING: frozenset({S.ACCEPTED, S.PENDING, S.UNKNOWN, S.FAILED, S.SENDING, S.SUPERSEDED, S.WITHHELD}),
    S.UNKNOWN: frozenset({S.SENDING, S.ACCEPTED, S.FAILED, S.SUPERSEDED, S.UNKNOWN}),
    S.ACCEPTED: frozenset({S.CONFIRMED, S.FAILED, S.ACCEPTED, S.RETRACTING, S.SUPERSEDED, S.UNKNOWN}),
    S.CONFIRMED: frozenset({S.RETRACTING, S.SUPERSEDED, S.PENDING, S.UNKNOWN}),
    S.WITHHELD: frozenset({S.PENDING, S.SUPERSEDED, S.WITHHELD, S.RETRACTING}),
    S.HELD: frozenset({S.PENDING, S.SUPERSEDED, S.RETRACTING}),
    S.FAILED: frozenset({S.PENDING, S.SUPERSEDED, S.RETRACTING, S.ACCEPTED}),
    S.SUPERSEDED: frozenset({S.RETRACTING}),
    S.RETRACTING: frozenset({S.RETRACTED, S.RETRACTING, S.FAILED, S.PENDING, S.SENDING, S.SUPERSEDED}),
    S.RETRACTED: frozenset(),
}
SEEN = "seen by a person"  # Receipt.route where only somebody's word says that it is there
# Only a person can say whether it arrived (`looked`).
NEEDS_A_LOOK = and_(delivery.c.state == S.FAILED, func.coalesce(delivery.c.reason, "").startswith(CANNOT_LOOK))
# With a receipt: there, and nothing on its way that would say otherwise.
HOLDING = (S.ACCEPTED, S.CONFIRMED, S.FAILED, S.PENDING, S.WITHHELD, S.HELD)
UNFINISHED = (S.PENDING, S.UNKNOWN, S.WITHHELD, S.HELD, S.FAILED)


def destination_names(bridge: Bridge) -> list[str]:
    return [str(destination["name"]) for destination in bridge.settings.destinations]


def deliver_media(tx: Connection, bridge: Bridge, *photos: Stored, only: str | None = None) -> list[str]:
    """Put these versions in line for every destination, or for one; older versions not yet sent are superseded.

    Only bound photos of ours are delivered; for any other this does nothing. A picture made of photos goes only where
    it was asked for: to `only`, and from then on in each new version to where it went before. What shows a visit is
    made again. Returns the delivery ids.
    """
    renew_sheets(tx, bridge, photos)
    profiles = known_profiles(bridge.settings)
    names = [name for name in destination_names(bridge) if only in {None, name}]
    found = [(photo, patient_id) for photo in photos if (patient_id := _patient_of_bound(photo.resource))]
    due = [(*one, to) for one in found if (to := names if only else _wanted_by(tx, one[0], names, profiles))]
    if not due:
        return []
    at = bridge.now()
    _supersede_older(tx, [photo for photo, _, _ in due], at)
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(at),
            "media_id": photo.id,
            "media_version": photo.version_id,
            "patient": patient_id,
            "destination": destination,
            "state": DeliveryState.PENDING,
            "created_at": at,
            "updated_at": at,
        }
        for photo, patient_id, to in due
        for destination in to
    ]
    tx.execute(insert(delivery), rows)
    visits = {photo.id: photo.resource.get("encounter", {}).get("reference", "") for photo, _, _ in due}
    serialised = {name for name in names if name in profiles and profiles[name].limits.serialise == "encounter"}
    items = [_work(row, visits[row["media_id"]] if row["destination"] in serialised else "") for row in rows]
    enqueue_all(tx, items, at=at)
    return [row["id"] for row in rows]


def _wanted_by(tx: Connection, photo: Stored, names: list[str], profiles: Mapping[str, Profile]) -> list[str]:
    made = derivation_of(photo.resource)
    if made is None:
        alone = [name for name in names if goes_alone(profiles.get(name), photo.resource)]
        return alone if alone == names else [*alone, *_asked(tx, photo, set(names) - set(alone))]
    if made in VISIT_SHEETS:  # never as it was: made again, and sent then
        return []
    return _asked(tx, photo, names)


def _asked(tx: Connection, photo: Stored, names: Collection[str]) -> list[str]:
    """Where it went before: there each new version takes the place of the former."""
    return sorted({row.destination for row in deliveries_of(tx, photo.id)} & set(names))


def _patient_of_bound(media: dict[str, Any]) -> str | None:
    patient_id: str = media.get("subject", {}).get("reference", "").removeprefix("Patient/")
    return patient_id if patient_id and is_bound(media) and not is_external(media) else None


def _work(row: Mapping[str, Any], visit: str = "") -> Work:
    """`row`: id, media_id, destination, patient, state of a delivery.

    `visit` where the destination takes one photo of a visit at a time (`limits.serialise`). Versions of a photo go one
    after the other; what is taken out of one patient's record holds up only what goes into that record, so that a copy
    nobody can retract does not keep the photo from the right chart.
    """
    photo = f"deliver:{row['destination']}:{row['media_id']}"
    record = f"{photo}:{row['patient']}"
    in_order = (photo, f"deliver:{row['destination']}:{visit}") if visit else (photo,)
    return Work(
        kind="deliver",
        destination=row["destination"],
        idempotency_key=f"deliver:{row['id']}",
        payload={"delivery": row["id"]},
        order_keys=(record,) if row["state"] == S.RETRACTING else (record, *in_order),
    )


def _enqueue(tx: Connection, row: Row[Any], state: DeliveryState, at: datetime) -> None:
    enqueue(tx, _work({**row._mapping, "state": state}), at=at)


def _supersede_older(tx: Connection, photos: Sequence[Stored], at: datetime) -> None:
    version = {photo.id: photo.version_id for photo in photos}
    unfinished = select(delivery.c.id, delivery.c.media_id, delivery.c.media_version).where(
        delivery.c.state.in_(UNFINISHED),
        delivery.c.receipt.is_(None),
        delivery.c.state != DeliveryState.UNKNOWN,  # it may be there: its own attempt must find out first,
        not_(NEEDS_A_LOOK),  # or a person
    )
    for some in batches(version):
        rows = tx.execute(unfinished.where(delivery.c.media_id.in_(some)))
        older = [row.id for row in rows if row.media_version < version[row.media_id]]
        values = {"state": DeliveryState.SUPERSEDED, "updated_at": at, "reason": None, "remedy": None}
        for ids in batches(older):
            tx.execute(update(delivery).where(delivery.c.id.in_(ids)).values(**values))
            cancel_all(tx, [f"deliver:{delivery_id}" for delivery_id in ids])


_BY_ID = select(delivery).where(delivery.c.id == bindparam("asked"))


def get_delivery(tx: Connection, delivery_id: str) -> Row[Any]:
    row = tx.execute(_BY_ID, {"asked": delivery_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    return row


_BY_IDS = select(delivery).where(delivery.c.id.in_(bindparam("asked", expanding=True)))


def get_deliveries(tx: Connection, delivery_ids: Sequence[str]) -> list[Row[Any]]:
    """In the order asked. Raises NotFound."""
    found = {row.id: row for row in tx.execute(_BY_IDS, {"asked": delivery_ids})}
    if missing := [one for one in delivery_ids if one not in found]:
        raise NotFound(f"there is no delivery {missing[0]}")
    return [found[one] for one in delivery_ids]


def deliveries_of(tx: Connection, media_id: str) -> list[Row[Any]]:
    """Newest version first, then by destination. What waits for one that is stopped or left alone gives that reason:
    nothing looks at it meanwhile."""
    return list(tx.execute(_OF_PHOTO, {"photo": media_id}))


_STANDS_STILL = case(
    (circuit.c.held.is_not(None), literal(f"{STOPPED}: ") + circuit.c.held),
    (circuit.c.open_until.is_not(None), literal(f"{LEFT_ALONE}: ") + func.coalesce(circuit.c.reason, "")),
)
_REASON = case(
    (delivery.c.state.in_(("pending", "unknown", "retracting")), func.coalesce(_STANDS_STILL, delivery.c.reason)),
    else_=delivery.c.reason,
)
_OF_PHOTO = (
    select(*(column for column in delivery.c if column is not delivery.c.reason), _REASON.label("reason"))
    .outerjoin(circuit, circuit.c.destination == delivery.c.destination)
    .where(delivery.c.media_id == bindparam("photo"))
    .order_by(delivery.c.media_version.desc(), delivery.c.destination)
)


def mark(tx: Connection, delivery_id: str, state: DeliveryState, *, at: datetime, **values: Any) -> None:
    """Move one delivery along `TRANSITIONS`. Raises Conflict for any other move."""
    mark_all(tx, state, [{"id": delivery_id} | values], at=at)


def mark_all(tx: Connection, state: DeliveryState, rows: Sequence[Mapping[str, Any]], *, at: datetime) -> None:
    """`mark` for many: rows of `id` and the values, all with the same keys."""
    moved = {"state": state, "updated_at": at, "reason": None, "remedy": None}
    moves = [moved | {"moved" if name == "id" else name: value for name, value in row.items()} for row in rows]
    if change_rows(tx, _move(state), moves) != len(moves):
        which = f"one of {len(rows)} deliveries" if len(rows) > 1 else f"delivery {rows[0]['id']}"
        raise Conflict(f"{which} cannot become {state} from its present state; look at it again")


def begin(tx: Connection, delivery_id: str, found: DeliveryState, item: Work, *, at: datetime) -> bool:
    """Mark as being sent what is ours and in the state it was found in; False when somebody moved it meanwhile."""
    moved = {"moved": delivery_id, "state": S.SENDING, "updated_at": at, "reason": None, "remedy": None}
    return change_rows(tx, _BEGIN, [moved | {"found": found} | holding(item)]) == 1


@cache
def _move(state: DeliveryState) -> Any:
    sources = [literal(source) for source, targets in TRANSITIONS.items() if state in targets]
    return update(delivery).where(delivery.c.id == bindparam("moved"), delivery.c.state.in_(sources))


_BEGIN = _move(S.SENDING).where(delivery.c.state == bindparam("found"), IS_HELD)


def explain(tx: Connection, delivery_id: str, *, reason: str, remedy: str) -> None:
    """Say why a delivery waits; its state stays."""
    tx.execute(update(delivery).where(delivery.c.id == delivery_id).values(reason=reason, remedy=remedy))


# What a person's "try now" makes of a state; any other move is refused by `TRANSITIONS`. What may be there already is
# looked for again, never forgotten.
RESENT_AS = {state: state for state in (S.PENDING, S.UNKNOWN, S.ACCEPTED, S.RETRACTING)} | {S.SENDING: S.UNKNOWN}


def send_again(tx: Connection, bridge: Bridge, delivery_id: str) -> None:
    """A person says: try now. Raises NotFound, or Conflict when it is under way or superseded."""
    row, at = get_delivery(tx, delivery_id), bridge.now()
    waiting = cancel(tx, f"deliver:{delivery_id}")  # in its back-off, or dead: begin afresh
    if row.state == S.SENDING and not waiting:
        raise Conflict("this delivery is under way; look again in a moment")
    state = RESENT_AS.get(DeliveryState(row.state), S.PENDING)
    if state != row.state or state not in RESENT_AS:
        mark(tx, delivery_id, state, at=at)
    _enqueue(tx, row, state, at)


def look_again(tx: Connection, bridge: Bridge, row: Row[Any]) -> None:
    """It was there, and may not be any more: it is looked for, and sent where it is not. Raises Conflict."""
    cancel(tx, f"deliver:{row.id}")
    mark(tx, row.id, S.UNKNOWN, at=bridge.now())
    _enqueue(tx, row, S.UNKNOWN, bridge.now())


def start_retraction(tx: Connection, bridge: Bridge, row: Row[Any], *, reason: str) -> None:
    """Have the copy of one delivery taken back. Raises Conflict when the destination gave no receipt for it."""
    if row.receipt is None:
        raise Conflict(f"delivery {row.id} has no receipt, so there is nothing known to take back; look at it again")
    cancel(tx, f"deliver:{row.id}")
    mark(tx, row.id, S.RETRACTING, at=bridge.now(), reason=reason)
    _enqueue(tx, row, S.RETRACTING, bridge.now())


def take_back(tx: Connection, bridge: Bridge, media_id: str, *, reason: str) -> list[str]:
    """Retract a photo from every destination that holds it, as when it turns out to be nobody's here."""
    held = [row for row in deliveries_of(tx, media_id) if row.receipt and S.RETRACTING in TRANSITIONS[S(row.state)]]
    current = [row for row in held if row.state != S.SUPERSEDED]
    for row in current:
        start_retraction(tx, bridge, row, reason=reason)
    return [row.id for row in current]


def hold(tx: Connection, bridge: Bridge, delivery_id: str) -> None:
    """A person says: wait. Raises NotFound or Conflict when it has left already."""
    if not cancel(tx, f"deliver:{delivery_id}"):
        raise Conflict("this delivery is under way or finished; it cannot be held any more")
    mark(tx, delivery_id, DeliveryState.HELD, at=bridge.now(), reason="held by a person", remedy="send it again")


def release_withheld(tx: Connection, bridge: Bridge, patient_id: str) -> None:
    """Consent changed: everything withheld or being taken back for this patient is decided again."""
    renew_sheets_of(tx, bridge, patient_id)
    decided = delivery.c.state.in_((S.WITHHELD, S.RETRACTING))
    withheld = select(delivery.c.id).where(delivery.c.patient == patient_id, decided)
    for (delivery_id,) in tx.execute(withheld).all():
        send_again(tx, bridge, delivery_id)


def taking_back(bridge: Bridge) -> list[str]:
    """The destinations whose profile says `on_withdrawal = "retract"`."""
    return [name for name, profile in known_profiles(bridge.settings).items() if profile.on_withdrawal == "retract"]
