"""Clients of other make against the listener: @medplum/hl7 and node-hl7-client (send.mjs), python-hl7's mllp_send.

Needs Node.js 20 or later and `npm ci` in this folder, and python-hl7; without them the tests are skipped with that
sentence.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.identity import apply_message, find_answers, find_patient, receive
from adapter.identity.mllp_client import acknowledged
from adapter.identity.mllp_tls import server_tls
from adapter.settings import MllpListener
from adapter.work import Lane, WorkLoop
from tests.identity.conftest import MRN, adt
from tests.identity.listening import serving
from tests.identity.test_mllp_tls import certificate

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
NODE_CLIENTS = ["medplum", "node-hl7-client"]


@pytest.fixture
def site(bridge: Bridge) -> Bridge:
    return replace(bridge, settings=bridge.settings.model_copy(update={"identifier_systems": {"HOSP": MRN}}))


@contextmanager
def listening(site: Bridge, tls: Path | None = None) -> Iterator[int]:
    """The listener and what applies its messages; yields the port."""
    loop = WorkLoop(site.db, {"apply-adt": Lane(partial(apply_message, site), dead_blocks=True)}, now=site.now)
    context = server_tls(MllpListener(port=0, certificate=tls))
    with serving(partial(receive, site), find_answers=partial(find_answers, site), ssl=context) as port:
        loop.start()
        try:
            yield port
        finally:
            loop.stop()
            loop.run_until_idle()


def missing(reason: str) -> None:
    (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)


def send_with_node(client: str, port: int, messages: list[bytes], **options: str | int) -> list[str]:
    """The answers, segments parted by CR."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules").is_dir():
        missing(f"no MLLP clients here: install Node.js 20 or later and run npm ci in {HERE}")
    asked = json.dumps({"messages": [message.decode() for message in messages], **options})
    command = [str(node), "send.mjs", client, str(port)]
    run = subprocess.run(command, check=True, cwd=HERE, input=asked, stdout=subprocess.PIPE, text=True, timeout=60)
    answers: list[str] = json.loads(run.stdout)
    return answers


def codes(answers: list[str]) -> list[list[str]]:
    return [acknowledged(answer.encode()) for answer in answers]


def kept(site: Bridge) -> list[str]:
    with site.db.snapshot() as tx:
        return list(tx.execute(select(adt_message.c.control_id).order_by(adt_message.c.id)).scalars())


@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_every_message_is_answered_with_its_own_control_id_and_applied(site: Bridge, client: str) -> None:
    messages = [adt("A28", str(n), str(n), family="Müller-Ångström") for n in range(5)]
    with listening(site) as port:
        assert codes(send_with_node(client, port, messages)) == [[f"MSA|AA|{n}"] for n in range(5)]
    assert kept(site) == ["0", "1", "2", "3", "4"]
    with site.db.snapshot() as tx:
        patient = find_patient(tx, MRN, "4")
    assert patient is not None and patient.resource["name"][0]["family"] == "Müller-Ångström"


@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_a_message_sent_again_gets_the_same_answer_and_is_kept_once(site: Bridge, client: str) -> None:
    with listening(site) as port:
        first, again = (send_with_node(client, port, [adt("A28", "1")]) for _ in range(2))
    assert first == again
    assert kept(site) == ["1"]


def test_medplum_waits_for_the_application_acknowledgement_it_asks_for(site: Bridge) -> None:
    message = adt("A28", "1").replace(b"|P|2.5.1\r", b"|P|2.5.1|||AL|AL\r")
    with listening(site) as port:
        assert codes(send_with_node("medplum", port, [message], returnAck="application")) == [["MSA|AA|1"]]
        assert codes(send_with_node("medplum", port, [message])) == [["MSA|CA|1"]]


def test_a_batch_of_node_hl7_client_is_answered_as_a_batch(site: Bridge) -> None:
    batch = b"BHS|^~\\&|ADT|HOSP|DB|HOSP|20261123||||B1\r" + adt("A28", "1") + adt("A28", "2") + b"BTS|2\r"
    with listening(site) as port:
        answers = send_with_node("node-hl7-client", port, [batch], expected=2)
    assert kept(site) == ["1", "2"]
    assert codes(answers) == [["MSA|AA|1"], ["MSA|AA|2"]]  # it takes a batch apart itself


def test_node_hl7_client_speaks_tls(site: Bridge, tmp_path: Path) -> None:
    ours = certificate(tmp_path, "listener")
    with listening(site, tls=ours) as port:
        answers = send_with_node("node-hl7-client", port, [adt("A28", "1")], ca=ours.read_text())
    assert codes(answers) == [["MSA|AA|1"]]


def test_mllp_send_of_python_hl7_sends_a_file_of_many_messages(site: Bridge, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("mllp_send")
    if not program.exists():
        missing("no mllp_send here: install the tools of requirements/ci.txt")
    file = tmp_path / "feed.hl7"
    file.write_bytes(b"".join(adt("A28", str(n), str(n)) for n in range(3)).replace(b"\r", b"\r\n"))
    with listening(site) as port:
        command = [str(program), "--loose", "--file", str(file), "--port", str(port), "127.0.0.1"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert kept(site) == ["0", "1", "2"]
    assert [f"MSA|AA|{n}" in run.stdout for n in range(3)] == [True] * 3, run.stdout
