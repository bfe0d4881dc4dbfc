"""R4 Provenance for everything that makes or changes a record: one builder, the cases in `provenance_cases.toml`.

Provenance is never rewritten afterwards, not even by a patient merge.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from mappings.canonical_resources import codes_of
from mappings.fhir_time import fhir_date_time, fhir_instant
from mappings.terms import (
    ACT_CODE,
    ACT_REASON,
    CONTENT_SHA256,
    DATA_OPERATION,
    LIFECYCLE,
    PROVENANCE_AGENT,
    REMOVED,
    REMOVED_METADATA,
    Json,
    concept,
    extension,
    reference,
)

_CASES: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (files("mappings") / "tables" / "provenance_cases.toml").read_text("utf-8")
)
_SYSTEMS: Final = {"op": DATA_OPERATION, "act": ACT_CODE, "life": LIFECYCLE}
CASES: Final = frozenset(_CASES)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who took part: a provenance-participant-type code, `Type/id` or a Reference, and on whose behalf."""

    type: str
    who: str | Json
    on_behalf_of: str | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """What it was made from: a provenance-entity-role code, a version-specific reference, SHA-256 and what was lost.

    `removed` are codes or wordings of the local system removed-metadata.
    """

    role: str
    what: str | Json
    sha256_hex: str | None = None
    removed: tuple[str, ...] = ()


def provenance(
    case: str,
    *,
    targets: Sequence[str | Json],
    agents: Sequence[Agent],
    recorded: datetime,
    entities: Sequence[Entity] = (),
    occurred: datetime | None = None,
    reason: str | None = None,
    because: str | None = None,
    provenance_id: str | None = None,
) -> Json:
    """R4 Provenance of one case (`CASES`) about version-specific targets (`Media/x/_history/3`).

    `recorded` is when we wrote it down, `occurred` when it happened, `reason` a v3-ActReason code in place of the
    case's own, `because` the reason in somebody's words. ValueError when the case is unknown, lacks an agent or
    entity it must have, or has one it may not.
    """
    if case not in _CASES:
        raise ValueError(f"No such Provenance case: {case!r}. Known: {', '.join(sorted(CASES))}.")
    row = _CASES[case]
    _check_agents(case, row, agents)
    _check_entities(case, row, entities)
    if not targets:
        raise ValueError("A Provenance needs at least one target.")
    system, _, code = row["activity"].partition(":")
    found: Json = {"resourceType": "Provenance"} | ({"id": provenance_id} if provenance_id else {})
    found["target"] = [reference(target) for target in targets]
    if occurred:
        found["occurredDateTime"] = fhir_date_time(occurred)
    found["recorded"] = fhir_instant(recorded)
    if why := reason or row.get("reason"):
        found["reason"] = [concept(ACT_REASON, why)]
    if because:
        found["reason"] = [*found.get("reason", []), {"text": because}]
    found["activity"] = concept(_SYSTEMS[system], code)
    found["agent"] = [_agent(agent) for agent in agents]
    if entities:
        found["entity"] = [_entity(entity) for entity in entities]
    return found


def hashed(target: str, sha256_hex: str) -> Json:
    """A target together with the SHA-256 of its bytes, for `transform`."""
    return {"extension": [extension(CONTENT_SHA256, valueString=sha256_hex)], **reference(target)}


def _check_agents(case: str, row: dict[str, Any], agents: Iterable[Agent]) -> None:
    given = {agent.type for agent in agents}
    if missing := set(row["agents"]) - given:
        raise ValueError(f"Provenance of {case} must name: {', '.join(sorted(missing))}.")
    if strange := given - set(row["agents"]) - set(row.get("may", ())):
        raise ValueError(f"Provenance of {case} has no agent of type: {', '.join(sorted(strange))}.")


def _check_entities(case: str, row: dict[str, Any], entities: Iterable[Entity]) -> None:
    given = {entity.role for entity in entities}
    if missing := set(row.get("entities", ())) - given:
        raise ValueError(f"Provenance of {case} must say its: {', '.join(sorted(missing))}.")


def _agent(agent: Agent) -> Json:
    found: Json = {"type": concept(PROVENANCE_AGENT, agent.type), "who": reference(agent.who)}
    return found | ({"onBehalfOf": reference(agent.on_behalf_of)} if agent.on_behalf_of else {})


def _entity(entity: Entity) -> Json:
    extensions = [extension(CONTENT_SHA256, valueString=entity.sha256_hex)] if entity.sha256_hex else []
    extensions += [extension(REMOVED, valueCodeableConcept=_removed(words)) for words in entity.removed]
    return ({"extension": extensions} if extensions else {}) | {"role": entity.role, "what": reference(entity.what)}


def _removed(words: str) -> Json:
    """The code, given as such or by its wording; anything else is `other`, in its own words."""
    code = next((code for code, wording in codes_of("removed-metadata").items() if words in (code, wording)), "other")
    return concept(REMOVED_METADATA, code, text=words)
