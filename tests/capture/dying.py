"""What a bounded child does that dies of a signal in the middle of its first calls, and then answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def die(request: dict[str, Any], _contents: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """`{"signal", "times", "log"}`: each call is a line in the file `log`."""
    with Path(request["log"]).open("a") as log:
        log.write("called\n")
    if calls(Path(request["log"])) <= request["times"]:
        os.kill(os.getpid(), request["signal"])
    return {}, [b"done"]


def calls(log: Path) -> int:
    return log.read_text().count("\n")
