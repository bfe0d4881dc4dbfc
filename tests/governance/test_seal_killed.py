"""kill -9 in the middle of writing and sealing, again and again: every event that was committed has its leaf."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import func, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event
from adapter.governance import seal as sealing
from adapter.governance.seal import seal_all
from adapter.governance.verification import verify

ROUNDS = 2


def write_and_seal(data_dir: str, url: str) -> None:
    """Until killed; run as a process of its own. Says `ready` once everything is under way."""
    import threading

    from adapter import governance
    from adapter.access import SYSTEM
    from adapter.bridge import open_bridge
    from adapter.settings import load_settings

    sealing.BATCH_LEAVES = 3
    bridge = open_bridge(load_settings(environment={}, data_dir=Path(data_dir), database_url=url))

    def write() -> None:
        while True:
            with bridge.db.transaction() as tx:
                governance.audit(tx, bridge, "read", SYSTEM, references=["Media/m1/_history/1"])

    def seal() -> None:
        while True:
            sealing.seal(bridge)

    for act in (write, write, seal, seal):
        threading.Thread(target=act, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(60)


def test_nothing_committed_is_lost_or_sealed_twice_when_the_process_is_killed(bridge: Bridge) -> None:
    seal_all(bridge)
    arguments = [str(bridge.settings.data_dir), bridge.settings.database_url or bridge.settings.database]
    program = "import sys; from tests.governance.test_seal_killed import write_and_seal; write_and_seal(*sys.argv[1:])"
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", program, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.3)
            process.kill()
    with bridge.db.snapshot() as tx:
        committed = tx.execute(select(func.count()).select_from(audit_event)).scalar_one()
    seal_all(bridge)
    verdict = verify(bridge.db)
    assert verdict.problems == []
    assert verdict.events == committed > ROUNDS
