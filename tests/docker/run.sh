#!/usr/bin/env bash
# Builds the images and brings docker-compose.yml up for real, from nothing: engine, base image, wheel, containers; then
# sends an ADT and a photo through them and waits until the photo is in the EHR's chart.
#
#   tests/docker/run.sh           uses a running engine, else (root on Debian) installs one and runs it privately
#   BASE=… POSTGRES_IMAGE=… EHR_IMAGE=…   images to use instead of those built here from Debian's packages
#   KEEP=1                        leaves engine and containers up to look around in
#
# Where it cannot run it says so and ends with 0 (with 1 if DERMBRIDGE_REQUIRE_REAL=1).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/docker
work=$(mktemp -d /tmp/dermbridge-docker.XXXXXX)
project=dermbridge-test
export BASE=${BASE:-} POSTGRES_IMAGE=${POSTGRES_IMAGE:-} EHR_IMAGE=${EHR_IMAGE:-}
export DERMBRIDGE_IMAGE=dermbridge:test DERMBRIDGE_HTTP_PUBLISH=127.0.0.1:18000 DERMBRIDGE_MLLP_PUBLISH=127.0.0.1:12575
engine_pid=

say() { printf '\n=== %s (%ss)\n' "$*" "$SECONDS"; }

skip() {
    printf '\n!!! SKIPPED: the containers were not tested: %s\n' "$*"
    exit "$([ "${DERMBRIDGE_REQUIRE_REAL:-}" = 1 ] && echo 1 || echo 0)"
}

compose() { "${compose_command[@]}" --project-name "$project" --project-directory . -f docker-compose.yml "$@"; }

finish() {
    local outcome=$?
    if [ "${KEEP:-}" = 1 ]; then
        echo "kept: export DOCKER_HOST=${DOCKER_HOST:-}; engine ${engine_pid:-the running one}; folder $work"
        return
    fi
    if [ -n "${compose_command:-}" ]; then
        [ "$outcome" = 0 ] || compose logs --no-color --tail 40 || true
        compose down --volumes --timeout 5 >/dev/null 2>&1 || true
    fi
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null && wait "$engine_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "$* is missing here and only root on Debian can install it"
    say "installing $*"
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null
}

start_engine() {
    docker info >/dev/null 2>&1 && return
    [ "$(uname -s)" = Linux ] || skip "no Docker engine is running"
    command -v dockerd >/dev/null || install docker.io iptables
    [ "$(id -u)" = 0 ] || skip "no Docker engine is running and only root can start one"
    say "starting an engine"
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --data-root "$work/engine" --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" \
        >"$work/engine.log" 2>&1 &
    engine_pid=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.5
    done
    tail -5 "$work/engine.log"
    skip "this machine does not let a Docker engine run"
}

find_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose_command=(docker compose)
    else
        command -v docker-compose >/dev/null || install docker-compose
        compose_command=(docker-compose)
    fi
}

# Debian with Python, and with the certificates this machine trusts, so that a proxy of the site's does no harm.
build_base() {
    [ -z "$BASE" ] || return 0
    BASE=dermbridge-base:test
    docker image inspect "$BASE" >/dev/null 2>&1 && return
    command -v debootstrap >/dev/null || install debootstrap
    say "base image from Debian's packages"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" >"$work/base.log" ||
        { tail -5 "$work/base.log"; skip "Debian's packages are out of reach"; }
    rm -rf "$work"/base/var/cache/apt/archives/*.deb
    cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
    tar -C "$work/base" -c . | docker import - "$BASE" >/dev/null
}

build_images() {
    say "DermBridge's image"
    docker build --quiet --build-arg "BASE=$BASE" --tag "$DERMBRIDGE_IMAGE" .
    if [ -z "$POSTGRES_IMAGE" ]; then
        say "a PostgreSQL image"
        POSTGRES_IMAGE=dermbridge-postgres:test
        docker build --quiet --build-arg "BASE=$BASE" --tag "$POSTGRES_IMAGE" -f $here/postgres.Dockerfile $here
    fi
    if [ -z "$EHR_IMAGE" ]; then
        say "an EHR image"
        EHR_IMAGE=dermbridge-ehr:test
        docker build --quiet --build-arg "DERMBRIDGE=$DERMBRIDGE_IMAGE" --tag "$EHR_IMAGE" -f $here/ehr.Dockerfile $here
    fi
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
    local left=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "!!! $what: waited too long"; return 1; }
        sleep 1
    done
    echo "$what"
}

is_healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")")" = healthy ]
}

# Nobody special, nothing writable but the volume and /tmp, no capability left.
check_confinement() {
    for name in service worker mllp; do
        compose exec -T "$name" python3 - <<'PYTHON'
import os
from pathlib import Path

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
assert os.getuid() == 10001, "runs as somebody else"
assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0, "has capabilities"
assert int(status["NoNewPrivs"]) == 1, "may gain privileges"
try:
    Path("/etc/written").write_text("")
except OSError:
    pass
else:
    raise AssertionError("the root file system is writable")
PYTHON
        echo "$name runs confined"
    done
}

start_engine
find_compose
build_base
sh docker/make-secrets.sh
build_images
say "up"
compose up --detach
for name in database service worker mllp; do
    wait_for 90 "$name is healthy" is_healthy "$name"
done
check_confinement
say "a photo into the chart"
token=$(compose exec -T service dermbridge token issue --name story --scope 'system/*.cruds' | tail -1)
capture=$(python3 $here/story.py "$token" first)
echo "capture $capture is in the EHR's chart"
say "stopped and started again, the photo is still there"
compose stop --timeout 20
compose up --detach
wait_for 90 "service is healthy" is_healthy service
python3 $here/story.py "$token" again "$capture"
say "done: the containers work"
