"""What can be searched by, as data: FHIR search parameter -> column (single-valued) or ``search_index`` (multi-valued).

One table drives writing (which columns a resource fills), searching, sorting and the CapabilityStatement. Standard
parameters are those of FHIR R4 (http://hl7.org/fhir/R4/searchparameter-registry.html); ``lesion``,
``identity-state``, ``derivation`` and ``derived-from`` of Media are ours. Token columns hold ``code|system``, so that a
search by code alone is an index prefix scan and a search by both an equality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import String, Table

from adapter.db import tables
from adapter.records import extraction
from adapter.records.extraction import Resource

Kind = Literal["token", "reference", "date", "string"]


@dataclass(frozen=True)
class SearchParameter:
    """One search parameter of one resource type.

    `column` is the column of the type's table; None means the values live in ``search_index``. `target` is the type a
    reference column's bare id belongs to; None means the column holds ``Type/id``. `end_column` holds where the
    interval of a date ends; without it, or without a value in it, the date is a moment.
    """

    name: str
    kind: Kind
    extract: Callable[[Resource], Any]
    expression: str
    column: str | None = None
    target: str | None = None
    end_column: str | None = None
    open_ended: bool = False  # a Period, whose missing start or end means always

    @cached_property
    def element(self) -> str:
        """The top-level element the value is derived from."""
        return self.expression.partition(".")[0]


# --- the table ------------------------------------------------------------------------------------------------------


def _token_parameter(name: str, path: str, column: str | None = None) -> SearchParameter:
    return SearchParameter(name, "token", extraction.token(path) if column else extraction.tokens(path), path, column)


def _reference_parameter(name: str, path: str, column: str | None = None, target: str | None = None) -> SearchParameter:
    extract = extraction.reference(path, target) if column else extraction.references(path)
    return SearchParameter(name, "reference", extract, path, column, target)


def _date_parameter(name: str, path: str, column: str) -> SearchParameter:
    return SearchParameter(name, "date", extraction.instant(path), path, column)


def _date_time(name: str, path: str, column: str) -> tuple[SearchParameter, SearchParameter]:
    """A dateTime that may be as vague as a year; then, and only then, its end is kept as well."""
    start = SearchParameter(name, "date", extraction.instant(path), path, column, end_column=f"{column}_end")
    return start, SearchParameter("", "date", extraction.vague_end(path), path, f"{column}_end")


def _string_parameter(name: str, path: str, column: str) -> SearchParameter:
    return SearchParameter(name, "string", extraction.string(path), path, column)


_IDENTIFIER = _token_parameter("identifier", "identifier")


def _patient(path: str) -> SearchParameter:
    return _reference_parameter("patient", path, "patient", "Patient")


def _period(path: str) -> tuple[SearchParameter, SearchParameter]:
    start = SearchParameter(
        "date", "date", extraction.instant(f"{path}.start"), path, "date", end_column="date_end", open_ended=True
    )
    end = SearchParameter("", "date", extraction.instant(f"{path}.end", end=True), path, "date_end")
    return start, end


_PARAMETERS: dict[str, tuple[Table, tuple[SearchParameter, ...]]] = {
    "Patient": (
        tables.patient,
        (
            _IDENTIFIER,
            _string_parameter("family", "name.family", "family"),
            _string_parameter("given", "name.given", "given"),
            SearchParameter("birthdate", "date", lambda r: r.get("birthDate"), "birthDate", "birthdate"),
            _token_parameter("gender", "gender", "gender"),
            SearchParameter("active", "token", lambda r: r.get("active", True), "active", "active"),
            SearchParameter("link", "reference", extraction.replaced_by, "link.other", "replaced_by", "Patient"),
        ),
    ),
    "Encounter": (
        tables.encounter,
        (
            _IDENTIFIER,
            _patient("subject"),
            *_period("period"),
            _token_parameter("status", "status", "status"),
            _token_parameter("class", "class", "class"),
            _reference_parameter("account", "account"),
            SearchParameter("participant", "reference", extraction.participants, "participant.individual"),
        ),
    ),
    "Media": (
        tables.media,
        (
            _IDENTIFIER,
            _patient("subject"),
            _reference_parameter("subject", "subject", "patient", "Patient"),
            _reference_parameter("encounter", "encounter", "encounter", "Encounter"),
            *_date_time("created", "createdDateTime", "created"),
            _date_parameter("", "issued", "issued"),  # where a photo without a date stands in a timeline
            _token_parameter("status", "status", "status"),
            _token_parameter("type", "type", "type"),
            _token_parameter("modality", "modality", "modality"),
            _token_parameter("view", "view", "view"),
            _token_parameter("site", "bodySite", "site"),
            SearchParameter("identity-state", "token", extraction.identity_state, "meta.tag", "identity_state"),
            SearchParameter("", "token", extraction.confidentiality_of, "meta.security", "confidentiality"),
            SearchParameter(
                "lesion",
                "reference",
                extraction.lesion,
                "bodySite.extension('http://hl7.org/fhir/StructureDefinition/bodySite').value",
                "lesion",
                "BodyStructure",
            ),
            _reference_parameter("operator", "operator", "operator"),
            _reference_parameter("device", "device", "device"),
            _reference_parameter("based-on", "basedOn", "based_on"),
            SearchParameter("origin", "token", extraction.origin, "meta.tag"),
            SearchParameter("derivation", "token", extraction.derivation, "meta.tag", "derivation"),
            SearchParameter("derived-from", "reference", extraction.derived_from, "extension"),
        ),
    ),
    "Consent": (
        tables.consent,
        (
            _IDENTIFIER,
            _patient("patient"),
            *_date_time("date", "dateTime", "date"),
            _token_parameter("status", "status", "status"),
            _token_parameter("scope", "scope", "scope"),
            _token_parameter("category", "category"),
            _token_parameter("purpose", "provision.purpose"),
            _reference_parameter("source-reference", "sourceReference"),
        ),
    ),
    "BodyStructure": (
        tables.body_structure,
        (
            _IDENTIFIER,
            _patient("patient"),
            _token_parameter("location", "location", "location"),
            _token_parameter("morphology", "morphology", "morphology"),
        ),
    ),
    "DocumentReference": (
        tables.document_reference,
        (
            _IDENTIFIER,
            _patient("subject"),
            _reference_parameter("encounter", "context.encounter", "encounter", "Encounter"),
            _date_parameter("date", "date", "date"),
            _token_parameter("status", "status", "status"),
            _token_parameter("type", "type", "type"),
            _token_parameter("category", "category"),
        ),
    ),
    "Observation": (
        tables.observation,
        (
            _IDENTIFIER,
            _patient("subject"),
            _reference_parameter("subject", "subject", "patient", "Patient"),
            _reference_parameter("encounter", "encounter", "encounter", "Encounter"),
            *_date_time("date", "effectiveDateTime", "date"),
            _token_parameter("status", "status", "status"),
            _token_parameter("code", "code", "code"),
            _token_parameter("category", "category"),
            _token_parameter("value-concept", "valueCodeableConcept"),
            SearchParameter("", "token", extraction.confidentiality_of, "meta.security", "confidentiality"),
            _reference_parameter("performer", "performer", "performer"),
            _reference_parameter("derived-from", "derivedFrom"),
        ),
    ),
    "Provenance": (
        tables.provenance,
        (
            _reference_parameter("target", "target"),
            _reference_parameter("agent", "agent.who"),
            _reference_parameter("entity", "entity.what"),
            _date_parameter("recorded", "recorded", "recorded"),
            _token_parameter("activity", "activity", "activity"),
        ),
    ),
    "AuditEvent": (
        tables.audit_event,
        (
            _date_parameter("date", "recorded", "date"),
            _reference_parameter("patient", "entity.what", "patient", "Patient"),
            _reference_parameter("entity", "entity.what"),
            _reference_parameter("agent", "agent.who", "agent"),
            _token_parameter("type", "type", "type"),
            _token_parameter("subtype", "subtype", "subtype"),
            _token_parameter("action", "action", "action"),
            _token_parameter("outcome", "outcome", "outcome"),
        ),
    ),
    "Practitioner": (tables.practitioner, (_IDENTIFIER, _string_parameter("family", "name.family", "family"))),
    "Organization": (tables.organization, (_IDENTIFIER, _string_parameter("name", "name", "name"))),
    "Device": (tables.device, (_IDENTIFIER, _patient("patient"))),
}

DEFAULT_SORT = {  # what people look for first; each is an index, so that a page costs a page
    "Patient": "family,birthdate",
    "Encounter": "-date",
    "Media": "-created",
    "Consent": "-date",
    "DocumentReference": "-date",
    "Observation": "-date",
    "Provenance": "-recorded",
    "AuditEvent": "-date",
    "Practitioner": "family",
    "Organization": "name",
}

TABLES: dict[str, Table] = {resource_type: table for resource_type, (table, _) in _PARAMETERS.items()}


def search_parameters(resource_type: str) -> tuple[SearchParameter, ...]:
    """The parameters of a type that callers may name; empty when the type is not kept."""
    return tuple(p for p in _PARAMETERS.get(resource_type, (None, ()))[1] if p.name)


def columns_of(resource: Resource, changed: Set[str] | None = None) -> dict[str, Any]:
    """Column -> value for the resource's table row: all columns, or those derived from the `changed` elements."""
    table, parameters = _PARAMETERS[resource["resourceType"]]
    return {
        p.column: fitted(p.extract(resource), table.c[p.column].type)
        for p in parameters
        if p.column and (changed is None or p.element in changed)
    }


def fitted(value: Any, column_type: Any) -> Any:
    """Text cut to what the column holds; searching cuts the same way, so that the two still meet."""
    return value[: column_type.length] if isinstance(value, str) and isinstance(column_type, String) else value


def index_rows(resource: Resource, changed: Set[str] | None = None) -> list[dict[str, str]]:
    """Rows of ``search_index``: the multi-valued parameters, and identifiers of references that name no resource.

    All of them, or those derived from the `changed` elements.
    """
    resource_type, resource_id = resource["resourceType"], resource["id"]
    return [
        {"resource_type": resource_type, "resource_id": resource_id, "param": param, "value": value}
        for param, element, extract in _INDEXED[resource_type]
        if changed is None or element in changed
        for value in dict.fromkeys(one[:400] for one in extract(resource))
    ]


def _indexed(parameters: Iterable[SearchParameter]) -> Iterator[tuple[str, str, Callable[[Resource], list[str]]]]:
    for parameter in parameters:
        if parameter.column is None:
            yield parameter.name, parameter.element, parameter.extract
        if parameter.kind == "reference":
            yield (
                f"{parameter.name}:identifier",
                parameter.element,
                extraction.tokens(f"{parameter.expression}.identifier"),
            )


_INDEXED = {resource_type: tuple(_indexed(parameters)) for resource_type, (_, parameters) in _PARAMETERS.items()}
