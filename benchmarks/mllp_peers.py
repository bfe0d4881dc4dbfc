"""MLLP receivers of other make, to be measured by the load that DermBridge gets. None of them keeps anything.

The Node ones need `npm ci` in tests/integration/mllp; HL7apy's server takes one message for each connection.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

from benchmarks.served import free_port

NODE_PARTS = Path(__file__).parents[1] / "tests" / "integration" / "mllp"


@contextmanager
def node_peer(kind: str) -> Iterator[int]:
    """A server of receive.mjs; yields its port."""
    node = shutil.which("node")
    if node is None or not (NODE_PARTS / "node_modules").is_dir():
        raise LookupError(f"needs Node.js 20 and npm ci in {NODE_PARTS}")
    port = free_port()
    command = [node, "receive.mjs", kind, str(port)]
    with subprocess.Popen(command, cwd=NODE_PARTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline().strip() != b"listening":
                raise LookupError(f"{kind} did not start")
            yield port
        finally:
            process.terminate()


class _Accept(AbstractHandler):
    """The handler HL7apy's documentation begins with: parse, then answer AA."""

    def reply(self) -> str:
        control_id = parse_message(self.incoming_message, find_groups=False).msh.msh_10.value
        return f"\x0bMSH|^~\\&|||||||ACK|{control_id}|P|2.5.1\rMSA|AA|{control_id}\r\x1c\r"


@contextmanager
def hl7apy_peer(*messages: str) -> Iterator[int]:
    """HL7apy's server in threads of this process, so it shares the interpreter with the load; yields its port."""
    handlers = dict.fromkeys(messages or ("ADT^A04^ADT_A01", "ADT^A08^ADT_A01"), (_Accept,))
    port = free_port()
    server = MLLPServer("127.0.0.1", port, handlers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Peer = Callable[[], AbstractContextManager[int]]
PEERS: dict[str, Peer] = {
    "@medplum/hl7": lambda: node_peer("medplum"),
    "node-hl7-server": lambda: node_peer("node-hl7-server"),
}
