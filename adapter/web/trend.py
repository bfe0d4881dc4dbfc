"""How measures of a lesion went over time: charts as plain geometry, which the template draws as SVG with a table.

One chart for each measure. Error bars are the expanded uncertainty (k = 2, about 95 %). What was measured in pixels
tells nothing over time and is left out; the table beside the chart says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from math import ceil, floor, log10
from typing import Any

from adapter.web.photo_card import day, taken_at
from mappings.measurement_to_observation import MEASURES, wording

WIDTH, HEIGHT = 560, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 30
_TICKS = 4
CHARTED = ("area", "long-axis", "length", "asymmetry", "contrast")
_UNITS = {"mm": "mm", "mm2": "mm²", "1": ""}


@dataclass(frozen=True)
class Dot:
    """One measurement: where it stands in the chart, and what the table says of it."""

    x: float
    y: float
    low: float
    high: float
    day: str
    value: str
    href: str
    is_last: bool  # of its photo: the line goes through these


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart `WIDTH` by `HEIGHT`; `line` is an SVG polyline, `said` the trend in words."""

    name: str
    title: str
    unit: str
    dots: tuple[Dot, ...]
    line: str
    days: tuple[Tick, ...]
    values: tuple[Tick, ...]
    said: str


def charts_of(measurements: Iterable[dict[str, Any]], zone: tzinfo) -> list[Chart]:
    """A chart for each of `CHARTED` that was measured in a true scale on photos of two dates or more."""
    rows = [
        (at, one, measure)
        for one in measurements
        if one["at"] and (at := taken_at({"createdDateTime": one["at"]}, zone))
        for measure in one["measures"]
        if measure["unit"] in _UNITS
    ]
    found = []
    for name in CHARTED:
        mine = sorted((row for row in rows if row[2]["name"] == name), key=lambda row: (row[0], row[1]["id"]))
        if len({at.date() for at, _, _ in mine}) > 1:
            found.append(_chart(name, mine))
    return found


def _chart(name: str, rows: list[tuple[datetime, dict[str, Any], dict[str, Any]]]) -> Chart:
    first, last = rows[0][0], rows[-1][0]
    span = (last - first).total_seconds()
    spread = [(m["value"], 2 * (m["uncertainty"] or 0.0)) for _, _, m in rows]
    ticks = _nice(
        min(0.0, *(v - u for v, u in spread)) if name == "asymmetry" else min(v - u for v, u in spread),
        max(v + u for v, u in spread),
    )
    low, high = ticks[0], ticks[-1]

    def x_of(at: datetime) -> float:
        return round(_LEFT + 16 + (at - first).total_seconds() / span * (WIDTH - _LEFT - _RIGHT - 32), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP), 1)

    last_of_photo = {one["media"]: one["id"] for _, one, _ in rows}
    dots = tuple(
        Dot(
            x_of(at),
            y_of(m["value"]),
            y_of(m["value"] - u),
            y_of(m["value"] + u),
            day(at),
            wording(m),
            f"/photos/{one['media']}",
            last_of_photo[one["media"]] == one["id"],
        )
        for (at, one, m), (_, u) in zip(rows, spread, strict=True)
    )
    unit = _UNITS[rows[0][2]["unit"]]
    days = {dot.x: dot.day for dot in (dots[0], dots[-1])}
    digits = next(count for count in range(12) if all(abs(round(one, count) - one) < 1e-9 for one in ticks))
    return Chart(
        name=name,
        title=MEASURES[name]["wording"],
        unit=unit,
        dots=dots,
        line=" ".join(f"{dot.x},{dot.y}" for dot in dots if dot.is_last),
        days=tuple(Tick(x, label) for x, label in days.items()),
        values=tuple(Tick(y_of(value), f"{value:.{digits}f}") for value in ticks),
        said=_said(rows[0][2], rows[-1][2], day(first), day(last)),
    )


def _said(first: dict[str, Any], last: dict[str, Any], since: str, until: str) -> str:
    """The change between the first and the last, and whether it is more than their uncertainties."""
    change = last["value"] - first["value"]
    doubt = 2 * ((first["uncertainty"] or 0.0) ** 2 + (last["uncertainty"] or 0.0) ** 2) ** 0.5
    told = wording({"name": last["name"], "value": abs(change), "uncertainty": doubt / 2, "unit": last["unit"]})
    if abs(change) <= doubt:
        return f"From {since} to {until}: no difference beyond the uncertainty ({told})."
    return f"From {since} to {until}: {'more' if change > 0 else 'less'} by {told}."


def _nice(low: float, high: float) -> list[float]:
    """Round values from below `low` to above `high`."""
    span = max(high - low, abs(high) * 0.05, 1e-6)
    step = 10 ** floor(log10(span / _TICKS))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= _TICKS)
    first = floor(low / step)
    return [step * n for n in range(first, max(ceil(high / step), first + 1) + 1)]
