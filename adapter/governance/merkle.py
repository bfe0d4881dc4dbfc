"""The Merkle tree of RFC 6962 section 2.1 over SHA-256, and the hash chain beside it.

The tree proves to a stranger that one event is in the log, or that a log only grew, with a few hashes; the chain lets
anybody check a stretch of the log without the rest. Hashes are 32 bytes. Nothing here touches a database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256(b"").digest()
CHAIN_START = bytes(32)

HashOf = Callable[[int, int], bytes]
"""(start, end) -> the tree hash over the leaves [start, end)."""


class Node(NamedTuple):
    """The hash over the leaves [position * 2**level, (position + 1) * 2**level)."""

    level: int
    position: int
    hash: bytes


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def chain_hash(before: bytes, leaf: bytes, seq: int) -> bytes:
    """SHA-256 of 0x02, the chain hash of the leaf before, the leaf hash and the number of the leaf (8 bytes)."""
    return hashlib.sha256(b"\2" + before + leaf + seq.to_bytes(8, "big")).digest()


class CompactRange:
    """The fewest hashes that stand for a tree's first `size` leaves, so that appending is constant work.

    `peaks` are the complete subtrees, largest first: one for each bit of `size`.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)

    def append(self, leaf: bytes) -> list[Node]:
        """Add a leaf hash; returns the nodes it completes, smallest first."""
        completed = []
        level, position, found = 0, self.size, leaf
        while position & 1:
            level, position, found = level + 1, position >> 1, node_hash(self.peaks.pop(), found)
            completed.append(Node(level, position, found))
        self.peaks.append(found)
        self.size += 1
        return completed

    @property
    def root(self) -> bytes:
        """MTH of RFC 6962."""
        if not self.peaks:
            return EMPTY_ROOT
        *others, found = self.peaks
        for peak in reversed(others):
            found = node_hash(peak, found)
        return found


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH over leaf hashes."""
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root


def split(size: int) -> int:
    """The largest power of two smaller than `size`, which is 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def peak_ranges(size: int) -> list[tuple[int, int]]:
    """[start, end) of the complete subtrees of a tree, largest first."""
    ranges, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            ranges.append((start, start + (1 << level)))
            start += 1 << level
    return ranges


def inclusion_path(seq: int, size: int, hash_of: HashOf) -> list[bytes]:
    """PATH(seq, D[size]) of RFC 6962 section 2.1.1: what proves that leaf `seq` is in the tree, nearest first."""
    if not 0 <= seq < size:
        raise ValueError("a leaf is proved to be in a tree that is larger than its number")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if seq < middle:
            path.append(hash_of(middle, end))
            end = middle
        else:
            path.append(hash_of(start, middle))
            start = middle
    return path[::-1]


def consistency_path(first: int, second: int, hash_of: HashOf) -> list[bytes]:
    """PROOF(first, D[second]) of RFC 6962 section 2.1.2: what proves that the tree of `second` continues `first`."""
    if not 0 < first <= second:
        raise ValueError("a tree continues one that has leaves and is not larger")
    path = []
    start, end, is_whole = 0, second, True
    while first < end:
        middle = start + split(end - start)
        if first <= middle:
            path.append(hash_of(middle, end))
            end = middle
        else:
            path.append(hash_of(start, middle))
            start, is_whole = middle, False
    if not is_whole:
        path.append(hash_of(start, end))
    return path[::-1]
