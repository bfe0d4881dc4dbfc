"""The tables of kind `rest`: requests told as data.

A template is text with `{name}`; names are those of `connectors.templates.values`, the profile's `tenant` and `fields`,
and what earlier steps saved. Dates take a format: `{taken_at:%m/%d/%Y}`; `{family:xml}` is escaped for XML.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from connectors.knobs import Table


class Asked(Table):
    """A request. `path` is relative to base_url, or a whole address saved by an earlier step."""

    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    path: str
    body: Literal["none", "multipart", "json", "form", "bytes"] = "none"
    fields: dict[str, Any] = Field({})
    """Templates; for `json` they may be nested. Those of a step may name `base64`, the whole document."""
    headers: dict[str, str] = Field({})


class Step(Asked):
    """One request of several that file, read or take back a document."""

    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    file_field: str = "file"
    """Name of the file's part in a multipart body."""
    file_name: str = "{filename}"
    """Template of the file's own name."""
    chunk_bytes: PositiveInt | None = None
    """Make the request once for each piece of the document, in order; templates may name `chunk` (base64),
    `chunk_offset` and `chunk_size` (bytes)."""
    files: bool = True
    """Whether the document may be there after this request. Where not, a lost answer lets the delivery begin anew."""
    saves: dict[str, str] = Field({})
    """Name -> dotted path in the JSON answer (a number indexes a list), `location` for the tail of Location,
    `header:NAME` for another header, or `text` for the whole answer. An answer without it did not do what was asked."""
    content_path: str = ""
    """For reading back: dotted path of base64 content; empty: the body itself is the document."""


class Lookup(Asked):
    """A search that must find one thing: the patient, or the document."""

    items: str = ""
    """Dotted path of the list in the answer; empty: the answer is the list, or the one thing."""
    id: str
    """Dotted path of the id in one item."""
    matches: dict[str, str] = Field({})
    """Dotted path in an item -> template it must equal."""
    birth_date: str = ""
    """Dotted path of the birth date, compared when both are known."""
    birth_date_format: str = "%Y-%m-%d"
    none: tuple[int, ...] = ()
    """Statuses, beside 204, by which this vendor says that nothing is there: `[404]`. Where none is named, a 404 may be
    a wrong address as well, and nothing is concluded from it."""
    identifier_systems: tuple[str, ...] = ()
    """For the patient: which identifier `{identifier}` is; empty: the first."""

    @model_validator(mode="after")
    def _exact(self) -> Self:
        if not self.matches and not self.birth_date and not re.search(r"\{\w", f"{self.path} {self.fields}"):
            raise ValueError("name in path, fields or matches what must be found")
        return self
