"""Rows inserted past SQLAlchemy are those it would have inserted, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import bindparam, literal, select, update
from sqlalchemy.exc import IntegrityError

from adapter.bridge import Bridge
from adapter.db.many_rows import change_rows, insert_rows
from adapter.db.tables import audit_event, audit_tail, search_index

AT = datetime(2026, 11, 23, 9, 30, 1, 234567, tzinfo=UTC)


def event(name: str, **more: object) -> dict[str, object]:
    body = f'{{"id":"{name}","text":"größer"}}'
    return {"id": name, "version_id": 1, "last_updated": AT, "deleted": False, "body": body, **more}


def test_every_kind_of_value_is_read_back_as_it_was(bridge: Bridge) -> None:
    rows = [event("a", date=AT, patient="p1"), event("b", date=None, patient=None)]
    with bridge.db.transaction() as tx:
        insert_rows(tx, audit_event, rows)
        insert_rows(tx, audit_tail, [{"event_id": "a", "leaf_hash": bytes(range(32))}])
    with bridge.db.snapshot() as tx:
        read = [row._mapping for row in tx.execute(select(audit_event).order_by(audit_event.c.id))]
        assert [{name: one[name] for name in rows[0]} for one in read] == rows
        assert read[0]["agent"] is None
        assert bytes(tx.execute(select(audit_tail.c.leaf_hash)).scalar_one()) == bytes(range(32))


def test_columns_may_come_in_any_order(bridge: Bridge) -> None:
    row = {"value": "Media/m1", "param": "entity", "resource_id": "a", "resource_type": "AuditEvent"}
    with bridge.db.transaction() as tx:
        insert_rows(tx, search_index, [row, row | {"value": "Media/m2"}])
        insert_rows(tx, search_index, [dict(reversed((row | {"value": "Media/m3"}).items()))])
    with bridge.db.snapshot() as tx:
        read = tx.execute(select(search_index.c.resource_id, search_index.c.value).order_by(search_index.c.value)).all()
    assert [tuple(one) for one in read] == [("a", f"Media/m{n}") for n in (1, 2, 3)]


def test_a_time_of_another_zone_is_kept_as_the_same_moment(bridge: Bridge) -> None:
    there = AT.astimezone(timezone(timedelta(hours=5)))
    with bridge.db.transaction() as tx:
        insert_rows(tx, audit_event, [event("a", date=there)])
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(audit_event.c.date)).scalar_one() == AT


def test_no_rows_are_no_statement_and_a_taken_key_is_told(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        insert_rows(tx, audit_event, [])
    with pytest.raises(IntegrityError), bridge.db.transaction() as tx:
        insert_rows(tx, audit_event, [event("a"), event("a")])


def test_a_statement_with_values_of_its_own_changes_what_it_says_and_counts_it(bridge: Bridge) -> None:
    kept = update(audit_event).where(
        audit_event.c.id == bindparam("asked"), audit_event.c.deleted == literal(value=False)
    )
    with bridge.db.transaction() as tx:
        insert_rows(tx, audit_event, [event("a"), event("b"), event("c", deleted=True)])
        assert change_rows(tx, kept, [{"asked": one, "patient": f"p{one}", "date": AT} for one in "abcd"]) == 2
        assert change_rows(tx, kept, []) == 0
    with bridge.db.snapshot() as tx:
        read = tx.execute(select(audit_event.c.patient, audit_event.c.date).order_by(audit_event.c.id)).all()
    assert [tuple(one) for one in read] == [("pa", AT), ("pb", AT), (None, None)]
