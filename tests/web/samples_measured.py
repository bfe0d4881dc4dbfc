"""Sample contexts of measuring: what was kept of a lesion at four visits."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from adapter.web.trend import charts_of
from tests.web import samples

AREAS = ((2026, 3, 24.1, 1.0), (2026, 5, 25.0, 0.9), (2026, 8, 28.3, 1.2), (2026, 11, 34.9, 1.3))


def measurement(number: int) -> dict[str, Any]:
    """As `mappings.measurement_to_observation.observation_to_measurement` gives it."""
    year, month, area, doubt = AREAS[number]
    values = (
        ("area", area, doubt, "mm2"),
        ("long-axis", area**0.5 * 1.3, 0.2, "mm"),
        ("asymmetry", 0.06 + 0.02 * number, 0.01, "1"),
        ("contrast", 14.2 + number, 0.8, "1"),
    )
    return {
        "id": f"o{number}",
        "media": f"m{6 - number}",
        "media_version": 1,
        "kind": "outline",
        "points": [[1900, 1500], [2100, 1480], [2080, 1640]],
        "edge": 2.0,
        "scale": {"source": "card", "uncertainty": 0.011},
        "colour": {"calibrated": True, "residual": 1.1},
        "measures": [{"name": n, "value": v, "uncertainty": u, "unit": unit} for n, v, u, unit in values],
        "at": f"{year}-{month:02}-23T09:30:00Z",
        "by": "Dr. R. Okafor",
        "status": "final",
    }


def card(number: int) -> dict[str, Any]:
    return measurement(number) | {
        "title": "Outline",
        "day": f"23 {('Mar', 'May', 'Aug', 'Nov')[number]} 2026",
        "shown": [{"label": "Area", "value": "34.9 ± 2.6 mm²"}, {"label": "Longest diameter", "value": "7.7 ± 0.4 mm"}],
        "scale_wording": "A calibration card in the photograph, its perspective taken out",
        "how": "Drawn by hand",
        "photo_href": f"/photos/m{6 - number}",
        "withdraw_href": f"/photos/m1/measurements/o{number}/withdraw",
        "path": "1900,1500 2100,1480 2080,1640",
    }


def charts() -> list[Any]:
    return charts_of([measurement(number) for number in range(len(AREAS))], UTC)


def measuring() -> dict[str, Any]:
    return {
        "href": "/photos/m1",
        "width": 4032,
        "height": 3024,
        "version": 2,
        "may_keep": True,
        "may_withdraw": True,
        "kept": [card(3)],
        "charts": charts()[:1],
        "lesion_href": "/lesions/l2",
    }


def lesion() -> dict[str, Any]:
    return samples.frame(
        "L2, irregular naevus",
        samples.PATIENT,
        label="L2, irregular naevus",
        photos=[samples.photo(number, samples.NOW) for number in range(1, 5)],
        charts=charts(),
        kept=[card(number) for number in (3, 2, 1, 0)],
    )
