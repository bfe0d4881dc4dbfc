"""The course of a lesion's measures as a chart: what is in it, and what is said of it."""

from __future__ import annotations

from datetime import UTC
from itertools import pairwise
from typing import Any

from adapter.web.trend import HEIGHT, WIDTH, charts_of


def measured(media: str, at: str | None, area: float, doubt: float = 0.5, unit: str = "mm2") -> dict[str, Any]:
    measure = {"name": "area", "value": area, "uncertainty": doubt, "unit": unit}
    return {"id": f"o-{media}-{area}", "media": media, "at": at, "measures": [measure]}


def test_error_bars_are_two_standard_uncertainties_and_within_the_chart() -> None:
    [chart] = charts_of([measured("m2", "2026-11-23", 34), measured("m1", "2026-05-01", 24)], UTC)
    first, last = chart.dots
    assert (first.day, last.day) == ("1 May 2026", "23 Nov 2026")
    assert abs((first.low - first.y) - (first.y - first.high)) < 0.2
    per_unit = (first.y - last.y) / 10
    assert abs((first.low - first.y) - per_unit) < 0.2
    assert all(0 < x < WIDTH for x in (first.x, last.x))
    assert all(0 < y < HEIGHT for dot in chart.dots for y in (dot.low, dot.high))
    assert chart.said == "From 1 May 2026 to 23 Nov 2026: more by 10.0 ± 1.4 mm²."


def test_a_difference_within_the_uncertainty_is_said_to_be_none() -> None:
    [chart] = charts_of([measured("m1", "2026-05-01", 24), measured("m2", "2026-11-23", 25)], UTC)
    assert "no difference beyond the uncertainty" in chart.said


def test_the_line_goes_through_the_last_measurement_of_each_photo() -> None:
    twice = [measured("m1", "2026-05-01", 20), measured("m1", "2026-05-01", 24), measured("m2", "2026-11-23", 25)]
    [chart] = charts_of(twice, UTC)
    assert len(chart.dots) == 3
    assert len(chart.line.split()) == 2


def test_pixels_one_day_and_photos_without_a_date_make_no_course() -> None:
    assert (
        charts_of([measured("m1", "2026-05-01", 9, unit="px2"), measured("m2", "2026-11-23", 9, unit="px2")], UTC) == []
    )
    assert charts_of([measured("m1", "2026-05-01T08:00:00Z", 9), measured("m2", "2026-05-01T09:00:00Z", 9)], UTC) == []
    assert charts_of([measured("m1", None, 9), measured("m2", "2026-11-23", 9)], UTC) == []


def test_equal_values_without_uncertainty_still_make_a_chart() -> None:
    [chart] = charts_of([measured("m1", "2026-05-01", 0, 0.0), measured("m2", "2026-11-23", 0, 0.0)], UTC)
    assert len(chart.values) > 1


def test_values_beside_the_chart_are_where_they_say() -> None:
    for later in (24.5, 25, 27, 34, 40, 90):
        [chart] = charts_of([measured("m1", "2026-05-01", 24, 0), measured("m2", "2026-11-23", later, 0)], UTC)
        told = [float(tick.label) for tick in chart.values]
        steps = {round(there - here, 6) for here, there in pairwise(told)}
        assert len(steps) == 1, told
