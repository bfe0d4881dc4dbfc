"""The steps named in `mappings/tables/hl7v2_adt_events.toml`, and how an ADT message is carried out by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adapter.identity import adt_changes, adt_merges, adt_moves, adt_patients
from adapter.identity.adt_applying import Applying

Step = Callable[[Applying], None]
STEPS: Final[dict[str, Step]] = {
    "patient": adt_patients.patient,
    "visit": adt_patients.visit,
    "merge-patient": adt_merges.merge_patient,
    "merge-account": adt_merges.merge_account,
    "merge-visit": adt_merges.merge_visit,
    "change-identifier": adt_changes.change_identifier,
    "change-account": adt_changes.change_account,
    "change-visit": adt_changes.change_visit,
    "link": adt_merges.link,
    "unlink": adt_merges.unlink,
    "move-identifier": adt_moves.move_identifier,
    "move-account": adt_moves.move_account,
    "move-visit": adt_moves.move_visit,
    "delete-visit": adt_moves.delete_visit,
    "delete-person": adt_moves.delete_person,
}
IN_MEMORY: Final = frozenset({"patient", "visit"})
"""Steps that only read and write drafts: messages of nothing else are applied many in one go."""


def carry_out(a: Applying) -> str | None:
    """Every step in order; returns what was done otherwise than the sender may expect, or None."""
    if not a.event.does:
        return "nothing in this event concerns photos"
    for step in a.event.does:
        STEPS[step](a)
    return "; ".join(a.notes) or None
