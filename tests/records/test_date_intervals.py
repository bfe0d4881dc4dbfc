"""What a FHIR date stands for, to the edges of what a clock can say."""

from datetime import UTC, datetime

import pytest

from adapter.records.date_intervals import date_interval


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", datetime.min.replace(tzinfo=UTC), datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59-12:00", datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_a_date_stands_for_all_moments_of_its_precision(text: str, low: datetime, high: datetime) -> None:
    assert date_interval(text) == (low, high)
