"""`dermbridge`, with work leased for DERMBRIDGE_TEST_LEASE seconds: a test cannot wait a minute for a dead owner."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial

from adapter import cli, serve
from adapter.work import WorkLoop

if __name__ == "__main__":
    lease = timedelta(seconds=float(os.environ["DERMBRIDGE_TEST_LEASE"]))
    setattr(serve, "WorkLoop", partial(WorkLoop, lease=lease))  # noqa: B010 (what mypy cannot follow, on purpose)
    cli.main()
