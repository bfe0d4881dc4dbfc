"""What the service logs tells where it went wrong, and nothing about a patient."""

import json
import logging

import pytest
import structlog

from adapter.errors import Unavailable
from adapter.logs import configure_logs


def _fail() -> None:
    patients: dict[str, str] = {}
    try:
        patients["Muster" + "mann"]
    except KeyError as error:
        raise Unavailable("the list of patients does not answer") from error


def _logged(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    told = capsys.readouterr()
    found: dict[str, str] = json.loads((told.out + told.err).splitlines()[-1])
    return found


@pytest.mark.parametrize("says", ["our own code", "a library"])
def test_a_traceback_names_places_and_types_but_never_a_patient(
    says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    try:
        configure_logs()
        try:
            _fail()
        except Unavailable as error:
            if says == "our own code":
                structlog.get_logger().error("it failed", exc_info=error)
            else:
                logging.getLogger("a.library").error("it failed", exc_info=error)
    finally:
        structlog.reset_defaults()
    line = _logged(capsys)
    assert line["event"] == "it failed"
    assert line["level"] == "error"
    assert "Mustermann" not in line["exception"]
    assert "builtins.KeyError" in line["exception"]
    assert "adapter.errors.Unavailable: the list of patients does not answer" in line["exception"]
    assert "test_logs.py" in line["exception"]
