"""Versioned rows: an id is given once."""

from __future__ import annotations

import pytest

from adapter.bridge import Bridge
from adapter.errors import Conflict
from adapter.records import create, create_all, find


def test_an_id_that_is_taken_is_a_conflict_and_nothing_of_it_is_kept(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        create(tx, {"resourceType": "Patient", "id": "p1"}, at=bridge.now())
    with pytest.raises(Conflict, match="Patient with this id"), bridge.db.transaction() as tx:
        create_all(tx, [{"resourceType": "Patient", "id": one} for one in ("p2", "p1")], at=bridge.now())
    with bridge.db.snapshot() as tx:
        assert find(tx, "Patient", "p2") is None
