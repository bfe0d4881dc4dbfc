"""What the contract suite is run on: how each connector is opened, with a destination that answers.

Another package adds its own: `python -m pytest tests/connectors/test_contract.py -p MODULE`, whose module puts a
line into `STANDS` (tests/data/toy_route/toy_stand.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from connectors.contract import Connector
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.servers.fhir_ehr import Ehr

Stand = Callable[[Ehr, Path], Connector]
"""Opens a connector; given a FHIR server that holds the patients of the suite, and an empty folder."""


def open_fhir(ehr: Ehr, _folder: Path | None = None, **changes: Any) -> Connector:
    table = {"name": "ehr", "kind": "fhir-r4", "base_url": ehr.url, "timeouts": {"read": 5.0, "attempts": 1}}
    ehr.connectors.append(open_connector(build_profile(table | changes, source="test"), no_secrets))
    opened: Connector = ehr.connectors[-1]
    return opened


def no_secrets(name: str) -> str:
    raise KeyError(name)


def _directory(_ehr: Ehr, folder: Path) -> Connector:
    table = {"name": "folder", "kind": "directory", "folder": str(folder / "out")}
    return open_connector(build_profile(table, source="test"), no_secrets)


def _document(ehr: Ehr, folder: Path) -> Connector:
    ehr.without = ("Media",)
    return open_fhir(ehr, folder)


def _share(ehr: Ehr, folder: Path) -> Connector:
    (folder / "share").mkdir()
    return open_fhir(ehr, binary_upload="share", share={"folder": str(folder / "share"), "address": "file:///{name}"})


STANDS: Final[dict[str, Stand]] = {
    "directory": _directory,
    "media-raw": partial(open_fhir, binary_upload="raw"),
    "media-json": partial(open_fhir, binary_upload="json"),
    "media-inline": partial(open_fhir, binary_upload="inline"),
    "media-share": _share,
    "document": _document,
}
