"""Runs the machine's `node` or `npm`, or the locked one where there is none: `python -m tools.node npm ci`."""

import subprocess
import sys

from hatch_build import get_commands

if __name__ == "__main__":
    node, npm = get_commands()
    program, *arguments = sys.argv[1:]
    sys.exit(subprocess.call([*(npm if program == "npm" else node), *arguments]))
