"""/imports: each run of `dermbridge import drive`, with what became of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapter.access import SYSTEM
from adapter.batch.drive import read_rules, run_import
from adapter.batch.import_runs import page_of_runs
from adapter.bridge import Bridge
from tests.web.conftest import SYSTEM as MRN
from tests.web.conftest import Browser, picture, sign_in


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "drive"
    for path, content in {
        "1001/a.jpg": picture(91),
        "1001/b.jpg": picture(92),
        "9999/c.jpg": picture(93),
        "1001/broken.jpg": b"\xff\xd8\xff no photo",
        "notes.txt": b"hello",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (tmp_path / "rules.csv").write_text(f"pattern,patient_system,patient\n{{mrn}}/*.jpg,{MRN},{{mrn}}\n")
    return folder


def test_an_import_is_shown_file_by_file(bridge: Bridge, administrator: Browser, drive: Path) -> None:
    rules = read_rules(drive.parent / "rules.csv")
    run_import(bridge, SYSTEM, drive, rules, lambda _item: None)
    run_import(bridge, SYSTEM, drive, rules, lambda _item: None)
    page = administrator.get("/imports").text
    assert page.count(str(drive)) == 2 and page.count("finished") == 2
    first = page.rsplit('href="/imports/', 1)[1].partition('"')[0]
    files = administrator.get(f"/imports/{first}").text
    assert files.count("/thumbnail") == 3
    for wording in ("stored", "kept, waits for its patient", "refused", "no rule"):
        assert wording in files
    refused = administrator.get(f"/imports/{first}?verdict=refused").text
    assert "broken.jpg" in refused and "a.jpg" not in refused
    assert administrator.get(f"/imports/{first}?verdict=eaten").status_code == 400
    assert administrator.get("/imports/none").status_code == 404


def test_an_import_that_was_cut_off_says_so(bridge: Bridge, administrator: Browser, drive: Path) -> None:
    def cut(_item: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_import(bridge, SYSTEM, drive, read_rules(drive.parent / "rules.csv"), cut)
    page = administrator.get("/imports").text
    assert "under way or cut off" in page


@pytest.mark.parametrize(("role", "status"), [("clinician", 403), ("photographer", 404)])
def test_imports_name_everybodys_files_and_are_closed_to_a_session_in_one_chart(
    bridge: Bridge, app: Any, drive: Path, role: str, status: int
) -> None:
    run_import(bridge, SYSTEM, drive, read_rules(drive.parent / "rules.csv"), lambda _item: None)
    with bridge.db.snapshot() as tx:
        ((run, _),), _ = page_of_runs(tx)
    browser = sign_in(bridge, app, role, "p1")
    assert [browser.get(path).status_code for path in ("/imports", f"/imports/{run.id}")] == [status, status]
