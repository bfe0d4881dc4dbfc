"""How long `dermbridge serve` takes from exec to its first 200 on /readyz, on an installation that exists already.

    python -m benchmarks.startup [--runs 5] [--json]

Target: median under 1.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.served import prepare, report, serving

TARGET_SECONDS = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        settings, secret = prepare(Path(folder))
        for _ in range(options.runs):
            with serving(settings, secret) as service:
                spent.append(service.started_seconds)
    median = statistics.median(spent)
    row = {"measure": "ready s", "median": median, "best": min(spent), "worst": max(spent), "target": TARGET_SECONDS}
    report(f"exec to /readyz, {options.runs} runs", [row], as_json=options.json)
    return 0 if median < TARGET_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
