"""Renditions made in a bounded child process, where a hostile photo harms nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapter.bounded import BoundedChild
from adapter.capture.inspection import MAX_PIXELS
from adapter.capture.rendition import DEFAULT_SIZES, Rendition


class BoundedRenderer:
    """`renditions.render` in a child; use one per worker thread. `seconds` is processor time per photo."""

    def __init__(self, *, seconds: float = 20, memory: int = 3 << 30) -> None:
        self._child = BoundedChild(f"{__name__}:render_in_child", seconds=seconds, memory=memory)

    def render(
        self, data: bytes, sizes: Mapping[str, int] = DEFAULT_SIZES, *, max_pixels: int = MAX_PIXELS
    ) -> dict[str, Rendition]:
        """Like `renditions.render`; raises as `BoundedChild.call`."""
        answer, contents = self._child.call({"sizes": dict(sizes), "max_pixels": max_pixels}, data)
        made = zip(answer["renditions"].items(), contents, strict=True)
        return {name: Rendition(content, *about) for (name, about), content in made}

    def close(self) -> None:
        """Ends the child; the renderer may be used again."""
        self._child.close()

    def __enter__(self) -> BoundedRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def render_in_child(request: dict[str, Any], contents: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The task of the child: one photo in, its renditions out. Decoders are loaded there alone."""
    from adapter.capture.renditions import render

    found = render(contents[0], request["sizes"], max_pixels=request["max_pixels"])
    about = {name: (one.content_type, one.width, one.height) for name, one in found.items()}
    return {"renditions": about}, [one.content for one in found.values()]
