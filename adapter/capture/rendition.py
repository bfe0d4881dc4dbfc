"""What a rendition is; making one needs the decoders of `renditions`, which the service itself never loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_SIZES: Mapping[str, int] = {"display": 1280, "thumbnail": 320}


@dataclass(frozen=True, slots=True)
class Rendition:
    """A derived picture; `width` and `height` in pixels."""

    content: bytes
    content_type: str
    width: int
    height: int
