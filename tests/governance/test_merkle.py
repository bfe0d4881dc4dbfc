"""The tree against the definitions of RFC 6962, written out naively, and its published test vectors."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.governance.merkle import (
    EMPTY_ROOT,
    CompactRange,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    peak_ranges,
    tree_hash,
)
from tools.verify_audit import check_consistency, check_inclusion

# Inputs and roots of the reference implementation of Certificate Transparency (merkletree/merkle_tree_test.cc).
VECTORS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(str(n).encode()) for n in range(size)]


def mth(given_leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(given_leaves) <= 1:
        return given_leaves[0] if given_leaves else sha256(b"").digest()
    k = 1
    while k * 2 < len(given_leaves):
        k *= 2
    return node_hash(mth(given_leaves[:k]), mth(given_leaves[k:]))


def test_the_roots_are_those_of_certificate_transparency() -> None:
    tree = CompactRange()
    assert tree.root == EMPTY_ROOT
    for entry, root in zip(VECTORS, ROOTS, strict=True):
        tree.append(leaf_hash(bytes.fromhex(entry)))
        assert tree.root.hex() == root


@given(st.integers(0, 300))
def test_appending_one_by_one_gives_the_tree_of_the_definition(size: int) -> None:
    assert tree_hash(leaves(size)) == mth(leaves(size))


@given(st.integers(0, 300))
def test_peaks_cover_the_tree_and_continue_it(size: int) -> None:
    all_leaves = leaves(size + 5)
    peaks = [mth(all_leaves[start:end]) for start, end in peak_ranges(size)]
    tree = CompactRange(size, peaks)
    for leaf in all_leaves[size:]:
        tree.append(leaf)
    assert tree.root == mth(all_leaves)


def test_every_completed_node_is_the_hash_over_its_leaves() -> None:
    all_leaves, tree = leaves(70), CompactRange()
    nodes = [node for leaf in all_leaves for node in tree.append(leaf)]
    assert len(nodes) == 70 - len(tree.peaks)
    for level, position, found in nodes:
        assert found == mth(all_leaves[position << level : position + 1 << level])


@given(st.integers(1, 200), st.data())
def test_an_inclusion_proof_holds_for_its_leaf_and_no_other(size: int, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, size - 1))
    all_leaves = leaves(size)
    path = inclusion_path(seq, size, lambda start, end: mth(all_leaves[start:end]))
    check_inclusion(all_leaves[seq], seq, size, path, mth(all_leaves))
    with pytest.raises(ValueError):
        check_inclusion(leaf_hash(b"another"), seq, size, path, mth(all_leaves))
    with pytest.raises(ValueError):
        check_inclusion(all_leaves[seq], seq, size, [*path, bytes(32)], mth(all_leaves))


@given(st.integers(1, 200), st.data())
def test_a_consistency_proof_holds_for_what_the_tree_grew_from_and_nothing_else(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    all_leaves = leaves(size)
    path = consistency_path(first, size, lambda start, end: mth(all_leaves[start:end]))
    check_consistency(first, mth(all_leaves[:first]), size, mth(all_leaves), path)
    rewritten = mth([leaf_hash(b"another"), *all_leaves[1:first]])
    with pytest.raises(ValueError):
        check_consistency(first, rewritten, size, mth(all_leaves), path)
