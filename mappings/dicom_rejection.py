"""A rejection note: the Key Object Selection by which an archive is told that an image was filed in error.

IHE RAD TF-2 4.66 (Image Object Change Management); PS3.3 A.35.4 and C.17.6 (Key Object Document); PS3.16 TID 2010, CID
7011. Archives that know it hide the image from everybody who does not ask for rejected ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mappings.document_to_dicom import ENCAPSULATED_PDF, EXPLICIT_LITTLE_ENDIAN
from mappings.photo_to_dicom import coded, derived_uid, part_10

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
# Patient and study of the note are those of the image (the note stands in its study).
_SAME: Final = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "wrong-patient": ("113037", "Rejected for Patient Safety Reasons"),
    "quality": ("113001", "Rejected for Quality Reasons"),
}


def rejection_note(image: Dataset, *, reason: str, at: datetime) -> bytes:
    """The Part 10 file that rejects `image` (its header is enough). `reason` is a key of `REASONS`.

    The same image is always rejected by the same object, so that a replay is a duplicate.
    """
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    note: Any = Dataset()
    for keyword in _SAME:
        if keyword in image:
            setattr(note, keyword, image[keyword].value)
    note.SOPClassUID = KEY_OBJECT_SELECTION
    note.SOPInstanceUID = derived_uid("rejection", str(image.SOPInstanceUID))
    note.Modality = "KO"
    note.SeriesInstanceUID = derived_uid("rejection-series", str(image.SOPInstanceUID))
    note.SeriesNumber, note.InstanceNumber = 1, 1
    note.ReferencedPerformedProcedureStepSequence = Sequence()
    note.Manufacturer = ""
    note.ContentDate, note.ContentTime = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    note.TimezoneOffsetFromUTC = at.strftime("%z")[:5]
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = Sequence([coded(REASONS[reason][0], "DCM", REASONS[reason][1])])
    note.ContentTemplateSequence = Sequence([_item(MappingResource="DCMR", TemplateIdentifier="2010")])
    reference = _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    kind = "COMPOSITE" if image.SOPClassUID == ENCAPSULATED_PDF else "IMAGE"
    content = _item(RelationshipType="CONTAINS", ValueType=kind, ReferencedSOPSequence=Sequence([reference]))
    note.ContentSequence = Sequence([content])
    series = _item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedSOPSequence=Sequence([reference]))
    study = _item(StudyInstanceUID=image.StudyInstanceUID, ReferencedSeriesSequence=Sequence([series]))
    note.CurrentRequestedProcedureEvidenceSequence = Sequence([study])
    return part_10(note, EXPLICIT_LITTLE_ENDIAN)


def _item(**elements: Any) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
