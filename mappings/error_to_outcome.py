"""OperationOutcome (http://hl7.org/fhir/R4/operationoutcome.html) from issues as plain tuples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mappings.terms import Json


class Issue(NamedTuple):
    """severity (issue-severity), code (issue-type), FHIRPath expression or "", and a sentence without PHI."""

    severity: str
    code: str
    expression: str
    text: str


def error_to_outcome(issues: Iterable[Issue | tuple[str, str, str, str]]) -> Json:
    """R4 OperationOutcome with one issue per tuple; ValueError when there is none (issue is 1..*)."""
    found = [_issue(Issue(*issue)) for issue in issues]
    if not found:
        raise ValueError("An OperationOutcome needs at least one issue.")
    return {"resourceType": "OperationOutcome", "issue": found}


def _issue(issue: Issue) -> Json:
    row: Json = {"severity": issue.severity, "code": issue.code, "details": {"text": issue.text}}
    return row | ({"expression": [issue.expression]} if issue.expression else {})
