"""AuditEvents by form: what events of one kind by one actor share is built, serialised and derived once.

A form is an AuditEvent with blanks for its id, its time, the patient, the records and whatever else was told. Filled
in it gives to the letter the text, columns and index rows of an event built anew (tests/governance/test_form.py), for a
fraction of the work. What would not fit a blank is part of the form.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import orjson

from adapter.records import New, Resource, Stored, change
from adapter.records.search_parameters import columns_of, index_rows
from mappings.fhir_time import fhir_instant

ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
_MARK: Final = secrets.token_hex(12)  # so that nobody can tell us a blank
_BLANK: Final = re.compile(rf"{_MARK}\.(\w+)\.")
_REFERENCE: Final = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9.-]{1,64})(/_history/[A-Za-z0-9.-]{1,64})?")
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")


def _blank(name: str) -> str:
    return f"{_MARK}.{name}."


class Blanks:
    """What one event fills in: as it stands in the text, and as it is found by."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.found: dict[str, str] = {}

    def id(self, name: str, value: str | None) -> str | None:
        """The blank for it, or the value itself where it is no id."""
        if value is None or not _ID.fullmatch(value):
            return value
        self.text[name] = self.found[name] = value
        return _blank(name)

    def references(self, values: Sequence[str]) -> tuple[str, ...]:
        """Blanks behind the types, which decide what is derived; the index knows no versions."""
        return tuple(self._reference(f"record{n}", value) for n, value in enumerate(values))

    def _reference(self, name: str, value: str) -> str:
        match = _REFERENCE.fullmatch(value)
        if match is None:
            return value
        kind, found, version = match.groups("")
        self.text[name], self.found[name] = found + version, found
        return f"{kind}/{_blank(name)}"

    def words(self, name: str, value: str | None) -> str | None:
        if not value:
            return value
        self.text[name] = orjson.dumps(value).decode()[1:-1]
        return _blank(name)

    def query(self, value: str | None) -> str | None:
        if not value:
            return value
        self.text["query"] = base64.b64encode(value.encode()).decode()
        return _blank("query")


Pieces = list[str]
"""Text and names of blanks, by turns."""


def _filled(pieces: Pieces, values: Mapping[str, str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    return "".join([values[one] if n & 1 else one for n, one in enumerate(pieces)])


@dataclass(frozen=True)
class Form:
    """`text`, `columns` and `index` of an event, as far as blanks are in them in pieces."""

    text: Pieces
    columns: dict[str, Any]
    open_columns: dict[str, Pieces]
    index: list[tuple[str, Pieces]]

    @classmethod
    def of(cls, event: Resource) -> Self:
        """`event` as `mappings.audit_event.audit_event` makes it of blanks, without id, at ANY_TIME."""
        event = {**event, "id": _blank("id")}
        for one in event.get("entity", ()):
            if "query" in one:
                one["query"] = _blank("query")
        columns = columns_of(event)
        text = change(None, event, at=ANY_TIME).after.resource
        text["recorded"] = text["meta"]["lastUpdated"] = _blank("at")
        return cls(
            text=_BLANK.split(orjson.dumps(text).decode()),
            columns=columns,
            open_columns={
                name: _BLANK.split(value)
                for name, value in columns.items()
                if isinstance(value, str) and _MARK in value
            },
            index=[(row["param"], _BLANK.split(row["value"])) for row in index_rows(event)],
        )

    def filled(self, blanks: Blanks, event_id: str, at: datetime) -> New:
        text = _filled(self.text, {**blanks.text, "id": event_id, "at": fhir_instant(at)})
        recorded = at.replace(microsecond=at.microsecond // 1000 * 1000)
        columns = {**self.columns, "date": recorded}
        for name, pieces in self.open_columns.items():
            columns[name] = _filled(pieces, blanks.found)
        found = dict.fromkeys((param, _filled(pieces, blanks.found)) for param, pieces in self.index)
        about = {"resource_type": "AuditEvent", "resource_id": event_id}
        index = [{**about, "param": param, "value": value} for param, value in found]
        return New(Stored("AuditEvent", event_id, 1, at, text), columns, index)
