"""What an actor reaches, as conditions on a type's table: the same for reading, searching, including and writing.

`access.policy` tells what may be done at all; here is on which records. A read asks whether the one record meets the
conditions, a search adds them to its own, and what was written must meet them before its transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, false, literal, or_, select

from adapter.access.actor import Actor
from adapter.access.policy import MADE_BY, OPENED_BY, Letter, can, levels_closed
from adapter.access.scopes import Grant, filters_of, grants_for
from adapter.bridge import Bridge
from adapter.db.tables import ONLY_OPEN
from adapter.errors import Forbidden, NotFound, OutOfReach
from adapter.records.confinement import confinement, same_patients
from adapter.records.search_filters import Alternatives, Scope, alternatives
from adapter.records.search_parameters import TABLES

Condition = ColumnElement[bool]


@dataclass(frozen=True)
class Reach:
    """The records that `actor` reaches; made for one transaction."""

    tx: Connection
    actor: Actor
    now: datetime
    base_url: str = ""
    patient_ids: frozenset[str] | None = field(init=False)

    def __post_init__(self) -> None:
        own = self.actor.patient_id
        object.__setattr__(self, "patient_ids", None if own is None else same_patients(self.tx, {own}))

    def conditions(self, letter: Letter, resource_type: str) -> list[Condition]:
        """All must hold. What no scope permits is not reached at all."""
        return [or_(*each) for each in self.alternatives(letter, resource_type)]

    def alternatives(self, letter: Letter, resource_type: str) -> list[Alternatives]:
        """`conditions`, of which a search reads those that are alternatives one by one where that costs less."""
        granted = [[one] for one in self._granted(letter, resource_type)]
        if self.patient_ids is not None:  # no more to read than a chart
            return [*granted, *([one] for one in sensitivity(self.actor, resource_type))]
        return [*granted, *visible(self.actor, resource_type)]

    def check(self, letter: Letter, resource_type: str, resource_id: str) -> None:
        """Raises NotFound: what is out of reach is not known to exist. OutOfReach where that is a decision."""
        if not self.holds(letter, resource_type, resource_id):
            message, reference = f"there is no {resource_type}/{resource_id}", f"{resource_type}/{resource_id}"
            if resource_type in TABLES and self.conditions(letter, resource_type):
                raise OutOfReach(message, reference=reference)
            raise NotFound(message)

    def check_written(self, letter: Letter, resource_type: str, resource_id: str) -> None:
        """After writing and before the transaction ends; whoever labels a photo V may not see it afterwards.

        Raises Forbidden.
        """
        if not self._any(resource_type, resource_id, self._granted(letter, resource_type)):
            raise Forbidden(f"no granted scope permits {resource_type}.{letter} with this content")

    def holds(self, letter: Letter, resource_type: str, resource_id: str) -> bool:
        """Whether the record, deleted or not, is reached."""
        return resource_type in TABLES and self._any(resource_type, resource_id, self.conditions(letter, resource_type))

    def _any(self, resource_type: str, resource_id: str, conditions: list[Condition]) -> bool:
        this = TABLES[resource_type].c.id == resource_id
        return self.tx.execute(select(literal(1)).where(this, *conditions)).first() is not None

    def _granted(self, letter: Letter, resource_type: str) -> list[Condition]:
        return [*confinement(resource_type, self.patient_ids), *self._scoped(letter, resource_type)]

    def _scoped(self, letter: Letter, resource_type: str, *, by_chains: bool = True) -> Sequence[Condition]:
        grants = grants_for(self.actor.scopes, letter, resource_type)
        if any(not grant.query for grant in grants):
            return ()
        met = (self._meets(grant, resource_type) for grant in grants if by_chains or not grant.has_chain)
        return (or_(false(), *met),)

    def _meets(self, grant: Grant, resource_type: str) -> Condition:
        scope = Scope(
            self.tx, resource_type, self.patient_ids, self.base_url, self.now, self._told_by_chains, is_granted=True
        )
        return and_(*(or_(*alternatives(scope, wanted)) for wanted in filters_of(grant)))

    def _told_by_chains(self, letter: Letter, resource_type: str) -> list[Alternatives]:
        """What a scope's own chain may look at: what could be searched for, or `Media.r?patient.birthdate=…` would tell
        an app that may read no Patient when one was born. No chain vouches for another, since that might not end."""
        scoped = [[one] for one in self._scoped(letter, resource_type, by_chains=False)]
        return [*scoped, *visible(self.actor, resource_type)]


def check_written(
    tx: Connection, bridge: Bridge, actor: Actor, letter: Letter, resource_type: str, resource_id: str
) -> None:
    """For a use case that wrote (or found) a record by its own rules: whether a scope permits it with this content.

    Ask it wherever `check_scope(…, some=True)` was asked before. Raises Forbidden.
    """
    if not can(actor, letter, resource_type):
        reach = Reach(tx, actor, bridge.now(), f"{bridge.settings.base_url}/fhir")
        reach.check_written(letter, resource_type, resource_id)


def sensitivity(actor: Actor, resource_type: str) -> list[Condition]:
    """`policy.can_see` as conditions on the table."""
    return [or_(*each) for each in visible(actor, resource_type)]


def visible(actor: Actor, resource_type: str) -> list[Alternatives]:
    """`sensitivity` as alternatives, where each has an index: what is open to everybody, and one's own of other levels.

    As one condition they would be looked up row by row, through every restricted photo there is for who may see none.
    """
    if resource_type not in MADE_BY or not (closed := levels_closed(actor)):
        return []
    columns = TABLES[resource_type].c
    level, is_own = columns.confidentiality, columns[MADE_BY[resource_type]] == actor.id
    if closed != [*OPENED_BY]:
        return [[or_(level.not_in(closed), is_own)]]
    return [[level == ONLY_OPEN, *(and_(is_own, level == one) for one in closed)]]
