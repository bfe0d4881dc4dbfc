"""Every committed event gets exactly one leaf under a signed head: late ones, many writers at once, after a crash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, insert, select

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, audit_head, audit_leaf, audit_node, audit_tail
from adapter.governance import seal as sealing
from adapter.governance.merkle import leaf_hash, tree_hash
from adapter.governance.seal import is_due, seal, seal_all
from adapter.governance.signing import public_keys
from adapter.governance.standing import Standing, standing
from adapter.governance.tree import StoredTree, find_head
from adapter.records import TABLES, find_where
from tests.conftest import Clock


def write(bridge: Bridge, count: int = 1) -> None:
    for _ in range(count):
        with bridge.db.transaction() as tx:
            governance.audit(tx, bridge, "read", SYSTEM, patient_id="p1", references=["Media/m1/_history/1"])


def test_each_event_gets_the_leaf_of_its_very_text_in_order(bridge: Bridge) -> None:
    write(bridge, 5)
    head = seal_all(bridge)
    with bridge.db.snapshot() as tx:
        events = find_where(tx, "AuditEvent", order_by=TABLES["AuditEvent"].c.id)
        leaves = tx.execute(select(audit_leaf).order_by(audit_leaf.c.seq)).all()
        assert tx.execute(select(func.count()).select_from(audit_tail)).scalar_one() == 0
    assert [(row.seq, row.event_id) for row in leaves] == [(n, one.id) for n, one in enumerate(events)]
    assert [row.leaf_hash for row in leaves] == [leaf_hash(one.body.encode()) for one in events]
    assert head is not None
    assert (head.tree_size, head.root_hash) == (5, tree_hash([row.leaf_hash for row in leaves]))


def test_a_head_is_signed_with_the_key_that_is_published_and_no_other_statement_is(bridge: Bridge) -> None:
    write(bridge)
    head = seal(bridge)
    assert head is not None
    with bridge.db.snapshot() as tx:
        key = public_keys(tx)[head.key_id]
        assert find_head(tx) == head
    assert key.has_signed(head)
    assert not key.has_signed(type(head)(**{**vars(head), "tree_size": 2}))


def test_an_event_that_commits_late_under_an_older_id_still_gets_a_leaf(bridge: Bridge, clock: Clock) -> None:
    clock.advance(minutes=10)
    write(bridge)
    seal(bridge)
    clock.advance(minutes=-5)  # as if its transaction had begun before and took long
    write(bridge)
    assert (head := seal(bridge)) is not None
    with bridge.db.snapshot() as tx:
        leaves = tx.execute(select(audit_leaf.c.event_id).order_by(audit_leaf.c.seq)).scalars().all()
        assert set(leaves) == set(tx.execute(select(audit_event.c.id)).scalars())
    assert head.tree_size == 2
    assert leaves[0] > leaves[1]


def test_batches_continue_the_tree_as_if_it_had_been_built_at_once(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bridge.db.transaction() as tx:
        tail = [{"event_id": f"e{n:04}", "leaf_hash": leaf_hash(str(n).encode())} for n in range(1100)]
        tx.execute(insert(audit_tail), tail)
    monkeypatch.setattr(sealing, "BATCH_LEAVES", 170)
    assert (head := seal_all(bridge)) is not None
    assert head.root_hash == tree_hash([row["leaf_hash"] for row in tail])
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(audit_head)).scalar_one() == 7
        nodes = tx.execute(select(audit_node.c.level, audit_node.c.position)).all()
        tree = StoredTree(tx)
        for start, end in [(0, 1024), (256, 512), (1024, 1100), (512, 1100), (1099, 1100)]:
            assert tree.hash_of(start, end) == tree_hash([row["leaf_hash"] for row in tail[start:end]])
    assert sorted(map(tuple, nodes)) == [(8, 0), (8, 1), (8, 2), (8, 3), (9, 0), (9, 1), (10, 0)]


def test_writers_and_sealers_at_once_leave_each_event_one_leaf(bridge: Bridge) -> None:
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(write, bridge, 15) for _ in range(4)] + [pool.submit(seal_all, bridge)] * 2:
            done.result()
        seal_all(bridge)
    with bridge.db.snapshot() as tx:
        leaves = tx.execute(select(audit_leaf).order_by(audit_leaf.c.seq)).all()
        assert {row.event_id for row in leaves} == set(tx.execute(select(audit_event.c.id)).scalars())
        assert [row.seq for row in leaves] == list(range(60))
        head = find_head(tx)
    assert head is not None
    assert head.root_hash == tree_hash([row.leaf_hash for row in leaves])


def test_a_crash_before_the_commit_leaves_the_tail_as_it_was(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bridge, 3)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(sealing, "sign", lambda *_: 1 / 0)
        seal(bridge)
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(audit_tail)).scalar_one() == 3
        assert find_head(tx) is None
    assert (head := seal(bridge)) is not None
    assert head.tree_size == 3


def test_a_lonely_event_waits_no_longer_than_the_settings_allow(bridge: Bridge, clock: Clock) -> None:
    assert not is_due(bridge)
    write(bridge)
    assert is_due(bridge)
    seal(bridge)
    write(bridge)
    assert not is_due(bridge)
    clock.advance(seconds=bridge.settings.audit_seal_seconds)
    assert is_due(bridge)


def test_sealing_stops_when_the_log_was_cut_below(bridge: Bridge) -> None:
    write(bridge, 3)
    seal(bridge)
    with bridge.db.transaction() as tx:
        tx.execute(audit_leaf.delete().where(audit_leaf.c.seq == 1))
    write(bridge)
    with pytest.raises(LookupError, match="missing"):
        seal(bridge)


def test_how_the_log_stands_is_told(bridge: Bridge, clock: Clock) -> None:
    with bridge.db.snapshot() as tx:
        assert standing(tx) == Standing(None, 0, None, {})
    write(bridge, 2)
    head = seal(bridge)
    clock.advance(minutes=5)
    since = clock()
    write(bridge, 3)
    with bridge.db.snapshot() as tx:
        assert standing(tx) == Standing(head, 3, since, {})
