"""A route of another package: one module and one row, then profiles, commands and the contract suite know it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "data" / "toy_route"
COMMAND = ("-c", "from adapter.cli import main; main()")

pytestmark = pytest.mark.long  # it runs the contract suite once more, in a process of its own


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(TOY), str(ROOT)])
    given = {name: value for name, value in os.environ.items() if not name.startswith(("DERMBRIDGE_", "PYTEST_"))}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=given | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contract_suite_picks_up_the_route_of_another_package(tmp_path: Path) -> None:
    suite = str(ROOT / "tests" / "connectors" / "test_contract.py")
    options = ("-q", "-p", "toy_stand", "-p", "no:cacheprovider", "-k", "toy", "--rootdir", str(ROOT), "-c", os.devnull)
    done = run("-m", "pytest", suite, *options, folder=ROOT)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) >= 7, done.stdout[-2000:]


def test_without_its_package_the_kind_is_not_known(tmp_path: Path) -> None:
    from connectors.profile import ProfileError, parse_profile

    with pytest.raises(ProfileError, match="kind 'toy' is not known; use one of dicom-cstore"):
        parse_profile((TOY / "toy.toml").read_text("utf-8"), source="toy.toml")


def test_profiles_and_commands_know_it(tmp_path: Path) -> None:
    table = f'[[destinations]]\nname = "toy-site"\nbased_on = "{TOY}/toy.toml"\nfolder = "{tmp_path}/out"\n'
    several = '[[destinations]]\nname = "two"\nkind = "ehr"\n'
    several += f'[[destinations.routes]]\nkind = "toy"\nfolder = "{tmp_path}"\n'
    several += '[[destinations.routes]]\nkind = "hand-off"\n'
    (tmp_path / "dermbridge.toml").write_text(table + several)
    settings = {"DERMBRIDGE_CONFIG": str(tmp_path / "dermbridge.toml"), "DERMBRIDGE_DATA_DIR": str(tmp_path / "data")}
    checked = run(*COMMAND, "connectors", "check", "toy-site", "--all", "--json", folder=tmp_path, **settings)
    assert checked.returncode == 0 and "can be made" in checked.stdout, checked.stdout + checked.stderr
    shown = run(*COMMAND, "connectors", "dry-run", "two", folder=tmp_path, **settings)
    assert "--- toy" in shown.stdout and "--- hand-off" in shown.stdout, shown.stdout + shown.stderr
