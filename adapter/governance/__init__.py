"""Accountability: the audit log that every use case writes to, sealed so that nobody can change it unseen."""

from adapter.governance.audit import audit, audit_look, audit_refusal, audited, fhir_audit
from adapter.governance.looks import settle

__all__ = ["audit", "audit_look", "audit_refusal", "audited", "fhir_audit", "settle"]
