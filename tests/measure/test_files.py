"""`dermbridge card` and `dermbridge measure` on plain files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapter.cli import cli
from tests.measure.scenes import scene


def test_a_lesion_in_a_file_is_measured(tmp_path: Path) -> None:
    photo = scene("card")
    (tmp_path / "mole.jpg").write_bytes(photo.jpeg)
    at = "{:.1f},{:.1f}".format(*photo.middle)
    ran = CliRunner().invoke(cli, ["measure", str(tmp_path / "mole.jpg"), "--at", at, "--json"])
    assert ran.exit_code == 0, ran.output
    answer = json.loads(ran.stdout)
    assert answer["scale"]["source"] == "card"
    assert answer["measures"][0]["value"] == pytest.approx(photo.area, rel=0.08)
    told = CliRunner().invoke(cli, ["measure", str(tmp_path / "mole.jpg"), "--at", at])
    assert "mm²" in told.stdout


def test_the_card_is_written_as_it_is_named(tmp_path: Path) -> None:
    for name, begins in (("card.pdf", b"%PDF-"), ("card.svg", b"<svg")):
        ran = CliRunner().invoke(cli, ["card", str(tmp_path / name)])
        assert ran.exit_code == 0, ran.output
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert CliRunner().invoke(cli, ["card", str(tmp_path / "card.png")]).exit_code != 0
