"""Who acts: a person in a session, a machine with a token, or DermBridge itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Self

import orjson

LONGEST_ID = 200  # what every column takes that holds one
ActorKind = Literal["person", "machine", "system"]


@dataclass(frozen=True)
class Actor:
    """The one value every use case is handed to decide and to record who did what.

    `id` is the client id for machines and a reference for people, absolute (``https://ehr…/Practitioner/17``) for who
    came from an EHR, since another EHR's Practitioner/17 is somebody else. `scopes` are SMART v2
    scopes, `rights` our own words for what FHIR scopes cannot say (see access.policy). A session launched from a
    chart is confined to `patient_id`. `emergency` is the reason for which the glass is broken, until
    `emergency_until`. `practitioner` is the number by which ADT calls a person ("value|system", see
    access.relationship). `app` is the client_id of the app through which a person acts.
    """

    kind: ActorKind
    id: str
    display: str
    role: str
    scopes: frozenset[str] = frozenset()
    rights: frozenset[str] = frozenset()
    patient_id: str | None = None
    encounter_id: str | None = None
    ehr: str | None = None
    token_id: str | None = None
    address: str | None = None
    show_banner: bool = True
    emergency: str | None = None
    emergency_until: datetime | None = None
    practitioner: str | None = None
    app: str | None = None

    def to_json(self) -> str:
        values = asdict(self) | {"scopes": sorted(self.scopes), "rights": sorted(self.rights)}
        return orjson.dumps(values).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = orjson.loads(text)
        values["scopes"] = frozenset(values["scopes"])
        values["rights"] = frozenset(values["rights"])
        if values.get("emergency_until"):
            values["emergency_until"] = datetime.fromisoformat(values["emergency_until"])
        return cls(**values)


SYSTEM = Actor("system", "Device/dermbridge", "DermBridge", "system", frozenset({"system/*.cruds"}))
