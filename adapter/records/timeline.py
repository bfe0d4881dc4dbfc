"""Reading a patient's photos for people: pages of a timeline, neighbours, sites, deliveries, what happened to one.

Every query is bounded by one patient or one page, whatever else the archive holds.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Subquery, case, func, select

from adapter.db.tables import Instant, delivery, encounter, media, search_index
from adapter.errors import BadInput
from adapter.records.paging import Cursor, SortKey, fetch, place_of
from adapter.records.rows import Stored, find_all, find_where
from adapter.records.search_parameters import TABLES

BY_GROUP = {"visit": ("-visit_at", "-taken_at", "-id"), "site": ("site", "-taken_at", "-id")}
Conditions = Sequence[ColumnElement[bool]]
_NEWEST_FIRST = ("-taken_at", "-id")


@dataclass(frozen=True)
class PhotoPage:
    """Some photos in order; `next` is the token of the following page."""

    photos: list[Stored]
    next: str | None


def photos_of(
    tx: Connection,
    patient_id: str,
    *,
    group: str,
    site: str | None = None,
    after: str | None = None,
    count: int = 60,
    only: Conditions = (),
) -> PhotoPage:
    """A page of the patient's photos, newest first, visit by visit or site by site (`group`); `site` is a token column
    value (``code|system``), `only` what the reader may see. Raises BadInput for a token that is not ours."""
    placed = _placed(patient_id, only)
    order = _order(placed, BY_GROUP[group])
    statement = select(placed.c.id)
    if site is not None:
        statement = statement.where(placed.c.site == site)
    cursor = _open_cursor(after, order) if after else None
    rows, more = fetch(tx, statement, order, cursor, count=count)
    photos = find_all(tx, "Media", [row.id for row in rows])
    return PhotoPage([photos[row.id] for row in rows], _cursor_token(rows[-1], order) if more else None)


def count_by_site(tx: Connection, patient_id: str, *, only: Conditions = ()) -> list[tuple[str | None, int]]:
    """(site token, photos) of a patient, most photos first."""
    statement = select(media.c.site, func.count()).where(*_of(patient_id), *only).group_by(media.c.site)
    return sorted(((row[0], row[1]) for row in tx.execute(statement)), key=lambda pair: (-pair[1], pair[0] or ""))


def neighbours(tx: Connection, photo: Stored, *, only: Conditions = ()) -> tuple[str | None, str | None]:
    """Ids of the photos taken just before and just after this one, of the same patient."""
    patient_id = tx.execute(select(media.c.patient).where(media.c.id == photo.id)).scalar_one()
    if patient_id is None:
        return None, None
    placed = _placed(patient_id, only)
    taken_at = tx.execute(select(placed.c.taken_at).where(placed.c.id == photo.id)).scalar_one_or_none()
    place, order, ids = (taken_at, photo.id), _order(placed, _NEWEST_FIRST), select(placed.c.id)
    earlier, _ = fetch(tx, ids, order, Cursor(place), count=1)
    later, _ = fetch(tx, ids, order, Cursor(place, backward=True), count=1)
    return (earlier[0].id if earlier else None), (later[0].id if later else None)


def deliveries_by_media(tx: Connection, media_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The latest delivery to each destination, per photo, in one query."""
    statement = select(delivery).where(delivery.c.media_id.in_(media_ids)).order_by(delivery.c.media_version)
    latest: dict[tuple[str, str], Row[Any]] = {(row.media_id, row.destination): row for row in tx.execute(statement)}
    found: dict[str, list[Row[Any]]] = {media_id: [] for media_id in media_ids}
    for (media_id, _), row in sorted(latest.items()):
        found[media_id].append(row)
    return found


def records_about(tx: Connection, resource_type: str, param: str, reference: str, *, limit: int) -> list[Stored]:
    """The latest Provenance or AuditEvent rows that point at `reference` (ids rise with time), newest first."""
    pointing = select(search_index.c.resource_id).where(
        search_index.c.resource_type == resource_type,
        search_index.c.param == param,
        search_index.c.value == reference,
    )
    column = TABLES[resource_type].c.id
    newest = pointing.order_by(search_index.c.resource_id.desc()).limit(limit)
    return find_where(tx, resource_type, column.in_(newest), order_by=column.desc(), limit=limit)


def latest_change(tx: Connection, patient_id: str) -> tuple[datetime | None, datetime | None]:
    """When a photo and when a delivery of this patient last changed: what a page compares to know it is current."""
    photo = select(func.max(media.c.last_updated)).where(media.c.patient == patient_id)
    sent = select(func.max(delivery.c.updated_at)).where(delivery.c.patient == patient_id)
    return tx.execute(photo).scalar(), tx.execute(sent).scalar()


_ENTERED_IN_ERROR = "entered-in-error|"


def _of(patient_id: str) -> tuple[Any, ...]:
    """Its photos: neither notes of mistakes nor pictures made of photos."""
    shown = (media.c.deleted.is_(False), media.c.status != _ENTERED_IN_ERROR, media.c.derivation.is_(None))
    return (media.c.patient == patient_id, *shown)


def _placed(patient_id: str, only: Conditions = ()) -> Subquery:
    """A patient's photos, each with the time it stands at: when it was taken, else its visit, else when it came.

    `visit_at` keeps the photos of a visit together, at the latest of them. Both cost what the patient has, no more.
    """
    taken_at = func.coalesce(media.c.created, encounter.c.date, media.c.issued, media.c.last_updated)
    own = (
        select(media.c.id, media.c.site, media.c.encounter, taken_at.label("taken_at"))
        .select_from(media.outerjoin(encounter, encounter.c.id == media.c.encounter))
        .where(*_of(patient_id), *only)
        .subquery()
    )
    latest = func.max(own.c.taken_at).over(partition_by=own.c.encounter)
    visit_at = case((own.c.encounter.is_(None), own.c.taken_at), else_=latest)
    return select(own, visit_at.label("visit_at")).subquery()


def _order(placed: Subquery, names: Sequence[str]) -> list[SortKey]:
    return [SortKey(placed.c[name.removeprefix("-")], name.startswith("-")) for name in names]


def _cursor_token(row: Row[Any], order: Sequence[SortKey]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place_of(row, order))).rstrip(b"=").decode()


def _open_cursor(token: str, order: Sequence[SortKey]) -> Cursor:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        pairs = zip(values, order, strict=True)
        return Cursor(tuple(_read(value, key) for value, key in pairs))
    except (binascii.Error, ValueError, TypeError):
        raise BadInput("this page link is not one of ours; open the patient again") from None


def _read(value: Any, key: SortKey) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("a place holds text")
    return datetime.fromisoformat(value) if value is not None and isinstance(key.column.type, Instant) else value
