"""A PDF, such as the sheet of a visit, as a DICOM Part 10 file: Encapsulated PDF Storage, the document untouched.

It stands in the study of the visit's photos, in a series of its own. PS3.3 A.45.1 (IOD), C.24.1 (series), C.24.2
(document), C.8.6.1 (SC equipment).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mappings.photo_caption import title
from mappings.photo_to_dicom import DicomPlace, coded, part_10, sop_instance_uid, write_patient, write_study
from mappings.terms import PHOTO_DOCUMENT

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Resource = Mapping[str, Any]

ENCAPSULATED_PDF: Final = "1.2.840.10008.5.1.4.1.1.104.1"
EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"


def document_to_dicom(
    content: bytes,
    content_type: str,
    *,
    media: Resource,
    patient: Resource,
    place: DicomPlace,
    idempotency_key: str,
    at: datetime,
) -> bytes:
    """The complete Part 10 file. `at` is used where `media` does not say when the document was made."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    dataset = Dataset()
    write_patient(dataset, patient, place)
    write_study(dataset, media, place, modality="DOC", at=at)
    dataset.ConversionType = "WSD"  # made on a workstation: no scan, no film
    dataset.SOPClassUID = ENCAPSULATED_PDF
    dataset.SOPInstanceUID = sop_instance_uid(idempotency_key)
    dataset.InstanceNumber = 1
    dataset.setdefault("AcquisitionDateTime", "")  # of unknown time
    dataset.BurnedInAnnotation = "YES"  # name, number and birth date stand on every page
    dataset.DocumentTitle = title(media)[:1024]
    dataset.ConceptNameCodeSequence = Sequence([coded(PHOTO_DOCUMENT, "LN", "Photographic image")])
    dataset.MIMETypeOfEncapsulatedDocument = content_type
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    dataset.EncapsulatedDocumentLength = len(content)
    return part_10(dataset, EXPLICIT_LITTLE_ENDIAN)


def document_of(dataset: Dataset) -> bytes:
    """The document, its padding byte taken off."""
    held = bytes(dataset.EncapsulatedDocument)
    return held[: dataset.get("EncapsulatedDocumentLength") or len(held)]
