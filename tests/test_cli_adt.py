"""`dermbridge adt` as an engineer types it: lists for scripts, and what a list names is undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapter.cli import cli
from adapter.identity import apply_message, receive_messages
from adapter.serve import open_prepared
from adapter.settings import load_settings
from adapter.work import Lane, WorkLoop

RUN = CliRunner()


def _message(event: str, number: int, patient: str, merged: str = "") -> bytes:
    mrg = f"MRG|{merged}\r" if merged else ""
    head = f"MSH|^~\\&|ADT|HOSP|DB|HOSP|20261123120000||ADT^{event}|{number}|P|2.5.1\rEVN|{event}|20261123120000\r"
    return f"{head}PID|1||{patient}^^^HOSP^MR||Doe^Jane||19700101|F\r{mrg}".encode()


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "dermbridge.toml"
    file.write_text('identifier_systems = { HOSP = "urn:oid:1.2.3" }\n')
    monkeypatch.setenv("DERMBRIDGE_CONFIG", str(file))
    monkeypatch.setenv("DERMBRIDGE_DATA_DIR", str(tmp_path / "var"))
    bridge = open_prepared(load_settings())
    merge, unclear = _message("A40", 3, "2", "1^^^HOSP^MR"), _message("A40", 4, "2", "1")
    receive_messages(bridge, [_message("A28", 1, "1"), _message("A28", 2, "2"), merge, unclear], "test")
    lane = Lane(lambda item: apply_message(bridge, item), dead_blocks=True)
    WorkLoop(bridge.db, {"apply-adt": lane}).run_until_idle()
    bridge.close()


@pytest.mark.usefixtures("installation")
def test_the_queue_and_the_changes_are_json_for_scripts_and_a_change_is_undone_by_its_id() -> None:
    (held,) = json.loads(RUN.invoke(cli, ["adt", "queue", "--json"]).stdout)
    assert (held["control_id"], bool(held["reason"]), bool(held["remedy"])) == ("4", True, True)
    (change,) = json.loads(RUN.invoke(cli, ["adt", "changes", "--json"]).stdout)
    assert change["kind"] == "merge"
    assert RUN.invoke(cli, ["adt", "undo", change["id"]]).exit_code == 0
    assert json.loads(RUN.invoke(cli, ["adt", "changes", "--json"]).stdout) == []
