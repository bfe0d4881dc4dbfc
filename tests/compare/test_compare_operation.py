"""`Media/$compare` asked directly: two or more photos in, everything known of them out, kept when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.compare.reopening import LISTED
from adapter.compare.saved import save_comparison
from adapter.errors import BadInput, Conflict, NotFound
from adapter.fhir_api.comparing import compare_operation
from adapter.fhir_api.exchange import Request
from adapter.records import create_all, find_where, new_id
from mappings.comparison_to_observation import View
from mappings.fhir_check import check_resource
from mappings.photos_to_picture import derivation_of
from tests.compare.conftest import RESULT, clinician, compared, draw, photo


def _post(bridge: Bridge, photos: tuple[str, ...], actor: Actor | None = None, **values: dict[str, Any]) -> Any:
    return _post_references(bridge, [f"Media/{one}" for one in photos], actor, **values)


def _post_references(
    bridge: Bridge, references: Sequence[str], actor: Actor | None = None, **values: dict[str, Any]
) -> Any:
    media = [{"name": "media", "valueReference": {"reference": one}} for one in references]
    parameters = [*media, *({"name": name} | value for name, value in values.items())]
    body = orjson.dumps({"resourceType": "Parameters", "parameter": parameters})
    headers = {"content-type": "application/fhir+json"}
    request = Request("POST", ("Media", "$compare"), headers=headers, body=body, actor=actor or clinician())
    return orjson.loads(compare_operation(bridge).handle(request).body)


def _named(answer: Any, name: str) -> list[Any]:
    return [one for one in answer["parameter"] if one["name"] == name]


def test_two_photos_are_answered_with_verdict_transform_and_pictures(bridge: Bridge, pair: tuple[str, str]) -> None:
    answer = _post(bridge, pair)
    check_resource(answer)
    assert _named(answer, "verdict")[0]["valueCode"] == "aligned"
    homography, bend = _named(answer, "transform")[0]["part"]
    assert (homography["valueString"], bend["valueDecimal"]) == ("1 0 3 0 1 -2 0 0 1", 4.5)
    assert _named(answer, "picture-overlay")[0]["valueAttachment"]["url"].startswith(bridge.settings.base_url)
    assert _named(answer, "saved") == _named(answer, "derived") == []


def test_persisting_keeps_an_observation_and_derived_media_that_later_answers_name(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    answer = _post(bridge, pair, persist={"valueBoolean": True}, note={"valueString": "stable"})
    check_resource(answer)
    with bridge.db.snapshot() as tx:
        (saved,) = find_where(tx, "Observation")
        pictures = [one for one in find_where(tx, "Media") if derivation_of(one.resource)]
    assert saved.resource["note"][0]["text"] == "stable"
    assert [one["valueReference"]["reference"] for one in _named(answer, "saved")] == [saved.reference]
    assert {one["valueReference"]["reference"] for one in _named(answer, "derived")} == {
        one.reference for one in pictures
    }
    assert _named(_post(bridge, pair), "saved") == _named(answer, "saved")


def test_what_was_saved_of_these_very_photos_is_named_however_much_was_saved_of_one_of_them_since(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    saved = _named(_post(bridge, pair, persist={"valueBoolean": True}), "saved")
    third = photo(bridge, draw(3), "asa")
    other = save_comparison(bridge, clinician(), [(pair[0], None), (pair[1], None), (third, None)], view=View())
    with bridge.db.transaction() as tx:
        create_all(tx, [other.resource | {"id": new_id()} for _ in range(LISTED)], at=bridge.now())
    assert _named(_post(bridge, pair), "saved") == saved


def test_each_of_several_photos_is_compared_with_the_first(bridge: Bridge, pair: tuple[str, str]) -> None:
    third = photo(bridge, draw(3), "asa")
    compared(bridge, pair[0], third, RESULT | {"verdict": "not-aligned", "reasons": ["too little in common"]})
    answer = _post(bridge, (*pair, third))
    check_resource(answer)
    inner = [one["resource"] for one in _named(answer, "comparison")]
    assert [_named(one, "verdict")[0]["valueCode"] for one in inner] == ["aligned", "not-aligned"]
    assert [_named(one, "right")[0]["valueReference"]["reference"] for one in inner] == [
        f"Media/{one}" for one in (pair[1], third)
    ]


@pytest.mark.parametrize("count", [0, 1, 9])
def test_fewer_than_two_and_more_than_eight_photos_are_refused(bridge: Bridge, count: int) -> None:
    with pytest.raises(BadInput, match="2 to 8"):
        _post(bridge, tuple(str(number) for number in range(count)))


def test_a_note_that_is_no_text_is_refused(bridge: Bridge, pair: tuple[str, str]) -> None:
    with pytest.raises(BadInput):
        _post(bridge, pair, persist={"valueBoolean": True}, note={"valueInteger": 5})


def test_a_photo_is_named_by_its_address_here_and_that_of_another_server_is_not_ours(
    bridge: Bridge, pair: tuple[str, str]
) -> None:
    here = [f"{bridge.settings.base_url}/fhir/Media/{one}" for one in pair]
    assert _named(_post_references(bridge, here), "verdict")
    with pytest.raises(BadInput, match="of this server"):
        _post_references(bridge, [f"Media/{pair[0]}", f"https://ehr.example/fhir/Media/{pair[1]}"])


def test_a_version_that_is_not_the_current_one_is_not_kept(bridge: Bridge, pair: tuple[str, str]) -> None:
    versions = [f"Media/{one}/_history/1" for one in pair]
    assert _named(_post_references(bridge, versions, persist={"valueBoolean": True}), "saved")
    with pytest.raises(Conflict):
        _post_references(bridge, [versions[0], f"Media/{pair[1]}/_history/7"], persist={"valueBoolean": True})


@pytest.mark.parametrize("value", [{"valueString": "yes"}, {"valueInteger": 1}, {}])
def test_what_says_neither_yes_nor_no_to_keeping_is_refused(
    bridge: Bridge, pair: tuple[str, str], value: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match="persist"):
        _post(bridge, pair, persist=value)


def test_nothing_is_kept_unasked_and_another_chart_sees_nothing(bridge: Bridge, pair: tuple[str, str]) -> None:
    _post(bridge, pair)
    with pytest.raises(NotFound):
        _post(bridge, pair, clinician("bo"), persist={"valueBoolean": True})
    with bridge.db.snapshot() as tx:
        assert find_where(tx, "Observation") == []
