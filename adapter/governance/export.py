"""The log, or the part of it about one patient, photo or user, as files that a stranger can check without us.

A whole export holds every leaf, so the tree can be built again. A part holds for each of its events the path that
proves it to be in the newest head, and says nothing about the events of others; its events are picked by reading the
text of every one, not by columns and index, which somebody might have altered. Format: docs/audit.md; checked by
tools/verify_audit.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from sqlalchemy import Connection, Row, bindparam, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event, audit_head, audit_leaf
from adapter.errors import BadInput
from adapter.governance.derived import is_asked_for
from adapter.governance.log import Question
from adapter.governance.merkle import consistency_path, inclusion_path
from adapter.governance.seal import seal_all
from adapter.governance.signing import Head, public_keys
from adapter.governance.tree import StoredTree
from mappings.fhir_time import fhir_instant

PAGE = 1000
FILES = ("events.ndjson", "leaves.ndjson", "heads.ndjson", "consistency.ndjson")


def export_log(bridge: Bridge, folder: Path, asked: Question | None, noted: Sequence[Head]) -> tuple[int, Head | None]:
    """Seal what waits, then write everything up to the newest head, or what was `asked` for.

    Returns (events written, newest head). Raises BadInput when the folder holds something already.
    """
    newest = seal_all(bridge)
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty; an export needs a folder of its own")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    size = newest.tree_size if newest else 0
    with ExitStack() as open_files:
        events, leaves, heads, consistency = (open_files.enter_context(_open(folder / name)) for name in FILES)
        if asked is None:
            written = _write_whole(bridge, size, events, leaves)
            _write_all(heads, (head.as_json() for head in _heads(bridge, size)))
        else:
            written = _write_part(bridge, asked, size, events, leaves)
            known = {one.tree_size: one for one in (*noted, newest) if one is not None}
            _write_all(heads, (known[at].as_json() for at in sorted(known)))
        with bridge.db.snapshot() as tx:
            _write_all(consistency, _consistency(tx, noted, size))
            for key in public_keys(tx).values():
                with _open(folder / f"key-{key.id[:16]}.pem") as file:
                    file.write(key.pem)
    with _open(folder / "manifest.json") as file:
        about = {"format": 1, "whole": asked is None, "events": written, "exported_at": fhir_instant(bridge.now())}
        file.write(orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return written, newest


def _open(path: Path) -> BinaryIO:
    """The log names patients: for its owner's eyes only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_all(file: BinaryIO, lines: Iterator[Any]) -> None:
    file.writelines(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in lines)


def _leaf(row: Row[Any]) -> dict[str, Any]:
    hashes = {"leaf_hash": row.leaf_hash.hex(), "chain_hash": row.chain_hash.hex()}
    return {"seq": row.seq, "event_id": row.event_id, **hashes}


def _pages(bridge: Bridge, size: int) -> Iterator[tuple[Connection, Sequence[Row[Any]]]]:
    """Every leaf with the text of its event, in order, and the transaction they were read in."""
    column = audit_leaf.c
    wanted = (
        select(audit_leaf, audit_event.c.body)
        .outerjoin(audit_event, audit_event.c.id == column.event_id)
        .where(column.seq >= bindparam("start"), column.seq < bindparam("stop"))
        .order_by(column.seq)
    )
    for start in range(0, size, PAGE):
        with bridge.db.snapshot() as tx:
            yield tx, tx.execute(wanted, {"start": start, "stop": min(start + PAGE, size)}).all()


def _write_whole(bridge: Bridge, size: int, events: BinaryIO, leaves: BinaryIO) -> int:
    """An event that is gone from the database leaves an empty line, for the verifier to find."""
    for _, rows in _pages(bridge, size):
        events.writelines((row.body or "").encode() + b"\n" for row in rows)
        _write_all(leaves, map(_leaf, rows))
    return size


def _write_part(bridge: Bridge, asked: Question, size: int, events: BinaryIO, leaves: BinaryIO) -> int:
    written = 0
    for tx, rows in _pages(bridge, size):
        hash_of = StoredTree(tx).hash_of
        for row in rows:
            if row.body is not None and is_asked_for(row.body, asked):
                path = [step.hex() for step in inclusion_path(row.seq, size, hash_of)]
                events.write(row.body.encode() + b"\n")
                _write_all(leaves, iter([{**_leaf(row), "inclusion": path}]))
                written += 1
    return written


def _heads(bridge: Bridge, size: int) -> Iterator[Head]:
    column, after = audit_head.c, 0
    wanted = (
        select(column.tree_size, column.root_hash, column.chain_hash, column.signed_at, column.key_id, column.signature)
        .where(column.tree_size > bindparam("after"), column.tree_size <= size)
        .order_by(column.tree_size)
        .limit(PAGE)
    )
    while True:
        with bridge.db.snapshot() as tx:
            page = [Head(*row) for row in tx.execute(wanted, {"after": after})]
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].tree_size


def _consistency(tx: Connection, noted: Sequence[Head], size: int) -> Iterator[dict[str, Any]]:
    """That the newest tree continues each one noted; nothing proves that of a tree larger than the newest."""
    hash_of: Callable[[int, int], bytes] = StoredTree(tx).hash_of
    for first in sorted({one.tree_size for one in noted if 0 < one.tree_size < size}):
        path = [step.hex() for step in consistency_path(first, size, hash_of)]
        yield {"first": first, "second": size, "path": path}
