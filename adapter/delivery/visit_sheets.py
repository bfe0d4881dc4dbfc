"""One PDF of each visit, kept as a derived Media and delivered like a photo; made again whenever the visit changes.

A visit that gained a photo, or whose photo was corrected, gives the sheet a new version, which takes the place of the
former one. A sheet that shows a photo of another visit or patient is entered in error and taken back; what is left of
the visit gets a sheet of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, exists, select

from adapter import consent, governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import media as media_table
from adapter.db.tables import work
from adapter.delivery.outbox import deliver_media, deliveries_of, take_back
from adapter.delivery.visits import sheets_wanted
from adapter.records import Stored, create, find, find_where, new_id
from adapter.records.binaries import find_rendition, open_binary
from adapter.records.confinement import patient_of
from adapter.records.pictures import Picture, enter_in_error, keep_picture
from adapter.records.vault import SealedBlob
from adapter.work import Work, finish, postpone
from mappings.capture_to_media import is_bound
from mappings.external_photo import is_external
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of, shown_on
from mappings.provenance import Agent, Entity, provenance

WRONG: Final = "A photo on the sheet is not of this visit"
_PDF: Final = "application/pdf"
_COMPLETED: Final = "completed|"
_SHARED: Final = ("modality", "bodySite", "encounter")  # with all photos of the visit
_PREPARED: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class Visit:
    """A visit as one look found it: its photos in the order taken, and the sheets that stand, by layout."""

    encounter: Stored | None
    patient: Stored | None
    photos: tuple[Stored, ...]
    permitted: tuple[Stored, ...]
    sheets: Mapping[str, Stored]

    @property
    def shown(self) -> Sequence[Stored]:
        """What goes on a sheet. Where consent permits none of them it shows all, and waits like a photo would."""
        return self.permitted or self.photos

    def is_current(self, sheet: Stored) -> bool:
        return set(shown_on(sheet.resource)) == {(one.id, one.version_id) for one in self.shown}

    def is_wrong(self, sheet: Stored) -> bool:
        return not {media_id for media_id, _ in shown_on(sheet.resource)} <= {one.id for one in self.photos}


Photos = Sequence[tuple[Mapping[str, Any], bytes | None]]


@dataclass(frozen=True)
class _Drawn:
    data: bytes
    sealed: SealedBlob


def make_sheets(bridge: Bridge, item: Work) -> None:
    """Handler of work kind "visit-sheet". Done again when the visit changed while its sheets were drawn."""
    encounter_id = item.payload["encounter"]
    layouts, at = sheets_wanted(bridge), bridge.now()
    with bridge.db.snapshot() as tx:
        visit = _look(tx, bridge, encounter_id)
        due = [name for name in layouts if visit.photos and not _stands(visit, name)]
        photos = [(one.resource, _rendition(tx, bridge, one)) for one in visit.shown] if due else []
        waits = any(jpeg is None and _is_prepared(tx, media["id"]) for media, jpeg in photos)
    if waits:
        with bridge.db.transaction() as tx:
            postpone(tx, item, due_at=at + _PREPARED, reason="a photo of this visit is being prepared")
        return
    drawn = {name: _draw(bridge, name, visit, photos, at) for name in due}
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, f"visit:{encounter_id}")
        if _look(tx, bridge, encounter_id) != visit:
            postpone(tx, item, due_at=at, reason="the visit changed meanwhile")
            return
        for former in visit.sheets.values():
            if visit.is_wrong(former):
                _withdraw(tx, bridge, former)
        for layout, names in layouts.items():
            if sheet := _settle(tx, bridge, visit, layout, drawn.get(layout)):
                _send(tx, bridge, sheet, names)
        finish(tx, item)


def _look(tx: Connection, bridge: Bridge, encounter_id: str) -> Visit:
    encounter = find(tx, "Encounter", encounter_id)
    patient_id = patient_of(encounter.resource) if encounter else None
    patient = find(tx, "Patient", patient_id) if patient_id else None
    c = media_table.c
    here = find_where(tx, "Media", c.encounter == encounter_id, c.status == _COMPLETED, order_by=(c.created, c.id))
    ours = [one for one in here if is_bound(one.resource) and not is_external(one.resource)]
    taken = [one for one in ours if derivation_of(one.resource) is None]
    photos = [one for one in taken if patient and patient_of(one.resource) == patient.id]
    decisions = consent.decide_each(tx, bridge, [(patient_id, one) for one in photos])
    permitted = [one for one, decision in zip(photos, decisions, strict=True) if decision.permit]
    sheets = {made: one for one in here if (made := derivation_of(one.resource)) in VISIT_SHEETS and made}
    return Visit(encounter, patient, tuple(photos), tuple(permitted), sheets)


def _stands(visit: Visit, layout: str) -> bool:
    sheet = visit.sheets.get(layout)
    return sheet is not None and visit.is_current(sheet)


def _rendition(tx: Connection, bridge: Bridge, photo: Stored) -> bytes | None:
    row = find_rendition(tx, photo.reference, "display")
    return open_binary(tx, bridge.vault, row).read() if row else None


def _is_prepared(tx: Connection, media_id: str) -> bool:
    """Whether its rendition is still to come."""
    to_come = exists().where(work.c.idempotency_key == f"render:{media_id}", work.c.state != "dead")
    return bool(tx.execute(select(to_come)).scalar_one())


def _draw(bridge: Bridge, layout: str, visit: Visit, photos: Photos, at: datetime) -> _Drawn:
    from mappings.visit_sheet import visit_sheet  # loads a decoder

    assert visit.patient and visit.encounter  # or it would have no photos
    patient, encounter = visit.patient.resource, visit.encounter.resource
    data = visit_sheet(layout, photos, patient=patient, encounter=encounter, at=at, zone=bridge.settings.zone)
    return _Drawn(data, bridge.vault.seal(data))


def _settle(tx: Connection, bridge: Bridge, visit: Visit, layout: str, drawn: _Drawn | None) -> Stored | None:
    """The sheet that stands from now on."""
    former = visit.sheets.get(layout)
    if former and visit.is_wrong(former):
        former = None
    return _keep(tx, bridge, visit, layout, drawn, former) if drawn else former


def _withdraw(tx: Connection, bridge: Bridge, sheet: Stored) -> None:
    hidden = enter_in_error(tx, sheet, at=bridge.now())
    patient_id, reference = patient_of(sheet.resource), hidden.version_reference
    governance.audit(tx, bridge, "update", SYSTEM, patient_id=patient_id, references=[reference], detail=WRONG)
    take_back(tx, bridge, sheet.id, reason=WRONG)


def _send(tx: Connection, bridge: Bridge, sheet: Stored, names: Sequence[str]) -> None:
    """To every destination this version is not in line for yet."""
    known = {row.destination for row in deliveries_of(tx, sheet.id) if row.media_version == sheet.version_id}
    for name in names:
        if name not in known:
            deliver_media(tx, bridge, sheet, only=name)


def _keep(tx: Connection, bridge: Bridge, visit: Visit, layout: str, drawn: _Drawn, former: Stored | None) -> Stored:
    at, patient_id = bridge.now(), patient_of(visit.shown[0].resource)
    bridge.vault.keep(tx, drawn.sealed, content_type=_PDF, patient_id=patient_id, at=at)
    picture = Picture(layout, drawn.data, _PDF, drawn.sealed.id)
    photos, operator = [one.resource for one in visit.shown], {"display": SYSTEM.display}
    sheet = keep_picture(tx, picture, photos, at=at, operator=operator, shared=_SHARED, renews=former)
    statement = provenance(
        "derive",
        provenance_id=new_id(at),
        targets=[sheet.version_reference],
        agents=[Agent("assembler", SYSTEM.id)],
        entities=[Entity("derivation", one.version_reference) for one in visit.shown],
        recorded=at,
    )
    create(tx, statement, at=at)
    governance.audit(tx, bridge, "photo-derived", SYSTEM, patient_id=patient_id, references=[sheet.version_reference])
    return sheet
