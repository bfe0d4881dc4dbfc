"""A photo of somebody under age is labelled so, and an intimate one is very restricted."""

import pytest

from mappings.security_labels import labelled_minor
from mappings.terms import PHOTO_LABEL


def labels(media: dict[str, object], birth_date: str | None, majority: int = 18) -> set[str]:
    patient = {"birthDate": birth_date} if birth_date else {}
    labelled = labelled_minor(media, patient, majority=majority)
    return {one["code"] for one in labelled.get("meta", {}).get("security", [])}


@pytest.mark.parametrize(
    ("birth_date", "is_minor"),
    [
        ("2008-11-24", True),
        ("2008-11-23", False),
        ("2008-11", True),
        ("2008-10", False),
        ("2008", True),
        ("2007", False),
        ("1950-01-01", False),
        (None, False),
    ],
)
def test_who_has_not_come_of_age_when_photographed_is_a_minor(birth_date: str | None, is_minor: bool) -> None:
    media = {"createdDateTime": "2026-11-23T09:30:00+01:00", "issued": "2030-01-01T00:00:00Z"}
    assert labels(media, birth_date) == ({"N", "minor"} if is_minor else set())


def test_a_photo_of_an_unknown_day_is_as_old_as_its_arrival() -> None:
    assert "minor" in labels({"issued": "2026-11-23T09:30:00Z"}, "2010-01-01")
    assert "minor" in labels({"createdDateTime": "2026"}, "2008-03-01")
    assert not labels({}, "2020-01-01")


def test_the_age_of_majority_is_the_site_s() -> None:
    media = {"createdDateTime": "2026-11-23"}
    assert not labels(media, "2008-01-01")
    assert "minor" in labels(media, "2008-01-01", majority=19)


def test_an_intimate_photo_of_a_minor_is_very_restricted() -> None:
    intimate = {"meta": {"security": [{"system": PHOTO_LABEL, "code": "intimate"}]}, "createdDateTime": "2026-11-23"}
    assert labels(intimate, "2020-01-01") == {"V", "intimate", "minor", "HUAPRV"}
    assert labels(intimate, "1990-01-01") == {"intimate"}
