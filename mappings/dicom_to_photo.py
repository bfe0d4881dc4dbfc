"""What a DICOM image object says of its photo, and the photo in it: the way back of `mappings.photo_to_dicom`.

PS3.3 C.7.1.1 (Patient), C.8.12.1 (VL Image); PS3.18 annex F (DICOM JSON). Pure: bytes and dicts in, values out.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mappings.fhir_time import is_date_time
from mappings.photo_fit import read_jpeg
from mappings.photo_to_dicom import JPEG_BASELINE, JPEG_EXTENDED

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Item = Mapping[str, Any]
DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95"})
"""Transfer syntaxes whose data set is compressed as a whole: a few bytes may become as many as they like."""
UID: Final = r"[0-9.]{1,64}"
PHOTO_TAGS: Final = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "PatientBirthDate": "00100030",
    "Modality": "00080060",
    "StudyDate": "00080020",
    "ContentDate": "00080023",
    "ContentTime": "00080033",
    "AcquisitionDateTime": "0008002A",
    "TimezoneOffsetFromUTC": "00080201",
    "NumberOfFrames": "00280008",
    "ManufacturerModelName": "00081090",
    "StudyDescription": "00081030",
    "SeriesDescription": "0008103E",
    "ImageComments": "00204000",
    "ImageLaterality": "00200062",
    "AnatomicRegionSequence": "00082218",
}
_SIDES: Final = {"L": "left", "R": "right", "B": "bilateral"}
_BROKEN: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_CODE, _SCHEME, _MEANING = "00080100", "00080102", "00080104"


class NotAnImage(ValueError):
    """The bytes are no DICOM object that can be looked into; `str` says why."""


def value_of(item: Item, keyword: str) -> str:
    """The first value of an element of DICOM JSON as text; empty when there is none."""
    held = item.get(PHOTO_TAGS[keyword])
    values = held.get("Value") if isinstance(held, Mapping) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first).strip() if isinstance(first, (str, int, float)) else ""


def is_same_person(item: Item, *, patient_id: str, issuer: str, birth_date: str) -> bool:
    """Whether an object names exactly this PatientID, and neither issuer nor birth date contradict."""
    theirs, born = value_of(item, "IssuerOfPatientID"), value_of(item, "PatientBirthDate")
    ours = birth_date.replace("-", "")
    if value_of(item, "PatientID") != patient_id or (issuer and theirs and issuer != theirs):
        return False
    return not (born and ours) or born.startswith(ours) or ours.startswith(born)


def created_of(item: Item) -> str:
    """When the photo was taken, as a FHIR dateTime: a time of day only where the object says its zone. Empty where it
    says nothing, or what no calendar knows."""
    told = _moment_of(item)
    return told if is_date_time(told) else ""


def _moment_of(item: Item) -> str:
    moment = value_of(item, "AcquisitionDateTime") or value_of(item, "ContentDate") + value_of(item, "ContentTime")
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?([+-]\d{4})?", moment)
    zone = (found and found[7]) or value_of(item, "TimezoneOffsetFromUTC")
    if found and re.fullmatch(r"[+-]\d{4}", zone):
        year, month, day, hour, minute, second = found.groups()[:6]
        return f"{year}-{month}-{day}T{hour}:{minute}:{second}{zone[:3]}:{zone[3:]}"
    date = re.match(r"(\d{4})(\d\d)(\d\d)", moment or value_of(item, "StudyDate"))
    return "-".join(date.groups()) if date else ""


def site_of(item: Item) -> tuple[str, str, str]:
    """(SNOMED code, its meaning as written there, left | right | bilateral)."""
    region = item.get(PHOTO_TAGS["AnatomicRegionSequence"])
    sites = region.get("Value") if isinstance(region, Mapping) else None
    first = sites[0] if isinstance(sites, list) and sites and isinstance(sites[0], Mapping) else {}
    told = {tag: _text(first.get(tag)) for tag in (_CODE, _SCHEME, _MEANING)}
    code = told[_CODE] if told[_SCHEME] == "SCT" else ""
    return code, told[_MEANING], _SIDES.get(value_of(item, "ImageLaterality"), "")


def read_object(content: bytes) -> tuple[Item, Dataset]:
    """The elements of `PHOTO_TAGS` as DICOM JSON, and the data set of a Part 10 file. Raises NotAnImage."""
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.errors import InvalidDicomError

    if _transfer_syntax(content) in DEFLATED:
        raise NotAnImage("its data set is compressed as a whole, which is not read here")
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        told = Dataset()
        for tag in PHOTO_TAGS.values():
            if tag in dataset:
                told[tag] = dataset[tag]
        return told.to_json_dict(suppress_invalid_tags=True), dataset
    except (InvalidDicomError, *_BROKEN) as error:
        raise NotAnImage("it cannot be read as DICOM") from error


def _transfer_syntax(content: bytes) -> str:
    """From the File Meta Information (PS3.10 7.1), before a library looks at anything else."""
    if content[128:132] != b"DICM":
        raise NotAnImage("it is no DICOM file")
    length = int.from_bytes(content[140:144], "little")
    found = re.search(rb"\x02\x00\x10\x00UI..([0-9.]+)", content[144 : 144 + length], re.DOTALL)
    return found[1].decode() if found else ""


def find_photo(dataset: Dataset) -> bytes | None:
    """The JPEG in the object, bit for bit; None where it holds none that shows its colours by itself."""
    from pydicom.encaps import generate_frames

    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax not in {JPEG_BASELINE, JPEG_EXTENDED} or int(dataset.get("NumberOfFrames") or 1) != 1:
        return None
    try:
        stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
        stream = stream[:-1] if stream.endswith(b"\xff\xd9\0") else stream
        picture = read_jpeg(stream)
    except (StopIteration, *_BROKEN):
        return None
    is_rgb = str(dataset.get("PhotometricInterpretation", "")) == "RGB"
    return None if is_rgb and picture.is_ycc else stream


def _text(element: object) -> str:
    values = element.get("Value") if isinstance(element, Mapping) else None
    return str(values[0]) if isinstance(values, list) and values else ""
