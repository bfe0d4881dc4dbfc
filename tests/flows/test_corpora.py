"""Every foreign file we have goes through the whole intake: kept as it came or refused with a reason, no surprises."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pillow_heif
import pytest
from PIL import ExifTags, Image, UnidentifiedImageError
from sqlalchemy import delete, select

from adapter.access import SYSTEM
from adapter.app import work_lanes
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, original_blob_id, receive
from adapter.capture.render import clean_binary_id
from adapter.db.tables import adt_message, work, work_key
from adapter.delivery.destinations import Destinations
from adapter.errors import DermBridgeError
from adapter.identity import receive_messages
from adapter.records.binaries import find_rendition, get_binary, open_binary
from adapter.settings import Settings, load_settings
from adapter.work import WorkLoop

DATA = Path(__file__).parents[1] / "data"
PHOTOS = sorted(file for file in (DATA / "photos").glob("*") if file.suffix != ".md")
MALFORMED = sorted(file for file in (DATA / "malformed").glob("*") if file.suffix != ".md")
MESSAGES = sorted(file for file in (DATA / "hl7v2").rglob("*") if file.suffix.lower() in {".hl7", ".txt"})
TELLING_TAGS = (
    ExifTags.Base.BodySerialNumber,
    ExifTags.Base.LensSerialNumber,
    ExifTags.Base.CameraOwnerName,
    ExifTags.Base.ImageUniqueID,
)

pytestmark = [pytest.mark.long, pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)]


@pytest.fixture(autouse=True)
def heif() -> None:
    pillow_heif.register_heif_opener()


@pytest.fixture
def loop(bridge: Bridge) -> Iterator[WorkLoop]:
    destinations = Destinations(bridge)
    yield WorkLoop(bridge.db, work_lanes(bridge, destinations), now=bridge.now)
    destinations.close()


@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.name)
def test_a_real_photo_is_kept_as_it_came_and_served_without_place_and_serials(bridge: Bridge, file: Path) -> None:
    data = file.read_bytes()
    clean = _keep(bridge, data)
    assert _gps(clean) == {}
    assert not [text for text in _serials(data) if text in clean]


@pytest.mark.parametrize("file", MALFORMED, ids=lambda file: file.name)
def test_a_malformed_file_is_kept_as_it_came_or_refused_with_a_reason(bridge: Bridge, file: Path) -> None:
    data = file.read_bytes()
    try:
        clean = _keep(bridge, data)
    except DermBridgeError as refusal:
        assert 400 <= refusal.http_status < 500
        assert len(str(refusal)) > 20
        assert not bridge.vault.store.list_ids(limit=1), "a refused file leaves nothing behind"
        return
    assert _gps(clean) == {}
    assert not [text for text in _serials(data) if text in clean]


def test_the_corpora_hold_places_and_serials_and_both_outcomes(bridge: Bridge) -> None:
    """What the tests above look for is there to be found."""
    photos = [file.read_bytes() for file in PHOTOS]
    assert sum(_gps(data) != {} for data in photos) >= 3
    assert any(text in data for data in photos for text in _serials(data))
    kept = [file for file in MALFORMED if _is_kept(bridge, file)]
    assert 10 < len(kept) < len(MALFORMED) - 10


def test_a_kept_file_gets_its_renditions_or_says_why_not(bridge: Bridge, loop: WorkLoop) -> None:
    kept = {}
    for file in [*PHOTOS, *MALFORMED[::4]]:
        try:
            answer = receive(bridge, SYSTEM, Upload(file.read_bytes(), {}))
        except DermBridgeError:
            continue
        kept[answer.id] = file.name
    loop.run_until_idle()
    with bridge.db.snapshot() as tx:
        dead = {row.idempotency_key.partition(":")[2]: row for row in tx.execute(select(work))}
        for media_id, name in kept.items():
            if media_id in dead:
                assert dead[media_id].state == "dead", (name, dead[media_id].reason)
                assert dead[media_id].reason, name
                assert dead[media_id].remedy, name
            else:
                assert find_rendition(tx, f"Media/{media_id}", "thumbnail"), name
    assert not {kept[media_id] for media_id in dead} & {file.name for file in PHOTOS}


@pytest.mark.parametrize("configured", [False, True], ids=["authorities unknown", "authorities known"])
def test_every_hl7_message_is_answered_and_applied_or_queued_with_a_remedy(bridge: Bridge, configured: bool) -> None:
    """With the senders' authorities configured, messages get past the first question."""
    surprises = {}
    states = set()
    bridge = replace(bridge, settings=_knowing_authorities(bridge)) if configured else bridge
    destinations = Destinations(bridge)
    loop = WorkLoop(bridge.db, work_lanes(bridge, destinations), now=bridge.now)
    for file in MESSAGES:
        raw = file.read_bytes()
        (answer,) = receive_messages(bridge, [raw], "corpus")
        if _is_acknowledgement(raw):
            assert answer == b"", file.name
            continue
        loop.run_until_idle()
        state, trouble = _how_it_ended(bridge)
        if not (answer.startswith(b"MSH|") and b"\rMSA|" in answer) and not _wants_no_answer(raw, state):
            trouble = f"answered {answer!r}"
        if trouble:
            surprises[f"{file.parent.name}/{file.name}"] = trouble
        states.add(state)
    destinations.close()
    assert not surprises
    assert "queued" in states
    assert "applied" in states


def _how_it_ended(bridge: Bridge) -> tuple[str, str]:
    """State of the only message and what is wrong with it; afterwards the ledger is empty for the next one."""
    with bridge.db.transaction() as tx:
        row = tx.execute(select(adt_message)).one()
        left = tx.execute(select(work.c.state, work.c.reason)).all()
        for table in (work_key, work, adt_message):
            tx.execute(delete(table))
    if row.state not in {"applied", "queued", "refused"} or any(state != "dead" for state, _ in left):
        return row.state, f"not at an end: {row.state}, {left}"
    told = row.state == "applied" or (row.reason and row.remedy)
    return row.state, "" if told else f"{row.state} without reason or remedy"


def _is_acknowledgement(raw: bytes) -> bool:
    """Answers are neither kept nor answered, or two systems would never end."""
    return raw.splitlines()[0].split(b"|")[8].startswith(b"ACK")


def _wants_no_answer(raw: bytes, state: str) -> bool:
    """MSH-15: NE never wants one, ER only when refused; else silence is wrong (HL7 table 0155)."""
    msh = raw.removeprefix(b"\xef\xbb\xbf").splitlines()[0].split(b"|")
    wish = msh[14].strip() if len(msh) > 14 else b""
    return wish == b"NE" or (wish == b"ER" and state != "refused")


def _knowing_authorities(bridge: Bridge) -> Settings:
    words = {word for file in MESSAGES for word in _authorities(file.read_bytes())}
    systems = {part: f"urn:example:{part}" for word in sorted(words) for part in word.split("&") if part}
    systems["HOSP"] = "urn:oid:2.16.840.1.113883.19.5"
    return load_settings(
        environment={}, data_dir=bridge.settings.data_dir, identifier_systems=systems, default_authority="HOSP"
    )


def _authorities(raw: bytes) -> set[str]:
    """Whatever stands in fourth components of PID-2, PID-3, PID-4 or MRG-1."""
    text = raw.decode("utf-8", "replace").replace("\n", "\r")
    segments = [line.split("|") for line in text.split("\r") if line.startswith(("PID", "MRG"))]
    repetitions = [one for segment in segments for value in segment[1:5] for one in value.split("~")]
    return {one.split("^")[3] for one in repetitions if one.count("^") >= 3}


def _keep(bridge: Bridge, data: bytes) -> bytes:
    """Take the photo in, check that the original is what came, and return the clean copy as it is served."""
    answer = receive(bridge, SYSTEM, Upload(data, {}))
    with bridge.db.snapshot() as tx:
        original = bridge.vault.open(tx, original_blob_id(tx, answer.id))
        assert original.read(0, original.size) == data
        return open_binary(tx, bridge.vault, get_binary(tx, clean_binary_id(tx, answer.id))).read()


def _is_kept(bridge: Bridge, file: Path) -> bool:
    try:
        receive(bridge, SYSTEM, Upload(file.read_bytes(), {}))
    except DermBridgeError:
        return False
    return True


def _exif(data: bytes) -> Image.Exif:
    """What Pillow reads, with its complaints about broken tags left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data)).getexif()
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return Image.Exif()


def _gps(data: bytes) -> dict[int, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(_exif(data).get_ifd(ExifTags.IFD.GPSInfo))


def _serials(data: bytes) -> list[bytes]:
    """Texts of the original that name one device or its owner, long enough not to occur by chance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _exif(data).get_ifd(ExifTags.IFD.Exif)
    texts = [str(found[tag]).strip().encode() for tag in TELLING_TAGS if isinstance(found.get(tag), str)]
    return [text for text in texts if len(text) >= 6]
