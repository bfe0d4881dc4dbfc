"""Every access and every change into the audit log, in the transaction of what it tells of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import Forbidden, OutOfReach
from adapter.governance.form import ANY_TIME, Blanks, Form
from adapter.governance.looks import write_looks
from adapter.records import New, Stored, insert_all, new_id
from mappings.audit_event import Outcome, Party, User, audit_event
from mappings.terms import Json

_REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9.-]{1,64}")
DEVICE = "Device/dermbridge"
SHORT_NAMES = {"export": "disclose", "break-glass": "break-glass-start"}
"""What the rooms say -> the row of mappings/tables/audit_events.toml; every other event is called as its row is."""

MOST_RECORDS = 16  # named by an event whose form is kept


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
    insert_all(tx, [told])
    return told.after


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
    request_id: str | None = None,
) -> New:
    """The AuditEvent, for who writes many at once; `event` is one of mappings.audit_event.EVENTS or of `SHORT_NAMES`.

    `references` are the records touched, with their version; `recipient` is the name or URL an export went to,
    `purpose` a v3-ActReason code (TREAT for an export that states none). `detail` must hold no name, MRN or body.
    Raises ValueError for an unknown event or when an event lacks what it must say (break-glass: its detail).
    """
    kind, blanks = SHORT_NAMES.get(event, event), Blanks()
    make = _form if len(references) <= MOST_RECORDS else _form.__wrapped__
    form = make(
        kind,
        actor,
        bridge.settings.base_url,
        bridge.settings.site_name,
        outcome,
        recipient,
        purpose or ("TREAT" if kind == "disclose" else None),
        blanks.id("patient", patient_id),
        blanks.references(tuple(dict.fromkeys(references))),
        blanks.query((query or "?") if kind == "query" else query),
        blanks.words("detail", detail),
        blanks.id("request", request_id),
    )
    at = bridge.now()
    return form.filled(blanks, new_id(at), at)


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
            audited(
                bridge,
                one.event,
                actor,
                patient_id=one.patient_id,
                references=one.references,
                query=one.query,
                request_id=request_id,
            )
            for one in accesses
        ]
        if tx is None:
            write_looks(bridge, told)
        elif told:
            insert_all(tx, told)

    return record_accesses


def build_event(
    kind: str,
    actor: Actor,
    base_url: str,
    site: str,
    outcome: Outcome,
    recipient: str | None,
    purpose: str | None,
    patient_id: str | None,
    references: tuple[str, ...],
    query: str | None,
    detail: str | None,
    request_id: str | None,
) -> Json:
    """The AuditEvent without its id, at ANY_TIME; `query` and `detail` as they are, not base64."""
    return audit_event(
        kind,
        recorded=ANY_TIME,
        server=Party(who=DEVICE, address=base_url),
        site=site,
        actor=_user(actor, recipient),
        client=_client(actor, recipient),
        patient_ref=f"Patient/{patient_id}" if patient_id else None,
        entity_refs=references,
        query=query,
        purpose=purpose,
        outcome=outcome,
        detail={"detail": detail} if detail and outcome == "0" else None,
        outcome_desc=detail if outcome != "0" else None,
        request_id=request_id,
    )


@lru_cache(2_000)
def _form(*told: Any) -> Form:
    return Form.of(build_event(*told))


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
    if actor.kind == "machine":
        return Party(who=_client_id(actor), address=actor.address)
    return Party(
        who={"identifier": {"value": actor.app}} if actor.app else {"display": "browser"}, address=actor.address
    )


def _client_id(actor: Actor) -> Json:
    return {"identifier": {"value": actor.id}, "display": actor.display}
