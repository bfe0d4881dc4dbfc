"""Accountability: the audit log that every use case writes to."""

from adapter.governance.audit import audit, fhir_audit

__all__ = ["audit", "fhir_audit"]
