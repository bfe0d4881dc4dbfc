"""The operation "compare": each photo of a visit against its prior, and which of them changed most.

Parameters: {"priors": {id of a photo: id of its prior}}, as `propose_priors` found them; photos without one are told.
What is found is kept like any comparison and can be saved from its page, so there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.access.reach import sensitivity
from adapter.batch.operation import Change, Parameters, Plan
from adapter.bridge import Bridge
from adapter.compare.comparing import compare
from adapter.compare.priors import explain, find_prior
from adapter.compare.reopening import get_photo
from adapter.db.tables import media
from adapter.errors import BadInput, Unprocessable
from adapter.records import find_where
from adapter.records.comparisons import Comparison, comparisons_among

NOT_ALIGNED = "not-aligned"
_COMPLETED = "completed|"


@dataclass(frozen=True)
class Changed:
    """A pair and what differs: `weight` is the colour difference over the share of the photo that it covers."""

    photo: str
    prior: str
    verdict: str
    regions: int
    weight: float


def photos_of_visit(tx: Connection, actor: Actor, patient_id: str, encounter_id: str) -> list[str]:
    """The ids of the photos taken at a visit, in the order they were taken."""
    c = media.c
    taken = (c.encounter == encounter_id, c.patient == patient_id, c.status == _COMPLETED, c.derivation.is_(None))
    found = find_where(tx, "Media", *taken, *sensitivity(actor, "Media"), order_by=c.created)
    return [one.id for one in found]


def propose_priors(tx: Connection, actor: Actor, media_ids: Sequence[str]) -> dict[str, str]:
    """The best prior of each photo that has one."""
    only = sensitivity(actor, "Media")
    found = {one: find_prior(tx, get_photo(tx, actor, one), only=only) for one in media_ids}
    return {media_id: prior.photo.id for media_id, prior in found.items() if prior}


def check_priors(_bridge: Bridge, parameters: Parameters) -> None:
    if set(parameters) != {"priors"} or not all(isinstance(one, str) for one in parameters["priors"].values()):
        raise BadInput("photos are compared with their priors")


def plan_comparison(tx: Connection, _bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> Plan:
    prior_id = parameters["priors"].get(media_id)
    if prior_id is None:
        return Plan("no photo of another visit shows this lesion or site", skips=True)
    why = explain(get_photo(tx, actor, media_id), get_photo(tx, actor, prior_id))
    at = why.photo.resource.get("createdDateTime", "a day not known")[:10]
    return Plan(f"with the photo of {at}: {', '.join([*why.reasons, *why.but])}")


def ask_engine(bridge: Bridge, actor: Actor, media_id: str, parameters: Parameters) -> None:
    """Seconds of work, outside every transaction; what it finds is kept, so that a repetition costs a read."""
    compare(bridge, actor, parameters["priors"][media_id], media_id)


def tell_comparison(tx: Connection, _bridge: Bridge, _actor: Actor, media_id: str, parameters: Parameters) -> Change:
    found = changes_of(tx, {media_id: parameters["priors"][media_id]})
    if not found:
        raise Unprocessable("one of the photos was moved meanwhile; open the patient's photos again")
    return Change(words_of(found[0]))


def words_of(changed: Changed) -> str:
    if changed.verdict == NOT_ALIGNED:
        return "not aligned: look at them side by side"
    differ = {0: "no place differs", 1: "1 place differs"}.get(changed.regions, f"{changed.regions} places differ")
    return f"{changed.verdict}: {differ}"


def changes_of(tx: Connection, priors: Mapping[str, str]) -> list[Changed]:
    """What is known of the pairs (photo -> prior), the most changed first; those not aligned last."""
    found = comparisons_among(tx, [(prior, photo) for photo, prior in priors.items()])
    return sorted(
        (_changed(one) for one in found), key=lambda one: (one.verdict == NOT_ALIGNED, -one.weight, one.photo)
    )


def _changed(found: Comparison) -> Changed:
    """Regions whose skin could not be followed count for nothing: they may be nothing but a bad fit."""
    result: dict[str, Any] = found.result
    regions = (result.get("change") or {}).get("regions", [])
    area = result["width"] * result["height"]
    weight = sum(one["difference"] * one["box"][2] * one["box"][3] / area for one in regions if one["certain"])
    return Changed(found.right_media, found.left_media, result["verdict"], len(regions), weight)
