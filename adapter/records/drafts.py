"""Records read once, changed in memory, written together: how many small changes cost a few statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection

from adapter.db.engine import batches
from adapter.records.extraction import Resource, token_value
from adapter.records.rows import Change, Stored, change, find, records_with_index, write_all

Reference = tuple[str, str]
"""(resource type, id)"""


class Drafts:
    """Next versions not yet written, and what was read to make them, within one transaction.

    Reading sees the drafts. After `write` everything is read afresh, so other writers of the same transaction come
    before the first reading or after `write`.
    """

    def __init__(self, tx: Connection) -> None:
        self._tx = tx
        self._forget()

    def _forget(self) -> None:
        self._current: dict[Reference, Stored | None] = {}
        self._carriers: dict[tuple[str, str], dict[str, None]] = {}  # (type, token) -> ids, as in the database
        self._drafted: dict[tuple[str, str], dict[str, None]] = {}  # the same, by drafts
        self._changes: list[Change] = []

    def load(self, resource_type: str, identifiers: Iterable[tuple[str, str]]) -> None:
        """Read everything that carries one of the (system, value), in one statement for many."""
        tokens = {token_value(value, system) for system, value in identifiers}
        for some in batches(tokens - {token for kind, token in self._carriers if kind == resource_type}):
            self._carriers |= {(resource_type, token): {} for token in some}
            for token, stored in records_with_index(self._tx, resource_type, "identifier", some):
                self._carriers[resource_type, token][stored.id] = None
                self._current.setdefault((resource_type, stored.id), stored)

    def find_by_identifier(self, resource_type: str, system: str, value: str) -> list[Stored]:
        """Every current record of the type that carries the identifier, oldest first."""
        self.load(resource_type, [(system, value)])
        key = (resource_type, token_value(value, system))
        ids = sorted(self._carriers[key] | self._drafted.get(key, {}))
        found = [one for resource_id in ids if (one := self._current.get((resource_type, resource_id)))]
        return [one for one in found if (system, value) in identifiers_of(one.resource)]

    def find(self, resource_type: str, resource_id: str) -> Stored | None:
        """The current version or its draft."""
        key = (resource_type, resource_id)
        if key not in self._current:
            self._current[key] = find(self._tx, resource_type, resource_id)
        return self._current[key]

    def put(self, before: Stored | None, resource: Resource, *, at: datetime) -> Stored:
        """Draft the version after `before`, or the first one of a new record."""
        made = change(before, resource, at=at)
        self._changes.append(made)
        self._current[made.after.resource_type, made.after.id] = made.after
        for system, value in identifiers_of(resource):
            token = token_value(value, system)
            self._drafted.setdefault((made.after.resource_type, token), {})[made.after.id] = None
        return made.after

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What was drafted in the block is dropped when it raises."""
        current, count = dict(self._current), len(self._changes)
        try:
            yield
        except BaseException:
            self._current = current
            del self._changes[count:]
            raise

    def write(self) -> None:
        """Write the drafts, earlier versions of one record before later ones, and forget what was read."""
        waiting = self._changes
        while waiting:
            first: dict[str, Change] = {}
            for one in waiting:
                first.setdefault(one.after.reference, one)
            write_all(self._tx, list(first.values()))
            waiting = [one for one in waiting if first[one.after.reference] is not one]
        self._forget()


def identifiers_of(resource: Resource) -> list[tuple[str, str]]:
    """(system, value) of its identifiers; the system is "" when there is none."""
    kept = resource.get("identifier")
    if not isinstance(kept, list):  # a Bundle or a QuestionnaireResponse has a single one
        return []
    return [(one.get("system", ""), one["value"]) for one in kept if "value" in one]
