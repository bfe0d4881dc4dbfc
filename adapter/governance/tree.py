"""The tree as stored: hashes over ranges of leaves, each from a few rows however long the log is."""

from __future__ import annotations

from sqlalchemy import Connection, select

from adapter.db.tables import audit_head, audit_leaf, audit_node
from adapter.governance.merkle import CompactRange, node_hash, peak_ranges, split, tree_hash
from adapter.governance.signing import Head

LOCK = "audit-log"
"""Who holds this alone makes the log longer."""
STORED_LEVEL = 8
"""Nodes are kept from this level on; below it the (at most 256) leaves are read."""

_KNOWN = 50_000


class StoredTree:
    """Reads of one transaction. `hash_of` is what the proofs of `merkle` are made of."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx
        self._known: dict[tuple[int, int], bytes] = {}  # the proofs of many leaves share most of their hashes

    def hash_of(self, start: int, end: int) -> bytes:
        """The tree hash over [start, end), a range that RFC 6962 splits off. Raises LookupError when one is missing."""
        if (start, end) not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[start, end] = self._hash_of(start, end)
        return self._known[start, end]

    def _hash_of(self, start: int, end: int) -> bytes:
        size = end - start
        level = size.bit_length() - 1
        if size < 1 << STORED_LEVEL:
            return self._of_leaves(start, end)
        if size == 1 << level:
            wanted = (audit_node.c.level == level, audit_node.c.position == start >> level)
            found: bytes | None = self._tx.execute(select(audit_node.c.hash).where(*wanted)).scalar_one_or_none()
            if found is None:
                raise LookupError(f"the tree's node over the leaves {start} to {end - 1} is missing")
            return found
        middle = start + split(size)
        return node_hash(self.hash_of(start, middle), self.hash_of(middle, end))

    def grown_to(self, size: int) -> CompactRange:
        """What the tree of `size` leaves continues from."""
        return CompactRange(size, [self.hash_of(start, end) for start, end in peak_ranges(size)])

    def _of_leaves(self, start: int, end: int) -> bytes:
        column = audit_leaf.c
        wanted = select(column.leaf_hash).where(column.seq >= start, column.seq < end).order_by(column.seq)
        leaves = list(self._tx.execute(wanted).scalars())
        if len(leaves) != end - start:
            raise LookupError(f"some of the leaves {start} to {end - 1} are missing")
        return tree_hash(leaves)


def find_head(tx: Connection, *, at_most: int | None = None) -> Head | None:
    """The newest head, or the newest of at most so many leaves; None when nothing is sealed."""
    column = audit_head.c
    wanted = select(column.tree_size, column.root_hash, column.chain_hash, column.signed_at)
    wanted = wanted.add_columns(column.key_id, column.signature).order_by(column.tree_size.desc()).limit(1)
    if at_most is not None:
        wanted = wanted.where(column.tree_size <= at_most)
    row = tx.execute(wanted).one_or_none()
    return Head(*row) if row else None
