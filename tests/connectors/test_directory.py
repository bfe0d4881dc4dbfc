"""What a crash half-way leaves in the folder never stays there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.directory import UNFINISHED, Directory
from connectors.kinds import DirectoryProfile
from tests.connectors.test_contract import PHOTO, parcel

STEPS: dict[str, Callable[[Directory, Any], Any]] = {
    "find": lambda folder, _: folder.find(parcel()),
    "send": lambda folder, _: folder.send(parcel(version=2)),
    "retract": lambda folder, receipt: folder.retract(parcel(), receipt, "Filed under the wrong patient"),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_next_step_takes_away_what_a_crash_left_of_this_photo_only(tmp_path: Path, step: str) -> None:
    folder = Directory(DirectoryProfile(name="out", kind="directory", folder=tmp_path))
    receipt = folder.send(parcel())
    for left in ("m1_new-1", "m1_old-2", "m1.b_new-3"):
        (tmp_path / UNFINISHED / left).mkdir()
        (tmp_path / UNFINISHED / left / "photo.jpg").write_bytes(PHOTO)
    STEPS[step](folder, receipt)
    assert [left.name for left in (tmp_path / UNFINISHED).iterdir()] == ["m1.b_new-3"]
