"""A saved comparison on a sheet: exported as PDF or PNG, or sent to the EHR as a picture by the photos' outbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from adapter import access, consent, delivery, governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.compare.reopening import Seen, get_saved, photos_seen
from adapter.compare.saved import tell, who
from adapter.delivery.destinations import known_profiles
from adapter.errors import BadInput, Conflict, Unavailable, Unprocessable
from adapter.measure.measuring import measurements_of
from adapter.records import Stored, get
from adapter.records.binaries import BinaryRow, find_rendition, get_binary, open_binary
from adapter.records.confinement import patient_of
from adapter.records.pictures import Picture, keep_picture, pictures_of
from mappings.comparison_sheet import Sheet, comparison_sheet, findings, sheet_to_pdf, sheet_to_picture
from mappings.external_photo import is_external
from mappings.fhir_time import fhir_instant, told_in
from mappings.photo_caption import patient_line
from mappings.photos_to_picture import derivation_of, observations_on, shown_on
from mappings.provenance import Entity

FORMS: Final = {"pdf": "application/pdf", "png": "image/png"}
ON_SHEET: Final = ("aligned", "change")  # beside the photos; the overlay in red and cyan is for screens
_IDENTIFIED_BY: Final = {"full": ("name", "number", "birthDate"), "number": ("number",), "none": ()}


@dataclass(frozen=True)
class SheetFile:
    filename: str
    content_type: str
    data: bytes


def export_sheet(bridge: Bridge, actor: Actor, observation_id: str, form: str) -> SheetFile:
    """The comparison as it stands, for whoever may export, where consent permits every photo on it.

    The disclosure is recorded before the sheet is made. Raises Forbidden, NotFound, Gone, BadInput, Unprocessable,
    Unavailable while a photo is being prepared.
    """
    access.check_right(actor, "export")
    with bridge.db.transaction() as tx:
        saved, seen = _permitted(tx, bridge, actor, observation_id)
        if form not in FORMS:
            raise BadInput(f"a comparison is exported as {' or '.join(FORMS)}")
        draw = _read(tx, bridge, actor, saved, seen, said=f"Exported by {actor.display}")
        photos = [f"Media/{one.id}/_history/{one.version}" for one in seen]
        measured = [one.version_reference for one in _measured(tx, actor, seen)]
        patient_id, references = patient_of(saved.resource), [saved.version_reference, *photos, *measured]
        governance.audit(tx, bridge, "export", actor, patient_id=patient_id, references=references, detail=form)
    sheet = draw()
    data = sheet_to_pdf(sheet, at=bridge.now()) if form == "pdf" else sheet_to_picture(sheet)
    return SheetFile(f"comparison-{saved.id}.{form}", FORMS[form], data)


def destinations_for(bridge: Bridge) -> list[str]:
    """Those whose profile takes comparisons."""
    return [name for name, profile in known_profiles(bridge.settings).items() if profile.comparisons]


def send_sheet(bridge: Bridge, actor: Actor, observation_id: str) -> list[str]:
    """Put the comparison in line for every destination `lacking` it; returns the delivery ids.

    What is sent is a derived Media, made again when a photo was corrected or something measured since: consent is
    decided again when it leaves, and it is looked for, read back and taken back like a photo, for instance when one of
    the measurements on it is withdrawn. Raises as `export_sheet`, Conflict when it is everywhere already.
    """
    access.check_scope(actor, "u", "Media")
    with bridge.db.snapshot() as tx:
        saved, seen = _permitted(tx, bridge, actor, observation_id)
        if any(one.media and is_external(one.media.resource) for one in seen):
            raise Unprocessable("another system's photo is on it, and that is never sent; export it instead")
        if not destinations_for(bridge):
            raise Unprocessable("no destination takes comparisons; set comparisons = true in its profile")
        draw = _read(tx, bridge, actor, saved, seen, said="Made for the record")
        if not lacking(tx, bridge, actor, saved, seen):
            raise Conflict("this comparison is in line or sent already; its deliveries say how far it is")
        told = _to_be_told(tx, actor, seen)
        is_made = _told(_sheet_of(tx, saved)) == told
    data = b"" if is_made else sheet_to_picture(draw(), format="JPEG")
    sealed = None if is_made else bridge.vault.seal(data)
    with bridge.db.transaction() as tx:
        patient_id = patient_of(saved.resource)
        bridge.db.lock(tx, f"patient:{patient_id}", f"sheet:{saved.id}")
        saved, seen = _permitted(tx, bridge, actor, observation_id)
        if _to_be_told(tx, actor, seen) != told:
            raise Conflict("a photo was corrected, or a measurement kept or withdrawn, at this moment; send it again")
        missing, picture = lacking(tx, bridge, actor, saved, seen), _sheet_of(tx, saved)
        if sealed is not None and _told(picture) != told:
            bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id=patient_id, at=bridge.now())
            drawn = Picture("sheet", data, "image/jpeg", sealed.id)
            picture = _keep(tx, bridge, actor, saved, seen, drawn, renews=picture)
        return [one for name in missing if picture for one in delivery.deliver_media(tx, bridge, picture, only=name)]


def lacking(tx: Connection, bridge: Bridge, actor: Actor, saved: Stored, seen: list[Seen]) -> list[str]:
    """The destinations that take comparisons and have not this one as its photos and their measurements are now."""
    sheet = _sheet_of(tx, saved)
    is_told = sheet is not None and _told(sheet) == _to_be_told(tx, actor, seen)
    there = {row.destination for row in delivery.deliveries_of(tx, sheet.id)} if sheet and is_told else set()
    return [name for name in destinations_for(bridge) if name not in there]


_Told = tuple[list[tuple[str, int]], list[str]]
"""What a sheet tells of: versions of the photos, ids of what was measured on them."""


def _told(sheet: Stored | None) -> _Told | None:
    return (shown_on(sheet.resource), observations_on(sheet.resource)[1:]) if sheet else None


def _to_be_told(tx: Connection, actor: Actor, seen: list[Seen]) -> _Told:
    versions = [(one.id, one.media.version_id) for one in seen if one.media]
    return versions, [one.id for one in _measured(tx, actor, seen)]


def _keep(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    saved: Stored,
    seen: list[Seen],
    drawn: Picture,
    *,
    renews: Stored | None,
) -> Stored:
    media, measured = [one.media.resource for one in seen if one.media], _measured(tx, actor, seen)
    note = " ".join(findings(saved.resource, [one.resource for one in measured], bridge.settings.zone))
    made_of = [one.version_reference for one in (saved, *measured)]
    by, at = who(actor), bridge.now()
    picture = keep_picture(tx, drawn, media, at=at, operator=by, sources=made_of, note=note, renews=renews)
    tell(tx, bridge, actor, "compare", [picture], [Entity("derivation", one) for one in made_of])
    return picture


def _sheet_of(tx: Connection, saved: Stored) -> Stored | None:
    return next((one for one in pictures_of(tx, saved.reference) if derivation_of(one.resource) == "sheet"), None)


def _permitted(tx: Connection, bridge: Bridge, actor: Actor, observation_id: str) -> tuple[Stored, list[Seen]]:
    saved = get_saved(tx, actor, observation_id)
    seen = photos_seen(tx, actor, saved)
    for number, one in enumerate(seen, 1):
        if one.media is None:
            raise Unprocessable(f"photo {number} of this comparison cannot leave. {one.said}")
        decision = consent.decide(tx, bridge, patient_of(saved.resource), media=one.media)
        if not decision.permit:
            raise Unprocessable(f"photo {number} of this comparison cannot leave: {decision.because}")
    return saved, seen


def _read(
    tx: Connection, bridge: Bridge, actor: Actor, saved: Stored, seen: list[Seen], *, said: str
) -> Callable[[], Sheet]:
    """Everything a sheet needs, read now; the pictures are decoded when it is called, outside the transaction."""
    photos = [(one.media.resource, *_bytes(tx, bridge, _display(tx, one.media))) for one in seen if one.media]
    drawn = {derivation_of(one.resource): one for one in pictures_of(tx, saved.reference)}
    pictures = [(name, *_bytes(tx, bridge, _content(tx, drawn[name]))) for name in ON_SHEET if name in drawn]
    patient = get(tx, "Patient", patient_of(saved.resource) or "").resource
    zone, site = bridge.settings.zone, bridge.settings.site_name
    at = told_in(fhir_instant(bridge.now()), zone)
    return partial(
        comparison_sheet,
        saved.resource,
        photos,
        pictures,
        measured=[one.resource for one in _measured(tx, actor, seen)],
        heading=patient_line(patient, _IDENTIFIED_BY[bridge.settings.sheet_identifies]),
        footer=f"{said} at {at}, {site}.",
        zone=zone,
    )


def _measured(tx: Connection, actor: Actor, seen: list[Seen]) -> list[Stored]:
    """What was measured on the photos, in their order."""
    return [kept for one in seen for kept in measurements_of(tx, actor, one.id)]


def _display(tx: Connection, media: Stored) -> BinaryRow:
    found = find_rendition(tx, media.reference, "display")
    if found is None:
        raise Unavailable("a photo of this comparison is being prepared; try again in a few seconds")
    return found


def _content(tx: Connection, picture: Stored) -> BinaryRow:
    return get_binary(tx, picture.resource["content"]["url"].removeprefix("Binary/"))


def _bytes(tx: Connection, bridge: Bridge, row: BinaryRow) -> tuple[bytes, str]:
    return open_binary(tx, bridge.vault, row).read(), row.content_type
