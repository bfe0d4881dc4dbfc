"""The ZIP: whole, checked, announced to the byte, and only for those who may."""

import hashlib
import io
import json
import zipfile

import pytest

from adapter.access import SYSTEM, Actor
from adapter.batch.export import export_zip
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden, NotFound
from adapter.records import find_by_index


def test_the_zip_opens_and_agrees_with_its_own_checksums(bridge: Bridge, photos: list[str]) -> None:
    export = export_zip(bridge, SYSTEM, photos)
    content = b"".join(export.chunks)
    assert len(content) == export.size
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        sums = dict(line.split("  ")[::-1] for line in archive.read("SHA256SUMS").decode().splitlines())
        assert len(sums) == 5
        for name, expected in sums.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == expected
        manifest = json.loads(archive.read("manifest.json"))
        assert [line["media"].split("/")[1] for line in manifest["photos"]] == photos
        assert b"SN-0000-SANDBOX" not in b"".join(archive.read(name) for name in archive.namelist())


def test_each_disclosure_is_on_record_before_a_byte_leaves(bridge: Bridge, photos: list[str]) -> None:
    export_zip(bridge, SYSTEM, photos[:1])
    with bridge.db.snapshot() as tx:
        events = find_by_index(tx, "AuditEvent", "entity", f"Media/{photos[0]}")
    assert [event.resource["subtype"][0]["code"] for event in events].count("disclose") == 1


def test_only_those_with_the_right_export_and_only_their_patient(bridge: Bridge, photos: list[str]) -> None:
    scopes = frozenset({"user/Media.r"})
    with pytest.raises(Forbidden):
        export_zip(bridge, Actor("person", "Practitioner/x", "x", "photographer", scopes), photos)
    confined = Actor("person", "Practitioner/x", "x", "clinician", scopes, frozenset({"export"}), patient_id="other")
    with pytest.raises(NotFound):
        export_zip(bridge, confined, photos)
    with pytest.raises(BadInput):
        export_zip(bridge, SYSTEM, [])
