"""What a third party gets: files checked by the offline verifier as a process of its own, whole and tampered with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, search_index
from adapter.errors import BadInput
from adapter.governance.export import export_log
from adapter.governance.log import Question, all_events
from adapter.governance.seal import seal, seal_all
from adapter.governance.signing import Head
from tools.verify_audit import Export

VERIFIER = Path(__file__).parents[2] / "tools" / "verify_audit.py"


@pytest.fixture
def log(bridge: Bridge) -> tuple[Bridge, Head]:
    """300 events of three patients in 5 heads, and the head after the second."""
    noted = None
    for n in range(5):
        with bridge.db.transaction() as tx:
            for m in range(60):
                governance.audit(tx, bridge, "read", SYSTEM, patient_id=f"p{m % 3}", references=["Media/m1/_history/1"])
        head = seal(bridge)
        noted = head if n == 1 else noted
    assert noted is not None
    return bridge, noted


def check(folder: Path, *more: str) -> tuple[int, str]:
    """(exit code, what it said), with nothing of ours importable."""
    command = [sys.executable, "-I", str(VERIFIER), str(folder), *more]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder.parent, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


def problems(folder: Path) -> int:
    """The same in this process, many times over."""
    export = Export(folder, [], [])
    export.check()
    return len(export.problems)


def note(head: Head, folder: Path) -> str:
    file = folder / f"noted-{head.tree_size}.json"
    file.write_text(json.dumps(head.as_json()))
    return str(file)


@contextmanager
def restored(file: Path) -> Iterator[list[str]]:
    """The lines of a file, which is afterwards as it was."""
    text = file.read_text()
    yield text.splitlines(keepends=True)
    file.write_text(text)


def test_a_whole_export_holds_with_every_head_and_those_noted_earlier(log: tuple[Bridge, Head], tmp_path: Path) -> None:
    bridge, noted = log
    written, newest = export_log(bridge, tmp_path / "out", None, [noted])
    assert newest is not None
    assert (written, newest.tree_size) == (300, 300)
    given = ("--head", note(noted, tmp_path), "--head", note(newest, tmp_path))
    assert check(tmp_path / "out", *given) == (0, "all holds: 300 events, 5 signed heads, 2 noted heads\n")
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "out").iterdir())


def test_the_part_about_one_patient_is_proved_without_the_events_of_others(
    log: tuple[Bridge, Head], tmp_path: Path
) -> None:
    bridge, noted = log
    written, _ = export_log(bridge, tmp_path / "out", Question(patient_ids=frozenset({"p1"})), [noted])
    assert written == 100
    text = (tmp_path / "out" / "events.ndjson").read_text()
    assert "Patient/p0" not in text
    given = ("--head", note(noted, tmp_path))
    assert check(tmp_path / "out", *given) == (0, "all holds: 100 events, 2 signed heads, 1 noted heads\n")


@pytest.mark.parametrize(
    "asked",
    [
        Question(photo="m1"),
        Question(photo="m"),
        Question(user="Device/dermbridge", patient_ids=frozenset({"p1", "p2"})),
        Question(user="Practitioner/nobody"),
        Question(since=datetime(2026, 11, 23, tzinfo=UTC), until=datetime(2026, 11, 24, tzinfo=UTC)),
        Question(since=datetime(2026, 11, 24, tzinfo=UTC)),
        Question(until=datetime(2026, 11, 23, tzinfo=UTC)),
    ],
)
def test_a_part_holds_what_the_log_answers(log: tuple[Bridge, Head], tmp_path: Path, asked: Question) -> None:
    bridge, _ = log
    written, _ = export_log(bridge, tmp_path / "out", asked, [])
    assert written == sum(1 for _ in all_events(bridge.db, asked))


def test_who_was_hidden_from_the_search_is_exported_all_the_same(log: tuple[Bridge, Head], tmp_path: Path) -> None:
    bridge, _ = log
    with bridge.db.transaction() as tx:
        tx.execute(delete(search_index).where(search_index.c.resource_type == "AuditEvent"))
        tx.execute(update(audit_event).values(patient="p9", deleted=True))
    asked = Question(photo="m1", patient_ids=frozenset({"p1"}))
    assert list(all_events(bridge.db, asked)) == []
    assert export_log(bridge, tmp_path / "out", asked, [])[0] == 100
    assert check(tmp_path / "out")[0] == 0


CHANGES = [
    ("events.ndjson", '"outcome":"0"', '"outcome":"8"'),
    ("leaves.ndjson", '"seq":', '"seq":1'),
    ("heads.ndjson", '"tree_size":', '"tree_size":1'),
    ("heads.ndjson", '"root_hash":"', '"root_hash":"00'),
    ("heads.ndjson", '"signature":"', '"signature":"AAAA'),
]


@pytest.mark.parametrize("asked", [None, Question(patient_ids=frozenset({"p1"}))], ids=["whole", "part"])
def test_what_is_changed_missing_or_swapped_in_the_files_is_found(
    log: tuple[Bridge, Head], tmp_path: Path, asked: Question | None
) -> None:
    export_log(log[0], tmp_path / "out", asked, [log[1]])
    assert problems(tmp_path / "out") == 0
    for name, old, new in CHANGES:
        with restored(tmp_path / "out" / name) as lines:
            assert old in lines[1]
            (tmp_path / "out" / name).write_text("".join([lines[0], lines[1].replace(old, new, 1), *lines[2:]]))
            assert problems(tmp_path / "out") > 0, (name, new)
    with restored(tmp_path / "out" / "events.ndjson") as lines:
        for changed in (lines[1:], lines[:-1], [lines[1], lines[0], *lines[2:]]):
            (tmp_path / "out" / "events.ndjson").write_text("".join(changed))
            assert problems(tmp_path / "out") > 0
    assert problems(tmp_path / "out") == 0


def test_an_export_of_a_log_cut_back_is_found_by_a_noted_head(bridge: Bridge, tmp_path: Path) -> None:
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "read", SYSTEM)
    head = seal_all(bridge)
    assert head is not None
    export_log(bridge, tmp_path / "out", None, [])
    noted = note(Head(**{**vars(head), "tree_size": 7}), tmp_path)
    code, said = check(tmp_path / "out", "--head", noted)
    assert (code, "head 7: only 1 events are here; the log was cut" in said) == (1, True)


def test_a_log_rewritten_by_somebody_with_another_key_is_found_by_the_public_key(
    log: tuple[Bridge, Head], tmp_path: Path
) -> None:
    export_log(log[0], tmp_path / "out", None, [])
    (own,) = (tmp_path / "out").glob("*.pem")
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(
        "-----BEGIN PUBLIC KEY-----\n" + "MCowBQYDK2VwAyEA" + "A" * 43 + "=\n-----END PUBLIC KEY-----\n"
    )
    assert check(tmp_path / "out", "--key", str(own))[0] == 0
    assert check(tmp_path / "out", "--key", str(stranger))[0] == 1


def test_a_folder_that_is_no_export_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert check(tmp_path / "out")[0] == 2


def test_an_export_overwrites_nothing(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(BadInput, match="folder of its own"):
        export_log(bridge, tmp_path / "out", None, [])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
