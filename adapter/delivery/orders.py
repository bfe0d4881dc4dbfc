"""What one attempt starts from: the delivery, its photo, patient, visit and consents, read in one short transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select

from adapter import consent
from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery.destinations import known_profiles
from adapter.delivery.outbox import HOLDING, SEEN, DeliveryState, mark, taking_back
from adapter.errors import NotFound
from adapter.records import Resource, Stored, find, find_all, get
from adapter.records.binaries import BinaryRow, find_binaries, get_binary, open_binary, opened_binary
from adapter.records.confinement import patient_of
from adapter.records.sealing import OpenBlob
from connectors.contract import DeliveryError, Parcel, Receipt, Retry
from connectors.outward import find_capture_identifier
from mappings.capture_to_media import is_bound
from mappings.comparison_to_observation import photos_of
from mappings.consent_decision import ConsentDecision
from mappings.measurement_to_observation import is_measurement
from mappings.photos_to_picture import observations_on, shown_on

S = DeliveryState
ACTIVE = frozenset({S.PENDING, S.SENDING, S.UNKNOWN, S.ACCEPTED, S.RETRACTING})
SUFFIX = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/heic": ".heic",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "application/pdf": ".pdf",
}


@dataclass(frozen=True)
class Order:
    """`state` is the one it was found in. `trace`: the destination may hold it already. `refusal`: what consent says
    against it, if anything. `newer`: a newer version waits behind, or the photo is nobody's now. `wanted`: it is this
    patient's current photo, so that only consent keeps it from there. `replaced`: deliveries it takes the place of."""

    row: Row[Any]
    state: DeliveryState
    media: Stored
    parcel: Parcel
    refusal: str | None
    newer: bool
    wanted: bool
    replaced: list[Row[Any]]

    @property
    def trace(self) -> bool:
        return self.state in {S.SENDING, S.UNKNOWN}

    @property
    def receipt(self) -> Receipt | None:
        return Receipt.from_json(self.row.receipt) if self.row.receipt else None


@dataclass(frozen=True)
class Known:
    """What is read at once for deliveries to one destination, by their ids or those of photo, patient and Binary."""

    photos: Mapping[str, Stored]
    newest: Mapping[str, int]
    decisions: Mapping[str, ConsentDecision]
    patients: Mapping[str, Stored]
    binaries: Mapping[str, BinaryRow]
    openings: Callable[[], Mapping[str, Callable[[], OpenBlob]]]


def prepare(tx: Connection, bridge: Bridge, rows: Sequence[Row[Any]]) -> list[Order]:
    """Decide what to do with claimed deliveries to one destination; of what is left out the rows say why."""
    active = [row for row in rows if row.state in ACTIVE]
    if not active:
        return []
    known = read_known(tx, bridge, active)
    return [order for row in active if (order := _prepared(tx, bridge, row, known))]


def _prepared(tx: Connection, bridge: Bridge, row: Row[Any], known: Known) -> Order | None:
    state = DeliveryState(row.state)
    if state is S.RETRACTING and _holds_newer(tx, row):
        mark(tx, row.id, S.SUPERSEDED, at=bridge.now(), reason="a newer version took its place")
        return None
    current = known.photos.get(row.media_id)
    newer = known.newest[row.media_id] > row.media_version or not _is_his(current)
    wanted = not newer and _is_filed_under(row.patient, current)
    if state is S.PENDING and row.receipt and not _is_his(current):
        state = S.RETRACTING
        mark(tx, row.id, state, at=bridge.now(), reason="it was to be sent again, but is no photo of this patient")
    if state is S.PENDING and not _may_leave(tx, bridge, row, current, newer):
        return None
    decision = known.decisions[row.id]
    if state is S.RETRACTING and wanted and decision.permit:
        state = S.UNKNOWN  # consent is back: is the copy still there?
    if state is S.PENDING and not decision.permit:
        remedy = "record the patient's consent; it is sent as soon as it permits"
        mark(tx, row.id, S.WITHHELD, at=bridge.now(), reason=decision.because, remedy=remedy)
        return None
    replaced = _replaced(tx, row) if row.media_version > 1 else []
    try:
        is_current = current is not None and current.version_id == row.media_version
        media = current if current and is_current else get(tx, "Media", row.media_id, row.media_version)
        parcel = parcel_of(tx, bridge, row, media, decision.consent_ids, replaced, known)
    except NotFound as missing:
        end = S.RETRACTING if state is S.RETRACTING else S.FAILED
        remedy = "the photo or its record is gone from here: look at its history"
        mark(tx, row.id, end, at=bridge.now(), reason=str(missing), remedy=remedy)
        return None
    refusal = None if decision.permit else decision.because
    return Order(row, state, media, parcel, refusal, newer, wanted, replaced)


def read_known(tx: Connection, bridge: Bridge, rows: Sequence[Any]) -> Known:
    """`rows`: of `delivery` to one destination, or what stands for them."""
    photos = find_all(tx, "Media", {row.media_id for row in rows})
    versions = tx.execute(_NEWEST, {"of": list({row.media_id for row in rows}), "there": rows[0].destination})
    pairs = [(row.patient, photos.get(row.media_id)) for row in rows]
    decisions = decide_for(tx, bridge, rows[0].destination, pairs)
    binaries = find_binaries(tx, [_binary_id(one.resource) for one in photos.values()])
    return Known(
        photos=photos,
        newest={row.media_id: row.newest for row in versions},
        decisions=dict(zip((row.id for row in rows), decisions, strict=True)),
        patients=find_all(tx, "Patient", {row.patient for row in rows}),
        binaries=binaries,
        openings=cache(partial(_openings, bridge, [one.blob_id for one in binaries.values()])),
    )


def _openings(bridge: Bridge, blob_ids: Sequence[str]) -> Mapping[str, Callable[[], OpenBlob]]:
    with bridge.db.snapshot() as tx:
        return bridge.vault.openings(tx, blob_ids)


def decide_for(
    tx: Connection, bridge: Bridge, destination: str, pairs: Sequence[tuple[str, Stored | None]]
) -> list[ConsentDecision]:
    """What consent says of each patient's photo, or of every photo that a picture shows: one that may not leave keeps
    all here. A destination that `requires_consent` is treated as at a site that does.
    """
    profile = known_profiles(bridge.settings).get(destination)
    if profile and profile.requires_consent:
        bridge = replace(bridge, settings=bridge.settings.model_copy(update={"consent_mode": "required"}))
    shown = [_shown_by(tx, media) for _, media in pairs]
    asked = [(patient_id, one) for (patient_id, _), photos in zip(pairs, shown, strict=True) for one in photos]
    decided = iter(consent.decide_each(tx, bridge, asked))
    return [_all_of(list(islice(decided, len(photos)))) for photos in shown]


def _shown_by(tx: Connection, media: Stored | None) -> list[Stored | None]:
    """The photos on a picture; a photo shows itself."""
    return [find(tx, "Media", one) for one, _ in shown_on(media.resource)] or [media] if media else [None]


def _all_of(decisions: list[ConsentDecision]) -> ConsentDecision:
    refused = next((one for one in decisions if not one.permit), None)
    if refused or len(decisions) == 1:
        return refused or decisions[0]
    consent_ids = dict.fromkeys(consent_id for one in decisions for consent_id in one.consent_ids)
    return ConsentDecision(True, decisions[0].because, tuple(consent_ids))


_NEWEST = (
    select(delivery.c.media_id, func.max(delivery.c.media_version).label("newest"))
    .where(delivery.c.media_id.in_(bindparam("of", expanding=True)), delivery.c.destination == bindparam("there"))
    .group_by(delivery.c.media_id)
)


def _holds_newer(tx: Connection, row: Row[Any]) -> bool:
    """Whether the very copy to be taken back was written anew meanwhile: the photo came back to this patient."""
    c, where = delivery.c, Receipt.from_json(row.receipt).location
    others = select(c.receipt).where(
        c.media_id == row.media_id,
        c.destination == row.destination,
        c.media_version > row.media_version,
        c.patient == row.patient,
        c.state.in_((S.ACCEPTED, S.CONFIRMED, S.FAILED)),
        c.receipt.is_not(None),
    )
    return where is not None and where in [Receipt.from_json(one).location for one in tx.execute(others).scalars()]


def _is_his(current: Stored | None) -> bool:
    """Whether the photo is filed under somebody, whom a newer delivery then names; if not, no copy may stay."""
    return current is None or (is_bound(current.resource) and current.resource.get("status") != "entered-in-error")


def _is_filed_under(patient_id: str, current: Stored | None) -> bool:
    resource = current.resource if current else {}
    return resource.get("status") == "completed" and resource["subject"].get("reference") == f"Patient/{patient_id}"


def may_not_stay(tx: Connection, bridge: Bridge, rows: Sequence[Row[Any]]) -> dict[str, str]:
    """Why copies that have just arrived are to be taken back, by delivery: what changed while they were sent."""
    bridge.db.lock(tx, *(f"consent:{row.patient}" for row in rows))
    photos = find_all(tx, "Media", {row.media_id for row in rows})
    reasons = {}
    if (destination := rows[0].destination) in taking_back(bridge):
        decisions = decide_for(tx, bridge, destination, [(row.patient, photos.get(row.media_id)) for row in rows])
        withdrawn = "while it was sent, the patient withdrew consent"
        reasons = {row.id: withdrawn for row, one in zip(rows, decisions, strict=True) if not one.permit}
    nobodys = "while it was sent, the photo turned out not to be this patient's"
    return reasons | {row.id: nobodys for row in rows if not _is_his(photos.get(row.media_id))}


def _may_leave(tx: Connection, bridge: Bridge, row: Row[Any], current: Stored | None, newer: bool) -> bool:
    """Whether the photo is still this patient's and wanted; if not, the delivery is ended here."""
    resource = current.resource if current else {}
    if newer or current is None or not is_bound(resource) or resource.get("status") != "completed":
        because = (
            "a newer version goes instead" if newer else "the photo is no longer a completed photo of a known patient"
        )
        end = S.SUPERSEDED if row.receipt is None else S.ACCEPTED  # until the newer one replaces it or takes it back
        mark(tx, row.id, end, at=bridge.now(), reason=because)
        return False
    if resource["subject"].get("reference") != f"Patient/{row.patient}":
        remedy = "nothing was sent; send the photo's current version instead"
        mark(tx, row.id, S.FAILED, at=bridge.now(), reason="the photo now belongs to another patient", remedy=remedy)
        return False
    return True


def _replaced(tx: Connection, row: Row[Any]) -> list[Row[Any]]:
    """Older deliveries of this photo that the destination gave a receipt for and still holds, newest first."""
    c = delivery.c
    return list(
        tx.execute(
            select(delivery)
            .where(
                c.media_id == row.media_id,
                c.destination == row.destination,
                c.media_version < row.media_version,
                c.receipt.is_not(None),
                c.state.in_(HOLDING),
            )
            .order_by(c.media_version.desc())
        )
    )


def parcel_of(
    tx: Connection,
    bridge: Bridge,
    row: Any,
    media: Stored,
    consent_ids: tuple[str, ...],
    replaced: list[Row[Any]],
    known: Known,
) -> Parcel:
    """The parcel of one delivery (a row of `delivery`, or what stands for one). Raises NotFound."""
    resource = media.resource
    attachment = resource["content"]
    binary_id = _binary_id(resource)
    binary = known.binaries.get(binary_id) or get_binary(tx, binary_id)
    patient = known.patients.get(row.patient) or get(tx, "Patient", row.patient)
    encounter = find(tx, *_split(resource["encounter"]["reference"])) if "encounter" in resource else None
    consents = [find(tx, "Consent", consent_id) for consent_id in consent_ids]
    anew = f"-{row.take_backs}" if row.take_backs else ""
    held = row.receipt or (replaced[0].receipt if replaced else None)
    return Parcel(
        delivery_id=row.id,
        idempotency_key=f"{row.media_id}/{row.media_version}{anew}/{row.destination}",
        media=resource,
        patient=patient.resource,
        encounter=encounter.resource if encounter else None,
        consents=tuple(each.resource for each in consents if each),
        observations=_told_of(tx, bridge, row, media),
        content=_reader(bridge, binary, known),
        content_type=binary.content_type,
        size=binary.size,
        sha256=binary.sha256,
        sha1_b64=attachment.get("hash", ""),
        filename=row.media_id + SUFFIX.get(binary.content_type, ""),
        previous=_known_there(held),
    )


def _known_there(held: str | None) -> Receipt | None:
    """The receipt, unless a person gave it: then nobody knows what to replace."""
    receipt = Receipt.from_json(held) if held else None
    return None if receipt and receipt.route == SEEN else receipt


def _told_of(tx: Connection, bridge: Bridge, row: Any, media: Stored) -> tuple[Resource, ...]:
    """The patient's measurements on a sheet as they are now, each naming its photo as it is known there; none where the
    profile takes none."""
    profile = known_profiles(bridge.settings).get(row.destination)
    if profile is None or not profile.observations:
        return ()
    found = [find(tx, "Observation", one) for one in observations_on(media.resource)]
    hers = [one.resource for one in found if one and patient_of(one.resource) == row.patient]
    return tuple(_naming_photo(tx, one) for one in hers if is_measurement(one))


def _naming_photo(tx: Connection, measured: Resource) -> Resource:
    (media_id, version), *_ = photos_of(measured)
    photo = find(tx, "Media", media_id)
    identifier = find_capture_identifier(photo.resource) if photo else None
    named = {"identifier": identifier} if identifier else {"display": "a photo"}
    return measured | {"derivedFrom": [{"reference": f"Media/{media_id}/_history/{version}"} | named]}


def _binary_id(media: Resource) -> str:
    return str(media["content"]["url"]).rpartition("/")[2]


def _split(reference: str) -> tuple[str, str]:
    kind, _, resource_id = reference.partition("/")
    return kind, resource_id


def _reader(bridge: Bridge, binary: BinaryRow, known: Known) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            if unseal := known.openings().get(binary.blob_id):
                return opened_binary(unseal(), binary).read()
            with bridge.db.snapshot() as tx:
                opened = open_binary(tx, bridge.vault, binary)
            return opened.read()
        except NotFound as missing:
            remedy = "The photo was destroyed here; nothing was sent."
            raise DeliveryError(str(missing), remedy=remedy, retry=Retry.NEVER) from missing

    return read
