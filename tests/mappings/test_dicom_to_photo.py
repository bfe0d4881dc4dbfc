"""What a DICOM object says of its photo, and what is made of what it should not say."""

from __future__ import annotations

import pytest

from mappings.dicom_to_photo import PHOTO_TAGS, created_of


@pytest.mark.parametrize(
    ("moment", "created"),
    [
        ("20260303093000+0100", "2026-03-03T09:30:00+01:00"),
        ("20260303093000", "2026-03-03"),
        ("20261399", ""),
        ("20260303093000+9900", ""),
        ("99991231235959+0000", ""),
        ("", ""),
    ],
)
def test_a_moment_that_no_calendar_knows_is_not_told(moment: str, created: str) -> None:
    assert created_of({PHOTO_TAGS["AcquisitionDateTime"]: {"vr": "DT", "Value": [moment]}}) == created
