"""Checks an audit export of DermBridge against nothing but itself: no service, no database, no trust.

    python verify_audit.py DIR [--head NOTED.json ...] [--key PUBLIC.pem ...]

One file of plain Python (3.11), to be read before it is believed; only the signatures need the package `cryptography`.
`--head` is a head noted earlier, outside the hospital's systems: the export must continue it. `--key` is a public key
obtained the same way; without it the export's own keys are taken, which shows damage but not a wholly forged log.
Exit codes: 0 everything holds; 1 something does not; 2 this is no export. The format is told in docs/audit.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

Head = dict[str, Any]


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def chain_hash(before: bytes, leaf: bytes, seq: int) -> bytes:
    return sha256(b"\2" + before + leaf + seq.to_bytes(8, "big")).digest()


def check_inclusion(leaf: bytes, seq: int, size: int, path: list[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises ValueError."""
    if seq >= size:
        raise ValueError("the leaf lies beyond the tree")
    position, last, found = seq, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ValueError("the inclusion proof is too long")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last or found != root:
        raise ValueError("the inclusion proof does not lead to the root of the head")


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, path: list[bytes]) -> None:
    """RFC 9162 section 2.1.4.2. Raises ValueError."""
    if not 0 < first <= second:
        raise ValueError("the later tree is smaller than the earlier one: the log was cut")
    if first == second:
        if path or first_root != second_root:
            raise ValueError("two heads of the same size differ: the log was rewritten")
        return
    steps = [first_root, *path] if first & (first - 1) == 0 else list(path)
    if not steps:
        raise ValueError("the consistency proof is missing")
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    earlier = later = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise ValueError("the consistency proof is too long")
        if position & 1 or position == last:
            earlier, later = node_hash(sibling, earlier), node_hash(sibling, later)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            later = node_hash(later, sibling)
        position, last = position >> 1, last >> 1
    if last or earlier != first_root or later != second_root:
        raise ValueError("the later tree does not continue the earlier one: the log was rewritten")


class Tree:
    """The root of the leaves so far, in the memory of a few hashes."""

    def __init__(self) -> None:
        self.size, self.peaks, self.chain = 0, [], bytes(32)

    peaks: list[bytes]

    def append(self, leaf: bytes) -> None:
        self.chain = chain_hash(self.chain, leaf, self.size)
        position, found = self.size, leaf
        while position & 1:
            position, found = position >> 1, node_hash(self.peaks.pop(), found)
        self.peaks.append(found)
        self.size += 1

    def root(self) -> bytes:
        found = self.peaks[-1] if self.peaks else sha256(b"").digest()
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found


def statement(head: Head) -> bytes:
    """What was signed: five lines of text."""
    lines = ("DermBridge audit log 1", head["tree_size"], head["root_hash"], head["chain_hash"], head["signed_at"])
    return "".join(f"{line}\n" for line in lines).encode()


class Export:
    """The files of one export; `problems` are sentences."""

    def __init__(self, folder: Path, noted: list[Head], keys: list[Path]) -> None:
        self.folder = folder
        self.noted = noted
        self.problems: list[str] = []
        self.about = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.heads: list[Head] = list(self.lines("heads.ndjson"))
        self.keys = dict(self._key(file) for file in keys or sorted(folder.glob("*.pem")))

    def lines(self, name: str) -> Iterator[Any]:
        with (self.folder / name).open("rb") as file:
            yield from map(json.loads, file)

    def check(self) -> int:
        """Everything; returns how many events were checked."""
        if not self.heads:
            self.problems.append("there is no head: nothing is sealed, nothing is proved")
            return 0
        for head in [*self.heads, *self.noted]:
            self.check_signature(head)
        return self.check_whole() if self.about["whole"] else self.check_part()

    def check_signature(self, head: Head) -> None:
        from cryptography.exceptions import InvalidSignature

        key = self.keys.get(head["key_id"])
        if key is None:
            self.problems.append(f"head {head['tree_size']}: its key is not among those given")
            return
        try:
            key.verify(base64.b64decode(head["signature"]), statement(head))
        except InvalidSignature:
            self.problems.append(f"head {head['tree_size']}: the signature is not that of its key")

    def check_whole(self) -> int:
        """Every event is here: build the tree again and compare it with every head."""
        tree = Tree()
        due: dict[int, list[Head]] = {}
        for head in [*self.heads, *self.noted]:
            due.setdefault(head["tree_size"], []).append(head)
        for entry, leaf in self.events():
            if entry is None or leaf is None:
                self.problems.append(f"event {tree.size}: events and leaves are not as many; some are missing")
                break
            found = self.check_leaf(entry, leaf, tree.size)
            tree.append(found)
            if leaf["chain_hash"] != tree.chain.hex():
                self.problems.append(f"event {tree.size - 1}: the chain of hashes breaks here")
                tree.chain = bytes.fromhex(leaf["chain_hash"])
            for head in due.pop(tree.size, []):
                if (head["root_hash"], head["chain_hash"]) != (tree.root().hex(), tree.chain.hex()):
                    self.problems.append(f"head {head['tree_size']}: the events before it are not those it was made of")
        for size in sorted(due):
            self.problems.append(f"head {size}: only {tree.size} events are here; the log was cut")
        return tree.size

    def check_part(self) -> int:
        """Some events are here: each must be proved to be in the newest head, which must continue every noted one."""
        newest, checked = max(self.heads, key=lambda head: int(head["tree_size"])), 0
        for entry, leaf in self.events():
            if entry is None or leaf is None:
                self.problems.append(f"line {checked + 1}: events and leaves are not as many; some are missing")
                break
            found, seq = self.check_leaf(entry, leaf, leaf["seq"]), leaf["seq"]
            path = [bytes.fromhex(one) for one in leaf["inclusion"]]
            try:
                check_inclusion(found, seq, newest["tree_size"], path, bytes.fromhex(newest["root_hash"]))
            except ValueError as error:
                self.problems.append(f"event {seq}: {error}")
            checked += 1
        proofs = {one["first"]: one["path"] for one in self.lines("consistency.ndjson")}
        for head in [*self.heads, *self.noted]:
            try:
                steps = [] if head["tree_size"] == newest["tree_size"] else proofs.get(head["tree_size"], [])
                roots = [bytes.fromhex(one["root_hash"]) for one in (head, newest)]
                sizes = [one["tree_size"] for one in (head, newest)]
                check_consistency(sizes[0], roots[0], sizes[1], roots[1], [bytes.fromhex(one) for one in steps])
            except ValueError as error:
                self.problems.append(f"head {head['tree_size']}: {error}")
        return checked

    def events(self) -> Iterator[tuple[bytes | None, Any]]:
        with (self.folder / "events.ndjson").open("rb") as events:
            yield from zip_longest((line.removesuffix(b"\n") for line in events), self.lines("leaves.ndjson"))

    def check_leaf(self, entry: bytes, leaf: Any, seq: int) -> bytes:
        """The leaf hash of what is written, whatever the leaf says."""
        found = leaf_hash(entry)
        if leaf["seq"] != seq:
            self.problems.append(f"event {seq}: the leaf here is number {leaf['seq']}; one is missing or out of order")
        if found.hex() != leaf["leaf_hash"]:
            self.problems.append(f"event {seq}: it is not what was sealed; it was altered or put in another's place")
        return found

    def _key(self, file: Path) -> tuple[str, Any]:
        from cryptography.hazmat.primitives import serialization

        key: Any = serialization.load_pem_public_key(file.read_bytes())
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return sha256(raw).hexdigest(), key


def main() -> int:
    parser = argparse.ArgumentParser(description="Check an audit export of DermBridge, trusting nobody.")
    parser.add_argument("folder", type=Path, help="what `dermbridge audit export` wrote")
    parser.add_argument("--head", type=Path, action="append", default=[], help="a head noted earlier (JSON)")
    parser.add_argument("--key", type=Path, action="append", default=[], help="a public key obtained elsewhere (PEM)")
    given = parser.parse_args()
    try:
        export = Export(given.folder, [json.loads(file.read_text("utf-8")) for file in given.head], given.key)
        checked = export.check()
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{given.folder} is not an audit export, or a damaged one: {error}")
        return 2
    for problem in export.problems[:100]:
        print(problem)
    proved = f"{checked} events, {len(export.heads)} signed heads, {len(export.noted)} noted heads"
    print(f"{len(export.problems)} problems in {proved}" if export.problems else f"all holds: {proved}")
    return int(bool(export.problems))


if __name__ == "__main__":
    sys.exit(main())
