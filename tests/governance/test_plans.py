"""Neither a page of verification nor a question reads more of a large log than it needs.

SQLite plans without statistics, so that its plans are those of a log of any size; PostgreSQL is given a large one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.packed import pack
from adapter.governance import verification
from adapter.governance.log import Question, find_stored
from adapter.governance.seal import seal

EVENTS = 100_000
FEW = 20  # to them what a page is to 10 million
DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician")
_ID = "'01a20897-0000-7000-8000-' || lpad(to_hex(n), 12, '0')"
_AT = "timestamptz '2026-01-01' + n * interval '1 minute'"
_LARGE = (
    "INSERT INTO auditevent (id, version_id, last_updated, deleted, body, date, patient, agent)"
    f" SELECT {_ID}, 1, {_AT}, false, decode('{pack('{}').hex()}', 'hex'), {_AT},"
    " 'p' || n %% 500, 'Practitioner/d' || n %% 200",
    f"INSERT INTO search_index SELECT 'AuditEvent', {_ID}, 'entity', 'Media/m' || n %% 5000",
    f"INSERT INTO search_index SELECT 'AuditEvent', {_ID}, 'entity', 'Patient/p' || n %% 500",
    f"INSERT INTO audit_leaf SELECT n, {_ID}, '', ''",
)
_READS_ALL = re.compile(r"Seq Scan on (auditevent|search_index|audit_leaf)|^SCAN |TEMP B-TREE FOR ORDER BY")


@pytest.fixture
def log(bridge: Bridge) -> Bridge:
    """A large one on PostgreSQL."""
    with bridge.db.transaction() as tx:
        for n in range(3):
            governance.audit(tx, bridge, "read", DOCTOR, patient_id="p1", references=[f"Media/m{n}/_history/1"])
        if not bridge.db.is_sqlite:
            for statement in _LARGE:
                tx.exec_driver_sql(f"{statement} FROM generate_series(1000, {EVENTS}) AS n")
            for table in ("auditevent", "search_index", "audit_leaf"):
                tx.exec_driver_sql(f"ANALYZE {table}")
    seal(bridge)
    return bridge


def _plans(bridge: Bridge, act: Callable[[], object]) -> list[str]:
    """How the database goes about each statement of `act`."""
    statements: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, values))

    event.listen(bridge.db.engine, "before_cursor_execute", note)
    act()
    event.remove(bridge.db.engine, "before_cursor_execute", note)
    with bridge.db.snapshot() as tx:
        return [_plan(tx, *one) for one in statements]


def _plan(tx: Connection, statement: str, values: object) -> str:
    explain = "EXPLAIN QUERY PLAN" if tx.dialect.name == "sqlite" else "EXPLAIN"
    return "\n".join(str(row[-1]) for row in tx.exec_driver_sql(f"{explain} {statement}", values))  # type: ignore[arg-type]


def test_neither_a_page_of_verification_nor_a_question_reads_the_whole_log_or_sorts_it(log: Bridge) -> None:
    plans = _plans(log, lambda: verification._read_page(log.db, EVENTS // 2, EVENTS // 2 + FEW))
    assert len(plans) == 3
    questions = (
        Question(photo="m1"),
        Question(patient_ids=frozenset({"p1"})),
        Question(user="Practitioner/d1"),
        Question(),
    )
    for asked in questions:
        plans += _plans(log, lambda asked=asked: _ask(log, asked))  # type: ignore[misc]
    assert len(plans) >= 3 + 2 * len(questions)
    for plan in plans:
        assert not _READS_ALL.search(plan), plan


def _ask(log: Bridge, asked: Question) -> None:
    with log.db.snapshot() as tx:
        assert find_stored(tx, asked)[0]
