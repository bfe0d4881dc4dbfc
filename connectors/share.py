"""Files on a share that the destination's server reaches by an address of its own (an external attachment)."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from connectors.contract import DeliveryError, Retry
from connectors.knobs import ShareFolder

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]{0,99}")


class Share:
    """A mounted folder. Files appear whole or not at all. Raises DeliveryError."""

    def __init__(self, given: ShareFolder) -> None:
        self._given = given

    def address(self, name: str) -> str:
        """What the destination's server opens."""
        return self._given.address.replace("{name}", name)

    def find_name(self, address: object) -> str | None:
        """The name behind an address of ours."""
        begins, _, ends = self._given.address.partition("{name}")
        text = str(address)
        name = text[len(begins) : len(text) - len(ends)]
        return name if text == self.address(name) and _NAME.fullmatch(name) else None

    def put(self, name: str, content: bytes) -> None:
        """Durable on return; the same name again replaces the file."""
        with _as_delivery_errors():
            unfinished = self._given.folder / f".{uuid.uuid4()}"
            try:
                with unfinished.open("xb") as out:
                    out.write(content)
                    out.flush()
                    os.fsync(out.fileno())
                unfinished.rename(self._place(name))
            finally:
                unfinished.unlink(missing_ok=True)

    def find(self, name: str) -> bytes | None:
        with _as_delivery_errors():
            place = self._place(name)
            return place.read_bytes() if place.is_file() else None

    def remove(self, name: str) -> None:
        with _as_delivery_errors():
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise DeliveryError("A file's name is not one of ours.", remedy="Report this defect.", retry=Retry.NEVER)
        return self._given.folder / name


@contextmanager
def _as_delivery_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"The share cannot be used ({os.strerror(error.errno) if error.errno else type(error).__name__})."
        remedy = "Check that share.folder is mounted, has room and can be written; it is tried again."
        raise DeliveryError(reason, remedy=remedy, retry=Retry.LATER, outage=True) from error
