"""The `meta` box of a HEIC file, read: which items there are, where they lie, how they belong together."""

from __future__ import annotations

from dataclasses import dataclass

from adapter.capture.structure.boxes import (
    HEIC,
    Association,
    Box,
    Item,
    Location,
    Reference,
    associations,
    boxes,
    items,
    locations,
    references,
    version,
)
from adapter.capture.structure.model import malformed, truncated, unpack

_NEEDED = (b"pitm", b"iinf", b"iloc", b"iprp")
_REPEATABLE = frozenset({b"free", b"uuid"})


@dataclass(frozen=True, slots=True)
class Meta:
    """The item tables of one file; `media` are the bodies of its `mdat` boxes, where pictures lie."""

    box: Box
    children: list[Box]
    items: dict[int, Item]
    locations: dict[int, Location]
    references: list[Reference]
    associations: dict[int, Association]
    properties: list[Box]
    primary_id: int
    idat: Box | None
    media: list[tuple[int, int]]

    def properties_of(self, id_: int) -> list[Box]:
        row = self.associations.get(id_)
        indexes = row.properties if row else ()
        return [self.properties[index - 1] for index in indexes if 0 < index <= len(self.properties)]

    def inputs_of(self, id_: int) -> list[int]:
        return [to for ref in self.references if ref.box.name == b"dimg" and ref.from_id == id_ for to in ref.to_ids]


def read_meta(data: bytes, top: list[Box]) -> Meta:
    """The item tables; Unprocessable when one is missing, cut or there twice."""
    metas = [box for box in top if box.name == b"meta"]
    if len(metas) != 1:
        raise truncated(HEIC, "its item tables are missing") if not metas else malformed(HEIC, "it has two meta boxes")
    children = boxes(data, metas[0].body + 4, metas[0].stop)
    by_name = {box.name: box for box in children}
    names = [box.name for box in children if box.name not in _REPEATABLE]
    if len(names) != len(set(names)):
        raise malformed(HEIC, "an item table occurs twice")
    if any(name not in by_name for name in _NEEDED):
        raise truncated(HEIC, "one of its item tables is missing")
    pitm = by_name[b"pitm"]
    inner = {box.name: box for box in boxes(data, by_name[b"iprp"].body, by_name[b"iprp"].stop)}
    if b"ipco" not in inner or b"ipma" not in inner:
        raise truncated(HEIC, "its property tables are missing")
    return Meta(
        box=metas[0],
        children=children,
        items={item.id: item for item in items(data, by_name[b"iinf"])},
        locations={row.id: row for row in locations(data, by_name[b"iloc"])},
        references=list(references(data, by_name.get(b"iref"))),
        associations={row.id: row for row in associations(data, inner[b"ipma"])},
        properties=boxes(data, inner[b"ipco"].body, inner[b"ipco"].stop),
        primary_id=unpack(HEIC, ">I" if version(data, pitm) else ">H", data, pitm.body + 4)[0],
        idat=by_name.get(b"idat"),
        media=[(box.body, box.stop) for box in top if box.name == b"mdat"],
    )
