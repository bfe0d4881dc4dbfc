"""Which of the photos another system tells of are here already: delivered there by us, or copied from there before.

By receipt, by our identifiers, by our mark in a text, and by the hash of the bytes: whichever the system kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection, select

from adapter.db.tables import delivery
from adapter.db.tables import media as media_table
from adapter.delivery import PhotoFound
from adapter.records import Stored, find_where
from adapter.records.confinement import same_patients
from mappings.external_photo import is_external, source_of
from mappings.terms import URI

_MARK = re.compile(r"\[DermBridge ([0-9a-f]{12})\.")
_IN_RECEIPT = ("Media", "DocumentReference")


@dataclass(frozen=True)
class KnownPhotos:
    """What is here of one patient, as it may be recognised in one destination."""

    ours: dict[str, Stored] = field(default_factory=dict)
    copies: dict[str, Stored] = field(default_factory=dict)

    def find_ours(self, found: PhotoFound) -> Stored | None:
        """The photo of ours that was delivered there as this."""
        place = found.id.partition("#")[0]
        marks = (f"mark {one}" for one in _MARK.findall(found.marks))
        named = (value for system, value in found.identifiers if system == URI)
        hashed = f"sha1 {found.sha1_b64}"
        keys = (place, place.rpartition("/instances/")[2], *named, *marks, hashed)
        return next((self.ours[key] for key in keys if key in self.ours), None)

    def find_copy(self, address: str) -> Stored | None:
        """The copy that was made here of what stands at this address."""
        return self.copies.get(address)

    def find_same(self, sha1_b64: str) -> Stored | None:
        """The photo of ours with exactly these bytes."""
        return self.ours.get(f"sha1 {sha1_b64}")


def known_photos(tx: Connection, patient_id: str, destination: str) -> KnownPhotos:
    """Reads as much as this patient has, whatever the archive holds."""
    photos = find_where(tx, "Media", media_table.c.patient == patient_id)
    known = KnownPhotos()
    for photo in photos:
        resource = photo.resource
        if is_external(resource):
            known.copies[source_of(resource)[0]] = photo
        elif resource.get("status") != "entered-in-error":
            known.ours.update(dict.fromkeys(_keys(photo), photo))
    by_id = {photo.id: photo for photo in photos}
    sent = select(delivery.c.media_id, delivery.c.receipt).where(
        delivery.c.patient.in_(same_patients(tx, [patient_id])),
        delivery.c.destination == destination,
        delivery.c.receipt.is_not(None),
    )
    for media_id, receipt in tx.execute(sent):
        if media_id in by_id and not is_external(by_id[media_id].resource):
            known.ours.update(dict.fromkeys(_places(receipt), by_id[media_id]))
    return known


def _keys(photo: Stored) -> list[str]:
    resource = photo.resource
    named = [one["value"] for one in resource.get("identifier", []) if one.get("system") == URI and "value" in one]
    marks = [f"mark {one.removeprefix('urn:uuid:').replace('-', '')[:12]}" for one in named]
    digest = resource.get("content", {}).get("hash")
    return [*named, *marks, *([f"sha1 {digest}"] if digest else [])]


def _places(receipt: str) -> list[str]:
    ids = orjson.loads(receipt).get("ids", {}) if receipt.startswith("{") else {}
    places = [f"{kind}/{ids[kind]}" for kind in _IN_RECEIPT if kind in ids]
    return [*places, *([ids["SOPInstanceUID"]] if "SOPInstanceUID" in ids else [])]
