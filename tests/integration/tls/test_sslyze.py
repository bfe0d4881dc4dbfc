"""sslyze over the TLS that we serve: our MLLP listener, and nginx with the configuration that we ship.

Clean is what Mozilla's intermediate configuration allows and nothing else. sslyze needs packages of its own
(`make test-real` puts them into .venv/sslyze) and nginx is Debian's; without them the tests are skipped with that word.
"""

from __future__ import annotations

import io
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from adapter.identity.mllp_tls import server_tls
from adapter.settings import MllpListener
from tests.identity.listening import Ledger, serving
from tests.integration.tls.conftest import Proxy

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[3]
SSLYZE = ROOT / ".venv" / "sslyze"


def scanned(port: int, found: Path) -> tuple[list[str], dict[str, str]]:
    """(TLS versions that are spoken, what is otherwise than Mozilla's intermediate configuration and how)."""
    if not (SSLYZE / ".ready").exists():
        pytest.skip("no sslyze here: make .venv/sslyze/.ready")
    command = [sys.executable, "-m", "sslyze", "--mozilla_config=intermediate", f"--json_out={found}"]
    told = subprocess.run(
        [*command, f"127.0.0.1:{port}"],
        env=os.environ | {"PYTHONPATH": str(SSLYZE), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Checking results against Mozilla" in told.stdout, told.stdout[-3000:] + told.stderr[-1000:]
    compared = told.stdout.partition("Checking results against Mozilla")[2]
    otherwise = dict(re.findall(r"^\s+\* (\w+): (.+)$", compared, re.MULTILINE))
    otherwise.pop("certificate_path_validation", None)  # of this test's own certificate, which nobody has signed
    results = json.loads(found.read_text())["server_scan_results"][0]["scan_result"]
    suites = {name: one["result"] for name, one in results.items() if name.endswith("_cipher_suites")}
    spoken = sorted(
        name.removesuffix("_cipher_suites") for name, one in suites.items() if one["accepted_cipher_suites"]
    )
    return spoken, otherwise


def test_the_mllp_listener_speaks_modern_tls_only(ours: Path, tmp_path: Path) -> None:
    with serving(Ledger(), ssl=server_tls(MllpListener(port=0, certificate=ours))) as port:
        spoken, otherwise = scanned(port, tmp_path / "found.json")
    assert spoken == ["tls_1_2", "tls_1_3"]
    curves = set(re.findall(r"'(\w+)'", otherwise.pop("tls_curves", "")))
    assert curves <= {"X448", "secp521r1"}  # stronger than asked for, and Python cannot leave them out before 3.15
    assert otherwise == {}


def test_the_proxy_that_we_ship_speaks_modern_tls_only(nginx: Proxy, tmp_path: Path) -> None:
    assert scanned(nginx.port, tmp_path / "found.json") == (["tls_1_2", "tls_1_3"], {})


def test_a_photo_through_the_proxy_lies_in_no_file_of_it(nginx: Proxy, ours: Path) -> None:
    photo = io.BytesIO()
    Image.effect_noise((2400, 1800), 90).save(photo, "JPEG", quality=95)
    headers = {"Authorization": f"Bearer {nginx.token}", "Content-Type": "image/jpeg"}
    trusted = ssl.create_default_context(cafile=str(ours))
    with httpx.Client(base_url=f"https://127.0.0.1:{nginx.port}", verify=trusted, headers=headers) as client:
        stored = client.post("/captures", content=photo.getvalue())
        assert stored.status_code == 202, stored.text  # held: nobody said whose it is
        read = client.get(f"/captures/{stored.json()['id']}/clean")
    assert len(read.content) == len(photo.getvalue())
    assert "temporary file" not in nginx.said.read_text()  # what nginx says of each body that it spools
