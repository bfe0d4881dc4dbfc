"""`dermbridge audit` as its users call it: a head noted, the log verified, a patient's part exported and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge, open_bridge
from adapter.cli import cli
from adapter.db.schema import prepare
from adapter.db.tables import audit_event
from adapter.records import create
from adapter.settings import load_settings
from tools.verify_audit import Export

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician")
Run = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    """A photo of patient 4711 was seen, and one of another patient; the commands find this installation."""
    monkeypatch.setenv("DERMBRIDGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    bridge = open_bridge(load_settings())
    prepare(bridge.db)
    with bridge.db.transaction() as tx:
        identifier = [{"system": "urn:oid:2.16.840.1.113883.19.5", "value": "4711"}]
        create(tx, {"resourceType": "Patient", "id": "p1", "identifier": identifier}, at=bridge.now())
        for n in (1, 2):
            references = [f"Media/m{n}/_history/1"]
            governance.audit(tx, bridge, "read", DOCTOR, patient_id=f"p{n}", references=references)
    return bridge


@pytest.fixture
def run(site: Bridge) -> Run:
    def call(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(cli, ["audit", *arguments])
        assert done.exit_code == code, done.output
        return done

    return call


def test_a_noted_head_is_continued_by_the_log_until_somebody_alters_it(run: Run, site: Bridge, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(run("head").stdout)
    told = json.loads(run("verify", "--head", "head.json", "--json").stdout)
    assert (told["verdict"], told["events"], told["problems"]) == ("whole", 2, [])
    with site.db.transaction() as tx:
        tx.execute(update(audit_event).where(audit_event.c.patient == "p2").values(body="{}"))
    told = json.loads(run("verify", "--head", "head.json", "--json", code=1).stdout)
    assert (told["verdict"], [one["seq"] for one in told["problems"]]) == ("damaged", [1])
    assert "damaged" in run("verify", code=1).stdout


def test_a_patients_part_is_exported_by_record_number_with_its_proofs(run: Run, tmp_path: Path) -> None:
    run("export", str(tmp_path / "out"), "--patient", "4711")
    export = Export(tmp_path / "out", [], [])
    assert (export.check(), export.problems) == (2, [])  # that it was exported is the second
    assert "Patient/p2" not in (tmp_path / "out" / "events.ndjson").read_text()


def test_a_report_tells_who_saw_what_and_that_it_was_asked_for(run: Run) -> None:
    told = json.loads(run("report", "--patient", "4711", "--json").stdout)
    assert [row["did"] for row in told] == ["Read the audit log", "Viewed"]
    assert "at the command line by" in told[0]["detail"]
    assert run("report", "--photo", "m2", "--csv").stdout.count("Dr. D") == 1
    assert json.loads(run("report", "--user", "Practitioner/d1", "--fhir").stdout)["type"] == "collection"
    plain = json.loads(run("report", "--patient", "p1", "--for-patient", "--json").stdout)
    assert plain[-1]["who"] == "Dr. D (clinician)"
    assert plain[-1]["what"] == "looked at a photo of you"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report"], "say whom it is about"),
        (["report", "--patient", "none"], "there is no patient"),
        (["report", "--patient", "p1", "--csv", "--json"], "choose one"),
        (["report", "--user", "x", "--for-patient"], "which patient"),
    ],
)
def test_a_call_that_cannot_be_answered_says_what_to_change(run: Run, arguments: list[str], told: str) -> None:
    assert told in str(run(*arguments, code=1).exception)
