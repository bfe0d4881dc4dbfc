"""The engineer's tool says what is wrong, without the silences of the parser beneath it."""

from __future__ import annotations

import pytest

from mappings.hl7v2.validate import validate_message
from tests.mappings.hl7v2.golden import DATA

GOOD = (
    r"MSH|^~\&|A|B|C|D|20261102083011||ADT^A40^ADT_A39|1|P|2.5" + "\r"
    "EVN||20261102083011\rPID|||5^^^HOSP^MR||Doe^Jane\rMRG|6^^^HOSP^MR\r"
)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_good_message_has_no_findings_whatever_its_line_ends(end: str) -> None:
    assert validate_message(GOOD.replace("\r", end).encode()) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("ADT_A39", "ADT_A40", "MSH-9.3 says ADT_A40 where the standard has ADT_A39"),
        ("^ADT_A39", "", "MSH-9.3 says nothing where the standard has ADT_A39"),
        ("|2.5\r", "|2.9\r", "version 2.9; checked as 2.8.2"),
        ("MRG|6^^^HOSP^MR\r", "", "needs MRG-1, which is empty"),
        ("PID|||5^^^HOSP^MR", "PID|||", "PID-3 holds no patient identifier"),
        ("EVN||20261102083011\r", "", "Missing required child ADT_A39.EVN"),
        ("MRG|", "ZX1|own\rMRG|", "ZX1"),
        ("Doe^Jane", "Doe^Jane|||X|||||||||||||||||||||||||||||||||||||too many", "PID"),
        (r"|^~\&", "|^^^^", "distinct delimiters"),
    ],
)
def test_each_fault_is_named(old: str, new: str, finding: str) -> None:
    assert any(finding in text for text in validate_message(GOOD.replace(old, new).encode()))


@pytest.mark.parametrize("name", ["ADT-A01-01", "ADT-A08-01", "ORU-R01-01", "SIU-S12_1", "ADT04-23"])
def test_real_messages_are_judged_without_stumbling(name: str) -> None:
    findings = validate_message((DATA / "fhir-converter" / f"{name}.hl7").read_bytes())
    assert all(isinstance(text, str) and text for text in findings)
