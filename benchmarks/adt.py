"""ADT over one pipelined MLLP connection: receive-to-ACK with every message durable, then how fast it is applied.

    python -m benchmarks.adt [--messages 5000] [--rounds 3] [--json]

Half A04, half A08 for as many patients. The service runs with everything in one process, so messages are applied
while others are still being received. Target: 2,000 acknowledged messages per second.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapter.identity.mllp_client import send
from adapter.settings import Settings
from benchmarks.served import AUTHORITY, prepare, report, serving

TARGET_PER_SECOND = 2000
PIPELINED = 512
UNAPPLIED = "work WHERE kind = 'apply-adt' AND state <> 'dead'"
APPLIED = "adt_message WHERE state = 'applied'"


def messages(count: int) -> list[bytes]:
    """ADT^A04 and then ADT^A08 for `count` // 2 patients, about 600 bytes each."""
    half = (count + 1) // 2
    return [_message("A04" if n < half else "A08", n, n % half) for n in range(count)]


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


def acknowledged_per_second(settings: Settings, feed: list[bytes]) -> float:
    began = time.perf_counter()
    answers = send(settings.mllp_host, settings.mllp_port, feed, pipelined=PIPELINED)
    spent = time.perf_counter() - began
    refused = sum(b"MSA|AA|" not in answer and b"MSA|CA|" not in answer for answer in answers)
    if refused:
        raise SystemExit(f"{refused} of {len(answers)} messages were refused")
    return len(answers) / spent


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


def one_round(number: int, *, apply: bool) -> Iterator[tuple[str, float]]:
    feed = messages(number)
    with tempfile.TemporaryDirectory() as folder:
        settings, secret = prepare(Path(folder))
        with serving(settings, secret):
            began = time.perf_counter()
            yield "receive to ACK", acknowledged_per_second(settings, feed)
            if apply:
                waiting = count(settings, UNAPPLIED)
                yield "apply, once all are in", waiting / max(seconds_until_applied(settings, number), 1e-9)
                yield "both, end to end", number / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="receiving is repeated; applying is measured in the last")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seen: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name, per_second in one_round(options.messages, apply=number == options.rounds - 1):
            seen.setdefault(name, []).append(per_second)
    rows: list[dict[str, Any]] = [
        {
            "messages/s": name,
            "median": statistics.median(values),
            "best": max(values),
            "runs": len(values),
            "target": TARGET_PER_SECOND if name == "receive to ACK" else None,
        }
        for name, values in seen.items()
    ]
    report(f"{options.messages} ADT messages, one connection, {PIPELINED} pipelined", rows, as_json=options.json)
    return 0 if rows[0]["median"] >= TARGET_PER_SECOND else 1


if __name__ == "__main__":
    raise SystemExit(main())
