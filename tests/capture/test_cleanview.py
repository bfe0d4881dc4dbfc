"""A clean view says the same whether assembled whole, read in ranges, or stored and loaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.records.clean_view import CleanView, Keep, Literal, Zeros

ORIGINAL = bytes(range(1, 201))


@st.composite
def views(draw):
    offsets = st.integers(0, len(ORIGINAL))
    kept = st.tuples(offsets, offsets).map(lambda pair: Keep(min(pair), abs(pair[0] - pair[1])))
    segments = st.one_of(kept, st.binary(max_size=9).map(Literal), st.integers(0, 9).map(Zeros))
    return CleanView.in_sequence(draw(st.lists(segments, max_size=8)), len(ORIGINAL))


@given(views(), st.integers(0, 900), st.integers(0, 900))
def test_ranges_are_slices_of_the_whole(view, start, stop):
    whole = view.assemble(ORIGINAL)
    assert len(whole) == view.size
    assert b"".join(part.read(ORIGINAL) for part in view.ranges(start, stop)) == whole[start:stop]


@given(views())
def test_a_stored_view_is_the_same_view(view):
    assert CleanView.from_json(view.to_json()) == view


@given(views())
def test_neighbouring_segments_are_merged_and_none_is_empty(view):
    assert all(segment.length for segment in view.segments)
    pairs = zip(view.segments, view.segments[1:], strict=False)
    assert not any(isinstance(a, Keep) and isinstance(b, Keep) and a.offset + a.length == b.offset for a, b in pairs)


def test_the_stored_form_is_compact_and_stable():
    view = CleanView((Keep(0, 20), Literal(b"\x01\x02"), Zeros(7), Keep(60, 140)), 200)
    assert view.to_json() == '[200,[0,20],"AQI=",7,[60,140]]'


def test_only_the_untouched_original_is_the_identity():
    assert CleanView.in_sequence([Keep(0, 5), Keep(5, 195)], 200).is_identity
    assert not CleanView.in_sequence([Keep(0, 199)], 200).is_identity


def test_a_view_refuses_another_original():
    with pytest.raises(ValueError, match="200 bytes, not 3"):
        CleanView((Keep(0, 200),), 200).assemble(b"abc")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '["a"]', "[9,[0,10]]", "[9,[-1,2]]", "[9,-4]", '[9,"%%"]', "[9,[1,2,3]]", "[9,null]"]
)
def test_a_damaged_stored_view_is_refused(text):
    with pytest.raises(ValueError):
        CleanView.from_json(text)


def test_in_place_blanks_what_is_neither_kept_nor_patched_and_cuts_the_tail():
    view = CleanView.in_place(b"abcdefghij", [(1, 3), (2, 4)], {5: [Literal(b"XY")]}, stop=8)
    assert view.assemble(b"abcdefghij") == b"\0bcd\0XY\0"


def test_in_place_keeps_what_would_not_change():
    assert CleanView.in_place(b"ab\0\0ef", [(0, 2)], {4: [Literal(b"ef")]}).is_identity


def test_in_place_refuses_overlaps():
    with pytest.raises(ValueError, match="overlap"):
        CleanView.in_place(b"abcdef", [(0, 4)], {3: [Literal(b"X")]})
