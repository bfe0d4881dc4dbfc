"""The body-site table, the check digit and the labels that follow from a site."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.body_sites import (
    BODY_SITES,
    SNOMED_LATERALITY,
    Sensitivity,
    UnknownBodySite,
    get_body_site,
    groups,
    is_sctid,
    sensitivity,
)
from mappings.security_labels import NAMED_FLAGS, flags_named_by, labels_for, raise_labels
from mappings.terms import CONFIDENTIALITY


def test_every_shipped_snomed_code_has_a_right_check_digit() -> None:
    assert [code for code in (*BODY_SITES, *SNOMED_LATERALITY.values()) if not is_sctid(code)] == []


@pytest.mark.parametrize("code", ["118878009", "362126009", "76783986"])
def test_invented_skin_codes_found_in_the_wild_are_refused(code: str) -> None:
    assert not is_sctid(code)
    with pytest.raises(UnknownBodySite, match="check digit"):
        get_body_site(code, unlisted="accept")


@pytest.mark.parametrize("code", ["", "12345", "036141000", "3614100a", "３６１４１０００", "-36141000", "9" * 19])
def test_what_is_no_snomed_identifier_is_no_sctid(code: str) -> None:
    assert not is_sctid(code)


@given(st.sampled_from(sorted(BODY_SITES)), st.data())
def test_one_wrong_digit_or_two_swapped_neighbours_never_pass(code: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(code) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != code[place]]))
    assert not is_sctid(code[:place] + digit + code[place + 1 :])
    if place and code[place - 1] != code[place]:
        assert not is_sctid(code[: place - 1] + code[place] + code[place - 1] + code[place + 1 :])


def test_the_table_is_the_whole_of_cid_4029_and_the_gap_fillers() -> None:
    sources = Counter(site.source for site in BODY_SITES.values())
    assert sources == {"CID 4029": 148, "be-vs-diagnostic-imaging-indication": 4, "be-vs-vaccination-bodysite": 2}
    classes = Counter(site.sensitivity for site in BODY_SITES.values())
    assert (classes[Sensitivity.GENITAL], classes[Sensitivity.BREAST_GROIN_BUTTOCK]) == (19, 6)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("36141000", Sensitivity.FACE),
        ("41296002", Sensitivity.FACE),
        ("61719002", Sensitivity.NONE),
        ("18857001", Sensitivity.GENITAL),
        ("22180002", Sensitivity.BREAST_GROIN_BUTTOCK),
        ("66643007", Sensitivity.NONE),
        ("80891009", Sensitivity.UNKNOWN),
        (None, Sensitivity.NONE),
    ],
)
def test_the_site_decides_the_class(code: str | None, expected: Sensitivity) -> None:
    assert sensitivity(code) is expected


def test_an_unlisted_code_needs_the_sites_permission_and_is_restricted() -> None:
    with pytest.raises(UnknownBodySite, match="not in the list"):
        get_body_site("80891009")
    site = get_body_site("80891009", unlisted="accept")
    assert site.sensitivity is Sensitivity.UNKNOWN
    assert labels_for(site.sensitivity)[0]["code"] == "R"


def test_pickers_get_the_groups_in_the_order_of_the_table() -> None:
    names = [name for name, _ in groups()]
    assert names[:2] == ["Whole / generic", "Head, face, scalp"]
    assert names[-1] == "Nail units"
    assert sum(len(sites) for _, sites in groups()) == len(BODY_SITES)
    assert all([s.meaning for s in sites] == sorted(s.meaning for s in sites) for _, sites in groups())


@pytest.mark.parametrize(
    ("site", "flags", "confidentiality", "others"),
    [
        (Sensitivity.NONE, (), "N", set()),
        (Sensitivity.FACE, (), "N", {"full-face"}),
        (Sensitivity.GENITAL, (), "R", {"SEX", "intimate"}),
        (Sensitivity.BREAST_GROIN_BUTTOCK, (), "R", {"intimate"}),
        (Sensitivity.GENITAL, ("minor",), "V", {"SEX", "intimate", "minor", "HUAPRV"}),
        (Sensitivity.NONE, ("minor",), "N", {"minor"}),
        (Sensitivity.FACE, ("suspected-abuse",), "V", {"full-face", "SDV", "VIO"}),
        (Sensitivity.NONE, ("consent-pending",), "R", {"NODSCLCD", "consent-pending"}),
    ],
)
def test_labels_follow_site_and_flags(
    site: Sensitivity, flags: tuple[str, ...], confidentiality: str, others: set[str]
) -> None:
    labels = labels_for(site, flags)
    assert [label["code"] for label in labels if label["system"] == CONFIDENTIALITY] == [confidentiality]
    assert {label["code"] for label in labels if label["system"] != CONFIDENTIALITY} == others


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ValueError, match="No such label flag: secret"):
        labels_for(Sensitivity.NONE, ["secret"])


def test_labels_only_rise() -> None:
    restricted, normal = labels_for(Sensitivity.GENITAL), labels_for(Sensitivity.NONE)
    assert raise_labels([*restricted, *normal]) == raise_labels([*normal, *restricted]) == restricted


@pytest.mark.parametrize("flag", NAMED_FLAGS)
def test_what_a_client_labels_its_own_photo_with_is_kept_as_the_flag_that_says_it(flag: str) -> None:
    named = flags_named_by(labels_for(Sensitivity.NONE, [flag]))
    assert flag in named and labels_for(Sensitivity.NONE, named) == labels_for(Sensitivity.NONE, [flag])


def test_labels_that_the_site_gives_by_itself_name_no_more_than_their_level() -> None:
    assert flags_named_by(labels_for(Sensitivity.FACE)) == []
    assert flags_named_by(labels_for(Sensitivity.GENITAL)) == ["restricted"]


def test_a_sensitivity_that_would_be_lost_is_refused() -> None:
    with pytest.raises(ValueError, match="no photo is labelled ETH here"):
        flags_named_by([{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "ETH"}])
