"""A coverage-guided fuzzer (atheris) over everything that reads HL7 v2 before it is acknowledged: `make fuzz`.

    python -m tools.fuzz [-max_total_time=60]

Arguments are libFuzzer's; it starts from the sample messages. Anything but the refusals that the readers promise is a
crash; its input, and the inputs that reached new code, are left in var/fuzz.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mappings"]):
    from mappings.hl7v2.ack import AckCode, AckError, acknowledge, find_answer_code
    from mappings.hl7v2.batch import find_batch
    from mappings.hl7v2.er7 import Message, patient_keys, read_header
    from mappings.hl7v2.errors import MessageError
    from mappings.hl7v2.framing import Deframer, FramingError

ROOT = Path(__file__).parents[1]
AT = datetime(2026, 11, 23, tzinfo=UTC)
MAX_MESSAGE_BYTES = 4096


def frames(chunks: list[bytes]) -> tuple[list[bytes], bool]:
    """The messages, and whether a fault ended them."""
    deframer, found = Deframer(MAX_MESSAGE_BYTES), []
    try:
        for chunk in chunks:
            deframer.feed(chunk)
            found += [] if deframer.awaits_cr else list(deframer.messages())
        found += deframer.messages()
    except FramingError:
        return found, True
    return found, False


def fuzz(raw: bytes) -> None:
    """The first byte says where the rest is cut in two; cut or whole, it must read the same."""
    cut, stream = (raw[0], raw[1:]) if raw else (0, b"")
    whole, is_fault = frames([stream])
    if not is_fault and frames([stream[:cut], stream[cut:]]) != (whole, False):
        raise AssertionError("the chunks in which bytes arrive decide what they mean")
    for block in whole or [stream]:
        batch = find_batch(block)
        answers = [answer(message) for message in (batch.messages if batch else [block])]
        if batch:
            batch.answer(answers)


def answer(message: bytes) -> bytes:
    try:
        header = read_header(message)
    except MessageError:
        return b""
    error = None
    try:
        patient_keys(message)
        Message.parse(message)
    except MessageError as problem:
        error = AckError.of(problem)
    code = find_answer_code(header, AckCode.AE if error else AckCode.AA) or AckCode.AA
    return acknowledge(header, code, control_id="1", at=AT, errors=[error] if error else [])


if __name__ == "__main__":
    found = ROOT / "var" / "fuzz"  # libFuzzer adds to the first folder and only reads the others
    found.mkdir(parents=True, exist_ok=True)
    samples = sorted(folder for folder in (ROOT / "tests" / "data" / "hl7v2").iterdir() if folder.is_dir())
    options = sys.argv[1:] or ["-max_total_time=60"]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={found}/", *options, *map(str, [found, *samples])], fuzz)
    atheris.Fuzz()
