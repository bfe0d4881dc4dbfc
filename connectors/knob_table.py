"""The questions every EHR answers differently, one by one, and what a profile says to each.

Numbers are those of docs/connectors.md. A key belongs to every question it helps to answer; where a kind has none of a
question's keys, it does not arise, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel

from connectors.contract import Finding
from connectors.every_kind import Profile
from connectors.kinds import EhrProfile
from connectors.knobs import Tested
from connectors.layers import TO_BE_SET
from connectors.meanings import meanings


@dataclass(frozen=True, slots=True)
class Knob:
    """One question and the dotted keys that answer it."""

    number: int
    subject: str
    keys: tuple[str, ...]


def _knobs() -> Iterator[Knob]:
    rows = (
        ("route", "kind message write_by steps host port called_ae calling_ae folder"),
        ("order of routes", "routes"),
        ("transform", "transform.to visit_sheet single_photos content"),
        ("types taken", "accepts update_accepts comparisons observations charset"),
        ("size", "max_bytes transform.downscale transform.max_edge"),
        ("form of the attachment", "binary_upload share attachment_url attachment_hosts obx_5 transform.link_base"),
        ("form of references", "references"),
        ("required metadata", "set fields dicom.equipment dicom.dermoscope"),
        ("type and category", "type_coding category document_type txa_2"),
        ("dates", "timezone set steps version"),
        ("elements left out", "omit"),
        ("consent there", "consent_strategy consent_fields"),
        ("consent before and after", "requires_consent on_withdrawal"),
        ("sending twice", "conditional_create look_by look_parameters look resend dicom.duplicates"),
        ("signs of a duplicate", "signals code_paths dicom.duplicates"),
        ("where the receipt stands", "prefer steps read acknowledge"),
        ("when to try again", "signals timeouts"),
        ("limits", "limits batch_reads"),
        ("identification", "auth sign_in sign_in_seconds tls client_certificate ca_file"),
        ("granted scopes", "auth.require_scopes auth.scope"),
        ("our public keys", "auth.jwks_url auth.key_id auth.names_key_set auth.next_secret"),
        ("tenant", "tenant base_url query"),
        ("headers", "headers auth.secret_headers method_override"),
        ("taking back", "retract retract_with replaces replace_with landing.retracts"),
        ("tested against", "tested"),
        (
            "whose record",
            "patient patient_lookup search authorities default_authority dicom.patient_id_system dicom.issuer",
        ),
        ("which visit", "encounter dicom.visit_system dicom.visit_issuer dicom.accession"),
        ("where it lands", "landing.zone landing.reviewed_by_people"),
        ("launch", "launch"),
        ("HL7 v2", "version msh_3 msh_4 msh_5 msh_6 msh_11 charset acknowledge obx_5 resend pv1_2 txa_17 txa_19"),
        ("DICOM", "dicom"),
        ("environment", "environment"),
        ("recorded as", "landing.recorded_as"),
        ("photos there", "photos"),
    )
    for number, (subject, keys) in enumerate(rows, 1):
        yield Knob(number, subject, tuple(keys.split()))


KNOBS: Final = tuple(_knobs())
# Questions about the EHR as a whole, by their first key; its routes answer the others.
OF_THE_EHR: Final = frozenset(
    ["routes", "requires_consent", "tested", "landing.zone", "launch", "environment", "landing.recorded_as"]
)


def is_question(subject: str) -> bool:
    """Whether a finding of that subject answers a question, rather than telling what the destination said."""
    return subject.rpartition(": ")[2].partition(" ")[0].isdigit()


def verdicts(profile: Profile) -> list[Finding]:
    """One finding for each question, in order; for several routes those of each route after its name."""
    doubts = {key: why for key, why in profile.unverified.items() if not key.startswith("routes.")}
    if not isinstance(profile, EhrProfile):
        return _verdicts(profile, KNOBS, doubts)
    findings = _verdicts(profile, tuple(knob for knob in KNOBS if knob.keys[0] in OF_THE_EHR), doubts)
    of_routes = tuple(knob for knob in KNOBS if knob.keys[0] not in OF_THE_EHR)
    for route in profile.routes:
        own = f"routes.{route.kind}."
        doubts = {key.removeprefix(own): why for key, why in profile.unverified.items() if key.startswith(own)}
        name = "/".join(route.route_names)
        findings += [
            replace(found, subject=f"{name}: {found.subject}") for found in _verdicts(route, of_routes, doubts)
        ]
    return findings


def find_unset(profile: Profile) -> list[str]:
    """The dotted keys that still say "set-me", those of a route after its name."""
    own = list(dict.fromkeys(where.removeprefix(".") for where in _unset(profile)))
    routes = profile.routes if isinstance(profile, EhrProfile) else ()
    return own + [f"{'/'.join(each.route_names)}: {where}" for each in routes for where in find_unset(each)]


def _verdicts(profile: Profile, knobs: tuple[Knob, ...], doubts: dict[str, str]) -> list[Finding]:
    return [_verdict(profile, knob, doubts) for knob in knobs]


def explained(profile: Profile) -> list[tuple[str, str, str]]:
    """Every key that is not as by default: dotted key, value, what it means."""
    return list(_explained(profile, ""))


def _verdict(profile: Profile, knob: Knob, doubts: dict[str, str]) -> Finding:
    keys = [key for key in knob.keys if _find(profile, key) is not _ABSENT]
    subject = f"{knob.number} {knob.subject}"
    if not keys:
        return Finding(subject, "ok", f"does not arise for kind {profile.kind}")
    told = _told(profile, keys)
    unset = dict.fromkeys(f"{key}{where}" for key in keys for where in _unset(_find(profile, key)))
    why = {key: reason for key, reason in doubts.items() if any(_overlap(key, each) for each in keys)}
    said = "; ".join(f"{key} ({reason})" for key, reason in why.items())
    if unset:
        doubted = f". Unverified: {said}" if said else ""
        remedy = "Put this site's value in their place."
        return Finding(subject, "error", f"not set: {', '.join(unset)}{doubted}", remedy)
    if said:
        remedy = "Ask the vendor or try it on a test system, then take the key out of [unverified]."
        return Finding(subject, "warning", f"unverified: {said}. Now {told}", remedy)
    if keys == ["tested"] and profile.tested == Tested():
        remedy = "Once a photo arrived on a test system, write its version and the day into [tested]."
        return Finding(subject, "warning", "nobody has written down that this works", remedy)
    return Finding(subject, "ok", told)


_ABSENT: Final = object()


def _find(table: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(table, BaseModel) or name not in type(table).model_fields:
            return _ABSENT
        table = getattr(table, name)
    return table


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _told(profile: Profile, keys: list[str]) -> str:
    """The values, without those that say nothing: empty ones, and what is off as by default."""
    said = [
        f"{key} = {_short(value)}"
        for key in keys
        if (value := _find(profile, key)) not in ("", (), {}, None)
        and not (value is False and _is_default(profile, key))
    ]
    return ", ".join(each for each in said if not each.endswith(" = {}")) or "as by default"


def _is_default(profile: Profile, key: str) -> bool:
    table, _, name = key.rpartition(".")
    holder = _find(profile, table) if table else profile
    field = type(holder).model_fields[name]
    return bool(getattr(holder, name) == field.get_default(call_default_factory=True))


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name} = {_short(each)}" for name, each, _ in _explained(value, "")) + "}"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return f"{len(value)} given"
    return str(value)


def _unset(value: Any, where: str = "") -> Iterator[str]:
    """Where "set-me" still stands in a value or key."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _unset(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _unset(name, f"{where}.{name}")
            yield from _unset(each, f"{where}.{name}")
    elif isinstance(value, tuple):
        # Routes answer for themselves.
        for number, each in enumerate(value):
            if not isinstance(each, Profile):
                yield from _unset(each, f"{where}.{number}")
    elif isinstance(value, str) and TO_BE_SET in value:
        yield where


def _explained(table: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if isinstance(value, BaseModel) and not isinstance(value, Profile):
            yield from _explained(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, each in enumerate(value):
                yield from _explained(each, f"{prefix}{name}.{number}.")
        elif field.is_required() or value != field.get_default(call_default_factory=True):
            yield f"{prefix}{name}", str(value), meanings(type(table)).get(name, "")
