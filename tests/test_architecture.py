"""The rooms keep to their directions, and the pure ones stay pure.

Directions are import contracts (`[tool.importlinter]` in pyproject.toml). What an import cannot show is read off the
syntax tree: a mapping that asks for the time, for chance or for the environment, and anybody but `adapter/settings.py`
who reads the environment.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
ENVIRONMENT = frozenset({"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"})
CLOCKS = frozenset(
    {
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "datetime.date.today",
        "time",
    }
)
CHANCE = frozenset({"random", "secrets", "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "uuid.getnode"})
OUTSIDE = ENVIRONMENT | CLOCKS | CHANCE
"""Dotted names; a name stands for everything below it (`time` for `time.monotonic`)."""


def outside_names(source: str, forbidden: frozenset[str] = OUTSIDE) -> list[str]:
    """Every forbidden dotted name that `source` mentions, whatever it was imported as, with its line."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    mentioned: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {
                n.asname or n.name.split(".")[0]: n.name if n.asname else n.name.split(".")[0] for n in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            imported |= {n.asname or n.name: f"{node.module}.{n.name}" for n in node.names}
            mentioned += [(node.lineno, f"{node.module}.{n.name}") for n in node.names]
    mentioned += [(node.lineno, _dotted(node, imported)) for node in ast.walk(tree) if isinstance(node, ast.expr)]
    return [f"line {line}: {name}" for line, name in sorted(set(mentioned)) if _is_under(name, forbidden)]


def _dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """`dt.now` as `datetime.datetime.now` after `from datetime import datetime as dt`; "" for anything else."""
    match node:
        case ast.Name(id=name):
            return imported.get(name, "")
        case ast.Attribute(value=value, attr=attr):
            base = _dotted(value, imported)
            return base and f"{base}.{attr}"
    return ""


def _is_under(name: str, forbidden: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in forbidden for length in range(1, len(parts) + 1))


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_import_goes_in_the_direction_of_the_rooms(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    outcome = lint_imports(config_filename="pyproject.toml", no_cache=True, no_logo=True)
    assert outcome == 0, capfd.readouterr().out


@pytest.mark.parametrize("path", sources("mappings"), ids=name_of)
def test_a_mapping_depends_on_its_arguments_alone(path: Path) -> None:
    assert outside_names(path.read_text(encoding="utf-8")) == []


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        name_of(path)
        for path in sources("adapter", "connectors", "mappings")
        if outside_names(path.read_text(encoding="utf-8"), ENVIRONMENT)
    }
    assert readers <= {"adapter/settings.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['HOME']",
        "from os import environ as e",
        "from os import getenv",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime as dt\ndt.now()",
        "from datetime import date\ntoday = date.today",
        "import time as clock\nclock.monotonic()",
        "from time import time_ns",
        "import random\nrandom.random()",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "import os\nos.urandom(8)",
    ],
)
def test_a_mapping_that_looks_outside_would_be_caught(source: str) -> None:
    assert outside_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndatetime.fromisoformat('2026-11-01')",
        "from uuid import uuid5",
        "def age(now: 'datetime') -> None: now.time()",
        "time = 3\ntime.real",
        "import os\nos.fspath('a')",
    ],
)
def test_a_mapping_that_takes_times_and_ids_as_arguments_is_left_alone(source: str) -> None:
    assert not outside_names(source)


def test_starting_to_serve_loads_no_decoder_no_model_and_no_migration_tool() -> None:
    heavy = ["PIL", "cv2", "numpy", "pydicom", "fhir", "hl7apy", "alembic", "pillow_heif"]
    rooms = "adapter.serve, adapter.app, adapter.compare, adapter.cli"
    code = f"import sys, {rooms}; print([one for one in {heavy} if one in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", "import it where it is used"
