"""One invented photo into a test system, end to end and without our records: sent, read back, taken back.

What an integration engineer does first with a new profile: `dermbridge connectors try`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from adapter import governance
from adapter.access.actor import SYSTEM
from adapter.bridge import Bridge
from adapter.delivery.destinations import Destinations
from adapter.delivery.rehearsal import grey_photo, invented_parcel, systems_of
from adapter.records import new_id
from connectors.contract import CannotLook, Connector, DeliveryError, Finding, Parcel, Receipt
from mappings.terms import URI


def try_destination(
    bridge: Bridge, name: str, *, patient: str, born: str, visit: str, photo: Path | None, keep: bool
) -> Iterator[Finding]:
    """Each step as it ends; `patient` and `visit` are `SYSTEM|VALUE`, or a value alone for all systems of the profile.

    Stops at the first error. Raises NotFound, Misconfigured.
    """
    destinations = Destinations(bridge)
    try:
        profile = destinations.profile(name)
        content = photo.read_bytes() if photo else grey_photo()
        parcel = _for(bridge, invented_parcel(name, content, systems_of(profile)), patient, born, visit)
        with bridge.db.transaction() as tx:
            governance.audit(tx, bridge, "configuration", SYSTEM, detail=f"an invented photo tried at {name}")
        connector = destinations.get(name)
        try:
            receipt = connector.send(parcel)
            yield Finding("sent", "ok", _told(receipt))
            evidence = connector.read_back(parcel, receipt)
            if evidence is None:
                yield Finding("read back", "warning", "nothing can be read back there", "Look for it there yourself.")
            elif evidence.matches:
                yield Finding("read back", "ok", f"{evidence.size} bytes, the same")
            else:
                remedy = "See what the destination made of it; what differs by design belongs into omit or set."
                yield Finding("read back", "error", "; ".join(evidence.differences), remedy)
            yield _sent_again(connector, parcel)
            yield from [] if keep else _taken_back(connector, parcel, receipt)
        except DeliveryError as error:
            wait = f" Again in {math.ceil(error.retry_after)} s." if error.retry_after else ""
            yield Finding("stopped here", "error", f"{error}{wait}", error.remedy)
    finally:
        destinations.close()


def _sent_again(connector: Connector, parcel: Parcel) -> Finding:
    """What a lost answer will lead to: found, sent again without a second effect, or left to a person."""
    try:
        connector.find(parcel)
    except CannotLook as error:
        if not error.may_resend:
            return Finding("sent again", "warning", "not tried: nothing can be looked for there", error.remedy)
    if connector.send(parcel).duplicate:
        return Finding("sent again", "ok", "known, and not filed twice")
    remedy = "Look that it is there once; if not, set resend or conditional_create as the destination really does."
    return Finding("sent again", "warning", "acknowledged again: whether it is there once, it does not say", remedy)


def _taken_back(connector: Connector, parcel: Parcel, receipt: Receipt) -> Iterator[Finding]:
    try:
        connector.retract(parcel, receipt, "Tried with an invented photo")
    except DeliveryError as error:
        yield Finding("taken back", "warning", str(error), f"Take it out by hand. {error.remedy}")
    else:
        yield Finding("taken back", "ok", "the destination was told that it was entered in error")


def _for(bridge: Bridge, parcel: Parcel, patient: str, born: str, visit: str) -> Parcel:
    """The invented photo as that patient's, and of this moment: a trial is not a replay of the one before it."""
    at = bridge.now()
    media = {**parcel.media, "identifier": [{"system": URI, "value": f"urn:uuid:{new_id(at)}"}]}
    moment = at.isoformat(timespec="seconds")
    media |= {"createdDateTime": moment, "issued": moment}
    who = {name: value for name, value in parcel.patient.items() if name != "birthDate"} | (
        {"birthDate": born} if born else {}
    )
    who["identifier"] = _numbers(patient, parcel.patient["identifier"])
    where = {**(parcel.encounter or {})}
    where["identifier"] = _numbers(visit, where.get("identifier", [])) if visit else []
    key = f"trial/{media['identifier'][0]['value']}/{parcel.idempotency_key.rpartition('/')[2]}"
    return replace(parcel, media=media, patient=who, encounter=where, idempotency_key=key)


def _numbers(given: str, known: list[dict[str, str]]) -> list[dict[str, str]]:
    system, _, value = given.rpartition("|")
    return [{"system": system, "value": value}] if system else [each | {"value": value} for each in known]


def _told(receipt: Receipt) -> str:
    ids = ", ".join(f"{kind} {value}" for kind, value in receipt.ids.items())
    return f"by {receipt.route}: {receipt.location or ids}"
