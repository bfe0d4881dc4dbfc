"""The tables of kind `rest`: requests told as data.

A template is text with `{name}`; names are those of `connectors.templates.values`, the profile's `tenant` and `fields`,
and what earlier steps saved. Dates take a format: `{taken_at:%m/%d/%Y}`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from connectors.knobs import Table


class Step(Table):
    """One request. `path` is relative to base_url, or a whole address saved by an earlier step."""

    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    path: str
    body: Literal["none", "multipart", "json", "form", "bytes"] = "none"
    file_field: str = "file"
    """Name of the file's part in a multipart body."""
    file_name: str = "{filename}"
    """Template of the file's own name."""
    fields: dict[str, Any] = Field({})
    """Templates; for `json` they may be nested."""
    headers: dict[str, str] = Field({})
    saves: dict[str, str] = Field({})
    """Name -> dotted path in the JSON answer (a number indexes a list), or `location` for the tail of Location."""
    content_path: str = ""
    """For reading back: dotted path of base64 content; empty: the body itself is the document."""


class Lookup(Table):
    """A search that must find one thing: the patient, or the document."""

    path: str
    items: str = ""
    """Dotted path of the list in the answer; empty: the answer is the list, or the one thing."""
    id: str
    """Dotted path of the id in one item."""
    matches: dict[str, str] = Field({})
    """Dotted path in an item -> template it must equal."""
    birth_date: str = ""
    """Dotted path of the birth date, compared when both are known."""
    birth_date_format: str = "%Y-%m-%d"
    identifier_systems: tuple[str, ...] = ()
    """For the patient: which identifier `{identifier}` is; empty: the first."""

    @model_validator(mode="after")
    def _exact(self) -> Self:
        if not self.matches and not self.birth_date and "{identifier}" not in self.path and "{" not in self.path:
            raise ValueError("name in path or matches what must be found")
        return self
