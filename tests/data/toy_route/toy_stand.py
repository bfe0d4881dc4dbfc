"""The contract suite on the toy route: pytest -p toy_stand."""

from pathlib import Path

from connectors.contract import Connector
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.connectors.stands import STANDS, no_secrets
from tests.servers.fhir_ehr import Ehr


def open_toy(_ehr: Ehr, folder: Path) -> Connector:
    table = {"name": "toy", "kind": "toy", "folder": str(folder / "out")}
    return open_connector(build_profile(table, source="test"), no_secrets)


STANDS["toy"] = open_toy
