"""`dermbridge adt send` against a listener: files as they lie about, answers as an engineer reads them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sqlalchemy import func, select
from typer.testing import CliRunner

from adapter.bridge import Bridge
from adapter.cli import cli
from adapter.db.tables import adt_message
from adapter.errors import BadInput
from adapter.identity import receive
from adapter.identity.mllp_client import acknowledged, blocks_of
from mappings.hl7v2.framing import frame
from tests.identity.conftest import adt
from tests.identity.listening import exchange, serving

FHS, BHS = b"FHS|^~\\&|ADT|HOSP|DB|HOSP||||||F1\r", b"BHS|^~\\&|ADT|HOSP|DB|HOSP||||||B1\r"


def test_a_batch_file_is_sent_whole_and_every_message_in_it_is_received_and_answered(
    site: Bridge, tmp_path: Path
) -> None:
    batch, loose = tmp_path / "batch.hl7", tmp_path / "loose.hl7"
    batch.write_bytes(FHS + BHS + adt("A28", "1") + adt("A28", "2", mrn="") + b"BTS|2\rFTS|1\r")
    loose.write_bytes((adt("A28", "3") + adt("A31", "4")).replace(b"\r", b"\r\n"))
    with serving(partial(receive, site)) as port:
        result = CliRunner().invoke(cli, ["adt", "send", str(batch), str(loose), "--port", str(port)])
    assert result.exit_code == 1  # the second message names no patient
    assert result.output.splitlines() == [
        "batch.hl7: MSA|AA|1",
        "batch.hl7: MSA|AE|2",
        "loose.hl7: MSA|AA|3",
        "loose.hl7: MSA|AA|4",
    ]
    with site.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(adt_message)).scalar_one() == 4


def test_the_same_batch_again_is_answered_alike_and_has_no_second_effect(site: Bridge) -> None:
    block = frame(BHS + adt("A28", "1") + adt("A28", "2") + b"BTS|2\r")
    with serving(partial(receive, site)) as port:
        first, again = exchange(port, block), exchange(port, block)
    assert first == again
    assert acknowledged(first[0]) == ["MSA|AA|1", "MSA|AA|2"]
    with site.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(adt_message)).scalar_one() == 2


def test_a_file_that_was_saved_with_its_framing_is_sent_without_it() -> None:
    message = adt("A28", "1")
    assert blocks_of(frame(message)) == [message.rstrip(b"\r")]


def test_a_message_that_forbids_its_answer_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "silent.hl7"
    file.write_bytes(adt("A28", "1").replace(b"|P|2.5.1\r", b"|P|2.5.1|||NE|AL\r"))
    result = CliRunner().invoke(cli, ["adt", "send", str(file), "--port", "1"])
    assert isinstance(result.exception, BadInput)
    assert "silent.hl7: MSH-15" in str(result.exception)
