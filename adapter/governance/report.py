"""Who saw what, told in four ways: as rows, as CSV, as FHIR, and in plain words for the patient it is about."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import tzinfo
from typing import Any, Literal

from adapter.db.engine import Database
from adapter.governance.log import Entry, Question, all_events, all_stored

COLUMNS = ("recorded", "who", "role", "user", "did", "outcome", "patient", "records", "query", "detail", "audit_event")
PLAIN_COLUMNS = ("when", "who", "what")
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")
_PLAIN = {  # Entry.did -> (what was done to one photo, what was done to no photo or to many)
    "Stored": ("added a photo of you", "added to your record"),
    "Viewed": ("looked at a photo of you", "looked at your record"),
    "Changed": ("changed what is written about a photo of you", "changed your record"),
    "Deleted": ("deleted a photo of you", "deleted a part of your record"),
    "Listed": ("looked at your list of photos", "looked at your list of photos"),
    "Exported": ("sent or took out a photo of you", "sent or took out a part of your record"),
    "Decided by consent": ("checked your consent for a photo", "checked your consent"),
    "Signed in": ("opened your record", "opened your record"),
    "Compared photos": ("compared photos of you", "compared photos of you"),
    "Aligned photos by hand": ("compared photos of you", "compared photos of you"),
    "Was refused": ("tried to see a photo of you and was refused", "tried to open your record and was refused"),
    "Broke the glass": ("opened your record in an emergency", "opened your record in an emergency"),
    "De-identified a photo": ("made a copy of a photo that does not show who you are",) * 2,
    "Read the audit log": ("looked up who has seen your photos",) * 2,
}
_BEHIND_THE_SCENES = ("updated your record automatically",) * 2


def rows(db: Database, asked: Question) -> Iterator[dict[str, Any]]:
    """One per AuditEvent, newest first, by `COLUMNS`."""
    for one in all_events(db, asked):
        outcome = "failed" if one.failed else "done"
        values = (one.at.isoformat(), one.who, one.role, one.user, one.did, outcome, one.patient_id)
        yield dict(zip(COLUMNS, (*values, " ".join(one.records) or None, one.query, one.detail, one.id), strict=True))


def plain_rows(
    db: Database, asked: Question, zone: tzinfo, shows: Literal["names", "roles"]
) -> Iterator[dict[str, Any]]:
    """For the patient: no ids, no codes, no addresses; staff by name or by what they are."""
    for one in all_events(db, asked):
        photos = {record.split("/")[1] for record in one.records if record.startswith("Media/")}
        to_one, otherwise = _PLAIN.get(one.did, _BEHIND_THE_SCENES)
        what = to_one if len(photos) == 1 else otherwise
        when = f"{one.at.astimezone(zone):%Y-%m-%d %H:%M}"
        yield dict(zip(PLAIN_COLUMNS, (when, _who(one, shows), what), strict=True))


def _who(entry: Entry, shows: Literal["names", "roles"]) -> str:
    if entry.role is None:
        return "the hospital's systems"
    article = "an" if entry.role[0] in "aeiou" else "a"
    return f"{entry.who} ({entry.role})" if shows == "names" else f"{article} {entry.role}"


def csv_lines(columns: tuple[str, ...], told: Iterator[dict[str, Any]]) -> Iterator[str]:
    """With a heading. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    yield _line(list(columns))
    for row in told:
        yield _line(["" if row[name] is None else str(row[name]) for name in columns])


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([f"'{cell}" if cell.startswith(_RUN_BY_SPREADSHEETS) else cell for cell in cells])
    return out.getvalue()


def fhir_bundle(db: Database, asked: Question) -> Iterator[str]:
    """A Bundle of type collection holding every AuditEvent exactly as stored, in pieces of text."""
    yield '{"resourceType":"Bundle","type":"collection"'
    opened = False
    for page in all_stored(db, asked):
        for one in page:
            yield f'{"," if opened else _ENTRIES}{{"resource":{one.body}}}'
            opened = True
    yield "]}" if opened else "}"  # an empty array is not FHIR


_ENTRIES = ',"entry":['
