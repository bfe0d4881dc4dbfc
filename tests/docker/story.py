"""Tells the containers the main story over their published ports, with nothing but the standard library.

`story.py TOKEN first`: announces a patient over MLLP, sends a photo of them, waits until it is confirmed in the EHR,
prints the capture's id. `story.py TOKEN again ID`: the photo is still there and opens.
"""

import base64
import hashlib
import json
import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import Request, urlopen

HTTP = f"http://{os.environ['DERMBRIDGE_HTTP_PUBLISH']}"
MLLP = os.environ["DERMBRIDGE_MLLP_PUBLISH"].split(":")
PHOTO = Path(__file__).with_name("photo.jpg").read_bytes()
PATIENT = {"system": "urn:oid:2.16.840.1.113883.19.5", "value": "DOCKER-1"}
ADT = (
    "MSH|^~\\&|ADT|HOSP|DERMBRIDGE|HOSP|{now}||ADT^A04^ADT_A01|{now}|P|2.5.1\r"
    "EVN|A04|{now}\r"
    "PID|1||DOCKER-1^^^HOSP^MR||Tester^Docker||19700101|F\r"
    "PV1|1|O|DERM\r"
)
PATIENCE = 60  # seconds


def call(token: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    request = Request(HTTP + path, body, {"Authorization": f"Bearer {token}"} | headers)
    with urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def announce_patient() -> None:
    message = ADT.format(now=datetime.now(UTC).strftime("%Y%m%d%H%M%S"))
    with socket.create_connection((MLLP[0], int(MLLP[1])), 10) as connection:
        connection.sendall(b"\x0b" + message.encode() + b"\x1c\r")
        answer = connection.recv(4096)
    assert b"\rMSA|AA|" in answer, f"the ADT was not accepted: {answer!r}"


def send_photo(token: str) -> str:
    metadata = {"patient": PATIENT, "taken_at": "2026-11-01T09:30:00+01:00", "body_site": "70559009"}
    answer = call(
        token,
        "/captures",
        PHOTO,
        **{
            "Content-Type": "image/jpeg",
            "Idempotency-Key": "docker-story-1",
            "DermBridge-Metadata": base64.urlsafe_b64encode(json.dumps(metadata).encode()).decode(),
        },
    )
    return str(json.loads(answer)["id"])


def wait_until_in_chart(token: str, capture: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        status = json.loads(call(token, f"/captures/{capture}"))
        states = {delivery["state"] for delivery in status["deliveries"]}
        if states == {"confirmed"}:
            return
        assert time.monotonic() < deadline, f"not in the chart after {PATIENCE} s: {status}"
        time.sleep(0.5)


def check_kept(token: str, capture: str) -> None:
    """What is served still has the hash that its Media states."""
    media = json.loads(call(token, f"/captures/{capture}"))["media"].rpartition("/")[2]
    content = json.loads(call(token, f"/fhir/Media/{media}"))["content"]
    served = call(token, f"/fhir/Binary/{content['url'].rpartition('/')[2]}", Accept=content["contentType"])
    assert base64.b64encode(hashlib.sha1(served).digest()).decode() == content["hash"], "the photo changed"


if __name__ == "__main__":
    token, act, *rest = sys.argv[1:]
    if act == "first":
        announce_patient()
        rest = [send_photo(token)]
        wait_until_in_chart(token, rest[0])
        print(rest[0])
    check_kept(token, rest[0])
