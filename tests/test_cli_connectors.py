"""`dermbridge connectors` and `dermbridge sandbox`, as an engineer types them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from adapter.cli import beside_service, cli
from adapter.db.tables import audit_event
from adapter.records import create
from adapter.sandbox.vendors import behaviour_names, running_vendor
from adapter.sandbox.vendors.catalogue import as_toml
from adapter.sandbox.vendors.photos_there import file_photo
from connectors.knob_table import verdicts
from connectors.profile import build_profile, find_shipped_profiles

pytestmark = pytest.mark.long


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty installation in a folder of its own, with one folder as destination."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    table = '[[destinations]]\nname = "shelf"\nbased_on = "directory"\nfolder = "out"\n'
    (tmp_path / "config" / "dermbridge.toml").write_text(table)
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["connectors", *words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def answer(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code))


def test_list_says_how_photos_go_and_whether_the_destination_is_down(site: Path) -> None:
    assert answer("list") == [{"name": "shelf", "routes": "directory", "state": "no outages"}]


def test_a_new_profile_is_a_commented_copy_that_says_what_is_to_be_set(site: Path) -> None:
    assert "based_on" in run("new", "main-ehr", "--like", "epic")
    text = (site / "config" / "connectors" / "main-ehr.toml").read_text()
    assert tomllib.loads(text)["name"] == "main-ehr" and "# Epic." in text
    with (site / "config" / "dermbridge.toml").open("a") as settings:
        settings.write('[[destinations]]\nname = "main-ehr"\nbased_on = "config/connectors/main-ehr.toml"\n')
    found = answer("check", "main-ehr", "--offline", code=1)
    unset = [each for each in found if each["verdict"] == "error"]
    assert unset and all("set-me" not in each["remedy"] and each["remedy"] for each in unset)


@pytest.mark.parametrize("name", ["Main EHR", "../main", ""])
def test_a_name_that_no_destination_may_have_writes_no_profile(site: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="lower case letters"):
        run("new", name, "--like", "epic")
    assert not (site / "config" / "connectors").exists()


def test_two_destinations_of_one_name_are_refused_by_every_command(site: Path) -> None:
    settings = site / "config" / "dermbridge.toml"
    settings.write_text(settings.read_text() * 2)
    for words in (["list"], ["check", "shelf"], ["send", "m1", "shelf"]):
        with pytest.raises(AssertionError, match="used twice"):
            run(*words)


def test_a_profile_of_ones_own_is_checked_and_tried_dry_before_it_is_in_the_settings(site: Path) -> None:
    run("new", "mine", "--like", "openemr")
    file = "config/connectors/mine.toml"
    assert "auth.client_id" in " ".join(each["detail"] for each in answer("check", file, code=1))
    assert answer("dry-run", file)[0]["outgoing"] and answer("explain", file)


def test_a_question_about_nobody_is_not_asked(site: Path) -> None:
    for told, *words in (("say who", "shelf"), ("SYSTEM", "shelf", "--identifier", "4711")):
        with pytest.raises(AssertionError, match=told):
            run("look-up", *words)
    run("look-up", "shelf", "--born", "1.2.1970", code=2)


def test_a_folder_is_checked_for_real(site: Path) -> None:
    found = answer("check", "shelf")
    assert {"folder", "space"} <= {each["subject"] for each in found}
    assert "in order" in run("check", "shelf")


@pytest.mark.parametrize("name", find_shipped_profiles())
def test_every_shipped_profile_shows_what_it_would_send(site: Path, name: str) -> None:
    outgoing = answer("dry-run", name)[0]["outgoing"]
    assert any(each["what"] and not each["refusal"] for each in outgoing), outgoing


def test_a_dry_run_shows_the_message_without_the_photos_base64(site: Path) -> None:
    told = run("dry-run", "hl7v2")
    assert "OBX|1|ED|" in told and "characters>" in told and len(told) < 4000


def test_explaining_names_keys_with_their_meaning(site: Path) -> None:
    told = {each["key"]: each for each in answer("explain", "oracle-health")}
    assert told["auth.minimum_refresh_seconds"]["meaning"].startswith("Ask for a token")


def test_replaying_with_nothing_failed_says_so(site: Path) -> None:
    assert "0 deliveries" in run("replay", "shelf")


def test_looking_for_what_nobody_asked_to_look_for_says_so(site: Path) -> None:
    with pytest.raises(AssertionError, match="no delivery of photo m1 to shelf waits for somebody to look"):
        run("looked", "m1", "shelf", "--there", "--because", "in the inbox")


def test_a_destination_is_stopped_for_maintenance_and_goes_on(site: Path) -> None:
    assert "until `dermbridge connectors resume shelf`" in run("stop", "shelf", "--because", "upgrade until 06:00")
    assert answer("list")[0]["state"] == "stopped: upgrade until 06:00"
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)
    (told,) = [each for each in found if each["subject"] == "destination shelf"]
    assert told["verdict"] == "warning" and told["detail"].startswith("stopped: upgrade until 06:00;")
    assert "shelf goes on; 0 deliveries" in run("resume", "shelf")
    assert answer("list")[0]["state"] == "no outages"


def test_what_was_done_is_told_to_scripts_as_well(site: Path) -> None:
    assert answer("stop", "shelf", "--because", "upgrade") == [{"destination": "shelf", "stopped": "upgrade"}]
    assert answer("resume", "shelf") == [{"destination": "shelf", "deliveries": 0}]
    assert answer("replay", "shelf") == [{"deliveries": 0}]
    (made,) = answer("new", "mine", "--like", "epic")
    assert made["file"] == "config/connectors/mine.toml" and 'name = "mine"' in made["settings"]
    (kept,) = answer("secret", "mine.pem", "--new-key", "ec")
    assert kept["public"]["keys"][0]["kty"] == "EC"


def test_what_a_set_back_ehr_lost_is_replayed_since_a_time_of_day(site: Path) -> None:
    assert "0 deliveries" in run("replay", "shelf", "--since", "00:00", "--until", "2999-01-01T00:00")
    for told, *words in (
        ("give 09:00", "--since", "nine"),
        ("still to come", "--since", "2999-01-01T00:00"),
        ("since when", "--until", "09:00"),
    ):
        with pytest.raises(AssertionError, match=told):
            run("replay", "shelf", *words)


@pytest.mark.parametrize("vendor", ["oracle-health", "epic", "medplum", "veradigm", "openemr", "hl7v2", "athenaflow"])
def test_from_new_to_a_photo_in_the_played_vendors_chart(site: Path, vendor: str) -> None:
    """As typed by an engineer: a profile of one's own, a secret, check, dry-run, try."""
    run("new", "mine", "--like", vendor)
    secret = CliRunner().invoke(cli, ["connectors", "secret", "simulator"], input="anything\n")
    assert secret.exit_code == 0, secret.output
    with running_vendor(vendor) as running:
        running.vendor.admit("4711", "1970-01-01", "V-4711")
        own = {"name": "mine", "based_on": "config/connectors/mine.toml"}
        with (site / "config" / "dermbridge.toml").open("a") as settings:
            settings.write(as_toml(running.destination("x") | own))
        found = {each["subject"]: each for each in answer("check", "mine")}
        assert all(each["verdict"] == "ok" for subject, each in found.items() if subject.endswith("connection")), found
        assert answer("dry-run", "mine")[0]["outgoing"]
        steps = answer("try", "mine", "--patient", "4711", "--visit", "V-4711", "--keep")
        assert steps[0]["subject"] == "sent" and not [each for each in steps if each["verdict"] == "error"], steps
        assert [each.mrn for each in running.vendor.filed()] == ["4711"]


@pytest.mark.parametrize("words", [("check", "nowhere"), ("dry-run", "nowhere"), ("send", "m1", "shelf")])
def test_what_is_not_there_is_an_expected_error(site: Path, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["connectors", *words])
    assert result.exit_code == 1 and type(result.exception).__name__ == "NotFound"


@pytest.mark.parametrize("name", behaviour_names())
def test_the_destination_a_played_vendor_prints_can_be_pasted_and_leaves_nothing_unset(name: str) -> None:
    with running_vendor(name) as running:
        entry = running.destination(name)
        assert tomllib.loads(as_toml(entry)) == {"destinations": [entry]}
        unset = [each for each in verdicts(build_profile(entry, source="test")) if each.verdict == "error"]
        assert not unset


def test_a_patient_is_looked_up_and_the_question_is_in_the_audit_log(site: Path) -> None:
    with running_vendor("hapi") as running:
        running.vendor.admit("4711", "1970-01-01")
        with (site / "config" / "dermbridge.toml").open("a") as settings:
            settings.write(as_toml(running.destination("main-ehr")))
        asked = ["look-up", "main-ehr", "--identifier", "urn:oid:1.2.3|4711"]
        (found,) = answer(*asked)
        assert (found["id"], found["way"], found["born"]) == ("pat-4711", "identifier", "1970-01-01")
        assert "nobody fits" in run("look-up", "main-ehr", "--identifier", "urn:oid:1.2.3|9")
        run("look-up", "shelf", "--identifier", "urn:oid:1.2.3|4711", code=1)
        said = [one["subject"] for one in answer("check", "main-ehr", code=0)]
        assert {"asking for patients by identifier", "asking for patients by demographics"} <= set(said)
    with beside_service() as bridge, bridge.db.snapshot() as tx:
        count = sum("main-ehr" in one for one in tx.execute(select(audit_event.c.body)).scalars())
    assert count == 2


# --- photos there ---------------------------------------------------------------------------------------------------

MRN = "urn:oid:2.16.840.1.113883.19.5"
JANE = {"resourceType": "Patient", "id": "p1", "identifier": [{"system": MRN, "value": "4711"}]}


def test_photos_there_are_listed_and_copied_once_the_patient_is_known(site: Path) -> None:
    with running_vendor("hapi") as running:
        running.vendor.admit("4711")
        photo_id = file_photo(running.vendor, "4711", (Path(__file__).parent / "docker" / "photo.jpg").read_bytes())
        (site / "config" / "dermbridge.toml").write_text(as_toml(running.destination("main-ehr")))
        asked = ("main-ehr", "--patient", f"{MRN}|4711")
        output = run("photos", *asked)
        assert photo_id in output and "not registered here" in output
        run("pull", "main-ehr", photo_id, *asked[1:], code=1)
        with beside_service() as bridge, bridge.db.transaction() as tx:
            create(tx, JANE, at=bridge.now())
        (copied,) = answer("pull", "main-ehr", photo_id, *asked[1:])
        assert copied["how"] == "copied"
        (listed,) = answer("photos", *asked)
        assert (listed["here"], listed["ours"], listed["obstacle"]) == (copied["media"], False, "")
        assert answer("pull", "main-ehr", photo_id, "--patient", "Patient/p1") == [copied | {"how": "kept"}]
        run("photos", "shelf", *asked[1:], code=1)
