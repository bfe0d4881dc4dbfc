"""The weights of evidence: published similarities, sums of probabilities, and the sentence each field gives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from mappings import record_linkage as linkage

PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "4711081"}],
    "name": [{"family": "Lindqvist", "given": ["Åsa", "Marie"]}, {"use": "maiden", "family": "Øberg"}],
    "birthDate": "1961-03-12",
    "gender": "female",
    "address": [{"postalCode": "114 55"}],
}


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [("MARTHA", "MARHTA", 0.961), ("DIXON", "DICKSONX", 0.813), ("DWAYNE", "DUANE", 0.840), ("ABC", "XYZ", 0.0)],
)
def test_jaro_winkler_gives_the_published_values(one: str, other: str, similarity: float) -> None:
    assert linkage.jaro_winkler(one, other) == pytest.approx(similarity, abs=0.0005)


def test_the_chances_of_each_field_sum_to_one() -> None:
    table = Path(linkage.__file__).parent / "tables" / "linkage_weights.toml"
    for field, row in tomllib.loads(table.read_text())["fields"].items():
        outcomes = [chances for name, chances in row.items() if name != "words"]
        assert sum(one["m"] for one in outcomes) == pytest.approx(1), field
        assert sum(one["u"] for one in outcomes) == pytest.approx(1, abs=1e-6), field


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"family": "LINDQVIST"}, "family name agrees"),
        ({"family": "Lindkvist"}, "family name is written much alike"),
        ({"family": "Oberg"}, "family name agrees"),
        ({"family": "Okafor"}, "family name differs"),
        ({"given": "asa"}, "given name agrees"),
        ({"given": "A"}, "given name begins alike"),
        ({"birthDate": "1961-03-12"}, "birth date agrees"),
        ({"birthDate": "1961-12-03"}, "birth date has day and month swapped"),
        ({"birthDate": "1961-03-13"}, "birth date differs in one digit"),
        ({"birthDate": "1999-11-30"}, "birth date differs"),
        ({"gender": "female"}, "sex agrees"),
        ({"gender": "male"}, "sex differs"),
        ({"postalCode": "11455"}, "postal code agrees"),
        ({"postalCode": "11499"}, "postal code is of the same district"),
        ({"system": "urn:oid:1.2.3", "value": "4711081"}, "identifier agrees"),
        ({"system": "urn:oid:1.2.3", "value": "4711018"}, "identifier differs by one keystroke"),
        ({"system": "urn:oid:1.2.3", "value": "9999999"}, "identifier differs"),
    ],
)
def test_each_field_tells_how_it_compares(given: dict[str, str], words: str) -> None:
    (finding,) = linkage.score(given, PATIENT).findings
    assert finding.words == words
    assert (finding.weight > 0) == (not words.endswith("differs")) or finding.outcome == "initial"


def test_a_field_that_one_side_lacks_says_nothing() -> None:
    assert linkage.score({"family": "", "gender": "unknown", "system": "urn:x", "value": "1"}, PATIENT).findings == ()
    assert linkage.score({"family": "Lindqvist"}, {"resourceType": "Patient"}).total == 0


def test_weights_add_up_and_grade_the_candidate() -> None:
    good = linkage.score({"family": "Lindqvist", "birthDate": "1961-03-12", "gender": "female"}, PATIENT)
    assert good.total == pytest.approx(sum(one.weight for one in good.findings))
    assert [one.field for one in good.findings] == ["birthDate", "family", "gender"]
    assert good.grade == "probable"
    assert linkage.score({"family": "Lindqvist"}, PATIENT).grade == "possible"
    assert linkage.score({"family": "Okafor", "birthDate": "1999-11-30"}, PATIENT).grade == "certainly-not"


def test_what_the_occasion_says_counts_as_well() -> None:
    beside = linkage.score({}, PATIENT, {"beside": True, "visit": False})
    assert [one.words for one in beside.findings] == [
        "the photo before or after by the same person is of this patient",
        "visit was not going on when the photo was taken",
    ]


@for_all(st.text("0123456789", min_size=1, max_size=8))
def test_every_variant_is_one_edit_away(value: str) -> None:
    variants = linkage.one_edit_variants(value)
    assert all(linkage.one_edit(value, one) and linkage.one_edit(one, value) for one in variants)
    assert value not in variants


@for_all(st.text("abcd", max_size=8), st.text("abcd", max_size=8))
def test_likeness_is_symmetric_and_between_nought_and_one(one: str, other: str) -> None:
    assert 0 <= linkage.jaro_winkler(one, other) <= 1
    assert linkage.jaro_winkler(one, other) == pytest.approx(linkage.jaro_winkler(other, one), abs=0.05)


def test_the_documentation_states_the_weights() -> None:
    text = (Path(__file__).parents[2] / "docs" / "worklist.md").read_text()
    shown = {weight for row in linkage.weights().values() for name, weight in row.items()}
    unused = {linkage.weight("visit", "differs")}  # that no visit is known says nothing: many places announce none
    assert [weight for weight in sorted(shown - unused) if f"{weight:+.1f}" not in text] == []
