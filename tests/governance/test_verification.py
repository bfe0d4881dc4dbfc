"""Whatever is changed in the database behind the service's back is found, and told where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, func, insert, select, update

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, audit_head, audit_leaf, audit_tail, search_index
from adapter.governance import verification
from adapter.governance.merkle import chain_hash, leaf_hash
from adapter.governance.seal import seal
from adapter.governance.signing import Head, sign
from adapter.governance.tree import StoredTree, find_head
from adapter.governance.verification import Verdict, verify

EVENTS, PER_HEAD = 30, 6


@pytest.fixture
def log(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """30 events under 5 heads, and 2 in the tail; read in pages of 7."""
    monkeypatch.setattr(verification, "PAGE", 7)
    for _ in range(EVENTS // PER_HEAD):
        _write(bridge, PER_HEAD)
        seal(bridge)
    _write(bridge, 2)
    yield bridge


def _write(bridge: Bridge, count: int) -> None:
    with bridge.db.transaction() as tx:
        for n in range(count):
            governance.audit(tx, bridge, "read", SYSTEM, patient_id="p1", references=[f"Media/m{n}/_history/1"])


def _told(verdict: Verdict) -> list[tuple[int | None, str]]:
    return [(one.seq, one.problem) for one in verdict.problems]


def _id_of(tx: Connection, seq: int) -> str:
    found: str = tx.execute(select(audit_leaf.c.event_id).where(audit_leaf.c.seq == seq)).scalar_one()
    return found


def _body_of(tx: Connection, event_id: str) -> str:
    found: str = tx.execute(select(audit_event.c.body).where(audit_event.c.id == event_id)).scalar_one()
    return found


def test_an_untouched_log_holds(log: Bridge) -> None:
    with log.db.snapshot() as tx:
        newest = find_head(tx)
        early = find_head(tx, at_most=12)
    assert newest is not None
    assert early is not None
    verdict = verify(log.db, noted=[early, newest])
    assert (verdict.events, verdict.heads, verdict.unsealed, verdict.problems) == (EVENTS, 5 + 2, 2, [])
    assert verdict.newest == newest


def test_a_tail_of_many_pages_is_read_to_its_end(log: Bridge) -> None:
    _write(log, 20)
    assert (verify(log.db).unsealed, verify(log.db).problems) == (22, [])
    with log.db.transaction() as tx:
        last = tx.execute(select(func.max(audit_tail.c.event_id))).scalar_one()
        tx.execute(delete(audit_event).where(audit_event.c.id == last))
    assert [one.event_id for one in verify(log.db).problems if one.problem.startswith("the event is missing")] == [last]


def test_what_is_told_and_sealed_meanwhile_is_no_finding(log: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = verification._check_tail

    def checked(tx: Connection, verdict: Verdict) -> int:
        found = waiting(tx, verdict)
        seal(log)
        _write(log, 1)
        return found

    monkeypatch.setattr(verification, "_check_tail", checked)
    assert (verify(log.db).problems, verify(log.db).events) == ([], EVENTS + 2)


def test_an_empty_log_holds(bridge: Bridge) -> None:
    verdict = verify(bridge.db)
    assert (verdict.events, verdict.found, verdict.newest) == (0, 0, None)


def flip_a_byte(tx: Connection) -> None:
    event_id = _id_of(tx, 13)
    body = _body_of(tx, event_id).replace('"outcome":"0"', '"outcome":"4"')
    tx.execute(update(audit_event).where(audit_event.c.id == event_id).values(body=body))


def delete_an_event(tx: Connection) -> None:
    tx.execute(delete(audit_event).where(audit_event.c.id == _id_of(tx, 13)))


def swap_two_events(tx: Connection) -> None:
    one, other = _id_of(tx, 13), _id_of(tx, 17)
    bodies = _body_of(tx, one), _body_of(tx, other)
    tx.execute(update(audit_event).where(audit_event.c.id == one).values(body=bodies[1]))
    tx.execute(update(audit_event).where(audit_event.c.id == other).values(body=bodies[0]))


def delete_an_event_and_its_leaf(tx: Connection) -> None:
    delete_an_event(tx)
    tx.execute(delete(audit_leaf).where(audit_leaf.c.seq == 13))


def alter_an_event_and_its_leaf(tx: Connection) -> None:
    flip_a_byte(tx)
    leaf = leaf_hash(_body_of(tx, _id_of(tx, 13)).encode())
    tx.execute(update(audit_leaf).where(audit_leaf.c.seq == 13).values(leaf_hash=leaf))


def rewrite_from_an_event_on(tx: Connection) -> None:
    """Everything that can be written without the key: event, leaf and the whole chain after it."""
    alter_an_event_and_its_leaf(tx)
    chain = tx.execute(select(audit_leaf.c.chain_hash).where(audit_leaf.c.seq == 12)).scalar_one()
    for seq in range(13, EVENTS):
        leaf = tx.execute(select(audit_leaf.c.leaf_hash).where(audit_leaf.c.seq == seq)).scalar_one()
        chain = chain_hash(chain, leaf, seq)
        tx.execute(update(audit_leaf).where(audit_leaf.c.seq == seq).values(chain_hash=chain))


def cut_the_newest_head(tx: Connection) -> None:
    tx.execute(delete(audit_head).where(audit_head.c.tree_size == EVENTS))


def cut_leaves_and_heads_but_not_events(tx: Connection) -> None:
    tx.execute(delete(audit_leaf).where(audit_leaf.c.seq >= 24))
    cut_the_newest_head(tx)


def cut_the_last_leaves(tx: Connection) -> None:
    tx.execute(delete(audit_leaf).where(audit_leaf.c.seq >= 28))


def forge_a_head(tx: Connection) -> None:
    signature = Ed25519PrivateKey.generate().sign(b"whatever")
    tx.execute(update(audit_head).where(audit_head.c.tree_size == 18).values(signature=signature))


def slip_an_event_in(tx: Connection) -> None:
    row = tx.execute(select(audit_event).limit(1)).one()
    tx.execute(insert(audit_event), {**row._mapping, "id": "slipped-in"})


def alter_the_tail(tx: Connection) -> None:
    event_id = tx.execute(select(audit_tail.c.event_id).order_by(audit_tail.c.event_id).limit(1)).scalar_one()
    tx.execute(update(audit_event).where(audit_event.c.id == event_id).values(body="{}"))


def delete_from_the_tail(tx: Connection) -> None:
    event_id = tx.execute(select(audit_tail.c.event_id).order_by(audit_tail.c.event_id).limit(1)).scalar_one()
    tx.execute(delete(audit_event).where(audit_event.c.id == event_id))


def hide_from_who_saw_this_photo(tx: Connection) -> None:
    """The event stays; the photo no longer leads to it."""
    tx.execute(
        delete(search_index).where(search_index.c.resource_id == _id_of(tx, 13), search_index.c.param == "entity")
    )


def name_another_photo(tx: Connection) -> None:
    here = (search_index.c.resource_id == _id_of(tx, 13), search_index.c.value.startswith("Media/"))
    tx.execute(update(search_index).where(*here).values(value="Media/another"))


def name_one_photo_more(tx: Connection) -> None:
    row = {"resource_type": "AuditEvent", "resource_id": _id_of(tx, 13), "param": "entity", "value": "Media/another"}
    tx.execute(insert(search_index), row)


def name_an_event_that_is_not(tx: Connection) -> None:
    row = {"resource_type": "AuditEvent", "resource_id": "not-there", "param": "entity", "value": "Media/m1"}
    tx.execute(insert(search_index), row)


def _alter_column(**values: Any) -> Callable[[Connection], None]:
    def alter(tx: Connection) -> None:
        tx.execute(update(audit_event).where(audit_event.c.id == _id_of(tx, 13)).values(**values))

    alter.__name__ = f"alter_{'_'.join(values)}"
    return alter


HIDDEN_BY: list[Callable[[Connection], None]] = [
    _alter_column(patient="p2"),
    _alter_column(agent="Practitioner/other"),
    _alter_column(date=datetime(2020, 1, 1, tzinfo=UTC)),
    _alter_column(last_updated=datetime(2020, 1, 1, tzinfo=UTC)),
    _alter_column(type=None),
    _alter_column(subtype=None),
    _alter_column(action="C"),
    _alter_column(outcome="8"),
    _alter_column(deleted=True),
    _alter_column(version_id=2),
]


def hide_in_the_tail(tx: Connection) -> None:
    event_id = tx.execute(select(audit_tail.c.event_id).order_by(audit_tail.c.event_id).limit(1)).scalar_one()
    tx.execute(delete(search_index).where(search_index.c.resource_id == event_id))


NOT_SEALED, BREAKS = "the event is not what was sealed", "the chain of hashes breaks here"
NOT_SIGNED_FOR = "the events up to this head are not those it was signed for"
NO_LEAF = "the event has no leaf; its leaf was removed, or the event was slipped in"
FOUND_BY = "what the event is found by was altered: "
NAMES = "the search index names this event, which is not in the log"
Found = list[tuple[int | None, str]]
TAMPERED: list[tuple[Callable[[Connection], None], Found]] = [
    (flip_a_byte, [(13, NOT_SEALED)]),
    (delete_an_event, [(13, "the event is missing")]),
    (swap_two_events, [(13, NOT_SEALED), (17, NOT_SEALED)]),
    (delete_an_event_and_its_leaf, [(13, "the leaves from here to 13 are missing"), (14, BREAKS), (None, NAMES)]),
    (alter_an_event_and_its_leaf, [(13, f"{FOUND_BY}outcome"), (13, BREAKS), (18, NOT_SIGNED_FOR)]),
    (
        rewrite_from_an_event_on,
        [(13, f"{FOUND_BY}outcome"), (18, NOT_SIGNED_FOR), (24, NOT_SIGNED_FOR), (30, NOT_SIGNED_FOR)],
    ),
    (cut_the_newest_head, [(24, "from here on no head covers the leaves; the newest heads were removed")]),
    (cut_leaves_and_heads_but_not_events, [(None, NO_LEAF)] * 6),
    (cut_the_last_leaves, [(None, NO_LEAF)] * 2 + [(28, "the leaves from here to 29 are missing")]),
    (forge_a_head, [(18, "this head was not signed with a key of this installation")]),
    (slip_an_event_in, [(None, NO_LEAF)]),
    (alter_the_tail, [(None, "the event is not what was written; it was not sealed yet")]),
    (delete_from_the_tail, [(None, "the event is missing; it was not sealed yet")]),
    (hide_in_the_tail, [(None, f"{FOUND_BY}entity; it was not sealed yet")]),
    (hide_from_who_saw_this_photo, [(13, f"{FOUND_BY}entity")]),
    (name_another_photo, [(13, f"{FOUND_BY}entity")]),
    (name_one_photo_more, [(13, f"{FOUND_BY}entity")]),
    (name_an_event_that_is_not, [(None, NAMES)]),
]


TAMPERED += [(alter, [(13, FOUND_BY + alter.__name__.removeprefix("alter_"))]) for alter in HIDDEN_BY]


@pytest.mark.parametrize(("tamper", "found"), TAMPERED, ids=[tamper.__name__ for tamper, _ in TAMPERED])
def test_tampering_is_found(
    log: Bridge, tamper: Callable[[Connection], None], found: list[tuple[int | None, str]]
) -> None:
    with log.db.transaction() as tx:
        tamper(tx)
    assert _told(verify(log.db)) == found


def _noted(bridge: Bridge) -> Head:
    with bridge.db.snapshot() as tx:
        head = find_head(tx)
    assert head is not None
    return head


def test_a_log_cut_back_as_a_whole_is_found_by_a_head_noted_outside(log: Bridge) -> None:
    noted = _noted(log)
    with log.db.transaction() as tx:
        gone = [_id_of(tx, seq) for seq in range(24, EVENTS)]
        tx.execute(delete(audit_event).where(audit_event.c.id.in_(gone)))
        tx.execute(delete(search_index).where(search_index.c.resource_id.in_(gone)))
        cut_leaves_and_heads_but_not_events(tx)
    assert verify(log.db).problems == []
    assert _told(verify(log.db, noted=[noted])) == [
        (24, "the log was cut: a head of 30 events was noted, now there are 24")
    ]


def test_a_log_rewritten_and_signed_again_is_found_by_a_head_noted_outside(log: Bridge) -> None:
    noted = _noted(log)
    with log.db.transaction() as tx:
        rewrite_from_an_event_on(tx)
        tx.execute(update(audit_event).where(audit_event.c.id == _id_of(tx, 13)).values(outcome="4|"))
        for size in (18, 24, 30):
            tree = StoredTree(tx).grown_to(size)
            chain = tx.execute(select(audit_leaf.c.chain_hash).where(audit_leaf.c.seq == size - 1)).scalar_one()
            head = sign(tx, log, Head(size, tree.root, chain, log.now()))
            tx.execute(update(audit_head).where(audit_head.c.tree_size == size).values(**vars(head)))
    assert verify(log.db).problems == []
    assert _told(verify(log.db, noted=[noted])) == [(30, NOT_SIGNED_FOR)]


def test_a_head_signed_with_a_key_that_was_since_removed_is_found(log: Bridge) -> None:
    stranger = replace(_noted(log), key_id="0" * 64)
    assert _told(verify(log.db, noted=[stranger])) == [(30, "this head was not signed with a key of this installation")]


def test_only_so_many_problems_are_told_one_by_one(log: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_PROBLEMS", 5)
    with log.db.transaction() as tx:
        tx.execute(update(audit_event).values(body="{}"))
        assert tx.execute(select(func.count()).select_from(audit_tail)).scalar_one() == 2
    verdict = verify(log.db)
    assert (verdict.found, len(verdict.problems)) == (EVENTS + 2, 5)


def test_several_processes_find_what_one_finds(log: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WORTH_PROCESSES", 2)
    with log.db.transaction() as tx:
        flip_a_byte(tx)
        name_another_photo(tx)
    alone, together = verify(log.db), verify(log.db, processes=2)
    assert together == alone
    assert _told(alone) == [(13, NOT_SEALED)]
