"""An ADT message as an event: what happened, when, and to which patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cached_property

from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.er7 import Message, Segment, patient_keys
from mappings.hl7v2.errors import (
    REQUIRED_FIELD_MISSING,
    UNSUPPORTED_EVENT_CODE,
    UNSUPPORTED_MESSAGE_TYPE,
    MessageError,
)
from mappings.hl7v2.header import ADT_EVENTS, Header

__all__ = ["AdtEvent", "PatientGroup", "adt_to_event", "patient_keys"]


@dataclass(frozen=True)
class PatientGroup:
    """One PID with what belongs to it: PD1, MRG, PV1, PV2, None when not sent. Identifiers with `""` are left out."""

    pid: Segment
    pd1: Segment | None = None
    mrg: Segment | None = None
    pv1: Segment | None = None
    pv2: Segment | None = None
    default_offset: tzinfo | None = None

    @cached_property
    def patient_identifiers(self) -> tuple[CX, ...]:
        """PID-3."""
        return _identifiers(self.pid, 3)

    @cached_property
    def prior_identifiers(self) -> tuple[CX, ...]:
        """MRG-1, prior patient identifier list."""
        return _identifiers(self.mrg, 1)

    def identifiers(self, field: str) -> tuple[CX, ...]:
        """Every identifier of a field such as `MRG-4`, `PID-2` or `PV1-50`."""
        name, _, number = field.partition("-")
        return _identifiers(getattr(self, name.lower()), int(number))

    def is_valued(self, field: str) -> bool:
        """True when a field such as `PV1-3` holds a value."""
        name, _, number = field.partition("-")
        segment: Segment | None = getattr(self, name.lower())
        return segment is not None and bool(segment.valued(int(number)))

    @cached_property
    def account(self) -> CX | None:
        """PID-18."""
        return next(iter(_identifiers(self.pid, 18)), None)

    @cached_property
    def prior_account(self) -> CX | None:
        """MRG-3."""
        return next(iter(_identifiers(self.mrg, 3)), None)

    @cached_property
    def visit(self) -> CX | None:
        """PV1-19."""
        return next(iter(_identifiers(self.pv1, 19)), None)

    @property
    def alternate_visits(self) -> tuple[CX, ...]:
        """PV1-50."""
        return _identifiers(self.pv1, 50)

    @cached_property
    def prior_visit(self) -> CX | None:
        """MRG-5."""
        return next(iter(_identifiers(self.mrg, 5)), None)

    @property
    def prior_alternate_visits(self) -> tuple[CX, ...]:
        """MRG-6."""
        return _identifiers(self.mrg, 6)

    @property
    def pid_33(self) -> datetime | None:
        """Last update of these demographics at the sender, UTC: the tie-breaker against stale messages."""
        updated = DTM.find(self.pid.text(33))
        return updated.instant(self.default_offset) if updated else None

    @property
    def updated_by(self) -> datetime | None:
        """The last instant that PID-33 may mean, UTC."""
        updated = DTM.find(self.pid.text(33))
        return updated.last_instant(self.default_offset) if updated else None

    @property
    def has_uncertain_identity(self) -> bool:
        """PID-31 = Y (identity unknown) or PID-32 valued (identity reliability): no automatic link or merge."""
        return self.pid.text(31).upper() == "Y" or bool(self.pid.valued(32))

    @property
    def is_protected(self) -> bool:
        """PV1-16 (VIP) valued other than N, or PD1-12 (protection indicator) = Y: photos are at least restricted."""
        vip = self.pv1.text(16).upper() if self.pv1 else ""
        return vip not in ("", "N") or bool(self.pd1 and self.pd1.text(12).upper() == "Y")


@dataclass(frozen=True)
class AdtEvent:
    """`does` is what `hl7v2_adt_events.toml` says of `trigger_event`; `recorded_at` is EVN-2, else MSH-7, in UTC, None
    when neither tells an instant, and `recorded_by` the last instant it may mean. `occurred` is EVN-6, else EVN-2, as
    sent. `default_offset` is the offset of MSH-7, else the site's zone: pass it on to the mappings. `groups` is empty
    only for events that do nothing.
    """

    header: Header
    trigger_event: str
    does: tuple[str, ...]
    recorded_at: datetime | None
    recorded_by: datetime | None
    occurred: DTM | None
    default_offset: tzinfo | None
    groups: tuple[PatientGroup, ...]


def adt_to_event(message: Message, default_offset: tzinfo | None = None) -> AdtEvent:
    """Read an ADT message; `default_offset` is the site's time zone.

    Raises MessageError: 200 not ADT, 201 unknown or refused event, 101 no patient identifier (PID-3), or a merge,
    move or change without the MRG segment that names what to merge, move or change.
    """
    header = message.header
    if header.code != "ADT":
        text = "Only ADT messages are read here; route other message types elsewhere."
        raise MessageError(text, condition=UNSUPPORTED_MESSAGE_TYPE, location="MSH^1^9^1^1")
    evn = message.find("EVN")
    trigger_event = header.trigger_event or (evn.text(1) if evn else "")
    row = ADT_EVENTS.get(trigger_event, {})
    if "does" not in row:
        text = "The trigger event is unknown or not supported; remove it from the feed's subscription."
        raise MessageError(text, condition=UNSUPPORTED_EVENT_CODE, location="MSH^1^9^1^2")
    sent_at = DTM.find(message.segments[0].text(7))
    offset = (sent_at.zone if sent_at else None) or default_offset
    times = [found for n in (6, 2) if evn and (found := DTM.find(evn.text(n)))]
    recorded = (DTM.find(evn.text(2)) if evn else None) or sent_at
    groups = tuple(_groups(message, offset))
    if row["does"]:
        _check_groups(row.get("needs", ()), groups)
    spanned = (recorded.instant(offset), recorded.last_instant(offset)) if recorded else (None, None)
    occurred = next(iter(times), sent_at)
    return AdtEvent(header, trigger_event, tuple(row["does"]), *spanned, occurred, offset, groups)


def _groups(message: Message, offset: tzinfo | None) -> Iterator[PatientGroup]:
    """A PID begins a group; a second MRG begins another with the same PID and PD1 (ADT_A45, ADT_A43)."""
    current: dict[str, Segment] = {}
    for segment in message.segments:
        name = segment.name.lower()
        if name == "pid" or (name == "mrg" and "mrg" in current):
            if current:
                yield PatientGroup(**current, default_offset=offset)
            current = {part: current[part] for part in ("pid", "pd1") if name == "mrg" and part in current}
        if name == "pid" or (name in ("pd1", "mrg", "pv1", "pv2") and "pid" in current):
            current.setdefault(name, segment)
    if current:
        yield PatientGroup(**current, default_offset=offset)


def _check_groups(needs: Iterable[str], groups: tuple[PatientGroup, ...]) -> None:
    if not groups or not all(group.patient_identifiers for group in groups):
        text = "PID-3 holds no patient identifier; the sender must fill it."
        raise MessageError(text, condition=REQUIRED_FIELD_MISSING, location="PID^1^3")
    for need in needs:
        fields = need.split("|")
        if not all(any(map(group.is_valued, fields)) for group in groups):
            text = f"The event needs {' or '.join(fields)}, which is empty; the sender must fill it."
            location = "^1^".join(fields[0].split("-"))
            raise MessageError(text, condition=REQUIRED_FIELD_MISSING, location=location)


def _identifiers(segment: Segment | None, n: int) -> tuple[CX, ...]:
    return tuple(cx for r in segment.valued(n) if (cx := CX.find(r))) if segment else ()
