"""Import of a shared drive: planned without writing, done once, the folder untouched."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from adapter.access import SYSTEM
from adapter.batch.drive import plan_import, read_rules, run_import
from adapter.bridge import Bridge
from adapter.db.tables import capture
from adapter.errors import BadInput
from adapter.identity import bind_waiting
from adapter.records import create, get

RULES = "pattern,patient_system,patient,taken_at,view\n{mrn}/{date}/*.jpg,urn:oid:1.2.3,{mrn},{date},close-up\n"


@pytest.fixture
def drive(tmp_path: Path, bridge: Bridge, draw: Callable[[int, datetime], bytes]) -> Path:
    folder = tmp_path / "drive"
    for name, seed in (("4711/20240131/a.JPG", 1), ("4711/20240131/b.jpg", 2), ("4712/20240201/c.jpg", 3)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(draw(seed, bridge.now()))
    (folder / "4711/20240131/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (folder / "notes.txt").write_text("hello")
    (folder / "4711/20240131/Thumbs.db").write_bytes(b"x")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(draw(4, bridge.now()))
    (folder / "4711/20240131/link.jpg").symlink_to(outside)
    return folder


def _rules(tmp_path: Path, text: str = RULES) -> Path:
    file = tmp_path / "rules.csv"
    file.write_text(text)
    return file


def _stored(bridge: Bridge) -> int:
    with bridge.db.snapshot() as tx:
        return tx.execute(select(func.count()).select_from(capture)).scalar_one()


def test_a_dry_run_tells_all_and_writes_nothing(bridge: Bridge, drive: Path, tmp_path: Path) -> None:
    plan = {item.path: item.verdict for item in plan_import(bridge, drive, read_rules(_rules(tmp_path)))}
    assert plan == {
        "4711/20240131/a.JPG": "ready",
        "4711/20240131/b.jpg": "ready",
        "4711/20240131/broken.jpg": "refused",
        "4712/20240201/c.jpg": "ready",
        "notes.txt": "no-rule",
    }
    assert _stored(bridge) == 0


def test_the_second_run_stores_nothing_new_and_the_folder_is_as_it_was(
    bridge: Bridge, drive: Path, tmp_path: Path, photos: list[str]
) -> None:
    before = {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()}
    rules = read_rules(_rules(tmp_path))
    first = run_import(bridge, SYSTEM, drive, rules, lambda _item: None)
    assert [item.verdict for item in first] == ["stored", "stored", "refused", "held", "no-rule"]
    second = run_import(bridge, SYSTEM, drive, rules, lambda _item: None)
    assert [item.verdict for item in second] == ["known", "known", "refused", "known", "no-rule"]
    assert _stored(bridge) == 3 + len(photos)
    assert {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()} == before
    with bridge.db.snapshot() as tx:
        media = get(tx, "Media", str(first[0].capture)).resource
    assert media["createdDateTime"].startswith("2024-01-31")


def test_files_that_cannot_be_taken_do_not_stop_the_others(bridge: Bridge, drive: Path, tmp_path: Path) -> None:
    shutil.copy(drive / "4711/20240131/a.JPG", drive / os.fsdecode(b"4711/20240131/M\xfcller.jpg"))
    rules = read_rules(_rules(tmp_path))

    class Gone(type(drive)):  # type: ignore[misc]
        """A drive that lets one folder be seen but not listed, and one file not read; root would be let in."""

        def iterdir(self) -> Iterator[Path]:
            if self.name == "20240201":
                raise PermissionError(errno.EACCES, "Permission denied")
            return super().iterdir()  # type: ignore[no-any-return]

        def read_bytes(self) -> bytes:
            if self.name == "b.jpg":
                raise OSError(errno.EIO, "Input/output error")
            return super().read_bytes()  # type: ignore[no-any-return]

    done = {item.path: (item.verdict, item.reason) for item in run_import(bridge, SYSTEM, Gone(drive), rules, print)}
    assert done["4711/20240131/a.JPG"][0] == "held"
    assert done["4711/20240131/b.jpg"] == (
        "refused",
        "the file cannot be read (Input/output error); mend that and run the import again",
    )
    assert done["4711/20240131/M\ufffdller.jpg"] == ("refused", "its name is not UTF-8; rename it")
    assert done["4712/20240201"][0] == "refused"


def test_photos_bound_since_the_first_run_are_known_to_the_second(
    bridge: Bridge, drive: Path, tmp_path: Path, photos: list[str]
) -> None:
    rules = read_rules(_rules(tmp_path))
    run_import(bridge, SYSTEM, drive, rules, lambda _: None)
    with bridge.db.transaction() as tx:
        announced = {
            "resourceType": "Patient",
            "id": "new",
            "identifier": [{"system": "urn:oid:1.2.3", "value": "4712"}],
        }
        bind_waiting(tx, bridge, create(tx, announced, at=bridge.now()))
    again = {item.path: item.verdict for item in run_import(bridge, SYSTEM, drive, rules, lambda _: None)}
    assert again["4712/20240201/c.jpg"] == "known"


def test_rules_that_excel_saved_in_its_own_code_page_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.csv"
    file.write_bytes(RULES.encode() + "M\u00fcller/*.jpg,,,,\n".encode("latin-1"))
    with pytest.raises(BadInput, match="UTF-8"):
        read_rules(file)


def test_a_brace_in_a_note_is_only_a_brace(bridge: Bridge, drive: Path, tmp_path: Path) -> None:
    rules = _rules(tmp_path, "pattern,patient_system,patient,note\n{mrn}/*/c.jpg,urn:oid:1.2.3,{mrn},a { b of {mrn}\n")
    (item,) = [item for item in plan_import(bridge, drive, read_rules(rules)) if item.verdict == "ready"]
    assert item.metadata["note"] == "a { b of 4712"


def test_what_a_rule_calls_sensitive_is_labelled_and_an_unknown_word_stores_nothing(
    bridge: Bridge, drive: Path, tmp_path: Path
) -> None:
    header = "pattern,patient_system,patient,sensitivity\n"
    rows = "4711/*/a.jpg,urn:oid:1.2.3,4711,hiv suspected-abuse\n4711/*/b.jpg,urn:oid:1.2.3,4711,secret\n"
    rules = read_rules(_rules(tmp_path, header + rows))
    done = {item.path: item for item in run_import(bridge, SYSTEM, drive, rules, lambda _item: None)}
    with bridge.db.snapshot() as tx:
        media = get(tx, "Media", str(done["4711/20240131/a.JPG"].capture)).resource
    assert {"HIV", "V"} <= {label["code"] for label in media["meta"]["security"]}
    refused = done["4711/20240131/b.jpg"]
    assert (refused.verdict, refused.capture) == ("refused", None)
    assert "sensitivity" in refused.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,patient\n", "pattern"),
        ("pattern,patient\n{mrn}/*.jpg,{mrn}\n", "patient_system"),
        ("pattern,note\n*.jpg,left arm, in winter\n", "in quotes"),
        ("pattern,patient\n{MRN}/*.jpg,1\n", "small letters"),
        ("pattern,colour\n", "colour"),
        ("pattern,note\n*.jpg,{mrn}\n", "mrn"),
    ],
)
def test_wrong_rules_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_rules(_rules(tmp_path, text))


def test_a_copy_in_the_folder_of_another_day_is_refused_as_the_same_photo(
    bridge: Bridge, drive: Path, tmp_path: Path
) -> None:
    (drive / "4711/20240202").mkdir()
    (drive / "4711/20240202/a.jpg").write_bytes((drive / "4711/20240131/a.JPG").read_bytes())
    rules = read_rules(_rules(tmp_path))
    done = {item.path: item for item in run_import(bridge, SYSTEM, drive, rules, lambda _item: None)}
    copy = done["4711/20240202/a.jpg"]
    assert (copy.verdict, copy.reason) == ("refused", "this photo of this patient is stored already, with another time")


def test_one_number_of_two_systems_is_two_patients(bridge: Bridge, drive: Path, tmp_path: Path) -> None:
    for system in ("urn:oid:1.2.3", "urn:oid:1.2.4"):
        rules = read_rules(_rules(tmp_path, f"pattern,patient_system,patient\n4712/*/c.jpg,{system},4712\n"))
        run_import(bridge, SYSTEM, drive, rules, lambda _item: None)
    assert _stored(bridge) == 2
