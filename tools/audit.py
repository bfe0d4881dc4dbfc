"""Asks for known vulnerabilities of what is deployed: `python -m tools.audit`.

Exit 1 when a package has one. pip-audit ends with 0 and "none found" even when it could look up nothing at all (no
network, a mirror without advisories): that is told apart here, loudly, and passes.
"""

import json
import subprocess
import sys

LOCK = "requirements/run.txt"
COMMAND = ["-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", "20"]


def find_audited() -> list[dict[str, object]]:
    """The packages of the lock whose advisories could be read; each with its `name`, `version` and `vulns`."""
    try:
        command = [sys.executable, *COMMAND, "-f", "json", "-r", LOCK]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        packages = json.loads(outcome.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return []
    return [package for package in packages if "skip_reason" not in package]


if __name__ == "__main__":
    audited = find_audited()
    flawed = [package for package in audited if package["vulns"]]
    if not audited:
        print(f"!!! NOT AUDITED: no advisories could be read from here for {LOCK}; run `make audit` where they can")
    for package in flawed:
        print(f"{package['name']} {package['version']}: {json.dumps(package['vulns'])}")
    print(f"{len(audited)} packages audited, {len(flawed)} with known vulnerabilities")
    sys.exit(bool(flawed))
