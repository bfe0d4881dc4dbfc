"""Accountability: the audit log that every use case writes to, sealed so that nobody can change it unseen."""

from adapter.governance.audit import audit, audited, fhir_audit

__all__ = ["audit", "audited", "fhir_audit"]
