"""Measuring one file from the command line: no server, no database, nothing kept."""

from __future__ import annotations

from typing import Any

from adapter.capture.inspection import MAX_PIXELS
from adapter.measure.child import measuring


def measure_file(content: bytes, point: tuple[float, float]) -> dict[str, Any]:
    """The lesion at a pixel of the upright photo: its outline, measures, scale and colour (docs/measure.md).

    The scale is the card's, where there is one. Raises Unprocessable where no outline is found, and what decoding does.
    """

    def asked(task: str, **more: Any) -> dict[str, Any]:
        return measuring({"task": task, "photo": "file", "max_pixels": MAX_PIXELS, **more}, [content])[0]

    offered = asked("look")
    source = next((one["source"] for one in offered["scales"]), "none")
    outline = asked("outline", point=point)
    drawn = {"kind": "outline", "points": outline["points"], "sigma": 0.5, "edge": outline["edge"]}
    return {"points": outline["points"], **asked("measure", **drawn, scale={"source": source})}
