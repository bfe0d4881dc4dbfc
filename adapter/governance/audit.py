"""Every access and every change into the audit log, in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.records import Stored, create_all, new_id
from mappings.audit_event import AuditActor, AuditServer, Outcome, audit_event
from mappings.terms import Json


class Access(Protocol):
    """What the FHIR server tells of one request: see adapter.fhir_api.exchange.Access."""

    @property
    def event(self) -> str: ...
    @property
    def references(self) -> tuple[str, ...]: ...
    @property
    def patient_id(self) -> str | None: ...
    @property
    def query(self) -> str | None: ...


class FhirAudit(Protocol):
    """The hook of adapter.fhir_api.FhirServer."""

    def __call__(self, tx: Connection, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None: ...


def audit(
    tx: Connection,
    bridge: Bridge,
    event: str,
    actor: Actor,
    *,
    patient_id: str | None = None,
    references: Sequence[str] = (),
    outcome: Outcome = "0",
    detail: str | None = None,
    query: str | None = None,
    recipient: str | None = None,
) -> Stored:
    """Write one AuditEvent; `event` is one of mappings.audit_event.EVENTS.

    `references` are the records touched, with their version; `recipient` is where an export went. `detail` must hold
    no name, MRN or body. Raises ValueError for an unknown event.
    """
    told = _event(
        bridge, event, actor, patient_id, references, outcome=outcome, detail=detail, query=query, recipient=recipient
    )
    return create_all(tx, [told], at=bridge.now())[0]


def fhir_audit(bridge: Bridge) -> FhirAudit:
    """The hook for the FHIR server: one AuditEvent per access, all in one statement."""

    def record_accesses(tx: Connection, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None:
        told = [
            _event(bridge, one.event, actor, one.patient_id, one.references, query=one.query, request_id=request_id)
            for one in accesses
        ]
        if told:
            create_all(tx, told, at=bridge.now())

    return record_accesses


def _event(
    bridge: Bridge, event: str, actor: Actor, patient_id: str | None, references: Sequence[str], **more: Any
) -> Json:
    at = bridge.now()
    return audit_event(
        event,
        event_id=new_id(at),
        recorded=at,
        actor=AuditActor(actor.kind, actor.id, actor.display, actor.role, actor.address, actor.token_id),
        server=AuditServer(bridge.settings.base_url, bridge.settings.site_name),
        patient_ref=f"Patient/{patient_id}" if patient_id else None,
        entity_refs=references,
        **more,
    )
