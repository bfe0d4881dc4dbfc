"""What an operation on many photos is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What would be done to one photo, in words; `skips`: nothing would, and the words say why."""

    words: str
    skips: bool = False


@dataclass(frozen=True)
class Change:
    """What one item did: a sentence for the page, and the version before and after where undo is possible.

    `stub_id` is what a move left behind.
    """

    summary: str
    before: int | None = None
    after: int | None = None
    stub_id: str | None = None


@dataclass(frozen=True)
class Operation:
    """`scope` is the letter needed on Media; `check` refuses parameters before anything is planned.

    `plan` tells without writing what `apply` would do to one photo; both raise what stands against it. `ahead` is what
    takes too long for a transaction: it comes before `apply`, and again after a crash. `undo` takes one change back;
    None: there is nothing to take back. `needs_second_person` asks, of the photos, whether somebody else must confirm.
    """

    scope: str
    check: Callable[[Bridge, Parameters], None]
    plan: Callable[[Connection, Bridge, Actor, str, Parameters], Plan]
    apply: Callable[[Connection, Bridge, Actor, str, Parameters], Change]
    undo: Callable[[Connection, Bridge, Actor, str, Change], Any] | None = None
    needs_second_person: Callable[[Connection, Bridge, Sequence[str]], bool] | None = None
    ahead: Callable[[Bridge, Actor, str, Parameters], None] | None = None
