"""Every error DermBridge raises on purpose.

    DermBridgeError
    +-- BadInput              400  invalid         the sender must change the request
    |   +-- Unprocessable     422  business-rule   understood, but a rule forbids it
    |   +-- TooLarge          413  too-long
    |   +-- NotAllowed        405  not-supported
    |   +-- UnsupportedMedia  415  not-supported
    |   +-- NotAcceptable     406  not-supported
    +-- NotAuthenticated      401  login
    +-- Forbidden             403  forbidden
    +-- NotFound              404  not-found
    |   +-- Gone              410  deleted
    |   +-- OutOfReach        404  not-found       what there is, this caller may not know
    +-- Conflict              409  conflict
    |   +-- PreconditionFailed 412 conflict
    +-- Throttled             429  throttled
    +-- Unavailable           503  transient       try again later
    +-- Misconfigured         500  exception       an operator must change a setting

Each class carries its HTTP status and FHIR issue type (http://hl7.org/fhir/R4/valueset-issue-type.html), so that an
edge turns any of them into an OperationOutcome, a page or a CLI sentence without knowing them one by one. The
message is a sentence a user can act on, and never holds a name, an MRN or a body.
"""

from __future__ import annotations


class DermBridgeError(Exception):
    """Base of all expected errors; `str(error)` is shown to the sender."""

    http_status = 500
    issue_type = "exception"
    retry_after: int | None = None  # seconds

    def __init__(self, message: str, *, issue_type: str | None = None, expression: str | None = None) -> None:
        super().__init__(message)
        if issue_type is not None:
            self.issue_type = issue_type
        self.expression = expression


class BadInput(DermBridgeError):
    """The request is malformed."""

    http_status = 400
    issue_type = "invalid"


class Unprocessable(BadInput):
    """The request is well formed but a rule forbids it."""

    http_status = 422
    issue_type = "business-rule"


class TooLarge(BadInput):
    """The request exceeds a configured limit."""

    http_status = 413
    issue_type = "too-long"


class NotAllowed(BadInput):
    """The interaction is not offered for this type."""

    http_status = 405
    issue_type = "not-supported"


class UnsupportedMedia(BadInput):
    """The body is of a type this endpoint does not accept."""

    http_status = 415
    issue_type = "not-supported"


class NotAcceptable(BadInput):
    """The caller asked for a representation that is not offered."""

    http_status = 406
    issue_type = "not-supported"


class NotAuthenticated(DermBridgeError):
    """No valid session or token came with the request."""

    http_status = 401
    issue_type = "login"


class Forbidden(DermBridgeError):
    """The caller is known and may not do this."""

    http_status = 403
    issue_type = "forbidden"


class NotFound(DermBridgeError):
    """Nothing here, or nothing the caller may know of."""

    http_status = 404
    issue_type = "not-found"


class Gone(NotFound):
    """It existed and was deleted."""

    http_status = 410
    issue_type = "deleted"


class OutOfReach(NotFound):
    """Nothing that the caller may know of, said alike whether it exists or not; goes into the audit log.

    `reference` is what was asked for.
    """

    def __init__(self, message: str, *, reference: str | None = None) -> None:
        super().__init__(message)
        self.reference = reference


class Conflict(DermBridgeError):
    """The current state contradicts the request."""

    http_status = 409
    issue_type = "conflict"


class Overtaken(Conflict):
    """Somebody else changed the same at the same moment: to be done again, from the beginning."""


class PreconditionFailed(Conflict):
    """If-Match or a conditional request did not hold."""

    http_status = 412


class Throttled(DermBridgeError):
    """Too many requests for now."""

    http_status = 429
    issue_type = "throttled"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(DermBridgeError):
    """A part this request needs does not answer; nothing was lost, try again."""

    http_status = 503
    issue_type = "transient"
    retry_after = 10


class Misconfigured(DermBridgeError):
    """A setting must be changed before the service can run."""
