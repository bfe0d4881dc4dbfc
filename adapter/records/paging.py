"""Keyset paging: a page continues after the last row seen, so its cost is that of a page, however deep it lies.

Rows without a value in the first sort column come last, in an index range of their own. Page tokens are encrypted and
authenticated (AES-256-GCM, NIST SP 800-38D), because a link ends up in logs and histories and the search in it may
name a patient; they expire, and are bound to the resource type.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, false, or_, select, union_all

from adapter.db.tables import Instant
from adapter.errors import BadInput, Gone

Params = tuple[tuple[str, str], ...]
Condition = ColumnElement[bool]


@dataclass(frozen=True)
class SortKey:
    column: ColumnElement[Any]
    descending: bool = False

    @property
    def nullable(self) -> bool:
        """Also for a column of a subquery, which may not say."""
        return bool(getattr(self.column, "nullable", True))

    def reversed(self) -> SortKey:
        return SortKey(self.column, not self.descending)

    def clause(self) -> ColumnElement[Any]:
        return self.column.desc() if self.descending else self.column.asc()


@dataclass(frozen=True)
class Cursor:
    """A place between rows: the sort values of the row it stands at, the id last."""

    values: tuple[Any, ...]
    backward: bool = False


def place_of(row: Row[Any], order: Sequence[SortKey]) -> tuple[Any, ...]:
    """The sort values of a row that `fetch` gave."""
    return tuple(getattr(row, f"sort_{position}") for position in range(len(order)))


class PageCodec:
    """Turns (search, cursor) into a token for a link and back."""

    def __init__(self, secret: bytes, now: Callable[[], datetime], lifetime: timedelta = timedelta(minutes=30)) -> None:
        derive = HKDF(hashes.SHA256(), 32, salt=None, info=b"dermbridge page token 1")
        self._cipher = AESGCM(derive.derive(secret))
        self._lifetime = lifetime
        self.now = now

    def encode(self, resource_type: str, params: Params, cursor: Cursor | None) -> str:
        expires = int((self.now() + self._lifetime).timestamp())
        place = None if cursor is None else [cursor.values, cursor.backward]
        nonce = secrets.token_bytes(12)
        sealed = self._cipher.encrypt(nonce, orjson.dumps([expires, params, place]), resource_type.encode())
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def decode(self, resource_type: str, token: str, sort: Callable[[Params], Sequence[SortKey]]) -> tuple[Params, Any]:
        """(search, cursor); `sort` tells the sort keys of the search, by which the cursor's values are read.

        Raises BadInput for a token that is not ours for this type, Gone for one that has expired.
        """
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            expires, params, place = orjson.loads(self._cipher.decrypt(raw[:12], raw[12:], resource_type.encode()))
        except (binascii.Error, InvalidTag, ValueError):
            raise BadInput("this page link is not one of ours for this search; start the search again") from None
        if expires < self.now().timestamp():
            raise Gone("this page link has expired; start the search again", issue_type="expired")
        search = tuple((name, value) for name, value in params)
        if place is None:
            return search, None
        values = tuple(_read(value, key.column) for value, key in zip(place[0], sort(search), strict=True))
        return search, Cursor(values, place[1])


def _read(value: Any, column: ColumnElement[Any]) -> Any:
    return datetime.fromisoformat(value) if value is not None and isinstance(column.type, Instant) else value


def fetch(
    tx: Connection,
    statement: Select[Any],
    order: Sequence[SortKey],
    cursor: Cursor | None,
    *,
    count: int,
    branches: Sequence[Condition] = (),
) -> tuple[list[Row[Any]], bool]:
    """Up to `count` rows after (or before) the cursor, in the order asked for, and whether more lie beyond.

    The last sort key must be unique and never null. `branches` are conditions that exclude each other and of which
    one must hold; each is read in order by itself, which an index can serve, where their disjunction must be sorted.
    """
    statement = statement.add_columns(*(key.column.label(f"sort_{position}") for position, key in enumerate(order)))
    backward = cursor is not None and cursor.backward
    keys = [key.reversed() for key in order] if backward else list(order)
    rows: list[Row[Any]] = []
    for segment_keys, conditions in _segments(keys, cursor, nulls_low=tx.dialect.name == "sqlite"):
        wanted = count + 1 - len(rows)
        ordered = _in_order(statement.where(*conditions), segment_keys, wanted)
        if len(branches) > 1:
            unique = order[-1].column
            parts = (ordered.with_only_columns(unique).where(branch).subquery() for branch in branches)
            found = select(*statement.selected_columns).where(unique.in_(union_all(*map(select, parts))))
            ordered = _in_order(found, segment_keys, wanted)
        rows += tx.execute(ordered).all()
        if len(rows) > count:
            break
    page = rows[:count]
    return (page[::-1] if backward else page), len(rows) > count


def _in_order(statement: Select[Any], keys: Sequence[SortKey], count: int) -> Select[Any]:
    return statement.order_by(*(key.clause() for key in keys)).limit(count)


def _segments(
    keys: list[SortKey], cursor: Cursor | None, *, nulls_low: bool
) -> Iterator[tuple[list[SortKey], list[Condition]]]:
    """Ranges to read one after the other: rows with a first sort value, then those without (backward: the reverse)."""
    first = keys[0].column
    segments: list[tuple[list[SortKey], list[Condition], bool]]
    segments = [(keys, [first.is_not(None)], False), (keys[1:], [first.is_(None)], True)]
    if not keys[0].nullable:
        segments = [(keys, [], False)]
    elif cursor is not None and cursor.backward:
        segments.reverse()
    if cursor is None:
        yield from ((segment_keys, conditions) for segment_keys, conditions, _ in segments)
        return
    starts_absent = cursor.values[0] is None
    here = [absent for _, _, absent in segments].index(starts_absent)
    segment_keys, conditions, _ = segments[here]
    place = cursor.values[1:] if starts_absent else cursor.values
    bound = [] if starts_absent else [_bound(segment_keys[0], place[0])]
    yield segment_keys, [*conditions, *bound, _after(segment_keys, place, nulls_low)]
    yield from ((following_keys, following) for following_keys, following, _ in segments[here + 1 :])


def _bound(key: SortKey, value: Any) -> Condition:
    """Implied by `_after` among rows that have a value, and a range of the index where a disjunction is none."""
    bound: Condition = key.column <= value if key.descending else key.column >= value
    return bound


def _after(keys: Sequence[SortKey], values: Sequence[Any], nulls_low: bool) -> Condition:
    key, value = keys[0], values[0]
    beyond = _beyond(key, value, nulls_low)
    if len(keys) == 1:
        return beyond
    same = key.column.is_(None) if value is None else key.column == value
    return or_(beyond, and_(same, _after(keys[1:], values[1:], nulls_low)))


def _beyond(key: SortKey, value: Any, nulls_low: bool) -> Condition:
    """Strictly after `value` in the database's own order, which puts nulls lowest (SQLite) or highest (PostgreSQL)."""
    nulls_follow = nulls_low == key.descending
    if value is None:
        return false() if nulls_follow else key.column.is_not(None)
    further = key.column < value if key.descending else key.column > value
    return or_(further, key.column.is_(None)) if nulls_follow and key.nullable else further
