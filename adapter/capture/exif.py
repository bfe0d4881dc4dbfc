"""What a photo's EXIF block says that we keep (when, with what, which way up) and what it would give away.

EXIF 2.32/3.0 tags (CIPA DC-008, section 4.6). A broken block never refuses a good photo: it counts as absent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta

from adapter.capture.ifd import BadDirectory, Directory, TagReader

ORIENTATION, MAKE, MODEL = 0x0112, 0x010F, 0x0110
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_TAKEN = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))  # (date and time, sub-seconds, offset), best first
_MAX_OFFSET = timedelta(hours=15)

GPS, THUMBNAIL, SETTINGS = "GPS position", "embedded thumbnail", "camera settings and times"
NAMES, COMMENTS, SERIALS = "owner or author name", "comments", "device serial number"

KINDS: dict[int, str] = {
    GPS_IFD: GPS,
    0x010E: COMMENTS,  # ImageDescription
    0x9286: COMMENTS,  # UserComment
    **dict.fromkeys((0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F), COMMENTS),  # XPTitle, XPComment, XPKeywords, XPSubject
    0x9C9D: NAMES,  # XPAuthor
    0x013B: NAMES,  # Artist
    0x8298: NAMES,  # Copyright
    0xA430: NAMES,  # CameraOwnerName
    0xA431: SERIALS,  # BodySerialNumber
    0xA435: SERIALS,  # LensSerialNumber
    0xC62F: SERIALS,  # CameraSerialNumber (DNG)
    0xA420: "image identifier",  # ImageUniqueID
    0x927C: "maker note",
    0x013C: "host computer name",
    0x02BC: "XMP",
    0x83BB: "IPTC",
    0x8649: "Photoshop resources",
}


@dataclass(frozen=True, slots=True)
class ExifFacts:
    """`orientation` is 1..8 (TIFF 6.0 tag 274); `taken_at_local` is the camera's wall clock, naive; `kinds` names the
    sorts of metadata found, in words for people."""

    orientation: int = 1
    taken_at_local: datetime | None = None
    utc_offset: timedelta | None = None
    make: str = ""
    model: str = ""
    kinds: tuple[str, ...] = ()

    @property
    def device(self) -> str | None:
        """Make and model in one name, the make not said twice: `Apple iPhone 12`, `Canon EOS 5D`."""
        make_word = self.make.split(" ")[0].casefold()
        if make_word and self.model.casefold().startswith(make_word):
            return self.model
        return f"{self.make} {self.model}".strip() or None


def read(block: bytes | None, structural: frozenset[int] = frozenset()) -> ExifFacts:
    """The facts of a TIFF-structured EXIF block (without `Exif\\0\\0`); all absent when it is missing or unreadable.

    `structural` tags are no metadata: in a TIFF file the same directory describes the pixels.
    """
    try:
        reader, first_at = TagReader.open(block or b"")
        main = reader.directory(first_at)
    except BadDirectory:
        return ExifFacts()
    private = _sub_directory(reader, main, EXIF_IFD)
    orientation = reader.integer(main.entries.get(ORIENTATION), 1)
    taken_at_local, utc_offset = _taken(reader, private)
    return ExifFacts(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        taken_at_local=taken_at_local,
        utc_offset=utc_offset,
        make=reader.text(main.entries.get(MAKE)),
        model=reader.text(main.entries.get(MODEL)),
        kinds=_kinds(main, private, structural | {ORIENTATION, EXIF_IFD}),
    )


def minimal(orientation: int) -> bytes:
    """A 26-byte EXIF block that holds the orientation and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _sub_directory(reader: TagReader, main: Directory, tag: int) -> Directory | None:
    try:
        return reader.directory(reader.integer(main.entries.get(tag)))
    except BadDirectory:
        return None


def _kinds(main: Directory, private: Directory | None, structural: frozenset[int]) -> tuple[str, ...]:
    tags = [*main.entries, *(private.entries if private else ())]
    found = [KINDS.get(tag, SETTINGS) for tag in tags if tag not in structural]
    return tuple(dict.fromkeys(found + [THUMBNAIL] * bool(main.next_at)))


def _taken(reader: TagReader, private: Directory | None) -> tuple[datetime | None, timedelta | None]:
    for taken, subseconds, offset in _TAKEN if private else ():
        texts = [reader.text(private.entries.get(tag)) for tag in (taken, subseconds, offset)] if private else []
        try:
            moment = datetime.strptime(texts[0], "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 - wall clock by nature
        except ValueError:
            continue
        if texts[1].isascii() and texts[1].isdigit():
            moment = moment.replace(microsecond=int(texts[1][:6].ljust(6, "0")))
        return moment, _offset(texts[2])
    return None, None


def _offset(text: str) -> timedelta | None:
    try:
        offset = datetime.strptime(text, "%z").utcoffset()
    except ValueError:
        return None
    return offset if offset is not None and abs(offset) <= _MAX_OFFSET else None
