"""Photos by C-STORE into DCMTK's storescp, which stores and knows nothing else: no C-FIND, no way to take back.

Needs Debian's dcmtk; without it the tests are skipped with that sentence.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from connectors.contract import CannotLook, Connector
from connectors.dicom_object import frame
from connectors.profile import build_profile
from connectors.registry import open_connector
from mappings.document_to_dicom import ENCAPSULATED_PDF, document_of
from tests.integration.dicom.test_archive import DEVICE, MRN, PHOTOS, parcel, sheet

pytestmark = pytest.mark.real


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """(port, folder it stores in)"""
    program = shutil.which("storescp")
    if program is None:
        reason = "no storescp here: apt-get install dcmtk"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        str(program),
        "--accept-all",
        "--promiscuous",
        "--bit-preserving",
        "--output-directory",
        str(tmp_path),
        str(port),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, tmp_path
        process.terminate()


@pytest.fixture
def store(storescp: tuple[int, Path]) -> Iterator[Connector]:
    dicom = {"patient_id_system": MRN, "issuer": "HOSP", "equipment": DEVICE}
    table: dict[str, Any] = {"name": "store", "kind": "dicom-cstore", "host": "127.0.0.1", "port": storescp[0]}
    table |= {"called_ae": "STORESCP", "dicom": dicom}
    opened = open_connector(build_profile(table, source="test"), {}.__getitem__)
    yield opened
    opened.close()


def test_it_answers_an_echo(store: Connector) -> None:
    assert {finding.verdict for finding in store.check()} == {"ok"}


@pytest.mark.parametrize("file", PHOTOS[-3:], ids=lambda file: file.name)
def test_the_photo_is_stored_as_it_is_and_twice_is_one_file(
    store: Connector, storescp: tuple[int, Path], file: Path
) -> None:
    content = file.read_bytes()
    receipt = store.send(parcel(content))
    store.send(parcel(content))
    [stored] = [each for each in storescp[1].iterdir() if each.is_file()]
    dataset = pydicom.dcmread(stored)
    assert dataset.SOPInstanceUID == receipt.ids["SOPInstanceUID"] and dataset.PatientID == "4711"
    if dataset.get("LossyImageCompression") and "DERIVED" not in dataset.ImageType:
        assert frame(dataset)[: len(content)] == content


def test_a_visits_pdf_is_stored_byte_for_byte(store: Connector, storescp: tuple[int, Path]) -> None:
    sent = sheet("1")
    store.send(sent)
    store.send(sent)
    [stored] = [each for each in storescp[1].iterdir() if each.is_file()]
    dataset = pydicom.dcmread(stored)
    assert dataset.SOPClassUID == ENCAPSULATED_PDF and document_of(dataset) == sent.content()


def test_what_cannot_be_asked_says_so_and_may_be_sent_again(store: Connector) -> None:
    with pytest.raises(CannotLook) as blind:
        store.find(parcel(PHOTOS[-1].read_bytes()))
    assert blind.value.may_resend and blind.value.presumed is not None
