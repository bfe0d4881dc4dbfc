"""ADT over MLLP: receive-to-ACK with every message durable, how fast it is applied, and what other receivers do.

    python -m benchmarks.adt [--messages 5000] [--rounds 3] [--peers] [--json]

Half A04, half A08 for as many patients. The service runs with everything in one process, so messages are applied
while others are still being received. `--peers` measures other receivers by the same load in the same run; they keep
nothing, and some answer wrongly when messages do not wait for their answers: the column says so. Targets: 3,000
acknowledged messages per second on one connection, and no fewer with 50.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from adapter.errors import Unavailable
from adapter.identity.mllp_client import acknowledged, send
from adapter.settings import Settings
from benchmarks.mllp_peers import PEERS, Peer, hl7apy_peer
from benchmarks.served import AUTHORITY, prepare, report, serving

TARGET_PER_SECOND = 3000
UNAPPLIED = "work WHERE kind = 'apply-adt' AND state <> 'dead'"
APPLIED = "adt_message WHERE state = 'applied'"


class Load(NamedTuple):
    """How many connections at once, and how many messages wait for their answer on each. 0: one each, then closed."""

    connections: int
    pipelined: int

    def __str__(self) -> str:
        how = f"{self.pipelined} pipelined" if self.pipelined else "one message each"
        return f"{self.connections} connection{'s' * (self.connections > 1)}, {how}"


PIPELINED, MANY, LOCK_STEP, ALONE = Load(1, 512), Load(50, 64), Load(50, 1), Load(1, 1)


def messages(count: int, first: int = 0) -> list[bytes]:
    """ADT^A04 and then ADT^A08 for `count` // 2 patients, about 600 bytes each, numbered from `first`."""
    half = (count + 1) // 2
    return [_message("A04" if n < half else "A08", first + n, n % half) for n in range(count)]


def _message(event: str, n: int, patient: int) -> bytes:
    at = f"20261123{n // 3600 % 24:02}{n // 60 % 60:02}{n % 60:02}+0000"
    segments = (
        f"MSH|^~\\&|ADT|{AUTHORITY}|DERMBRIDGE|{AUTHORITY}|{at}||ADT^{event}^ADT_A01|C{n:08}|P|2.5.1|||AL|NE",
        f"EVN|{event}|{at}|||U{n % 40}^Clerk^Registration",
        f"PID|1||MRN{patient:07}^^^{AUTHORITY}^MR||Family{patient % 900:03}^Given{patient % 70:02}^M||"
        f"19{30 + patient % 70}0{1 + patient % 9}15|{'FM'[patient % 2]}|||{n} High Street^^Springfield^IL^62701^US||"
        f"^PRN^PH^^1^555^{patient:07}|||M|||||||||||||||N",
        f"PV1|1|O|DERM^R{patient % 20}^1^{AUTHORITY}||||D{patient % 60}^Doctor^Derma|||DER|||||||||"
        f"V{patient:08}^^^{AUTHORITY}^VN|||||||||||||||||||||||||{at}",
    )
    return "\r".join(segments).encode() + b"\r"


# --- load -----------------------------------------------------------------------------------------------------------


def acknowledged_per_second(port: int, feed: list[bytes], load: Load, timeout_seconds: float = 30.0) -> float:
    """Raises Unavailable when the receiver does not answer every message once, positively, in order."""
    parts = (
        [[one] for one in feed]
        if not load.pipelined
        else [feed[n :: load.connections] for n in range(load.connections)]
    )
    sending = partial(send, "127.0.0.1", port, pipelined=load.pipelined, timeout_seconds=timeout_seconds)
    with ThreadPoolExecutor(load.connections) as pool:
        began = time.perf_counter()
        answered = list(pool.map(sending, parts))
        spent = time.perf_counter() - began
    for part, answers in zip(parts, answered, strict=True):
        expected = [message.split(b"|", 10)[9].decode() for message in part]
        segments = [acknowledged(answer)[0].split("|") for answer in answers]
        if any(segment[1] not in ("AA", "CA") for segment in segments) or [one[2] for one in segments] != expected:
            raise Unavailable(f"{len(answers)} answers to {len(part)} messages, not one for each in order")
    return len(feed) / spent


def count(settings: Settings, of_what: str) -> int:
    """Rows in the service's database; read beside it, as any reader of a WAL database may."""
    database = sqlite3.connect(f"file:{settings.data_dir / 'dermbridge.sqlite3'}?mode=ro", uri=True)
    try:
        found: int = database.execute(f"SELECT count(*) FROM {of_what}").fetchone()[0]
        return found
    finally:
        database.close()


def seconds_until_applied(settings: Settings, expected: int) -> float:
    """From now to an empty queue. Exits when a message could not be applied."""
    began = time.perf_counter()
    while count(settings, UNAPPLIED):
        time.sleep(0.2)
    spent = time.perf_counter() - began
    if (applied := count(settings, APPLIED)) != expected:
        raise SystemExit(f"only {applied} of {expected} messages were applied")
    return spent


# --- what is measured -----------------------------------------------------------------------------------------------


def ours(number: int, load: Load, *, apply: bool = False) -> Iterator[tuple[str, float]]:
    feed = messages(number)
    with tempfile.TemporaryDirectory() as folder:
        settings, secret = prepare(Path(folder))
        with serving(settings, secret):
            began = time.perf_counter()
            yield f"DermBridge: {load}", acknowledged_per_second(settings.mllp_port, feed, load)
            if apply:
                waiting = count(settings, UNAPPLIED)
                yield "apply, once all are in", waiting / max(seconds_until_applied(settings, number), 1e-9)
                yield "both, end to end", number / (time.perf_counter() - began)


def theirs(number: int) -> Iterator[tuple[str, float | str]]:
    for name, peer in PEERS.items():
        for load in (PIPELINED, MANY, LOCK_STEP, ALONE):
            yield f"{name}: {load}", _measured(peer, number, load)
    one_each = Load(5, 0)
    yield f"hl7apy MLLPServer: {one_each}", _measured(hl7apy_peer, min(number, 200), one_each, timeout_seconds=30)


def _measured(peer: Peer, number: int, load: Load, timeout_seconds: float = 5) -> float | str:
    try:
        with peer() as port:
            return acknowledged_per_second(port, messages(number), load, timeout_seconds)
    except (Unavailable, LookupError) as error:
        return str(error).removesuffix(" send the rest again.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="receiving is repeated; applying is measured in the last")
    parser.add_argument("--peers", action="store_true", help="measure other receivers as well")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seen: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for load in (MANY, LOCK_STEP, ALONE, PIPELINED):
            is_last = load == PIPELINED and number == options.rounds - 1
            for name, per_second in ours(options.messages // (10 if load == ALONE else 1), load, apply=is_last):
                seen.setdefault(name, []).append(per_second)
    targets = {f"DermBridge: {load}": TARGET_PER_SECOND for load in (PIPELINED, MANY)}
    rows = [_row(name, values, targets.get(name), "yes") for name, values in seen.items()]
    if options.peers:
        rows += [_row(name, [value], None, "no") for name, value in theirs(options.messages)]
    report(f"{options.messages} ADT messages", rows, as_json=options.json)
    return int(any(statistics.median(seen[name]) < target for name, target in targets.items()))


def _row(name: str, values: list[Any], target: int | None, durable: str) -> dict[str, Any]:
    numbers = [value for value in values if not isinstance(value, str)]
    return {
        "messages/s": name,
        "durable": durable,
        "median": statistics.median(numbers) if numbers else None,
        "best": max(numbers, default=None),
        "runs": len(values),
        "target": target,
        "fault": next((value for value in values if isinstance(value, str)), None),
    }


if __name__ == "__main__":
    raise SystemExit(main())
