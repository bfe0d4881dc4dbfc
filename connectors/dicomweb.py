"""Photos and PDFs of them into an archive by STOW-RS, looked for by QIDO-RS, read back by WADO-RS (PS3.18)."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from connectors.answers import Answer
from connectors.contract import (
    DeliveryError,
    Evidence,
    Finding,
    Parcel,
    Receipt,
    Retry,
    RouteRefused,
    Secrets,
    Tallies,
    utc_now,
)
from connectors.dicom_object import (
    dicom_object,
    dicom_place,
    evidence,
    instance_uid,
    rejection,
    rejection_uid,
    store_failure,
)
from connectors.key_check import check_keys
from connectors.kinds import DicomWebProfile
from connectors.pace import own_tally
from connectors.parcels import by_hand, check_parcel, tried_later
from connectors.photo_check import answered_photos
from connectors.session import open_session

ROUTE: Final = "dicomweb"
DICOM_JSON: Final = "application/dicom+json"
GONE: Final = frozenset({204, 404, 410})
STORED: Final = frozenset({200, 202, 409})
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _REASON = "00081155", "00081197"


class DicomWeb:
    """The connector of kind `dicomweb`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: DicomWebProfile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        self._profile = profile
        self._now = now
        self._session = open_session(profile, secrets, now, tallies)

    def check(self) -> list[Finding]:
        try:
            self._query("1.2.3")
        except DeliveryError as error:
            return [Finding("connection", "error", str(error), error.remedy)]
        found = Finding("connection", "ok", f"{self._profile.base_url} answers QIDO-RS")
        photos = answered_photos(self._profile, self._session.http)
        return [found, *photos, *check_keys(self._profile, self._session)]

    def find(self, parcel: Parcel) -> Receipt | None:
        check_parcel(parcel)
        patient_id = dicom_place(parcel, self._profile.dicom, self._profile.encounter).patient_id
        for found in self._query(instance_uid(parcel)):
            if _value(found, "00100020") in {"", patient_id}:
                uids = [_value(found, tag) for tag in ("0020000D", "0020000E", "00080018", "00080016")]
                return self._receipt(uids, patient_id, duplicate=True)
        return None

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel)
        if there := self.find(parcel):
            self._retire_previous(parcel, there)
            return there
        made = dicom_object(parcel, self._profile, self._profile.dicom, self._profile.encounter)
        duplicate = self._check_stored(self._store(made.content), made.instance)
        receipt = self._receipt(
            [made.study, made.series, made.instance, made.sop_class], made.patient_id, duplicate=duplicate
        )
        self._retire_previous(parcel, receipt)
        return receipt

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        import pydicom

        check_parcel(parcel)
        made = dicom_object(parcel, self._profile, self._profile.dicom, self._profile.encounter)
        answer = self._session.http.request(
            "GET",
            _path(receipt),
            doing="Reading the instance back",
            write=False,
            accepted=GONE | {406},
            limit=len(made.content) * 2 + 1_000_000,
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        )
        part = first_part(answer) if answer.status == 200 else None
        if part is None:
            return Evidence(None, None, None, None, ("The archive holds no such instance.",))
        return evidence(made, pydicom.dcmread(io.BytesIO(part)))

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        if self._profile.retract == "person":
            raise by_hand(self._profile)
        return replace(receipt, duplicate=self._take_back(parcel, receipt), received_at=self._now())

    def close(self) -> None:
        self._session.close()

    def _store(self, content: bytes) -> Answer:
        boundary = _boundary(content)
        part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        return self._session.http.request(
            "POST",
            "studies",
            doing="Storing the instance",
            write=True,
            type_level=True,
            accepted=STORED,
            content=b"".join([part, content, f"\r\n--{boundary}--\r\n".encode()]),
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Accept": DICOM_JSON,
            },
        )

    def _take_back(self, parcel: Parcel, receipt: Receipt) -> bool:
        """Whether nothing more was to be done. A rejection is one object: stored, or there already."""
        if self._profile.retract == "delete":
            doing = "Deleting the instance"
            answer = self._session.http.request("DELETE", _path(receipt), doing=doing, write=True, accepted=GONE)
            return answer.status in GONE - {204}
        uid = rejection_uid(receipt.ids["SOPInstanceUID"])
        if self._query(uid):
            return True
        self._check_stored(self._store(rejection(parcel, receipt, self._profile.dicom, self._now())), uid)
        return False

    def _retire_previous(self, parcel: Parcel, receipt: Receipt) -> None:
        """DICOM replaces nothing: the instance of the version before goes where the archive lets us."""
        old = parcel.previous
        same = old is not None and old.ids.get("Patient") == receipt.ids["Patient"]
        if old and same and self._profile.retract != "person" and old.location != receipt.location:
            try:
                self._take_back(parcel, old)
            except DeliveryError as error:
                raise tried_later(error, can_look=True) from error

    def _query(self, uid: str) -> list[dict[str, Any]]:
        answer = self._session.http.request(
            "GET",
            f"instances?SOPInstanceUID={uid}&includefield=00100020",
            doing="Looking for the instance",
            write=False,
            accepted=GONE,
            headers={"Accept": DICOM_JSON},
        )
        # PS3.18 10.6.3.1; 204 before 2020. A wrong address, a login page or a proxy is no "nothing is there".
        found = [] if answer.status == 204 else answer.parsed() if answer.status == 200 else None
        if not isinstance(found, list):
            raise DeliveryError(
                f"Looking for the instance: HTTP {answer.status} brought no DICOM JSON, request {answer.request_id}.",
                remedy="See whether base_url is that of the archive, and what else answers there; it is tried again.",
                retry=Retry.LATER,
            )
        return [each for each in found if isinstance(each, dict) and _value(each, "00080018") == uid]

    def _check_stored(self, answer: Answer, instance: str) -> bool:
        """Whether it was there before. 200 does not mean stored, nor 409 that it is not there: the lists say."""
        body = answer.resource()
        if instance in [_value(each, _INSTANCE) for each in _items(body, _REFERENCED)]:
            return False
        failures = [each for each in _items(body, _FAILED) if _value(each, _INSTANCE) in {"", instance}]
        if answer.status == 409 and self._profile.dicom.duplicates == "refused" and self._query(instance):
            return True
        for each in failures:
            raise store_failure(int(_value(each, _REASON) or "0"), "Storing the instance")
        if answer.status == 409:
            raise RouteRefused(
                "Storing the instance was refused with HTTP 409.",
                remedy="See the archive's log; it may not take this SOP class.",
                retry=Retry.NEVER,
            )
        raise DeliveryError(
            f"The archive answered HTTP {answer.status} without saying that it stored the instance.",
            remedy="Nothing to do: the archive is asked whether it has it before anything is sent again.",
            retry=Retry.UNKNOWN,
        )

    def _receipt(self, uids: list[str], patient_id: str, *, duplicate: bool) -> Receipt:
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        study, series, instance, _ = uids
        return Receipt(
            route=ROUTE,
            ids=dict(zip(names, uids, strict=True)) | {"Patient": patient_id},
            location=f"{self._profile.base_url}/studies/{study}/series/{series}/instances/{instance}",
            received_at=self._now(),
            duplicate=duplicate,
        )


def _path(receipt: Receipt) -> str:
    ids = receipt.ids
    return f"studies/{ids['StudyInstanceUID']}/series/{ids['SeriesInstanceUID']}/instances/{ids['SOPInstanceUID']}"


def _boundary(content: bytes) -> str:
    """A boundary that does not occur in the photo: some archives would cut it there and say 200."""
    while True:
        boundary = f"dermbridge-{uuid.uuid4()}"
        if boundary.encode() not in content:
            return boundary


def _items(body: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    found = body.get(tag, {}).get("Value", [])
    return [each for each in found if isinstance(each, dict)]


def _value(item: dict[str, Any], tag: str) -> str:
    return str(next(iter(item.get(tag, {}).get("Value", [])), ""))


def first_part(answer: Answer) -> bytes | None:
    """The body of the first part (RFC 2046 5.1); the body itself where it is no multipart."""
    kind = answer.headers.get("content-type", "")
    found = re.search(r'boundary="?([^";]+)"?', kind)
    if not kind.startswith("multipart/") or not found:
        return answer.content or None
    boundary = f"--{found[1]}".encode()
    start = answer.content.find(boundary)
    head_end = answer.content.find(b"\r\n\r\n", start)
    end = answer.content.find(b"\r\n" + boundary, head_end)
    return answer.content[head_end + 4 : end] if -1 not in {start, head_end, end} else None
