"""Several processes of one service: each replaced when it is killed, all ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapter.processes import Member

PATIENCE_SECONDS = 20
MEMBER = """
import os, signal, sys, time
from pathlib import Path
from adapter import processes
from adapter.logs import configure_logs

configure_logs()
processes.RESTART_SECONDS = 0.3
folder = Path(sys.argv[1])
fork, scarce = os.fork, folder / "no-memory"


def fork_with_memory():
    if scarce.exists():
        scarce.unlink()
        raise OSError(12, "Cannot allocate memory")
    return fork()


os.fork = fork_with_memory
member = processes.fork_processes(3)
rung = folder / f"rung-{member.number}"
member.when_rung(rung.touch)
(folder / f"{member.number}.{os.getpid()}").touch()
while True:
    time.sleep(0.01)
    for wish, do in (("ring", member.ring), ("leave", lambda: sys.exit(3)), ("go", lambda: sys.exit(0))):
        mine = folder / f"{wish}-{member.number}"
        if mine.exists():
            mine.unlink()
            do()
"""


class Service:
    def __init__(self, folder: Path, *before: str) -> None:
        self.folder = folder
        self.parent = subprocess.Popen([*before, sys.executable, "-c", MEMBER, str(folder)])
        self.wait(lambda: len(self.members()) == 3)

    def members(self) -> dict[int, int]:
        """Process id of each number: the newest."""
        files = sorted(self.folder.glob("[0-9].*"), key=lambda file: file.stat().st_mtime_ns)
        return {int(number): int(process) for number, process in (file.name.split(".") for file in files)}

    def wait(self, look: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not look():
            assert time.monotonic() < until
            time.sleep(0.01)

    def wait_until_gone(self) -> None:
        self.wait(lambda: not any(map(is_alive, self.members().values())))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.parent.kill()
    running.parent.wait()


def test_a_process_that_was_killed_is_replaced_under_its_number(service: Service) -> None:
    before = service.members()
    os.kill(before[1], signal.SIGKILL)
    service.wait(lambda: service.members()[1] != before[1])
    assert {number: process for number, process in service.members().items() if number != 1} == {
        0: before[0],
        2: before[2],
    }


def test_all_end_with_the_parent_that_was_asked_to_end(service: Service) -> None:
    service.parent.terminate()
    assert service.parent.wait(PATIENCE_SECONDS) == 0
    service.wait_until_gone()


def test_all_die_with_the_parent_that_was_killed(service: Service) -> None:
    service.parent.kill()
    service.wait_until_gone()


def test_a_process_that_ends_by_itself_ends_the_others_and_its_code_is_that_of_the_service(service: Service) -> None:
    (service.folder / "leave-2").touch()
    assert service.parent.wait(PATIENCE_SECONDS) == 3
    service.wait_until_gone()


def test_a_process_rings_for_the_others_and_not_for_itself(service: Service) -> None:
    (service.folder / "ring-1").touch()
    service.wait(lambda: {file.name for file in service.folder.glob("rung-*")} == {"rung-0", "rung-2"})


def test_a_process_that_was_replaced_still_hears_the_others(service: Service) -> None:
    first = service.members()[2]
    os.kill(first, signal.SIGKILL)
    service.wait(lambda: service.members()[2] != first)
    (service.folder / "ring-0").touch()
    service.wait((service.folder / "rung-2").exists)


def test_a_process_that_somebody_else_asked_to_end_is_replaced(service: Service) -> None:
    first = service.members()[1]
    (service.folder / "go-1").touch()
    service.wait(lambda: service.members()[1] != first)
    assert service.parent.poll() is None


def test_a_replacement_that_cannot_start_takes_nobody_along_and_is_tried_again_later_and_later(
    service: Service,
) -> None:
    before = service.members()
    os.kill(before[1], signal.SIGKILL)
    began = []
    for _ in range(2):
        last = service.members()[1]
        service.wait(lambda last=last: service.members()[1] != last)  # type: ignore[misc]
        began.append((service.folder / f"1.{service.members()[1]}").stat().st_mtime)
        (service.folder / "leave-1").touch()
    last = service.members()[1]
    service.wait(lambda: service.members()[1] != last)
    began.append((service.folder / f"1.{service.members()[1]}").stat().st_mtime)
    assert began[2] - began[1] > began[1] - began[0] > 0.5
    assert service.members()[0] == before[0]


def test_processes_are_replaced_under_a_parent_whose_own_parent_ignored_the_end_of_its_children(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path, "sh", "-c", "trap '' CHLD; exec \"$@\"", "sh")
    first = service.members()[1]
    os.kill(first, signal.SIGKILL)
    service.wait(lambda: service.members()[1] != first)
    service.parent.terminate()
    assert service.parent.wait(PATIENCE_SECONDS) == 0


def test_a_replacement_there_is_no_memory_for_comes_later_and_the_others_stay(service: Service) -> None:
    before = service.members()
    (service.folder / "no-memory").touch()
    os.kill(before[1], signal.SIGKILL)
    service.wait(lambda: service.members()[1] != before[1])
    assert not (service.folder / "no-memory").exists()
    assert service.members()[0] == before[0]


def test_a_full_disk_under_the_log_ends_nobody(tmp_path: Path) -> None:
    service = Service(tmp_path, "sh", "-c", 'exec "$@" >/dev/full', "sh")
    first = service.members()[1]
    os.kill(first, signal.SIGKILL)
    service.wait(lambda: service.members()[1] != first)
    service.parent.terminate()
    assert service.parent.wait(PATIENCE_SECONDS) == 0


def test_who_carries_more_than_another_knows_by_how_much() -> None:
    loads = [0, 0]
    one, other = Member(0, [], loads), Member(1, [], loads)
    assert one.carry(3) == 3
    assert other.carry(2) == 0
    assert one.carry(3) == 1
