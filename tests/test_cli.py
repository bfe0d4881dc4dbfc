"""What the command line says to people."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from adapter.bridge import open_bridge
from adapter.cli import cli, main, show
from adapter.errors import Misconfigured
from adapter.settings import load_settings


def test_an_error_keeps_its_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "dermbridge.toml"
    config.write_text('[[destinations]]\nname = "main-ehr"\nprofile = "hapi"\nbase_url = "ftp://x"\n')
    monkeypatch.setenv("DERMBRIDGE_CONFIG", str(config))
    monkeypatch.setenv("DERMBRIDGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["dermbridge", "serve"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "[[destinations]]" in capsys.readouterr().err


def test_a_table_shows_what_senders_wrote_as_they_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"reason": "PV1-3 is [/ward] here"}], ["reason"], as_json=False, empty="")
    assert "[/ward]" in capsys.readouterr().out


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="data_dir"):
        open_bridge(load_settings(environment={}, data_dir=tmp_path / "file" / "data"))


def test_a_path_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dermbridge", "card", str(tmp_path / "no-folder" / "card.svg")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no-folder" in capsys.readouterr().err


def test_tokens_in_force_are_listed_without_their_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DERMBRIDGE_DATA_DIR", str(tmp_path / "data"))

    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dermbridge", "token", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    secret = said("issue", "--name", "camera-1", "--scope", "system/Media.c").strip()
    listed = said("list", "--json")
    (row,) = json.loads(listed)
    assert (row["name"], row["scope"], row["expires_at"]) == ("camera-1", "system/Media.c", None)
    assert secret not in listed
    said("revoke", row["id"])
    assert json.loads(said("list", "--json")) == []


# What runs until it is stopped, writes a file that was named, or speaks to scripts as it is.
TOLD_AS_THEY_ARE = {
    *("serve", "worker", "mllp", "demo", "sandbox ehr"),
    *("card", "audit export", "audit head", "connectors schema"),
}


def test_every_command_tells_scripts_what_it_found_or_did() -> None:
    silent = {name for name, options in options_of(typer.main.get_command(cli)) if "--json" not in options}
    assert silent == TOLD_AS_THEY_ARE


def options_of(command: Any, *path: str) -> Iterator[tuple[str, set[str]]]:
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from options_of(each, *path, name)
    if not below:
        yield " ".join(path), {option for parameter in command.params for option in parameter.opts}
