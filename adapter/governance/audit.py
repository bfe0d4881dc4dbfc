"""Every access and every change into the audit log, in the transaction of what it tells of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import Forbidden, OutOfReach
from adapter.governance.looks import write_looks
from adapter.records import Stored, create_all, new_id
from mappings.audit_event import Outcome, Party, User, audit_event
from mappings.terms import Json

_REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9.-]{1,64}")
DEVICE = "Device/dermbridge"
SHORT_NAMES = {"export": "disclose", "break-glass": "break-glass-start"}
"""What the rooms say -> the row of mappings/tables/audit_events.toml; every other event is called as its row is."""


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

    def __call__(self, tx: Connection | None, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None: ...


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
    purpose: str | None = None,
) -> Stored:
    """Write one AuditEvent; arguments and errors are those of `audited`."""
    told = audited(
        bridge,
        event,
        actor,
        patient_id=patient_id,
        references=references,
        outcome=outcome,
        detail=detail,
        query=query,
        recipient=recipient,
        purpose=purpose,
    )
    return create_all(tx, [told], at=bridge.now())[0]


def audited(
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
    purpose: str | None = None,
) -> Json:
    """The AuditEvent, for who writes many at once; `event` is one of mappings.audit_event.EVENTS or of `SHORT_NAMES`.

    `references` are the records touched, with their version; `recipient` is the name or URL an export went to,
    `purpose` a v3-ActReason code (TREAT for an export that states none). `detail` must hold no name, MRN or body.
    Raises ValueError for an unknown event or when an event lacks what it must say (break-glass: its detail).
    """
    return _event(
        bridge,
        event,
        actor,
        patient_id,
        references,
        outcome=outcome,
        query=query,
        recipient=recipient,
        purpose=purpose,
        detail={"detail": detail} if detail and outcome == "0" else None,
        outcome_desc=detail if outcome != "0" else None,
    )


def audit_refusal(bridge: Bridge, actor: Actor, error: Exception, asked: str) -> None:
    """Keep that somebody known was refused (Forbidden, OutOfReach); other errors decide nothing about access.

    `asked` is method and path, without the query.
    """
    if not isinstance(error, Forbidden | OutOfReach):
        return
    named = error.reference if isinstance(error, OutOfReach) else None
    reference = named if named and _REFERENCE.fullmatch(named) else None  # an address may hold anything
    patient_id = reference.removeprefix("Patient/") if reference and reference.startswith("Patient/") else None
    with bridge.db.transaction() as tx:
        audit(
            tx,
            bridge,
            "access-denied",
            actor,
            patient_id=patient_id,
            references=[reference] if reference and not patient_id else (),
            outcome="8",
            detail=f"{asked[:200]}: {error}",
        )


def audit_look(
    bridge: Bridge,
    actor: Actor,
    *,
    patient_id: str | None,
    references: Sequence[str],
    detail: str | None = None,
    query: str | None = None,
) -> None:
    """`audit` of a read, or with `query` of a list: durable before the answer begins, written with those of others."""
    event = "query" if query else "read"
    told = audited(bridge, event, actor, patient_id=patient_id, references=references, detail=detail, query=query)
    write_looks(bridge, [told])


def fhir_audit(bridge: Bridge) -> FhirAudit:
    """The hook for the FHIR server: one AuditEvent per access, all in one statement."""

    def record_accesses(tx: Connection | None, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None:
        told = [
            _event(bridge, one.event, actor, one.patient_id, one.references, query=one.query, request_id=request_id)
            for one in accesses
        ]
        if tx is None:
            write_looks(bridge, told)
        elif told:
            create_all(tx, told, at=bridge.now())

    return record_accesses


def _event(
    bridge: Bridge,
    event: str,
    actor: Actor,
    patient_id: str | None,
    references: Sequence[str],
    *,
    query: str | None = None,
    recipient: str | None = None,
    purpose: str | None = None,
    **more: Any,
) -> Json:
    at = bridge.now()
    kind = SHORT_NAMES.get(event, event)
    return audit_event(
        kind,
        event_id=new_id(at),
        recorded=at,
        server=Party(who=DEVICE, address=bridge.settings.base_url),
        site=bridge.settings.site_name,
        actor=_user(actor, recipient),
        client=_client(actor, recipient),
        patient_ref=f"Patient/{patient_id}" if patient_id else None,
        entity_refs=tuple(dict.fromkeys(references)),
        query=(query or "?") if kind == "query" else query,
        purpose=purpose or ("TREAT" if kind == "disclose" else None),
        **more,
    )


def _user(actor: Actor, recipient: str | None) -> User | None:
    """Who asked, when that is a person or when the other machine only receives."""
    policy = (f"urn:ietf:params:oauth:jti:{actor.token_id}",) if actor.token_id else ()
    if actor.kind == "person":
        return User(who=actor.id, name=actor.display, roles=(actor.role,), policy=policy)
    if recipient is None:
        return None
    who = DEVICE if actor.kind == "system" else _client_id(actor)
    return User(who=who, name=actor.display, policy=policy)


def _client(actor: Actor, recipient: str | None) -> Party | None:
    """The other machine; None when DermBridge acts by itself."""
    if recipient is not None:
        return Party(who={"display": recipient}, address=recipient)
    if actor.kind == "system":
        return None
    return Party(who=_client_id(actor) if actor.kind == "machine" else {"display": "browser"}, address=actor.address)


def _client_id(actor: Actor) -> Json:
    return {"identifier": {"value": actor.id}, "display": actor.display}
