"""The map between two photos as a page needs it: where the nodes of a lattice over each photo lie in the other.

With it a viewer shows the same place in both without bending a single pixel: it moves, turns and scales its views.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adapter.compare.geometry import Points, Size
from adapter.compare.skin_map import SkinMap

COLUMNS, ROWS = 17, 13


def lattice(skin_map: SkinMap) -> dict[str, Any]:
    """Nodes row by row, from the first to the last pixel of a photo. `left_in_right`: where each node over LEFT is in
    RIGHT, in widths of RIGHT (x and y); `right_in_left` the way back."""
    left, right = skin_map.left, skin_map.right
    return {
        "columns": COLUMNS,
        "rows": ROWS,
        "left": list(left),
        "right": list(right),
        "left_in_right": _in_widths(skin_map.to_right(_nodes(left)), right),
        "right_in_left": _in_widths(skin_map.to_left(_nodes(right)), left),
    }


def _nodes(size: Size) -> Points:
    across, down = (np.linspace(-0.5, edge - 0.5, count) for edge, count in zip(size, (COLUMNS, ROWS), strict=True))
    return np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)


def _in_widths(points: Points, size: Size) -> list[list[float]]:
    return [[round(x, 5), round(y, 5)] for x, y in ((points + 0.5) / size[0]).tolist()]
