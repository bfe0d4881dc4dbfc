"""The one look a received photo gets before it is stored: what it is, which way up, when taken, what must not leave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from adapter.capture.formats import ImageFormat, sniff
from adapter.capture.structure import walk
from adapter.records.clean_view import CleanView

MAX_PIXELS = 120_000_000


@dataclass(frozen=True, slots=True)
class Inspection:
    """`width` and `height` are pixels of the upright picture; `orientation` (1..8, TIFF 6.0 tag 274) is how the stored
    one lies. `taken_at_local` is the camera's wall clock, naive; `utc_offset` is there only when the camera said it.
    `removed` names, in words for people, what the clean copy leaves out."""

    format: ImageFormat
    width: int
    height: int
    orientation: int
    taken_at_local: datetime | None
    utc_offset: timedelta | None
    device: str | None
    removed: tuple[str, ...]
    view: CleanView


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Inspects a whole photo file without decoding a pixel.

    Raises UnsupportedMedia (not one of the five formats), Unprocessable (truncated, damaged, several pictures) or
    TooLarge (more than `max_pixels`), each with a sentence for the sender.
    """
    format_ = sniff(data)
    found = walk(format_, data, max_pixels)
    is_turned = found.orientation >= 5
    return Inspection(
        format=format_,
        width=found.height if is_turned else found.width,
        height=found.width if is_turned else found.height,
        orientation=found.orientation,
        taken_at_local=found.facts.taken_at_local,
        utc_offset=found.facts.utc_offset,
        device=found.facts.device,
        removed=tuple(dict.fromkeys((*found.facts.kinds, *found.dropped))),
        view=found.view,
    )
