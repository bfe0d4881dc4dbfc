"""Comparing two files from the command line: no server, no database, nothing kept."""

from __future__ import annotations

import csv
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adapter.compare.alignment import align
from adapter.compare.changes import Change, find_changes
from adapter.compare.prepared import Prepared, prepare
from adapter.compare.render import aligned_jpeg, change_png, overlay_jpeg
from adapter.errors import BadInput


def compare_files(left: Path, right: Path, *, points: Path | None = None, out: Path | None = None) -> dict[str, Any]:
    """What `dermbridge compare` prints; with `out` also writes aligned.jpg, overlay.jpg and change.png there.

    `elapsed_ms` covers reading, decoding and aligning. Raises BadInput for a points file that cannot be read, and what
    `prepare` raises for a photo that cannot.
    """
    wanted = read_points(points) if points else []
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        before, after = threads.map(_read, (left, right))
    alignment = align(before, after)
    mapped = alignment.mapped(wanted)
    elapsed = time.perf_counter() - began
    change = find_changes(alignment) if alignment.skin_map else None
    files: dict[str, bytes] = {}
    if out is not None and change is not None:
        files = {
            "aligned.jpg": aligned_jpeg(alignment),
            "overlay.jpg": overlay_jpeg(alignment),
            "change.png": change_png(alignment, change),
        }
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    return {
        **alignment.as_json(),
        "left": {"width": before.size[0], "height": before.size[1]},
        "right": {"width": after.size[0], "height": after.size[1]},
        "mapped": mapped,
        "change": change_json(change),
        "files": [str(out / name) for name in files] if out else [],
        "elapsed_ms": round(elapsed * 1000, 1),
    }


def _read(path: Path) -> Prepared:
    try:
        return prepare(path.read_bytes())
    except BadInput as error:
        raise type(error)(f"{path.name}: {error}") from None


def read_points(path: Path) -> list[tuple[float, float]]:
    """x,y per line; empty lines and a heading of words are passed over. Raises BadInput naming the line, or with no
    point."""
    points: list[tuple[float, float]] = []
    for number, row in _rows(path):
        try:
            x, y = (float(cell) for cell in row[:2])
        except ValueError:
            if number == 1 and row[0].strip()[:1].isalpha():
                continue
            raise BadInput(f"Line {number} of {path.name} is not x,y: {','.join(row)[:40]!r}.") from None
        points.append((x, y))
    if not points:
        raise BadInput(f"{path.name} has no point; write x,y of the left photo on each line.")
    return points


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Those that hold anything, each with its number. Raises BadInput."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            return [(number, row) for number, row in enumerate(csv.reader(lines), 1) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error):
        raise BadInput(f"{path.name} is no table of points; save it as CSV in UTF-8, x,y on each line.") from None


def change_json(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "method": change.method,
        "version": change.version,
        "threshold": round(change.threshold, 2),
        "regions": [region.as_json() for region in change.regions],
    }
