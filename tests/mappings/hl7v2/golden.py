"""What the golden files hold: the Patient and Encounter of each message in `tests/data/hl7v2/golden`.

Run as a script it writes them anew; the diff is then to be read.
"""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

from mappings.hl7v2.adt_event import adt_to_event
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.pid_to_patient import update_patient
from mappings.hl7v2.pv1_to_encounter import update_encounter

DATA = Path(__file__).parents[2] / "data" / "hl7v2"
MESSAGES = sorted((DATA / "golden").glob("*.hl7"))
PATIENT_SYSTEM = "urn:oid:2.16.840.1.113883.19.5"
VISIT_SYSTEM = "urn:oid:2.16.840.1.113883.19.5.1"
SYSTEMS = {"HOSP": PATIENT_SYSTEM, "EPI": "urn:example:epi", "BCBS": "urn:example:bcbs"}
SITE_ZONE = timezone(timedelta(hours=1))


def resources_of(path: Path) -> dict[str, dict[str, Any]]:
    """`patient` and, when there is a PV1, `encounter`, made from nothing by the first group of the message."""
    event = adt_to_event(Message.parse(path.read_bytes()), SITE_ZONE)
    group, offset = event.groups[0], event.default_offset
    patient = update_patient(
        None, group.pid, systems=SYSTEMS, default_system=PATIENT_SYSTEM, default_offset=event.default_offset
    )
    if group.pv1 is None:
        return {"patient": patient}
    encounter = update_encounter(
        None,
        group.pv1,
        trigger_event=event.trigger_event,
        systems=SYSTEMS,
        default_system=VISIT_SYSTEM,
        default_offset=offset,
        occurred=event.occurred,
    )
    return {"patient": patient, "encounter": encounter}


def golden_path(message: Path, name: str) -> Path:
    return message.with_suffix(f".{name}.json")


if __name__ == "__main__":
    for message in MESSAGES:
        for name, resource in resources_of(message).items():
            text = json.dumps(resource, indent=2, ensure_ascii=False, sort_keys=True)
            golden_path(message, name).write_text(text + "\n", encoding="utf-8")
