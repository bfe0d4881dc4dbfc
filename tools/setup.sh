#!/bin/sh
# Makes .venv: the locked packages (checked by hash), Node.js only where the machine has none, DermBridge itself.
# Called by make; says what to install when something is missing. PYTHON=/path/to/python3 chooses the interpreter.
# `tools/setup.sh ci` adds the tools of requirements/ci.txt (linters, types, browser driver) to it.
set -eu
cd "$(dirname "$0")/.."
venv=.venv

stop() {
    printf '\n' >&2
    printf '%s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Debian and Ubuntu keep venv's own pip in a package of its own; a pip or uv that is there anyway does as well.
choose_installer() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        install="$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input"
    elif "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1; then
        install="$python -m pip --python $venv/bin/python install --quiet --disable-pip-version-check --no-input"
    elif command -v uv >/dev/null 2>&1; then
        install="uv pip install --quiet --python $venv/bin/python"
    else
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        rm -rf "$venv"
        stop "$python has no pip to start with. Install it and run make again:" \
            "  Debian, Ubuntu:  sudo apt-get install python$version-venv" \
            "  elsewhere:       $python -m ensurepip --user"
    fi
}

python=$(find_python) || stop \
    "DermBridge needs Python 3.11 or newer, and python3 here is: $(python3 --version 2>/dev/null || echo missing)." \
    "Install it and run make again:" \
    "  Debian 12, Ubuntu 24.04 and later:  sudo apt-get install python3 python3-venv" \
    "  Ubuntu 22.04:                       sudo apt-get install python3.11 python3.11-venv" \
    "  macOS:                              brew install python" \
    "Or name one yourself:  make PYTHON=/path/to/python3"

[ "${1:-}" = ci ] || echo "Setting up $venv with $("$python" --version) (about a minute the first time)" >&2
if ! is_new_enough "$venv/bin/python"; then
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 || "$python" -m venv --clear --without-pip "$venv" ||
        stop "$python cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv"
fi
choose_installer
if [ "${1:-}" = ci ]; then
    exec $install --require-hashes -r requirements/ci.txt
fi
$install --require-hashes -r requirements/test.txt
if ! "$venv/bin/python" -c 'import hatch_build as h; raise SystemExit(h.find_system_node() is None)'; then
    echo "No Node.js 20 with npm here: taking the locked one into $venv to bundle the pages" >&2
    $install --require-hashes -r requirements/node.txt
fi
DERMBRIDGE_SKIP_ASSETS=1 $install --no-deps --no-build-isolation -e .
