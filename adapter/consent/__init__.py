"""What the patient agreed to: recorded with evidence, withdrawn at any time, decided again at every use."""

from adapter.consent.copies import Copy, Export, copies, exports
from adapter.consent.decisions import decide, decide_and_audit, decide_each
from adapter.consent.evidence import Evidence, seal_evidence
from adapter.consent.recording import POLICY_URI, record, spoken, withdraw
from mappings.consent_decision import ConsentDecision
from mappings.form_to_consent import ConsentForm

__all__ = [
    "POLICY_URI",
    "ConsentDecision",
    "ConsentForm",
    "Copy",
    "Evidence",
    "Export",
    "copies",
    "decide",
    "decide_and_audit",
    "decide_each",
    "exports",
    "record",
    "seal_evidence",
    "spoken",
    "withdraw",
]
