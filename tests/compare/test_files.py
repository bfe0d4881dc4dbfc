"""`dermbridge compare` on plain files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapter.cli import cli
from adapter.compare.files import compare_files, read_points
from adapter.errors import BadInput
from tests.compare.pairs import jpeg, other_skin, pair


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("left.jpg", "right.jpg")]
    for path, content in zip(paths, pair("normal").jpegs(), strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def test_two_files_are_compared_and_points_mapped(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y\n600,450\n\n5000,1\n", encoding="utf-8")
    out = tmp_path / "compared"
    ran = CliRunner().invoke(
        cli, ["compare", *files, "--map", str(tmp_path / "points.csv"), "--out", str(out), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    answer = json.loads(ran.stdout)
    truth = pair("normal").view.seen_at(pair("normal").grid(3) * 0 + [600, 450])[0]
    assert answer["verdict"] == "aligned"
    assert answer["mapped"] == [pytest.approx(truth.tolist(), abs=0.5), None]
    assert answer["elapsed_ms"] > 0
    assert answer["left"] == {"width": 1200, "height": 900}
    assert sorted(path.name for path in out.iterdir()) == ["aligned.jpg", "change.png", "overlay.jpg"]
    assert answer["change"]["regions"][0]["box"]


def test_without_json_it_answers_in_sentences(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("600,450\n5000,1\n", encoding="utf-8")
    ran = CliRunner().invoke(cli, ["compare", *files, "--map", str(tmp_path / "points.csv")])
    assert ran.exit_code == 0
    assert ran.stdout.startswith("aligned: ")
    assert "(600.0, 450.0)" in ran.stdout
    assert "not shown" in ran.stdout


def test_photos_that_do_not_match_are_never_said_to_be_without_change(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.jpg").write_bytes(jpeg(other_skin(301)))
    told = CliRunner().invoke(cli, ["compare", files[0], str(tmp_path / "other.jpg")]).stdout
    assert told.startswith("not-aligned: ")
    assert "cannot be told" in told
    assert "no change" not in told


def test_a_file_that_is_no_photo_is_named(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear colleague")
    with pytest.raises(BadInput, match=r"letter\.jpg: "):
        compare_files(Path(files[0]), tmp_path / "letter.jpg")


def test_photos_that_do_not_match_are_an_answer_and_no_pictures(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.jpg").write_bytes(jpeg(other_skin(301)))
    (tmp_path / "points.csv").write_text("1,1\n2,2\n", encoding="utf-8")
    arguments = ["compare", files[0], str(tmp_path / "other.jpg"), "--map", str(tmp_path / "points.csv"), "--json"]
    answer = json.loads(CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")]).stdout)
    assert answer["verdict"] == "not-aligned"
    assert answer["reasons"]
    assert answer["mapped"] == [None, None]
    assert answer["change"] is None
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_point_is_named(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("1,1\n2;2\n", encoding="utf-8")
    with pytest.raises(BadInput, match="Line 2"):
        read_points(file)
    file.write_text("x,y\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no point"):
        read_points(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"6oo,450\n1,1\n", "Line 1"),  # no heading: a point less would go unnoticed
        ("x,y\n1,1\n".encode("utf-16"), "UTF-8"),
        (b'"' + b"9" * 200_000 + b'",1\n', "UTF-8"),
    ],
)
def test_a_points_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "points.csv").write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_points(tmp_path / "points.csv")
