"""The starter profiles, their schema, and what `connectors check` says of each question."""

from __future__ import annotations

from pathlib import Path

import pytest

import connectors
from connectors.kinds import EhrProfile, HandOffProfile
from connectors.knob_table import KNOBS, explained, verdicts
from connectors.layers import TO_BE_SET
from connectors.profile import ProfileError, build_profile, find_shipped_profiles
from connectors.schema import profile_schema

FOLDER = Path(connectors.__file__).parent / "profiles"
TARGETS = ["epic", "oracle-health", "athenaone", "athenaflow", "meditech", "modmed-ema", "eclinicalworks", "nextgen"]
TARGETS += ["veradigm", "openemr", "medplum", "hapi", "canvas", "pacs", "hl7v2", "directory", "hand-off"]
SHIPPED = find_shipped_profiles()


def test_every_target_has_its_profile() -> None:
    assert set(TARGETS) <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_valid_and_says_what_it_is_about(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    assert build_profile({"based_on": name}, source=name).name == name
    assert text.startswith("#:schema ./schema.json\n# ")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_check_answers_every_question_that_arises_and_asks_for_what_the_site_must_set(name: str) -> None:
    profile = build_profile({"based_on": name}, source=name)
    found = verdicts(profile)
    to_set = TO_BE_SET in (FOLDER / f"{name}.toml").read_text("utf-8")
    assert any(each.verdict == "error" for each in found) == to_set
    assert all(each.remedy for each in found if each.verdict != "ok")
    doubted = {key for key, why in profile.unverified.items() if any(f"({why})" in each.detail for each in found)}
    assert doubted == set(profile.unverified)


def test_what_nobody_confirmed_is_said_with_its_source() -> None:
    found = {each.subject: each for each in verdicts(build_profile({"based_on": "epic"}, source="epic"))}
    doubted = found["hl7v2-mdm: 6 form of the attachment"]
    assert doubted.verdict == "warning" and "one integrator's thread" in doubted.detail


def test_every_question_has_a_verdict_and_arises_somewhere() -> None:
    arising: set[str] = set()
    for name in SHIPPED:
        found = verdicts(build_profile({"based_on": name}, source=name))
        assert {each.subject.rpartition(": ")[2] for each in found} == {f"{one.number} {one.subject}" for one in KNOBS}
        arising |= {each.subject.rpartition(": ")[2] for each in found if "does not arise" not in each.detail}
    assert {int(subject.split()[0]) for subject in arising} == set(range(1, 35))


def test_an_unverified_key_must_exist() -> None:
    with pytest.raises(ProfileError, match="no key of this profile"):
        build_profile({"based_on": "hl7v2", "name": "x", "unverified": {"obx5": "GK"}}, source="test")


def test_a_route_starts_from_what_the_ehr_says() -> None:
    profile = build_profile({"based_on": "epic", "name": "x", "encounter": {"policy": "optional"}}, source="test")
    assert isinstance(profile, EhrProfile)
    assert [getattr(route, "encounter").policy for route in profile.routes] == ["optional"] * 3  # noqa: B009
    assert [route.name for route in profile.routes] == ["x"] * 3


def test_two_routes_of_one_name_are_refused() -> None:
    twice = {"name": "x", "kind": "ehr", "routes": [{"kind": "hand-off"}, {"kind": "hand-off"}]}
    with pytest.raises(ProfileError, match="the same name"):
        build_profile(twice, source="test")


def test_a_mistake_in_a_route_names_the_nearest_key() -> None:
    wrong = {
        "name": "x",
        "kind": "ehr",
        "routes": [{"kind": "dicomweb", "base_url": "https://p.example", "retrakt": "delete"}],
    }
    with pytest.raises(ProfileError, match="did you mean 'retract'"):
        build_profile(wrong, source="test")


def test_a_tenant_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(ProfileError, match=r"tenant\.practice"):
        build_profile({"name": "x", "kind": "fhir-r4", "base_url": "https://e.example/{practice}"}, source="test")


def test_explaining_tells_each_key_that_differs_with_its_meaning() -> None:
    told = {
        key: (value, meaning) for key, value, meaning in explained(build_profile({"based_on": "hl7v2"}, source="t"))
    }
    assert told["retract_with"][0] == "ORU^R01" and "takes a photo back" in told["retract_with"][1]
    assert "msh_3" not in told


def test_the_schema_for_editors_is_current() -> None:
    """Write it anew with: dermbridge connectors schema > connectors/profiles/schema.json"""
    assert (FOLDER / "schema.json").read_text("utf-8") == profile_schema()


def test_a_hand_off_says_where_people_look() -> None:
    profile = build_profile({"based_on": "hand-off", "transform": {"link_base": "https://d.example"}}, source="t")
    assert isinstance(profile, HandOffProfile) and profile.transform.link_base == "https://d.example"


def test_a_site_changes_or_leaves_out_one_route_by_its_kind() -> None:
    routes = {"dicomweb": False, "hl7v2": {"host": "engine.example"}}
    profile = build_profile({"based_on": "epic", "name": "x", "routes": routes}, source="test")
    assert isinstance(profile, EhrProfile)
    assert [route.kind for route in profile.routes] == ["hl7v2", "fhir-r4"]
    assert getattr(profile.routes[0], "host") == "engine.example"  # noqa: B009


def test_a_route_that_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(ProfileError, match="nothing of kind rest"):
        build_profile({"based_on": "epic", "name": "x", "routes": {"rest": {}}}, source="test")
