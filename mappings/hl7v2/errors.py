"""What can be wrong with an HL7 v2 message, in the codes of HL7 table 0357."""

from __future__ import annotations

from mappings.hl7v2.tables import load_table

CONDITIONS: dict[int, str] = {int(code): text for code, text in load_table("hl7v2_codes")["condition"].items()}

REQUIRED_FIELD_MISSING = 101
DATA_TYPE_ERROR = 102
TABLE_VALUE_NOT_FOUND = 103
UNSUPPORTED_MESSAGE_TYPE = 200
UNSUPPORTED_EVENT_CODE = 201
UNKNOWN_KEY_IDENTIFIER = 204


class MessageError(ValueError):
    """A message that cannot be read or applied as it is.

    `condition` is a code of table 0357 and `location` an ERR-2 location (`PID^1^3`), so that it can become an ERR
    segment; the text says what to do and holds no content of the message.
    """

    def __init__(self, text: str, *, condition: int, location: str = "") -> None:
        super().__init__(text)
        self.condition = condition
        self.location = location
