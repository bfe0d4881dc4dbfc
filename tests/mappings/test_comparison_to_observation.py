"""A saved comparison as Observation: what is written is read back, and nothing is claimed that was not found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.comparison_to_observation import (
    View,
    comparison_to_observation,
    components_of,
    matrix,
    photos_of,
    verdict_of,
    view_of,
    withdrawn,
)
from mappings.fhir_check import check_resource
from mappings.photos_to_picture import comparison_of, derivation_of
from mappings.terms import CONFIDENTIALITY, coding
from tests.mappings.emitted import AT, Json, every_comparison

ALIGNED, _, LOOKED_AT, _, PICTURE, _ = every_comparison()
SHARE = st.floats(-2, 3, allow_nan=False)


def _media(number: int, level: str = "N", **more: str) -> Json:
    meta = {"versionId": str(number), "security": [coding(CONFIDENTIALITY, level)]}
    return {"id": f"m{number}", "meta": meta, "subject": {"reference": "Patient/p1"}} | more


def _saved(*photos: Json, view: View = View()) -> Json:  # noqa: B008 - a frozen value
    performer = {"display": "Dr Example"}
    return comparison_to_observation(
        None, photos, observation_id="o1", view=view, note=None, performer=performer, saved_at=AT
    )


@settings(deadline=None)  # the first example loads the R4 models
@given(
    mode=st.sampled_from(["side", "slider", "difference"]),
    numbers=st.tuples(st.floats(0.01, 40), SHARE, SHARE, st.floats(0, 1)),
    linked=st.booleans(),
    photos=st.tuples(st.integers(1, 8), st.none() | st.integers(1, 8)),
    speed=st.none() | st.integers(1, 5),
    hands=st.just(()) | st.tuples(*[SHARE] * 6),
)
def test_the_view_comes_back_as_it_was(
    mode: str,
    numbers: tuple[float, ...],
    linked: bool,
    photos: tuple[int, int | None],
    speed: int | None,
    hands: tuple[float, ...],
) -> None:
    zoom, x, y, blend = numbers
    view = View(mode, zoom, x, y, blend, linked, *photos, speed, not linked, hands)
    saved = _saved(_media(1), _media(2), view=view)
    check_resource(saved)
    assert view_of(saved) == view


def test_an_observation_without_a_view_is_looked_at_as_a_new_one() -> None:
    assert view_of({"extension": []}) == replace(View())


def test_verdict_versions_and_transform_are_read_back() -> None:
    assert verdict_of(ALIGNED) == "approximate"
    assert photos_of(ALIGNED) == [("m0", 3), ("m1", 3)]
    assert (
        components_of(ALIGNED, "homography")
        == [matrix([[1, 0, 3.5], [0, 1, -2], [0, 0, 1]])]
        == ["1 0 3.5 0 1 -2 0 0 1"]
    )
    assert components_of(ALIGNED, "regions") == [1]


def test_what_was_only_looked_at_claims_no_method_and_no_verdict() -> None:
    assert verdict_of(LOOKED_AT) is None
    assert not {"method", "component", "valueCodeableConcept"} & LOOKED_AT.keys()


@pytest.mark.parametrize(("levels", "highest"), [("NR", "R"), ("VN", "V"), ("NN", "N")])
def test_it_is_as_sensitive_as_the_most_sensitive_photo(levels: str, highest: str) -> None:
    saved = _saved(*(_media(number, level) for number, level in enumerate(levels, 1)))
    assert saved["meta"]["security"] == [coding(CONFIDENTIALITY, highest)]


def test_its_time_is_that_of_the_latest_photo_or_said_to_be_unknown() -> None:
    dated = _saved(
        _media(1, createdDateTime="2026-06-03T10:00:00+02:00"), _media(2, createdDateTime="2026-06-03T09:00:00Z")
    )
    assert dated["effectiveDateTime"] == "2026-06-03T09:00:00Z"
    assert "_effectiveDateTime" in _saved(_media(1), _media(2))


def test_withdrawing_leaves_the_earlier_version_alone_and_says_why() -> None:
    gone = withdrawn(ALIGNED, "the other mole", author={"display": "x"}, at=AT)
    assert (ALIGNED["status"], len(ALIGNED["note"])) == ("final", 1)
    assert (gone["status"], gone["note"][-1]["text"]) == ("entered-in-error", "Withdrawn: the other mole")


def test_a_picture_says_what_it_is_and_for_which_comparison() -> None:
    assert (derivation_of(PICTURE), comparison_of(PICTURE)) == ("sheet", "comparison-0")
    assert derivation_of(_media(1)) is comparison_of(_media(1)) is None
